/* SPDX-License-Identifier: Apache-2.0 */
/* GET /: a page that shows models, versions and training, and lets one draw. Everything it needs is in it. */
#include <string.h>

#include "serve/routes.h"

static const char *const lines[] = {
#include "serve_page.inc"
};

void answer_page(exchange *x, served *model, int64_t version)
{
    (void)model, (void)version;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        text_add(&x->answer, lines[i], strlen(lines[i]));
    x->type = "text/html; charset=utf-8";
    x->policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    http_done(x);
}
