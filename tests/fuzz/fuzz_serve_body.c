/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of requests to mest-serve. First byte: bits 0-1 which (0 infer, 1 train with classes, 2 train with numbers, 3 settings), bit 2 a class at each point; then two bytes, the length
 * of the JSON part (0: all). What is accepted must be what its shape says, finite, in range, and can be written and read once more. */
#include <math.h>

#include "serve/settings.h"
#include "serve/train_body.h"
#include "tests/fuzz/fuzz.h"

static tensor_spec in[3] = {{.name = "x", .dtype = 1, .rank = 2, .dim = {2, 3}}, {.name = "id", .dtype = 7, .rank = 1, .dim = {-1}}, {.name = "flag", .dtype = 9, .rank = 0}};
static tensor_spec out[2] = {{.name = "y", .dtype = 1, .rank = 1, .dim = {4}}, {.name = "z", .dtype = 10, .rank = 1, .dim = {2}}};
static tensor_spec points = {.name = "p", .dtype = 1, .rank = 2, .dim = {4, 3}}; /* four classes at three points */
static const tensor_limits limits = {.samples = 8, .axis = 5, .bytes = 4096};

static void all_finite(const tensor *t)
{
    FUZZ_CHECK(t->n >= 1 && t->n <= limits.samples && t->bytes == (size_t)(t->n * t->count) * t->spec->item);
    FUZZ_CHECK(t->spec->count == t->count || (!t->spec->count && t->count >= 1 && t->count <= limits.axis));
    for (int64_t i = 0; i < t->n * t->count; i++)
        FUZZ_CHECK(isfinite(tensor_value(t, i)));
}

static void infer(const uint8_t *body, size_t size, size_t json_bytes)
{
    infer_call c = {0};
    fault f = {0};
    bool good = infer_read(&c, body, size, json_bytes, in, 3, out, 2, &limits, &f);
    FUZZ_CHECK(good || (f.status >= 400 && f.status < 600 && f.text[0]));
    for (int k = 0; good && k < 3; k++)
        all_finite(&c.in[k]);
    for (int k = 0; good && k < c.n_outputs; k++) {
        FUZZ_CHECK(tensor_make(&c.out[k], &out[c.output[k]], out[c.output[k]].dim, c.n));
        c.out[k].data = calloc(1, c.out[k].bytes);
        FUZZ_CHECK(c.out[k].data);
    }
    if (good) {
        text answer = {0};
        size_t head;
        fault none = {0};
        infer_write(&c, "m", &answer, &head);
        cJSON *again = json_read((const unsigned char *)answer.data, head ? head : answer.size, &none);
        FUZZ_CHECK(again);
        cJSON_Delete(again);
        text_free(&answer);
    }
    infer_free(&c);
}

static void train(const uint8_t *body, size_t size, size_t json_bytes, const char *loss, bool each_point)
{
    train_call c;
    fault f = {0};
    sample_spec s;
    tensor_spec fixed[3] = {in[0], in[1], in[2]};
    FUZZ_CHECK(sample_shape_read(fixed, 3, "2,3;2;", &f));
    FUZZ_CHECK(sample_spec_make(&s, fixed, 3, each_point ? &points : &out[0], loss, each_point, &f));
    bool good = train_read(&c, body, size, json_bytes, &s, &limits, &f);
    FUZZ_CHECK(good || (f.status >= 400 && f.status < 600 && f.text[0]));
    if (good && c.action == TRAIN_ADD)
        FUZZ_CHECK(c.n >= 1 && c.n <= limits.samples && c.inputs && c.targets);
    for (int64_t i = 0; good && c.action == TRAIN_ADD && s.classes && i < c.n * s.points; i++)
        FUZZ_CHECK(((int64_t *)c.targets)[i] >= 0 && ((int64_t *)c.targets)[i] < 4);
    for (int64_t i = 0; good && c.action == TRAIN_ADD && !s.classes && i < c.n * s.out->count; i++)
        FUZZ_CHECK(isfinite((double)((float *)c.targets)[i]));
    settings changed;
    settings_init(&changed);
    if (good && c.settings && settings_change(&changed, c.settings, &f))
        FUZZ_CHECK(changed.duty > 0 && changed.duty <= 1 && changed.lr >= 0 && changed.round_steps >= 1);
    train_free(&c);
}

static void configure(const uint8_t *body, size_t size)
{
    settings s;
    fault f = {0};
    settings_init(&s);
    bool good = settings_read(&s, fuzz_file(0, body, size), &f);
    FUZZ_CHECK(good || f.text[0]);
    FUZZ_CHECK(s.max_batch >= 1 && s.max_batch <= 4096 && s.replay_bytes >= 65536 && s.infer_threads >= 1 && s.hold_out > 0 && isfinite(s.lr));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input i = {data, size};
    unsigned first = (unsigned)fuzz_number(&i, 1), kind = first & 3;
    size_t json_bytes = fuzz_number(&i, 2);
    for (int k = 0; k < 3; k++)
        FUZZ_CHECK(tensor_spec_complete(&in[k]));
    for (int k = 0; k < 2; k++)
        FUZZ_CHECK(tensor_spec_complete(&out[k]));
    FUZZ_CHECK(tensor_spec_complete(&points));
    if (kind == 0)
        infer(i.at, i.left, json_bytes);
    else if (kind < 3)
        train(i.at, i.left, json_bytes, kind == 1 ? "ce" : "mse", first & 4);
    else
        configure(i.at, i.left);
    return 0;
}
