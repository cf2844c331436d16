/* SPDX-License-Identifier: Apache-2.0 */
#include "outputs.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* NumPy format 1.0: magic, version, length of the header, a Python dictionary padded to 64 bytes; then little-endian floats, C order. */
static bool write_npy_header(FILE *file, int64_t n, const int64_t *dim, int rank)
{
    char text[512];
    int at = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%" PRId64 ",", n);
    for (int i = 0; i < rank && at < 400; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, " %" PRId64 "%s", dim[i], i + 1 < rank ? "," : "");
    at += snprintf(text + at, sizeof text - (size_t)at, "), }");
    int length = (at + 1 + 10 + 63) / 64 * 64 - 10;
    unsigned char begin[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(length & 255), (unsigned char)(length >> 8)};
    return fwrite(begin, 1, sizeof begin, file) == sizeof begin && fprintf(file, "%-*s\n", length - 1, text) == length;
}

bool outputs_open(outputs *o, const char *path, int64_t n, const int64_t *dim, int rank)
{
    size_t length = strlen(path);
    memset(o, 0, sizeof *o);
    o->csv = strcmp(path, "-") == 0 || (length > 4 && strcmp(path + length - 4, ".csv") == 0);
    o->row = 1;
    for (int i = 0; i < rank; i++)
        o->row *= dim[i];
    if (length >= sizeof o->path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(o->path, path, length + 1);
    if (strcmp(path, "-") == 0) {
        o->file = stdout;
        return true;
    }
    snprintf(o->temporary, sizeof o->temporary, "%s.tmp-%ld", path, (long)getpid());
    o->file = fopen(o->temporary, "wbx");
    return o->file && (o->csv || write_npy_header(o->file, n, dim, rank));
}

bool outputs_write(outputs *o, const float *values, int64_t n_samples)
{
    if (!o->csv) {
        for (int64_t i = 0; i < n_samples * o->row; i++) {
            uint32_t bits;
            memcpy(&bits, values + i, sizeof bits);
            unsigned char bytes[4] = {(unsigned char)bits, (unsigned char)(bits >> 8), (unsigned char)(bits >> 16), (unsigned char)(bits >> 24)};
            if (fwrite(bytes, 1, 4, o->file) != 4)
                return false;
        }
        return true;
    }
    for (int64_t s = 0; s < n_samples; s++)
        for (int64_t i = 0; i < o->row; i++)
            if (fprintf(o->file, "%.9g%c", (double)values[s * o->row + i], i + 1 < o->row ? ',' : '\n') < 0)
                return false;
    return true;
}

bool outputs_commit(outputs *o)
{
    bool good = fflush(o->file) == 0 && !ferror(o->file);
    if (o->file == stdout) {
        o->file = NULL;
        return good;
    }
    good = good && fsync(fileno(o->file)) == 0;
    good = fclose(o->file) == 0 && good;
    o->file = NULL;
    good = good && rename(o->temporary, o->path) == 0;
    if (!good)
        unlink(o->temporary);
    return good;
}

void outputs_abort(outputs *o)
{
    if (!o->file || o->file == stdout)
        return;
    fclose(o->file);
    unlink(o->temporary);
    o->file = NULL;
}
