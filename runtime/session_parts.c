/* SPDX-License-Identifier: Apache-2.0 */
/* Steps in parts. A batch of n samples is computed `s->part` samples at a time, the rest last; each part runs forward and backward, its gradients count by its share
 * of the rows that the loss counts and are added (accumulate.c), and the last part updates the weights. What normalises over the batch does so over a part, and tracks its statistics
 * once a part, as a loop of loss.backward() calls before one optimizer step does in PyTorch. Random numbers are those of the whole batch. */
#include <inttypes.h>
#include <string.h>

#include "runtime/session.h"

size_t mest_session_sample_bytes(const mest_session *s, const mest_program *p, int k, int64_t batch)
{
    const mest_type *t = &p->graph.values[p->graph.inputs[s->n_feeds ? s->feed[k].graph_input : k]].type;
    mest_dtype given = s->n_feeds ? s->feed[k].type : t->dtype;
    int64_t count = 0;
    if (!mest_shape_count(&t->shape, &count))
        return 0;
    return (size_t)(count / batch) * (given == MEST_F32 ? sizeof(mest_real) : mest_dtype_size(given));
}

int32_t mest_session_n_parts(const mest_session *s, int64_t n) { return (int32_t)((n + s->part - 1) / s->part); }

mest_status mest_session_part_programs(mest_session *s, int64_t n, mest_error *err)
{
    mest_program *p;
    if (n >= s->part)
        MEST_TRY(mest_session_program(s, MEST_PROGRAM_TRAIN, s->part, &p, err));
    if (n % s->part)
        MEST_TRY(mest_session_program(s, MEST_PROGRAM_TRAIN, n % s->part, &p, err));
    return MEST_OK;
}

static size_t target_bytes(const mest_session *s)
{
    size_t n = s->target_type == MEST_F32 ? sizeof(mest_real) : mest_dtype_size(s->target_type);
    for (int i = 0; i < s->target_shape.rank; i++)
        n *= (size_t)s->target_shape.dim[i];
    return n;
}

mest_status mest_session_part(mest_session *s, const void *const *inputs, const void *targets, int64_t n, int32_t index, mest_part *part, mest_error *err)
{
    *part = (mest_part){.first = index * s->part, .index = index, .count = mest_session_n_parts(s, n), .inputs = inputs, .targets = targets};
    part->n = n - part->first < s->part ? n - part->first : s->part;
    MEST_TRY(mest_session_program(s, MEST_PROGRAM_TRAIN, part->n, &part->program, err));
    const int n_inputs = s->n_feeds ? s->n_feeds : s->model->graph.n_inputs;
    if (part->first) {
        MEST_CHECK(n_inputs <= MEST_SAMPLE_MAX_INPUTS, err, MEST_E_LIMIT, "step in parts: the model has %d inputs, at most %d are possible", n_inputs,
                   MEST_SAMPLE_MAX_INPUTS);
        for (int k = 0; k < n_inputs; k++)
            part->moved[k] = (const char *)inputs[k] + (size_t)part->first * mest_session_sample_bytes(s, part->program, k, part->n);
        part->inputs = part->moved;
        part->targets = (const char *)targets + (size_t)part->first * target_bytes(s);
    }
    MEST_TRY(mest_session_feed(s, part->program, part->inputs, err));
    mest_program_feed(part->program, part->program->target, part->targets);
    return MEST_OK;
}

/* Rows of n samples that a mean is over: classes that are to be ignored do not count. */
static int64_t counted_rows(const mest_session *s, const void *targets, int64_t n)
{
    int64_t rows = n, counted = 0;
    for (int i = 0; i < s->target_shape.rank; i++)
        rows *= s->target_shape.dim[i];
    if (s->target_type != MEST_I64)
        return rows;
    for (int64_t r = 0; r < rows; r++)
        counted += ((const int64_t *)targets)[r] != s->config.ignore_index;
    return counted;
}

mest_status mest_session_run_parts(mest_session *s, const mest_run *run, bool forward_only, mest_error *err)
{
    mest_step_at_work *w = &s->step;
    w->loss = 0;
    w->rows = w->hits = w->class_rows = 0;
    const int32_t count = mest_session_n_parts(s, w->n);
    const int64_t counted = count > 1 ? counted_rows(s, w->targets, w->n) : 0;
    for (int32_t k = 0; k < count; k++) {
        mest_part part;
        mest_run own = *run;
        MEST_TRY(mest_session_part(s, w->inputs, w->targets, w->n, k, &part, err));
        if (count > 1) {
            own.part = k;
            own.parts = count;
            own.first = part.first;
            own.samples = part.n;
            own.share = counted ? (double)counted_rows(s, part.targets, part.n) / (double)counted : 0;
        }
        w->program = part.program;
        MEST_TRY(mest_program_run(part.program, &own, forward_only, err));
        mest_session_count(part.program, &w->loss, &w->rows, &w->hits, &w->class_rows);
        mest_session_hits(s, part.program, part.first, part.n);
    }
    return MEST_OK;
}

mest_status mest_session_set_part(mest_session *s, int64_t samples, mest_error *err)
{
    mest_session_drop_training(s);
    s->step.program = NULL;
    s->part = samples;
    return mest_optimizer_sums(&s->optimizer, s->part < s->config.batch, s->frozen, err);
}

mest_status mest_session_write_part(const mest_session *s, mest_checkpoint_writer *w, mest_error *err)
{
    if (s->memory.halves)
        MEST_TRY(mest_checkpoint_put(w, "bf16", &(uint8_t){1}, 1, err));
    return s->part < s->config.batch ? mest_checkpoint_put(w, "part", &s->part, sizeof s->part, err) : MEST_OK;
}

mest_status mest_session_read_part(mest_session *s, const mest_checkpoint *file, mest_error *err)
{
    const char *path = mest_checkpoint_path(file);
    const mest_train_config *c = &s->config;
    int64_t part = c->batch;
    if (mest_section_exists(file, "part")) {
        mest_section sec;
        MEST_TRY(mest_section_find(&sec, file, "part", err));
        MEST_TRY(mest_section_read(&sec, &part, sizeof part, err));
        MEST_TRY(mest_section_finish(&sec, err));
        MEST_CHECK(part >= 1 && part < c->batch && c->batch % part == 0, err, MEST_E_FORMAT, "checkpoint '%s': parts of %" PRId64 " samples do not make a batch of %" PRId64,
                   path, part, c->batch);
    }
    const int64_t asked = c->micro_batch > 0 ? c->micro_batch : c->micro_batch < 0 ? c->batch : part;
    MEST_CHECK(asked == part, err, MEST_E_STATE, "checkpoint '%s' is of another run: its steps compute %" PRId64 " samples at once, this run's %" PRId64 " (micro_batch)", path,
               part, asked);
    const bool halves = mest_section_exists(file, "bf16"), wanted = strcmp(c->activations, "auto") ? !strcmp(c->activations, "bf16") : halves;
    MEST_CHECK(wanted == halves, err, MEST_E_STATE, "checkpoint '%s' is of another run: its activations are %s, this run's %s", path, halves ? "bf16" : "f32",
               wanted ? "bf16" : "f32");
    s->part_stays = true;
    if (part == s->part && halves == s->memory.halves)
        return MEST_OK;
    s->memory.halves = halves;
    s->memory.planned = false;
    s->memory.arena_limit = SIZE_MAX;
    return mest_session_set_part(s, part, err);
}
