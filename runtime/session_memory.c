/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a session: what the config asks for. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/session.h"

mest_status mest_recompute_parse(const char *text, mest_recompute_kind *kind, double *share, mest_error *err)
{
    *kind = MEST_RECOMPUTE_LIMIT;
    *share = 0;
    if (!text || !strcmp(text, "auto"))
        return MEST_OK;
    if (!strcmp(text, "off")) {
        *kind = MEST_RECOMPUTE_OFF;
        return MEST_OK;
    }
    if (!strcmp(text, "least")) {
        *kind = MEST_RECOMPUTE_LEAST;
        return MEST_OK;
    }
    char *end;
    const double percent = strtod(text, &end);
    MEST_CHECK(end != text && !strcmp(end, "%") && percent >= 0 && percent <= 1000, err, MEST_E_ARGUMENT,
               "config: recompute '%.40s' is none of auto, off, least, and no share of the time such as 10%%", text);
    *kind = MEST_RECOMPUTE_SHARE;
    *share = percent / 100;
    return MEST_OK;
}
