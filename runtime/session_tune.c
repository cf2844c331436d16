/* SPDX-License-Identifier: Apache-2.0 */
/* Measured kernels of a session: the bound of a run's choices, and their way through a checkpoint. */
#include <stdio.h>
#include <string.h>

#include "runtime/checkpoint.h"
#include "runtime/session.h"
#include "runtime/tune.h"

mest_status mest_session_tune_open(mest_session *s, mest_error *err)
{
    mest_tune_mode mode;
    MEST_TRY(mest_tune_parse(s->config.tune, &mode, err));
    return mode == MEST_TUNE_OFF ? MEST_OK : mest_tuner_create(&s->tuner, s->heap, mode, s->config.tune_cache, err);
}

void mest_session_tune_keep(mest_session *s)
{
    mest_tuner *t = s->tuner;
    if (!t || !t->changed)
        return;
    mest_logf(s->heap, MEST_LOG_DEBUG, "kernels: %d timed, %d known, %d left to the model of cost for want of time", t->measured, t->cached, t->given_up);
    mest_tuner_save(t);
}

/* ---- section "kernels": the mode, then lines as in the file ---- */
mest_status mest_session_write_tuning(const mest_session *s, mest_checkpoint_writer *w, mest_error *err)
{
    const mest_tuner *t = s->tuner;
    char line[MEST_TUNE_KEY + 64];
    if (!t)
        return MEST_OK;
    MEST_TRY(mest_checkpoint_begin(w, "kernels", err));
    int n = snprintf(line, sizeof line, "%s\n", t->mode == MEST_TUNE_FULL ? "full" : "fast");
    MEST_TRY(mest_checkpoint_append(w, line, (size_t)n, err));
    for (size_t i = 0; i < t->n; i++) {
        if (!t->entries[i].used)
            continue;
        n = snprintf(line, sizeof line, "%.9g\t%s\n", t->entries[i].seconds, t->entries[i].key);
        MEST_TRY(mest_checkpoint_append(w, line, (size_t)n, err));
    }
    return mest_checkpoint_end(w, err);
}

static mest_status take_lines(mest_tuner *t, const char *text, size_t n, const char *path, mest_error *err)
{
    while (n) {
        const char *end = memchr(text, '\n', n);
        char key[MEST_TUNE_KEY];
        double seconds;
        MEST_CHECK(end && mest_tune_line(text, (size_t)(end - text), key, &seconds), err, MEST_E_FORMAT, "checkpoint '%s': section 'kernels' is damaged", path);
        MEST_TRY(mest_tuner_put(t, key, seconds, err));
        mest_tuner_find(t, key)->used = true;
        n -= (size_t)(end - text) + 1;
        text = end + 1;
    }
    return MEST_OK;
}

mest_status mest_session_read_tuning(mest_session *s, const mest_checkpoint *file, mest_error *err)
{
    const char *path = mest_checkpoint_path(file);
    if (!mest_section_exists(file, "kernels")) {
        if (s->tuner) {
            mest_logf(s->heap, MEST_LOG_INFO, "checkpoint '%s': its run did not measure kernels, so this one does not", path);
            mest_tuner_destroy(s->tuner);
            s->tuner = NULL;
            mest_session_drop_programs(s);
        }
        return MEST_OK;
    }
    mest_section sec;
    const void *bytes;
    MEST_TRY(mest_section_find(&sec, file, "kernels", err));
    const size_t size = sec.size;
    MEST_TRY(mest_section_lend(&sec, &bytes, size, err));
    MEST_TRY(mest_section_finish(&sec, err));
    const char *text = bytes, *end = memchr(text, '\n', size);
    mest_tune_mode mode;
    char name[8] = "";
    if (end && end - text < (ptrdiff_t)sizeof name)
        memcpy(name, text, (size_t)(end - text));
    MEST_CHECK(*name && mest_tune_parse(name, &mode, NULL) == MEST_OK && mode != MEST_TUNE_OFF, err, MEST_E_FORMAT, "checkpoint '%s': section 'kernels' is damaged", path);
    mest_session_drop_programs(s); /* they point at the table */
    if (!s->tuner)
        MEST_TRY(mest_tuner_create(&s->tuner, s->heap, mode, "", err));
    mest_tuner_clear(s->tuner);
    s->tuner->mode = mode;
    s->tuner->replay = true;
    return take_lines(s->tuner, end + 1, size - (size_t)(end + 1 - text), path, err);
}
