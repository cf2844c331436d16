/* SPDX-License-Identifier: Apache-2.0 */
/* The session's part of a copy that schedulers go back to: dense parameters and statistics. */
#include <string.h>

#include "runtime/session.h"

/* Parameters that change while training and are not the host's. */
static bool is_kept(const mest_session *s, int i)
{
    const mest_param *p = &s->model->params[i];
    return !p->sparse && p->values && (p->role == MEST_ROLE_TRAINABLE || p->role == MEST_ROLE_STATISTIC);
}

void mest_session_forget(mest_session *s)
{
    mest_host_forget(&s->host);
    for (int i = 0; s->kept && i < s->model->n_params; i++)
        if (s->kept[i])
            mest_free(s->heap, s->kept[i], (size_t)s->model->params[i].count, sizeof **s->kept);
    mest_free(s->heap, s->kept, (size_t)s->model->n_params + 1, sizeof *s->kept);
    s->kept = NULL;
}

static mest_status make_copies(mest_session *s, mest_error *err)
{
    if (s->kept)
        return MEST_OK;
    s->kept = mest_calloc(s->heap, (size_t)s->model->n_params + 1, sizeof *s->kept);
    MEST_CHECK(s->kept, err, MEST_E_NOMEM, "remember: out of memory");
    for (int i = 0; i < s->model->n_params; i++) {
        const mest_param *p = &s->model->params[i];
        if (!is_kept(s, i))
            continue;
        s->kept[i] = mest_alloc(s->heap, (size_t)p->count, sizeof **s->kept);
        if (!s->kept[i]) {
            mest_session_forget(s);
            return mest_fail(err, MEST_E_NOMEM, "remember: no memory for the values of '%s'", p->name);
        }
    }
    return MEST_OK;
}

mest_status mest_session_keeper(void *session, bool bring_back, mest_error *err)
{
    mest_session *s = session;
    if (!bring_back)
        MEST_TRY(make_copies(s, err));
    for (int i = 0; i < s->model->n_params; i++) {
        mest_param *p = &s->model->params[i];
        if (!is_kept(s, i))
            continue;
        if (bring_back) {
            memcpy(p->values, s->kept[i], (size_t)p->count * sizeof *p->values);
            p->value_version++;
        } else {
            memcpy(s->kept[i], p->values, (size_t)p->count * sizeof *p->values);
        }
    }
    if (bring_back)
        mest_optimizer_clear(&s->optimizer, s->at.step);
    return MEST_OK;
}

bool mest_session_remembers(const mest_session *s) { return s->kept != NULL; }

mest_status mest_session_write_remembered(mest_session *s, mest_state_io write, void *stream)
{
    mest_status status = mest_host_remembered_save(&s->host, write, stream);
    for (int i = 0; i < s->model->n_params && status == MEST_OK; i++)
        if (s->kept[i])
            status = write(stream, s->kept[i], (size_t)s->model->params[i].count * sizeof **s->kept);
    return status;
}

mest_status mest_session_read_remembered(mest_session *s, mest_state_io read, void *stream, mest_error *err)
{
    MEST_TRY(make_copies(s, err));
    MEST_TRY(mest_host_remembered_load(&s->host, read, stream, err));
    for (int i = 0; i < s->model->n_params; i++)
        if (s->kept[i])
            MEST_TRY(read(stream, s->kept[i], (size_t)s->model->params[i].count * sizeof **s->kept));
    return MEST_OK;
}
