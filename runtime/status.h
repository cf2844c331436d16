/* SPDX-License-Identifier: Apache-2.0 */
/* Error idioms of the library. Errors are values: a status, and text in the caller's mest_error. The first error wins. */
#ifndef MEST_RUNTIME_STATUS_H
#define MEST_RUNTIME_STATUS_H

#include <string.h>

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

/* Options of a caller that was built against an older (shorter) structure: what it has is copied over the defaults in `to`. Both begin
 * with struct_size. False when struct_size is not set. */
static inline bool mest_take_options(void *to, size_t to_size, const void *from)
{
    uint32_t given = 0, own = (uint32_t)to_size;
    memcpy(&given, from, sizeof given);
    if (given < sizeof given)
        return false;
    memcpy(to, from, given < to_size ? given : to_size);
    memcpy(to, &own, sizeof own);
    return true;
}

/* What the library tells goes the same way: as much as the caller's structure holds, its struct_size stays. False when that is not set. */
static inline bool mest_tell(void *to, const void *from, size_t from_size)
{
    uint32_t room = 0;
    memcpy(&room, to, sizeof room);
    if (room < 2 * sizeof room)
        return false;
    size_t n = room < from_size ? room : from_size;
    memcpy((char *)to + sizeof room, (const char *)from + sizeof room, n - sizeof room);
    return true;
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
