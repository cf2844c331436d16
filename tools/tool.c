/* SPDX-License-Identifier: Apache-2.0 */
#include "tool.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"

static void on_log(void *user, mest_log_level level, const char *text)
{
    tool *t = user;
    if (level == MEST_LOG_ERROR || level == MEST_LOG_WARNING)
        tool_note(t, "%s: %s", level == MEST_LOG_ERROR ? "error" : "warning", text);
    else if (t->s->verbose)
        tool_note(t, "%s", text);
}

static void *budget_allocate(void *user, size_t size_bytes, size_t align)
{
    memory_budget *b = user;
    int64_t used = atomic_fetch_add(&b->used_bytes, (int64_t)size_bytes) + (int64_t)size_bytes;
    void *memory = NULL;
    if (used <= b->limit_bytes)
        memory = b->under.allocate(b->under.user, size_bytes, align);
    if (!memory) {
        atomic_fetch_sub(&b->used_bytes, (int64_t)size_bytes);
        atomic_store(&b->refused, true);
        return NULL;
    }
    return memory;
}

static void budget_release(void *user, void *memory, size_t size_bytes)
{
    memory_budget *b = user;
    atomic_fetch_sub(&b->used_bytes, (int64_t)size_bytes);
    b->under.release(b->under.user, memory, size_bytes);
}

void tool_budget(tool *t, bool planning)
{
    const int64_t limit = planning ? 4 * t->s->memory_limit + (256 << 20) : t->s->memory_limit;
    t->budget.limit_bytes = limit > t->budget.start_bytes ? limit - t->budget.start_bytes : 0;
}

void tool_init(tool *t, const settings *s)
{
    memset(t, 0, sizeof *t);
    t->s = s;
    for (int i = 0; i < LOG_FORMS; i++)
        t->log[i].fd = -1;
    t->lock_fd = -1;
    t->logger = (mest_logger){.struct_size = sizeof t->logger, .user = t, .log = on_log};
    t->allocator.struct_size = sizeof t->allocator;
    if (s->memory_limit > 0) {
        mest_process_memory(&t->budget.start_bytes, NULL); /* code and libraries count */
        tool_budget(t, false);
        mest_allocator_default(&t->budget.under);
        t->allocator.user = &t->budget;
        t->allocator.allocate = budget_allocate;
        t->allocator.release = budget_release;
    }
}

void tool_close(tool *t)
{
    signals_watch(NULL);
    mest_session_destroy(t->session);
    mest_guest_destroy(t->guest);
    mest_source_close(&t->data);
    mest_source_close(&t->val);
    mest_model_destroy(t->model);
    for (int i = 0; i < LOG_FORMS; i++) {
        if (t->log[i].fd >= 0)
            close(t->log[i].fd);
        t->log[i].fd = -1;
    }
    t->logging = false;
    cJSON_Delete(t->folder.held);
    t->folder.held = NULL;
    if (t->lock_fd >= 0)
        close(t->lock_fd); /* releases the lock */
    t->session = NULL;
    t->model = NULL;
    t->lock_fd = -1;
}

int tool_exit_code(tool_stage stage, mest_status status)
{
    switch (status) {
    case MEST_OK: return EXIT_DONE;
    case MEST_E_NOMEM:
    case MEST_E_LIMIT: return EXIT_LIMIT;
    case MEST_E_NUMERIC: return EXIT_NUMERIC;
    case MEST_E_PLUGIN: return EXIT_PLUGIN;
    case MEST_E_INTERNAL: return EXIT_INTERNAL;
    case MEST_E_CANCELLED: return EXIT_SIGNAL + (signals_caught() ? signals_caught() : SIGINT);
    case MEST_E_ARGUMENT: return EXIT_USAGE;
    case MEST_E_DATA: return stage == STAGE_MODEL ? EXIT_MODEL : EXIT_DATA;
    case MEST_E_UNSUPPORTED: /* once steps were planned, only a scheduler can find something it cannot do */
        return stage == STAGE_DATA ? EXIT_DATA : stage == STAGE_PLUGIN || stage == STAGE_TRAIN ? EXIT_PLUGIN : EXIT_MODEL;
    case MEST_E_SHAPE: return stage == STAGE_DATA || stage == STAGE_RUN || stage == STAGE_TRAIN ? EXIT_DATA : EXIT_MODEL;
    case MEST_E_IO:
        if (stage == STAGE_PLUGIN) /* one that a scheduler's options name */
            return EXIT_FILES; /* fall through */
    case MEST_E_FORMAT:
        return stage == STAGE_MODEL ? EXIT_MODEL : stage == STAGE_DATA ? EXIT_DATA : stage == STAGE_PLUGIN ? EXIT_PLUGIN : EXIT_FILES;
    case MEST_E_STATE: return stage == STAGE_PLUGIN ? EXIT_PLUGIN : EXIT_USAGE;
    }
    return EXIT_INTERNAL;
}

/* A progress bar is in the way of the next line. */
static void clear_line(tool *t)
{
    if (t->line_open)
        fputs("\r\033[K", stderr);
    t->line_open = false;
}

/* Texts hold names from model files: control characters must not reach the terminal. */
static void put_plain(const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, stderr);
    fputc('\n', stderr);
}

static int report(tool *t, int code, const char *status, const char *text)
{
    clear_line(t);
    fputs("mest-run: ", stderr);
    put_plain(text);
    if (json_wanted(t)) {
        cJSON *event = json_event("error");
        json_number(event, "exit", code);
        json_text(event, "status", status);
        json_text(event, "message", text);
        (void)json_emit(t, event); /* it failed already; there is no better place to say more */
    }
    return code;
}

int tool_fail(tool *t, tool_stage stage, const mest_error *err)
{
    mest_status status = err->code == MEST_OK ? MEST_E_INTERNAL : err->code;
    const char *text = err->msg[0] ? err->msg : mest_status_text(status);
    char longer[sizeof err->msg + 100];
    if (t->budget.refused && (status == MEST_E_NOMEM || status == MEST_E_LIMIT)) {
        snprintf(longer, sizeof longer, "%s (--mem-limit is %.1f MiB; the process had %.1f MiB before it opened anything)", text,
                 (double)t->s->memory_limit / (1 << 20), (double)t->budget.start_bytes / (1 << 20));
        text = longer;
    }
    return report(t, tool_exit_code(stage, status), mest_status_text(status), text);
}

int tool_refuse(tool *t, int code, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    report(t, code, NULL, text);
    if (code == EXIT_USAGE)
        fputs("Try 'mest-run --help'.\n", stderr);
    return code;
}

void tool_note(tool *t, const char *format, ...)
{
    if (t->s->quiet)
        return;
    char text[1400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    clear_line(t);
    fputs("mest-run: ", stderr);
    put_plain(text);
}
