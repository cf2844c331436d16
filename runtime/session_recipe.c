/* SPDX-License-Identifier: Apache-2.0 */
/* What makes a run this one, as lines of text: those of the session (its identity) and those of the caller (config.recipe). A checkpoint with others is of another run. */
#include <string.h>

#include "runtime/session.h"

mest_status mest_session_compare_lines(const char *theirs, size_t n, const char *mine, const char *path, mest_error *err)
{
    const char *end = theirs + n;
    while (theirs < end || *mine) {
        const char *stop = theirs < end ? memchr(theirs, '\n', (size_t)(end - theirs)) : NULL;
        const size_t a = (size_t)((stop ? stop : end) - theirs), b = strcspn(mine, "\n");
        if (a != b || memcmp(theirs, mine, a))
            return mest_fail(err, MEST_E_STATE, "checkpoint '%s' is of another run: it has '%.*s', this run has '%.*s'", path, (int)(a < 200 ? a : 200), theirs,
                             (int)(b < 200 ? b : 200), mine);
        theirs += a + (stop != NULL);
        mine += b + (mine[b] == '\n');
    }
    return MEST_OK;
}

mest_status mest_session_write_recipe(const mest_session *s, mest_checkpoint_writer *w, mest_error *err)
{
    const char *text = s->config.recipe;
    return text ? mest_checkpoint_put(w, "recipe", text, strlen(text), err) : MEST_OK;
}

mest_status mest_session_compare_recipe(const mest_session *s, const mest_checkpoint *file, mest_error *err)
{
    mest_section sec;
    const void *text;
    if (!s->config.recipe || !mest_section_exists(file, "recipe"))
        return MEST_OK;
    MEST_TRY(mest_section_find(&sec, file, "recipe", err));
    const size_t n = sec.size;
    MEST_TRY(mest_section_lend(&sec, &text, n, err));
    return mest_session_compare_lines(text, n, s->config.recipe, mest_checkpoint_path(file), err);
}
