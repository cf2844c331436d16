/* SPDX-License-Identifier: Apache-2.0 */
/* Error idioms of the library. Errors are values: a status, and text in the caller's mest_error. The first error wins. */
#ifndef MEST_RUNTIME_STATUS_H
#define MEST_RUNTIME_STATUS_H

#include "mest/base.h"

/* Sets err (if not NULL and not set already) and returns `code`. */
mest_status mest_fail(mest_error *err, mest_status code, const char *format, ...) MEST_PRINTF(3, 4);

/* Clears err; every public function does this on entry. */
static inline void mest_error_clear(mest_error *err)
{
    if (err) {
        err->code = MEST_OK;
        err->msg[0] = 0;
    }
}

#define MEST_TRY(call)                    \
    do {                                  \
        mest_status mest_try_ = (call);   \
        if (mest_try_ != MEST_OK)         \
            return mest_try_;             \
    } while (0)

/* Forwards a failure to the function's single `out:` label; needs a variable `status`. */
#define MEST_TRY_OUT(call)                \
    do {                                  \
        status = (call);                  \
        if (status != MEST_OK)            \
            goto out;                     \
    } while (0)

#define MEST_CHECK(cond, err, code, ...)                  \
    do {                                                  \
        if (!(cond))                                      \
            return mest_fail((err), (code), __VA_ARGS__); \
    } while (0)

#endif
