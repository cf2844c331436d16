/* SPDX-License-Identifier: Apache-2.0 */
/* mest/base.h - what every other public header stands on: status codes, error text, allocator, log hook.
 *
 *   mest_status     result of every call that can fail; 0 is success
 *   mest_error      status + text, on the caller's stack; needs no memory of its own
 *   mest_allocator  where the library gets memory; every allocation of the library goes through it
 *   mest_logger     where warnings and notes go; the library itself never prints
 */
#ifndef MEST_BASE_H
#define MEST_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) && __GNUC__ >= 4
#define MEST_API __attribute__((visibility("default")))
#define MEST_NODISCARD __attribute__((warn_unused_result))
#define MEST_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MEST_API
#define MEST_NODISCARD
#define MEST_PRINTF(fmt, args)
#endif

#define MEST_VERSION_MAJOR 0
#define MEST_VERSION_MINOR 1
#define MEST_VERSION_PATCH 0
#define MEST_VERSION (MEST_VERSION_MAJOR * 10000 + MEST_VERSION_MINOR * 100 + MEST_VERSION_PATCH)

/* Status codes: name, value, short text. Values are part of the ABI; append only. */
#define MEST_STATUS_LIST(X)                                              \
    X(MEST_OK, 0, "success")                                             \
    X(MEST_E_ARGUMENT, 1, "invalid argument")                            \
    X(MEST_E_NOMEM, 2, "out of memory")                                  \
    X(MEST_E_IO, 3, "input or output error")                             \
    X(MEST_E_FORMAT, 4, "malformed file")                                \
    X(MEST_E_UNSUPPORTED, 5, "not supported")                            \
    X(MEST_E_SHAPE, 6, "shapes or types do not fit")                     \
    X(MEST_E_DATA, 7, "bad training data")                               \
    X(MEST_E_NUMERIC, 8, "not a number or infinite")                     \
    X(MEST_E_STATE, 9, "call not allowed in this state")                 \
    X(MEST_E_PLUGIN, 10, "plugin error")                                 \
    X(MEST_E_LIMIT, 11, "a limit was exceeded")                          \
    X(MEST_E_CANCELLED, 12, "cancelled")                                 \
    X(MEST_E_INTERNAL, 13, "internal error")

typedef enum mest_status {
#define MEST_STATUS_ENUM(name, value, text) name = value,
    MEST_STATUS_LIST(MEST_STATUS_ENUM)
#undef MEST_STATUS_ENUM
} mest_status;

/* Error text. Pass NULL where the text is not wanted. Public functions clear it on entry; the first error wins. */
typedef struct mest_error {
    mest_status code;
    char msg[508]; /* names file, node, op and tensor where there are any; always terminated */
} mest_error;

/* Short fixed text of a status ("out of memory"). Never NULL, never freed. */
MEST_API const char *mest_status_text(mest_status status);

/* Version of the library that is running, as MEST_VERSION. */
MEST_API int mest_version(void);

/* Memory. allocate returns memory aligned to `align` (a power of two, at least 16 is asked for) or NULL;
 * release gets the pointer and the size that was asked for. Both may be called from several threads at once.
 * A zeroed structure (or NULL where an allocator is taken) means the C library's aligned allocation. */
typedef struct mest_allocator {
    uint32_t struct_size; /* sizeof(mest_allocator) */
    void *user;
    void *(*allocate)(void *user, size_t size_bytes, size_t align);
    void (*release)(void *user, void *memory, size_t size_bytes);
} mest_allocator;

/* What a zeroed structure stands for: the C library's aligned allocation, and for large blocks mappings that go back to the system as soon as
 * they are released. Aligns to 4096 bytes at most. For allocators that count, limit or log and hand on. */
MEST_API void mest_allocator_default(mest_allocator *allocator);

typedef enum mest_log_level { MEST_LOG_ERROR = 0, MEST_LOG_WARNING = 1, MEST_LOG_INFO = 2, MEST_LOG_DEBUG = 3 } mest_log_level;

/* Threads: the log hook is called by whichever thread works with what it was given to; with predictors (mest/serve.h) these may be several.
 * Messages that are not errors ("3 aliased biases were untied"). `text` is one line without newline, valid during the call. */
typedef struct mest_logger {
    uint32_t struct_size; /* sizeof(mest_logger) */
    void *user;
    void (*log)(void *user, mest_log_level level, const char *text);
} mest_logger;

#ifdef __cplusplus
}
#endif
#endif
