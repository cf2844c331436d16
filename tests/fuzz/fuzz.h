/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share. A target is one LLVMFuzzerTestOneInput; with libFuzzer (MEST_LIBFUZZER) it is fuzzed, otherwise replay.c is its
 * main and runs files and folders of the corpus through it. Everything a target finds wrong ends the process: FUZZ_CHECK, a sanitizer, or
 * the counters of the allocator. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mest/train.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                  \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

/* A failure has its code and a text in the error; a success has neither half a result nor a text. */
#define FUZZ_STATUS(status, err) FUZZ_CHECK((status) == MEST_OK || ((err).code == (status) && (err).msg[0]))

/* ---- memory: counted, and capped as a bounded library must allow ---- */
typedef struct fuzz_meter {
    _Atomic int64_t now, cap;
} fuzz_meter;

/* cap in bytes. The meter must outlive what uses the allocator. */
mest_allocator fuzz_allocator(fuzz_meter *meter, int64_t cap);

/* ---- input, taken from the front; zeros when it is used up ---- */
typedef struct fuzz_input {
    const uint8_t *at;
    size_t left;
} fuzz_input;

uint32_t fuzz_number(fuzz_input *in, int bytes);
/* At most n bytes; *got says how many. */
const uint8_t *fuzz_bytes(fuzz_input *in, size_t n, size_t *got);
/* A text up to the next newline, or to the end; cut to size. */
void fuzz_text(fuzz_input *in, char *text, size_t size);

/* ---- files ---- */
enum { FUZZ_SLOTS = 4 };
/* A file in memory with these bytes; its name is valid until the slot is used again. */
const char *fuzz_file(int slot, const void *bytes, size_t n);
/* A folder of this process, in memory where there is /dev/shm; removed with what is in it at the end. */
const char *fuzz_folder(void);
/* PATH of NAME in it. */
const char *fuzz_path(const char *name);
/* Writes it there; folders in between are made. */
const char *fuzz_put(const char *name, const void *bytes, size_t n);

/* ---- a small network ([1,6,6] -> 5 classes: two convolutions, a Gemm) as ONNX bytes; the same every time ---- */
const void *fuzz_network(size_t *size);

#endif
