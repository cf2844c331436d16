/* SPDX-License-Identifier: Apache-2.0 */
/* Damages every ONNX file it is given and tries each: cut at strides, and with bits, bytes and pieces changed, by fixed seeds.
 *
 *   hostile-sweep [-n FACTOR] [-o FOLDER] [-s] [-v] FILE_OR_FOLDER...
 *
 * -s: the fixtures of MEST_SHARED, too; without it they are skipped. -n: so many times as many damages of each file (default 1, for every build; studies take more). -o: what was found wrong is written there.
 * Ends with the numbers of attempts and of findings; exit code 1 if there are any. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "importers/prescan.h"
#include "tests/hostile/hostile.h"

enum { CUTS = 24, CHANGES = 56, MOST_FILE = 4 << 20 };

static int factor = 1, n_files, n_tries, n_accepted, n_found;
static const char *keep;
static bool verbose;
static double slowest;
static int64_t largest;

static uint64_t state;
static uint32_t below(uint64_t n)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)((state >> 16) % (n ? n : 1));
}

/* Where changes go: mostly outside of the payloads, whose bytes are only weights. */
typedef struct places {
    const mest_prescan *scan;
    size_t size;
} places;

static size_t place(const places *p)
{
    for (int i = 0; i < 200; i++) {
        size_t at = below(p->size), k = 0;
        while (k < p->scan->n_payloads && (at < p->scan->payloads[k].offset || at >= p->scan->payloads[k].offset + p->scan->payloads[k].size))
            k++;
        if (k == p->scan->n_payloads || below(10) == 0)
            return at;
    }
    return below(p->size);
}

static void try_one(const char *file, const char *what, unsigned long n, const uint8_t *bytes, size_t size)
{
    hostile_result r;
    uint8_t *exact = malloc(size + !size); /* a read past the end is a read past the block */
    if (!exact)
        exit(2);
    memcpy(exact, bytes, size);
    hostile_try(&r, NULL, exact, size);
    n_tries++;
    n_accepted += r.status == MEST_OK;
    slowest = r.cpu_seconds > slowest ? r.cpu_seconds : slowest;
    largest = r.peak_bytes > largest ? r.peak_bytes : largest;
    const char *wrong = hostile_wrong(&r);
    if (verbose && r.status != MEST_OK)
        printf("%s, %s %lu: %s: %s\n", file, what, n, r.stage, r.err.msg);
    if (wrong) {
        n_found++;
        printf("FOUND %s, %s %lu: %s (%s: %s; %.2f s, %lld bytes)\n", file, what, n, wrong, r.stage, r.err.msg, r.cpu_seconds, (long long)r.peak_bytes);
        if (keep) {
            char path[4096];
            const char *slash = strrchr(file, '/');
            snprintf(path, sizeof path, "%s/%s-%s-%lu.onnx", keep, slash ? slash + 1 : file, what, n);
            FILE *f = fopen(path, "wb");
            if (!f || fwrite(bytes, 1, size, f) != size || fclose(f))
                perror(path);
        }
    }
    free(exact);
}

/* One to four changes. `room` bytes are there, the file may grow into them. */
static size_t damage(uint8_t *b, size_t size, size_t room, const places *p)
{
    for (uint32_t k = 1 + below(4); k && size > 8; k--) {
        size_t at = place(p) % size, n = 1 + below(below(4) ? 8 : 64), to = below(size);
        if (n > size - at)
            n = size - at;
        switch (below(8)) {
        case 0: case 1: case 2: b[at] ^= (uint8_t)(1u << below(8)); break;
        case 3: b[at] = (uint8_t)below(256); break;
        case 4: memset(b + at, below(2) ? 0xff : 0x80, n < 9 ? n : 9); break; /* numbers grow */
        case 5: /* a piece is gone */
            memmove(b + at, b + at + n, size - at - n);
            size -= n;
            break;
        case 6: /* a piece is there twice, here or elsewhere */
            if (size + n <= room) {
                uint8_t piece[64];
                memcpy(piece, b + at, n);
                memmove(b + to + n, b + to, size - to);
                memcpy(b + to, piece, n);
                size += n;
            }
            break;
        default: /* a number one more or one less */
            b[at] = (uint8_t)(b[at] + (below(2) ? 1 : -1));
        }
    }
    return size;
}

static void sweep(const char *path)
{
    static uint8_t original[MOST_FILE], bytes[MOST_FILE + 1024];
    mest_heap heap;
    mest_error err = { 0 };
    mest_prescan scan;
    FILE *f = fopen(path, "rb");
    size_t size = f ? fread(original, 1, sizeof original, f) : 0;
    if (!f || fclose(f) || mest_heap_init(&heap, NULL, NULL, &err) != MEST_OK) {
        perror(path);
        exit(2);
    }
    if (size == 0 || size == sizeof original)
        return;
    n_files++;
    if (mest_prescan_run(&scan, &heap, path, original, size, (size_t)64 << 20, &err) != MEST_OK) {
        mest_prescan_free(&scan);
        memset(&scan, 0, sizeof scan);
    }
    const places where = { &scan, size };
    const size_t cuts = (size_t)CUTS * (size_t)factor < size ? (size_t)CUTS * (size_t)factor : size;
    try_one(path, "cut", size, original, size);
    for (size_t i = 0; i < cuts; i++)
        try_one(path, "cut", size * i / cuts, original, size * i / cuts);
    for (size_t i = 1; i < cuts / 4 && i < size; i++) /* densely at the end: a graph that lacks its last bytes is almost whole */
        try_one(path, "cut", size - i, original, size - i);
    for (unsigned long i = 0; i < (unsigned long)CHANGES * (unsigned long)factor; i++) {
        state = (i + 1) * 0x9e3779b97f4a7c15u + size;
        memcpy(bytes, original, size);
        try_one(path, "change", i, bytes, damage(bytes, size, sizeof bytes, &where));
    }
    mest_prescan_free(&scan);
}

static void take(const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    if (stat(path, &st) != 0) {
        perror(path);
        exit(2);
    }
    if (S_ISDIR(st.st_mode)) {
        struct dirent **entry;
        int count = scandir(path, &entry, NULL, alphasort);
        for (int i = 0; i < count; i++) {
            char inner[4096];
            snprintf(inner, sizeof inner, "%s/%s", path, entry[i]->d_name);
            if (entry[i]->d_name[0] != '.')
                take(inner);
            free(entry[i]);
        }
        if (count >= 0)
            free(entry);
    } else if (S_ISREG(st.st_mode) && n > 5 && !strcmp(path + n - 5, ".onnx")) {
        sweep(path);
    }
}

int main(int argc, char **argv)
{
    int o;
    bool shared = false;
    while ((o = getopt(argc, argv, "n:o:sv")) != -1)
        switch (o) {
        case 'n': factor = atoi(optarg); break;
        case 'o': keep = optarg; break;
        case 's': shared = true; break;
        case 'v': verbose = true; break;
        default: return 2;
        }
    for (int i = optind; i < argc; i++)
        take(argv[i]);
    if (shared && getenv("MEST_SHARED")) {
        char path[4096];
        snprintf(path, sizeof path, "%s/fixtures", getenv("MEST_SHARED"));
        take(path);
    } else if (shared && !n_files) {
        printf("skipped: MEST_SHARED is not set (fixtures are not there)\n");
        return 77;
    }
    printf("%d files, %d attempts: %d accepted, %d refused, %d found wrong; at most %.3f s of processor time and %.1f MB\n", n_files, n_tries, n_accepted,
           n_tries - n_accepted, n_found, slowest, (double)largest * 1e-6);
    return n_found || !n_files;
}
