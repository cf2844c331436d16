/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "runtime/oneline.h"

const char *mest_status_text(mest_status status)
{
    switch (status) {
#define CASE(name, value, text) \
    case name: return text;
        MEST_STATUS_LIST(CASE)
#undef CASE
    }
    return "unknown status";
}

int mest_version(void) { return MEST_VERSION; }

mest_status mest_fail(mest_error *err, mest_status code, const char *format, ...)
{
    if (err && err->code == MEST_OK) {
        va_list ap;
        err->code = code;
        va_start(ap, format);
        vsnprintf(err->msg, sizeof err->msg, format, ap);
        va_end(ap);
        mest_one_line(err->msg);
    }
    return code;
}
