/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Bytes outside of ASCII may come from a client's name of a tensor, and may be cut in the middle. */
static void plain(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || (unsigned char)*s > '~')
            *s = '?';
}

bool refuse(fault *f, int status, const char *format, ...)
{
    if (f->status)
        return false;
    f->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
    plain(f->text);
    return false;
}

bool refuse_error(fault *f, const mest_error *err)
{
    int status = 500;
    switch (err->code) {
    case MEST_E_ARGUMENT: case MEST_E_SHAPE: case MEST_E_DATA: case MEST_E_FORMAT: case MEST_E_UNSUPPORTED: status = 400; break;
    case MEST_E_STATE: case MEST_E_CANCELLED: status = 409; break;
    case MEST_E_NOMEM: case MEST_E_LIMIT: status = 503; break;
    default: break;
    }
    return refuse(f, status, "%s", err->msg[0] ? err->msg : mest_status_text(err->code));
}
