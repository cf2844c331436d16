/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of a predictor: tensors by name or place, cut up or filled up to the sizes there are programs for. */
#include <inttypes.h>
#include <string.h>

#include "runtime/predictor.h"

typedef struct port {         /* an input or output in a program */
    mest_id value;
    const char *name;
    bool batched;             /* axis 0 counts samples; otherwise the tensor is given or taken whole */
    size_t bytes;             /* of one sample, or of all */
} port;

/* Place of a name in the model; -1 if it has none such. With one chosen output that one is the first. */
static int place_of(const mest_predictor *p, bool input, const char *name, int place)
{
    const mest_graph *g = &p->model->graph;
    int n = input ? g->n_inputs : g->n_outputs;
    if (!input && p->output)
        return name ? (strcmp(name, p->output) ? -1 : 0) : place ? -1 : 0;
    if (!name)
        return place < n ? place : -1;
    for (int i = 0; i < n; i++)
        if (!strcmp(g->values[(input ? g->inputs : g->outputs)[i]].name, name))
            return i;
    return -1;
}

static mest_status find_port(const mest_predictor *p, const mest_program *program, bool input, const char *name, int place, port *out, mest_error *err)
{
    int at = place_of(p, input, name, place);
    MEST_CHECK(at >= 0, err, MEST_E_ARGUMENT, "predictor: the model has no %s '%.80s'%s", input ? "input" : "output", name ? name : "past its last",
               !input && p->output ? " among those computed (options.output)" : "");
    const mest_graph *g = &program->graph, *m = &p->model->graph;
    out->value = (input ? g->inputs : g->outputs)[at];
    out->name = !input && p->output ? p->output : m->values[(input ? m->inputs : m->outputs)[at]].name;
    const mest_type *t = &g->values[out->value].type;
    int64_t count;
    MEST_CHECK(mest_shape_count(&t->shape, &count), err, MEST_E_SHAPE, "predictor: the size of '%s' is not known", out->name);
    out->batched = t->shape.rank > 0 && t->shape.dim[0] == program->spec.batch;
    out->bytes = (size_t)(out->batched ? count / program->spec.batch : count) * (t->dtype == MEST_F32 ? sizeof(float) : mest_dtype_size(t->dtype));
    return MEST_OK;
}

static mest_status check_port(const mest_predictor *p, const mest_program *program, bool input, int i, const char *name, const void *data, size_t bytes,
                              int64_t n, mest_error *err)
{
    port x = {.value = MEST_NONE};
    MEST_TRY(find_port(p, program, input, name, i, &x, err));
    const char *kind = input ? "input" : "output";
    size_t want = x.batched ? x.bytes * (size_t)n : x.bytes;
    MEST_CHECK(data || !want, err, MEST_E_ARGUMENT, "predictor: %s '%s' has no memory", kind, x.name);
    MEST_CHECK(bytes == want, err, MEST_E_ARGUMENT, "predictor: %zu bytes given for %s '%s', %zu are needed for %" PRId64 " sample%s", bytes, kind, x.name,
               want, n, n == 1 ? "" : "s");
    MEST_CHECK(input || x.batched || n == program->spec.batch, err, MEST_E_SHAPE, "predictor: output '%s' has no batch axis and cannot be put together", x.name);
    return MEST_OK;
}

static mest_status check_call(mest_predictor *p, const mest_program *program, int64_t n, const mest_input_data *inputs, int n_inputs,
                              const mest_output_data *outputs, int n_outputs, mest_error *err)
{
    const mest_graph *g = &p->model->graph;
    memset(p->given, 0, (size_t)g->n_inputs);
    for (int i = 0; i < n_inputs; i++) {
        MEST_TRY(check_port(p, program, true, i, inputs[i].name, inputs[i].data, inputs[i].bytes, n, err));
        p->given[place_of(p, true, inputs[i].name, i)] = 1;
    }
    for (int i = 0; i < g->n_inputs; i++)
        MEST_CHECK(p->given[i] || !p->needed[i], err, MEST_E_ARGUMENT, "predictor: input '%s' is not given", g->values[g->inputs[i]].name);
    for (int i = 0; i < n_outputs; i++)
        MEST_TRY(check_port(p, program, false, i, outputs[i].name, outputs[i].data, outputs[i].bytes, n, err));
    return MEST_OK;
}

#define ROUND_UP(n) (((n) + 63) & ~(size_t)63)

/* Room for the inputs of a run with fewer samples than the program takes. */
static mest_status reserve_padding(mest_predictor *p, const mest_program *program, const mest_input_data *inputs, int n_inputs, mest_error *err)
{
    size_t bytes = 0;
    port x = {.value = MEST_NONE};
    for (int i = 0; i < n_inputs; i++) {
        MEST_TRY(find_port(p, program, true, inputs[i].name, i, &x, err));
        bytes += x.batched ? ROUND_UP(x.bytes * (size_t)program->spec.batch) : 0;
    }
    if (bytes <= p->padded_bytes)
        return MEST_OK;
    mest_free(p->heap, p->padded, p->padded_bytes, 1);
    p->padded_bytes = 0;
    p->padded = mest_alloc(p->heap, bytes, 1);
    MEST_CHECK(p->padded, err, MEST_E_NOMEM, "predictor: no memory for %zu bytes of inputs", bytes);
    p->padded_bytes = bytes;
    return MEST_OK;
}

/* Samples done..done+now-1 of the call. What is missing to the program's batch is filled up with zeros, and its results are left out. */
static mest_status run_some(mest_predictor *p, mest_program *program, const mest_input_data *inputs, int n_inputs, const mest_output_data *outputs,
                            int n_outputs, int64_t done, int64_t now, mest_error *err)
{
    port x = {.value = MEST_NONE};
    bool fill = now < program->spec.batch;
    if (fill)
        MEST_TRY(reserve_padding(p, program, inputs, n_inputs, err));
    char *at = p->padded;
    for (int i = 0; i < n_inputs; i++) {
        MEST_TRY(find_port(p, program, true, inputs[i].name, i, &x, err));
        const char *from = (const char *)inputs[i].data + (x.batched ? x.bytes * (size_t)done : 0);
        if (fill && x.batched) {
            size_t used = x.bytes * (size_t)now, all = x.bytes * (size_t)program->spec.batch;
            if (used)
                memcpy(at, from, used);
            memset(at + used, 0, all - used);
            from = at;
            at += ROUND_UP(all);
        }
        mest_program_feed(program, x.value, from);
    }
    mest_run run = {.seed = 0};
    MEST_TRY(mest_program_run(program, &run, true, err));
    for (int i = 0; i < n_outputs; i++) {
        MEST_TRY(find_port(p, program, false, outputs[i].name, i, &x, err));
        const void *from = mest_program_data(program, x.value);
        char *to = (char *)outputs[i].data + (x.batched ? x.bytes * (size_t)done : 0);
        size_t bytes = x.batched ? x.bytes * (size_t)now : x.bytes;
        if (program->graph.values[x.value].type.dtype == MEST_F32 && MEST_REAL_IS_DOUBLE)
            for (size_t k = 0; k < bytes / sizeof(float); k++)
                ((float *)(void *)to)[k] = (float)((const mest_real *)from)[k];
        else if (bytes)
            memcpy(to, from, bytes);
    }
    return MEST_OK;
}

mest_status mest_predictor_run(mest_predictor *p, int64_t n, const mest_input_data *inputs, int n_inputs, const mest_output_data *outputs, int n_outputs,
                               int64_t *version, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(p && n >= 1 && n_inputs >= 1 && inputs && n_outputs >= 0 && (outputs || !n_outputs), err, MEST_E_ARGUMENT,
               "predictor: a predictor, at least one sample and the inputs must be given");
    mest_predictor_follow(p); /* once: all samples of a call are answered by one version */
    if (version)
        *version = p->now->info.id;
    int64_t most = p->size[p->n_sizes - 1];
    MEST_CHECK(!p->fixed || n % most == 0, err, MEST_E_ARGUMENT, "predictor: the model fixes its batch at %" PRId64 ", %" PRId64 " samples are no multiple of it",
               most, n);
    for (int64_t done = 0; done < n;) {
        int64_t now = n - done < most ? n - done : most;
        mest_program *program;
        MEST_TRY(mest_predictor_program(p, now, &program, err));
        if (done == 0)
            MEST_TRY(check_call(p, program, n, inputs, n_inputs, outputs, n_outputs, err));
        MEST_TRY(run_some(p, program, inputs, n_inputs, outputs, n_outputs, done, now, err));
        done += now;
    }
    return MEST_OK;
}

mest_status mest_predictor_infer(mest_predictor *p, const void *inputs, int64_t n, float *out, size_t out_count, int64_t *version, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(p && inputs && out && n >= 1, err, MEST_E_ARGUMENT, "predictor: inputs, outputs and at least one sample must be given");
    const mest_graph *g = &p->model->graph;
    MEST_CHECK(g->n_inputs == 1, err, MEST_E_ARGUMENT, "predictor: the model has %d inputs; mest_predictor_run takes them by name", g->n_inputs);
    mest_program *program;
    port x = {.value = MEST_NONE}, y = x;
    MEST_TRY(mest_predictor_program(p, n, &program, err));
    MEST_TRY(find_port(p, program, true, NULL, 0, &x, err));
    MEST_TRY(find_port(p, program, false, NULL, 0, &y, err));
    const mest_type *type = &program->graph.values[y.value].type;
    MEST_CHECK(type->dtype == MEST_F32, err, MEST_E_UNSUPPORTED, "output '%s' is %s, not float32", y.name, mest_dtype_name(type->dtype));
    size_t want = (y.batched ? y.bytes * (size_t)n : y.bytes) / sizeof(float);
    MEST_CHECK(out_count == want, err, MEST_E_ARGUMENT, "predictor: %zu floats given for output '%s', %zu are needed", out_count, y.name, want);
    mest_input_data in = {.data = inputs, .bytes = x.batched ? x.bytes * (size_t)n : x.bytes};
    mest_output_data to = {.data = out, .bytes = out_count * sizeof *out};
    return mest_predictor_run(p, n, &in, 1, &to, 1, version, err);
}

/* ---- what it takes and gives ---- */
static mest_status describe(mest_predictor *p, bool input, int index, mest_tensor_info *info, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(p && info, err, MEST_E_ARGUMENT, "predictor: predictor and info must be given");
    mest_program *program;
    port x = {.value = MEST_NONE};
    MEST_TRY(mest_predictor_program(p, INT64_MAX, &program, err));
    MEST_TRY(find_port(p, program, input, NULL, index, &x, err));
    const mest_type *t = &program->graph.values[x.value].type;
    int skip = x.batched ? 1 : 0;
    mest_tensor_info all = {.name = x.name, .dtype = (int)t->dtype, .rank = t->shape.rank - skip, .scheme = "dense",
                            .stored = mest_shape_span(&t->shape, skip, t->shape.rank)};
    for (int i = 0; i < all.rank; i++)
        all.dim[i] = t->shape.dim[i + skip];
    MEST_CHECK(mest_tell(info, &all, sizeof all), err, MEST_E_ARGUMENT, "predictor: struct_size of the info is not set");
    return MEST_OK;
}

mest_status mest_predictor_input(mest_predictor *p, int index, mest_tensor_info *info, mest_error *err) { return describe(p, true, index, info, err); }
mest_status mest_predictor_output(mest_predictor *p, int index, mest_tensor_info *info, mest_error *err) { return describe(p, false, index, info, err); }

void mest_predictor_memory(const mest_predictor *p, int64_t *current_bytes, int64_t *peak_bytes)
{
    if (current_bytes)
        *current_bytes = p ? atomic_load(&p->heap->current_bytes) : 0;
    if (peak_bytes)
        *peak_bytes = p ? atomic_load(&p->heap->peak_bytes) : 0;
}
