/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as data files. First byte: the kind and how it is opened; second byte: options. Kinds of two files have two bytes that say how long the
 * first one is. What opens is fetched, with and without augmentation. */
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

enum { CAP = 96 << 20, FETCHED = 4, MOST_SAMPLE = 4 << 20 };

enum { KIND_IDX_IMAGES, KIND_IDX_BOTH, KIND_CIFAR, KIND_NPY, KIND_NPY_BOTH, KIND_NPY_SEVERAL, KIND_CSV, KIND_JPEG, KIND_PNG, KINDS };

/* The rest of the input as files, and the text that opens them. */
static void spec_of(int kind, unsigned how, fuzz_input *in, char *spec, size_t size)
{
    char first[64], second[64];
    size_t n;
    switch (kind) {
    case KIND_IDX_IMAGES: /* the labels are right for up to 4 images */
        snprintf(second, sizeof second, "%s", fuzz_file(1, "\0\0\x08\x01\0\0\0\x04\1\2\3\4", 12));
        snprintf(spec, size, "idx:%s,%s", fuzz_file(0, in->at, in->left), second);
        return;
    case KIND_IDX_BOTH: case KIND_NPY_BOTH: case KIND_NPY_SEVERAL: {
        n = fuzz_number(in, 2);
        const uint8_t *bytes = fuzz_bytes(in, n, &n);
        snprintf(first, sizeof first, "%s", fuzz_file(0, bytes, n));
        snprintf(second, sizeof second, "%s", fuzz_file(1, in->at, in->left));
        if (kind == KIND_NPY_SEVERAL)
            snprintf(spec, size, "npy:a=%s,b=%s,target=%s", first, second, how & 1 ? second : first);
        else
            snprintf(spec, size, "%s:%s,%s", kind == KIND_IDX_BOTH ? "idx" : "npy", first, second);
        return;
    }
    case KIND_CIFAR: snprintf(spec, size, "cifar10:%s", fuzz_file(0, in->at, in->left)); return;
    case KIND_NPY: snprintf(spec, size, "npy:%s", fuzz_file(0, in->at, in->left)); return;
    case KIND_CSV: {
        static const char *const forms[] = { "", "?label=first", "?label=none", "?header=no", "?target=float", "?label=last,header=yes" };
        snprintf(spec, size, "csv:%s%s", fuzz_file(0, in->at, in->left), forms[how % 6]);
        return;
    }
    default:
        unlink(fuzz_path(kind == KIND_JPEG ? "images/b/x.png" : "images/a/x.jpg"));
        fuzz_put(kind == KIND_JPEG ? "images/a/x.jpg" : "images/b/x.png", in->at, in->left);
        snprintf(spec, size, "images:%s", fuzz_path("images"));
    }
}

static size_t bytes_of(int rank, const int64_t *dim)
{
    size_t n = 8;
    for (int i = 0; i < rank; i++)
        if ((n *= (size_t)dim[i]) > MOST_SAMPLE)
            return 0;
    return n;
}

static void fetch(mest_source *s, const mest_source_info *info)
{
    void *inputs[MEST_SAMPLE_MAX_INPUTS] = { 0 }, *targets;
    mest_error err = { 0 };
    int64_t ids[FETCHED] = { 0, info->count - 1, info->count / 2, 0 };
    size_t target = bytes_of(info->target_rank, info->target_dim), each = bytes_of(info->input_rank, info->input_dim);
    char text[64];
    FUZZ_CHECK(info->count > 0);
    for (int k = 0; k < info->n_inputs; k++)
        each = each && bytes_of(info->input[k].rank, info->input[k].dim) ? each : 0;
    if (!each || !target)
        return;
    for (int k = 0; k < (info->n_inputs ? info->n_inputs : 1); k++)
        inputs[k] = malloc((info->n_inputs ? bytes_of(info->input[k].rank, info->input[k].dim) : each) / 8 * (info->n_inputs
                           ? (info->input[k].type == MEST_SAMPLE_F32 ? 4 : 8) : info->input_type == MEST_SAMPLE_F32 ? 4 : 8) * FETCHED);
    targets = malloc(target / 8 * (info->target_type == MEST_SAMPLE_F32 ? 4 : 8) * FETCHED);
    for (int augment = 0; augment < 2; augment++) {
        mest_fetch how = { sizeof how, 7, augment, augment };
        void *to = info->has_targets ? targets : NULL;
        mest_status status = info->n_inputs ? s->fetch_inputs(s->self, ids, FETCHED, &how, inputs, to, &err)
                                            : s->fetch(s->self, ids, FETCHED, &how, inputs[0], to, &err);
        FUZZ_STATUS(status, err);
        if (status == MEST_OK && to && info->n_classes > 0 && info->target_type == MEST_SAMPLE_I64 && !info->target_rank)
            for (int k = 0; k < FETCHED; k++)
                FUZZ_CHECK(((int64_t *)targets)[k] >= 0 && ((int64_t *)targets)[k] < info->n_classes);
    }
    if (s->sample_name)
        s->sample_name(s->self, info->count - 1, text, sizeof text);
    for (int64_t k = 0; s->class_name && k < info->n_classes && k < 20; k++)
        (void)s->class_name(s->self, k);
    for (int k = 0; k < MEST_SAMPLE_MAX_INPUTS; k++)
        free(inputs[k]);
    free(targets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = { data, size };
    fuzz_meter meter;
    mest_allocator allocator = fuzz_allocator(&meter, CAP);
    mest_source_options o;
    mest_source s;
    mest_source_info info = { .struct_size = sizeof info };
    mest_error err;
    char spec[512];
    if (size < 3)
        return 0;
    unsigned first = fuzz_number(&in, 1), options = fuzz_number(&in, 1);
    mest_source_options_init(&o);
    o.allocator = &allocator;
    o.measure = options & 1;
    o.pad_crop = options & 2 ? 2 : 0;
    o.flip = options & 4 ? .5 : 0;
    o.limit = options & 8 ? 3 : 0;
    o.val_split = options & 16 ? .5 : 0;
    o.val_part = options & 32;
    o.max_bad = options & 64 ? 1 : 0;
    if (options & 128)
        o.resize_height = 5, o.resize_width = 7;
    spec_of((int)(first % KINDS), first / KINDS, &in, spec, sizeof spec);
    mest_status status = mest_source_open(&s, spec, &o, &err);
    FUZZ_STATUS(status, err);
    if (status == MEST_OK) {
        status = s.info(s.self, &info, &err);
        FUZZ_STATUS(status, err);
        if (status == MEST_OK)
            fetch(&s, &info);
        mest_source_close(&s);
    }
    FUZZ_CHECK(meter.now == 0);
    return 0;
}
