/* SPDX-License-Identifier: Apache-2.0 */
/* The store of samples of mest-serve. First byte: bit 0 a file that is these bytes (0), or a right one that they change (1): pieces of place (2 bytes), length
 * (1 byte) and bytes; bit 1 the checksum of its header is made right afterwards; bit 2 reservoir. Whatever is opened stays within its bounds, gives back
 * only records that are whole, takes new ones, and is the same after it is opened again. */
#include <unistd.h>
#include <zlib.h>

#include "serve/replay.h"
#include "tests/fuzz/fuzz.h"

enum { INPUT = 20, TARGET = 8, KEY = 77, MOST = 8192 };

static void make(const char *path, const replay_options *o)
{
    fault f = {0};
    unlink(path);
    replay *r = replay_open(path, o, &f);
    FUZZ_CHECK(r);
    unsigned char x[5 * INPUT] = {1, 2, 3}, y[5 * TARGET] = {4};
    FUZZ_CHECK(replay_add(r, 5, x, y, &f));
    replay_close(r);
}

/* Changes pieces of the file; returns its size. */
static size_t change(const char *path, fuzz_input *in, bool mend, unsigned char *bytes)
{
    FILE *file = fopen(path, "rb");
    FUZZ_CHECK(file);
    size_t size = fread(bytes, 1, 2 * MOST, file), got;
    fclose(file);
    while (in->left > 3) {
        size_t at = fuzz_number(in, 2) % (2 * MOST), n = fuzz_number(in, 1);
        const uint8_t *piece = fuzz_bytes(in, n, &got);
        if (got == 0) { /* an empty piece ends the file there */
            size = at < size ? at : size;
            continue;
        }
        for (size_t k = 0; k < got && at + k < size; k++)
            bytes[at + k] = piece[k];
    }
    if (mend && size >= 56) {
        uint32_t crc = (uint32_t)crc32(0, bytes + 16, 40);
        memcpy(bytes + 12, &crc, sizeof crc);
    }
    return size;
}

static void use(replay *r, const replay_options *o)
{
    unsigned char x[3 * INPUT] = {9}, y[3 * TARGET] = {8};
    replay_state s;
    fault f = {0};
    replay_look(r, &s);
    FUZZ_CHECK(s.held == s.training + s.testing && s.held <= s.slots && s.held >= 0 && s.ever >= 0);
    for (int part = 0; part < 2; part++) {
        int64_t n = replay_count(r, part);
        for (int64_t k = 0; k < n && k < 40; k++)
            FUZZ_CHECK(replay_read(r, part, (uint64_t)k, x, y));
        FUZZ_CHECK(n || !replay_read(r, part, 0, x, y));
    }
    FUZZ_CHECK(s.file_bytes <= MOST);
    FUZZ_CHECK(replay_add(r, 3, x, y, &f));
    replay_state now;
    replay_look(r, &now);
    FUZZ_CHECK(now.ever == s.ever + 3 && now.held <= now.slots && (o->sample || now.held >= (s.held < 3 ? s.held : 3)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char bytes[2 * MOST];
    fuzz_input in = {data, size};
    unsigned bits = fuzz_number(&in, 1);
    replay_options o = {.input_bytes = INPUT, .target_bytes = TARGET, .shape_key = KEY, .max_bytes = MOST, .sample = bits & 4, .hold_out = .3, .seed = 1};
    const char *path = fuzz_put("samples", in.at, bits & 1 ? 0 : in.left);
    if (bits & 1) {
        make(path, &o);
        size_t n = change(path, &in, bits & 2, bytes);
        path = fuzz_put("samples", bytes, n);
    }
    fault f = {0};
    replay *r = replay_open(path, &o, &f);
    FUZZ_CHECK(r || (f.status && f.text[0]));
    if (!r)
        return 0;
    use(r, &o);
    replay_state before, after;
    replay_look(r, &before);
    replay_close(r);
    r = replay_open(path, &o, &f);
    FUZZ_CHECK(r);
    replay_look(r, &after);
    FUZZ_CHECK(after.held == before.held);
    replay_close(r);
    return 0;
}
