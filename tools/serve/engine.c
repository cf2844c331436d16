/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

mest_predictor *engine_predictor(engine *e, int64_t max_batch, fault *f)
{
    mest_predictor_options o;
    mest_predictor_options_init(&o);
    o.max_batch = max_batch;
    mest_error err;
    mest_predictor *p = NULL;
    if (mest_predictor_create(&p, e->model, &o, &err) != MEST_OK)
        refuse_error(f, &err);
    return p;
}

/* Shape of one sample; what has no batch axis cannot be batched, and is not served. */
static bool describe(tensor_spec *spec, const mest_tensor_info *file, const mest_tensor_info *one, fault *f)
{
    spec->name = file->name;
    spec->dtype = file->dtype;
    spec->rank = one->rank;
    memcpy(spec->dim, one->dim, sizeof spec->dim);
    if (one->rank != file->rank - 1)
        return refuse(f, 400, "'%.80s' has no batch axis", file->name);
    return tensor_spec_complete(spec) || refuse(f, 400, "'%.80s' is of a type (%d) or shape that cannot be served", file->name, file->dtype);
}

static bool describe_all(engine *e, const settings *s, fault *f)
{
    mest_error err;
    e->n_inputs = mest_model_input_count(e->model);
    e->n_outputs = mest_model_output_count(e->model);
    if (e->n_inputs > MAX_TENSORS || e->n_outputs > MAX_TENSORS)
        return refuse(f, 400, "%d inputs and %d outputs, at most %d are served", e->n_inputs, e->n_outputs, MAX_TENSORS);
    mest_predictor *p = engine_predictor(e, 7, f); /* a number that no axis is likely to have */
    bool good = p != NULL;
    for (int i = 0; good && i < e->n_inputs + e->n_outputs; i++) {
        int k = i < e->n_inputs ? i : i - e->n_inputs;
        mest_tensor_info file = {.struct_size = sizeof file}, one = {.struct_size = sizeof one};
        if (i < e->n_inputs ? mest_model_input(e->model, k, &file, &err) != MEST_OK || mest_predictor_input(p, k, &one, &err) != MEST_OK
                            : mest_model_output(e->model, k, &file, &err) != MEST_OK || mest_predictor_output(p, k, &one, &err) != MEST_OK)
            good = refuse_error(f, &err);
        else
            good = describe(i < e->n_inputs ? &e->in[k] : &e->out[k], &file, &one, f);
    }
    mest_predictor_destroy(p);
    e->target = *s->output ? -1 : 0;
    for (int k = 0; k < e->n_outputs; k++)
        if (!strcmp(e->out[k].name, s->output))
            e->target = k;
    return good && (e->target >= 0 || refuse(f, 400, "the model has no output '%.80s'", s->output));
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
