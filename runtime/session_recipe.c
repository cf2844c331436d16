/* SPDX-License-Identifier: Apache-2.0 */
/* What makes a run this one, as lines of text: those of the session (its identity) and those of the caller (config.recipe). A checkpoint with others is of another run. */
#include <string.h>

#include "runtime/session.h"

/* What a line is about: the text before '=' or ' '. */
static size_t key_of(const char *line, size_t n)
{
    size_t k = 0;
    while (k < n && line[k] != '=' && line[k] != ' ')
        k++;
    return k;
}

static size_t line_of(const char *text, const char *end)
{
    const char *stop = text < end ? memchr(text, '\n', (size_t)(end - text)) : NULL;
    return (size_t)((stop ? stop : end) - text);
}

/* Is one of the lines from `text` on about the same as this line? */
static bool has_key(const char *text, const char *end, const char *line, size_t n)
{
    const size_t k = key_of(line, n);
    for (size_t m; text < end; text += m + 1) {
        m = line_of(text, end);
        if (key_of(text, m) == k && !memcmp(text, line, k))
            return true;
    }
    return false;
}

mest_status mest_session_compare_lines(const char *theirs, size_t n, const char *mine, const char *path, mest_error *err)
{
    const char *end = theirs + n, *mine_end = mine + strlen(mine);
    while (theirs < end || mine < mine_end) {
        size_t a = line_of(theirs, end), b = line_of(mine, mine_end);
        if (a == b && !memcmp(theirs, mine, a)) {
            theirs += a + (theirs + a < end);
            mine += b + (mine + b < mine_end);
            continue;
        }
        if (a && b && has_key(mine, mine_end, theirs, a) && !has_key(theirs, end, mine, b))
            a = 0; /* a line that they do not have */
        else if (a && b && has_key(theirs, end, mine, b) && !has_key(mine, mine_end, theirs, a))
            b = 0;
        return mest_fail(err, MEST_E_STATE, "checkpoint '%s' is of another run: it has '%.*s', this run has '%.*s'", path, (int)(a < 200 ? a : 200), theirs,
                         (int)(b < 200 ? b : 200), mine);
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
