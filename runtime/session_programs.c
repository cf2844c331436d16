/* SPDX-License-Identifier: Apache-2.0 */
/* Programs of a session, by purpose and number of samples, built when first asked for. */
#include "runtime/session.h"

#include <string.h>

#include "runtime/channels.h"

/* spec is complete but for the target. */
static mest_status build_program(mest_session *s, mest_program_spec *spec, mest_program **program, mest_error *err)
{
    mest_type target = {.dtype = s->target_type};
    if (spec->kind != MEST_PROGRAM_INFER && (s->target_type || !s->survey)) {
        MEST_CHECK(s->target_type, err, MEST_E_DATA, "the data has no targets: a loss cannot be computed");
        target.shape.rank = s->target_shape.rank + 1;
        MEST_CHECK(target.shape.rank <= MEST_MAX_RANK, err, MEST_E_SHAPE, "targets of rank %d are too large", target.shape.rank);
        target.shape.dim[0] = spec->batch;
        memcpy(target.shape.dim + 1, s->target_shape.dim, (size_t)s->target_shape.rank * sizeof target.shape.dim[0]);
        spec->target = &target;
    }
    MEST_TRY(mest_program_build(program, s->model, spec, err));
    mest_status status = spec->counts_only ? MEST_OK : mest_session_feed_reserve(s, *program, err);
    if (status != MEST_OK) {
        mest_program_destroy(*program);
        *program = NULL;
    }
    return status;
}

static mest_status refused(const mest_session *s, mest_error *err)
{
    MEST_CHECK(s->model->refusal.code == MEST_OK || s->survey, err, s->model->refusal.code, "%s", s->model->refusal.msg);
    return MEST_OK;
}

/* Layers that will have more channels than now need more memory for a step. It is taken before the run: a step of that size is planned
 * once, and the arena has that size from the beginning. */
static mest_status reserve_peak(mest_session *s, mest_program_spec *spec, mest_error *err)
{
    mest_channels *c = s->model->channels;
    mest_program *largest = NULL;
    bool grows = false;
    for (int32_t g = 0; c && g < c->n_groups; g++)
        grows |= c->group[g].units->cap_units > c->group[g].units->active_units;
    if (!grows || s->survey || spec->batch <= s->peak_batch)
        return MEST_OK;
    mest_channels_pretend(s->model, true);
    mest_status status = build_program(s, spec, &largest, err);
    if (status == MEST_OK)
        status = mest_memory_check(s, largest, err);
    if (status == MEST_OK && largest->arena_bytes > s->memory.peak_arena)
        s->memory.peak_arena = largest->arena_bytes;
    if (status == MEST_OK && !s->config.memory_limit)
        status = mest_program_reserve(largest, err);
    mest_program_destroy(largest);
    mest_channels_pretend(s->model, false);
    s->channels_version = c->version;
    s->peak_batch = status == MEST_OK ? spec->batch : s->peak_batch;
    return status;
}

/* A new program, as the session is configured. */
static mest_status new_program(mest_session *s, mest_program_kind kind, int64_t n, bool counts_only, mest_program **program, mest_error *err)
{
    mest_program_spec spec = {.kind = kind,
                              .batch = n,
                              .loss = s->config.loss,
                              .output = s->config.output ? s->config.output : s->model->graph.n_outputs ? s->model->graph.values[s->model->graph.outputs[0]].name : NULL,
                              .label_smoothing = s->config.label_smoothing,
                              .ignores = true,
                              .ignore_index = s->config.ignore_index,
                              .batch_norm = s->config.batch_norm,
                              .measure_unfolded = s->measuring,
                              .bn_biased = !strcmp(s->config.bn_stats, "onnx"),
                              .no_fuse = s->config.no_fuse,
                              .dropout = s->config.dropout,
                              .clip_norm = s->config.clip_norm,
                              .keep_gradients = s->config.keep_gradients,
                              .optimizer = &s->optimizer,
                              .frozen = s->frozen,
                              .cpu = s->cpu,
                              .use_xnnpack = s->config.use_xnnpack,
                              .threads = &s->threads,
                              .derived = s->derived,
                              .arena = &s->arena,
                              .profile = &s->profile,
                              .counts_only = counts_only,
                              .survey = s->survey,
                              .tuner = s->survey || counts_only ? NULL : s->tuner,
                              .no_update = s->plain_gradients,
                              .force_layout = s->plain_gradients ? "plain" : NULL};
    spec.recompute = s->memory.recompute;
    spec.recompute_share = s->memory.share;
    spec.arena_limit = s->memory.arena_limit;
    spec.halves = s->memory.halves;
    spec.accumulate = kind == MEST_PROGRAM_TRAIN && s->part < s->config.batch;
    mest_shape *shapes = mest_alloc(s->heap, (size_t)s->model->graph.n_inputs + 1, sizeof *shapes);
    MEST_CHECK(shapes, err, MEST_E_NOMEM, "session: out of memory");
    mest_session_input_shapes(s, shapes);
    spec.input_shapes = shapes;
    mest_status status = kind == MEST_PROGRAM_TRAIN && !counts_only ? reserve_peak(s, &spec, err) : MEST_OK;
    if (status == MEST_OK)
        status = build_program(s, &spec, program, err);
    mest_free(s->heap, shapes, (size_t)s->model->graph.n_inputs + 1, sizeof *shapes);
    mest_session_tune_keep(s);
    if (status == MEST_OK) { /* lent for the build only */
        (*program)->spec.input_shapes = NULL;
        (*program)->spec.target = NULL;
    }
    return status;
}

mest_status mest_session_sketch(mest_session *s, int64_t n, mest_program **program, mest_error *err)
{
    MEST_TRY(refused(s, err));
    return new_program(s, MEST_PROGRAM_INFER, n, true, program, err);
}

mest_status mest_session_program(mest_session *s, mest_program_kind kind, int64_t n, mest_program **program, mest_error *err)
{
    MEST_TRY(refused(s, err));
    mest_session_follow_channels(s);
    int base = (int)kind * 2;
    int64_t full = kind == MEST_PROGRAM_TRAIN ? s->part : s->config.eval_batch;
    int slot = base + (n != full);
    mest_program *p = s->programs[slot];
    if (p && p->spec.batch == n) {
        *program = p;
        return MEST_OK;
    }
    mest_program_destroy(p);
    s->programs[slot] = NULL;
    if (kind == MEST_PROGRAM_TRAIN)
        MEST_TRY(mest_session_prepare(s, err));
    MEST_TRY(new_program(s, kind, n, false, &p, err));
    const mest_status status = mest_memory_check(s, p, err);
    if (status != MEST_OK) {
        mest_program_destroy(p);
        return status;
    }
    s->programs[slot] = p;
    *program = p;
    return MEST_OK;
}
