/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

mest_predictor *engine_predictor(engine *e, input_shapes shapes, int64_t max_batch, fault *f)
{
    mest_predictor_options o;
    mest_predictor_options_init(&o);
    o.max_batch = max_batch;
    mest_source_info info = {.struct_size = sizeof info, .n_inputs = e->n_inputs};
    for (int k = 0; e->open && k < e->n_inputs; k++) {
        info.input[k] = (mest_sample_input){.name = e->in[k].name, .type = MEST_SAMPLE_F32, .rank = e->in[k].rank};
        for (int i = 0; i < e->in[k].rank && i < MEST_SAMPLE_MAX_RANK; i++)
            info.input[k].dim[i] = shapes[k][i];
    }
    if (e->open) {
        info.input_rank = info.input[0].rank;
        memcpy(info.input_dim, info.input[0].dim, sizeof info.input_dim);
        o.expect = &info;
    }
    mest_error err;
    mest_predictor *p = NULL;
    if (mest_predictor_create(&p, e->model, &o, &err) != MEST_OK)
        refuse_error(f, &err);
    return p;
}

bool engine_output_shape(mest_predictor *p, int k, int rank, int64_t dim[MEST_MAX_RANK], fault *f)
{
    mest_error err;
    mest_tensor_info one = {.struct_size = sizeof one};
    if (mest_predictor_output(p, k, &one, &err) != MEST_OK)
        return refuse_error(f, &err);
    memcpy(dim, one.dim, sizeof one.dim);
    return one.rank == rank || refuse(f, 400, "'%.80s' has another rank at these sizes", one.name);
}

/* ---- what the tensors look like ---- */
static bool describe(tensor_spec *spec, const mest_tensor_info *file, int rank, const int64_t *dim, fault *f)
{
    *spec = (tensor_spec){.name = file->name, .dtype = file->dtype, .rank = rank};
    if (rank < 0 || rank != file->rank - 1)
        return refuse(f, 400, "'%.80s' has no batch axis", file->name);
    memcpy(spec->dim, dim, (size_t)rank * sizeof *dim);
    return tensor_spec_complete(spec) || refuse(f, 400, "'%.80s' is of a type (%d) or shape that cannot be served", file->name, file->dtype);
}

/* Free axes keep their -1. */
static bool describe_inputs(engine *e, fault *f)
{
    mest_error err;
    for (int k = 0; k < e->n_inputs; k++) {
        mest_tensor_info file = {.struct_size = sizeof file};
        if (mest_model_input(e->model, k, &file, &err) != MEST_OK)
            return refuse_error(f, &err);
        for (int i = 1; i < file.rank; i++)
            e->open |= file.dim[i] < 1;
        for (int i = 1; i < file.rank; i++)
            file.dim[i] = file.dim[i] < 1 ? -1 : file.dim[i];
        if (!describe(&e->in[k], &file, file.rank - 1, file.dim + 1, f))
            return false;
    }
    for (int k = 0; e->open && k < e->n_inputs; k++)
        if (e->in[k].rank > MEST_SAMPLE_MAX_RANK)
            return refuse(f, 400, "'%.80s' has too many axes for a model with free ones", e->in[k].name);
    return true;
}

/* Shapes of all tensors with every free axis `size` long. An output's axis that is not always of one length is free. */
static bool probe(engine *e, int64_t size, bool again, fault *f)
{
    mest_error err;
    input_shapes shapes;
    for (int k = 0; k < e->n_inputs; k++)
        for (int i = 0; i < e->in[k].rank; i++)
            shapes[k][i] = e->in[k].dim[i] < 0 ? size : e->in[k].dim[i];
    mest_predictor *p = engine_predictor(e, shapes, 7, f); /* a number that no axis is likely to have */
    bool good = p != NULL;
    for (int k = 0; good && k < e->n_inputs; k++) {
        mest_tensor_info one = {.struct_size = sizeof one};
        if (mest_predictor_input(p, k, &one, &err) != MEST_OK)
            good = refuse_error(f, &err);
        else if (one.rank != e->in[k].rank)
            good = refuse(f, 400, "'%.80s' has no batch axis", e->in[k].name);
    }
    for (int k = 0; good && k < e->n_outputs; k++) {
        mest_tensor_info file = {.struct_size = sizeof file}, one = {.struct_size = sizeof one};
        if (mest_model_output(e->model, k, &file, &err) != MEST_OK || mest_predictor_output(p, k, &one, &err) != MEST_OK)
            good = refuse_error(f, &err);
        for (int i = 0; good && again && i < one.rank; i++)
            one.dim[i] = one.rank == e->out[k].rank && one.dim[i] == e->out[k].dim[i] ? one.dim[i] : -1;
        good = good && describe(&e->out[k], &file, one.rank, one.dim, f);
    }
    mest_predictor_destroy(p);
    return good;
}

static bool describe_all(engine *e, const settings *s, fault *f)
{
    static const int64_t sizes[] = {32, 64, 16, 128, 224, 8, 256, 4, 512, 2, 1}; /* most networks take some of them */
    e->n_inputs = mest_model_input_count(e->model);
    e->n_outputs = mest_model_output_count(e->model);
    if (e->n_inputs > MAX_TENSORS || e->n_outputs > MAX_TENSORS)
        return refuse(f, 400, "%d inputs and %d outputs, at most %d are served", e->n_inputs, e->n_outputs, MAX_TENSORS);
    if (!describe_inputs(e, f))
        return false;
    int found = 0;
    fault first = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && found < (e->open ? 2 : 1); i++) {
        fault why = {0};
        if (probe(e, sizes[i], found > 0, &why))
            found++;
        else if (!first.status)
            first = why;
        if (!e->open)
            break;
    }
    if (!found) {
        *f = first;
        return false;
    }
    e->target = *s->output ? -1 : 0;
    for (int k = 0; k < e->n_outputs; k++)
        if (!strcmp(e->out[k].name, s->output))
            e->target = k;
    return e->target >= 0 || refuse(f, 400, "the model has no output '%.80s'", s->output);
}

/* What the library has to say that is no error: a damaged checkpoint, and that the one before it is used. */
static void warn(void *user, mest_log_level level, const char *message)
{
    (void)user;
    if (level == MEST_LOG_WARNING)
        fprintf(stderr, "mest-serve: %s\n", message);
}

static bool prepare(engine *e, const char *path, const settings *s, fault *f)
{
    mest_error err;
    const mest_logger logger = {.struct_size = sizeof logger, .log = warn};
    mest_model_options load;
    mest_model_options_init(&load);
    load.logger = &logger;
    load.read_files = true; /* whatever is written over them while they are served */
    mest_sparsity sparse;
    mest_sparsity_init(&sparse);
    sparse.scheme = s->scheme;
    sparse.sparsity = s->sparsity;
    sparse.dense_layers = s->dense_layers;
    mest_publish_options first;
    mest_publish_options_init(&first);
    first.id = e->base;
    first.note = "loaded";
    int frozen;
    if (mest_model_load(&e->model, path, &load, &err) != MEST_OK || (*s->freeze && mest_model_freeze(e->model, s->freeze, true, &frozen, &err) != MEST_OK)
        || (s->sparsity > 0 && mest_model_sparsify(e->model, &sparse, &err) != MEST_OK) || mest_model_keep_versions(e->model, 4, &err) != MEST_OK
        || mest_model_publish(e->model, &first, NULL, &err) != MEST_OK)
        return refuse_error(f, &err);
    return describe_all(e, s, f);
}

engine *engine_load(const char *folder, int64_t base, const settings *s, fault *f)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/model.onnx", folder) >= sizeof path) {
        refuse(f, 500, "the path of version %" PRId64 " is too long", base);
        return NULL;
    }
    engine *e = calloc(1, sizeof *e);
    if (!e) {
        refuse(f, 503, "out of memory");
        return NULL;
    }
    atomic_init(&e->references, 1);
    e->base = base;
    if (!prepare(e, path, s, f)) {
        engine_release(e);
        return NULL;
    }
    return e;
}

engine *engine_hold(engine *e)
{
    atomic_fetch_add(&e->references, 1);
    return e;
}

void engine_release(engine *e)
{
    if (!e || atomic_fetch_sub(&e->references, 1) > 1)
        return;
    mest_model_destroy(e->model);
    free(e);
}
