/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "rundir.h"

#define BAR_SECONDS 0.1
#define LINE_SECONDS 10.0

double progress_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int progress_columns(int fd)
{
    const char *text = getenv("COLUMNS");
    struct winsize size;
    int columns = text ? atoi(text) : 0;
    if (columns > 0)
        return columns;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

static bool has_cursor(void)
{
    const char *term = getenv("TERM");
    return term && *term && strcmp(term, "dumb") != 0;
}

bool progress_colour(int fd)
{
    const char *no = getenv("NO_COLOR");
    return isatty(fd) && has_cursor() && !(no && *no);
}

void progress_duration(char *text, size_t size, double seconds)
{
    int64_t s = seconds > 0 && seconds < 1e12 ? (int64_t)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(text, size, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
    else
        snprintf(text, size, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

void progress_init(progress *p, tool *t)
{
    const settings *s = t->s;
    memset(p, 0, sizeof *p);
    p->t = t;
    p->task = "validating"; /* after an epoch; cmd_measure has names of its own */
    p->bar = !s->quiet && strcmp(s->progress, "off") != 0 && has_cursor() && (isatty(STDERR_FILENO) || strcmp(s->progress, "on") == 0);
    p->colour = p->bar && progress_colour(STDERR_FILENO);
    p->began = p->logged = progress_clock();
    p->validation_epoch = p->last_epoch = -1;
}

/* ---- text ---- */

typedef struct line {
    char text[512];
    int n, columns;
} line;

/* Appends a field if the whole of it still fits: fields come in order of importance. */
static void put(line *l, const char *format, ...) MEST_PRINTF(2, 3);
static void put(line *l, const char *format, ...)
{
    char field[128];
    va_list list;
    va_start(list, format);
    int n = vsnprintf(field, sizeof field, format, list);
    va_end(list);
    if (n > 0 && n < (int)sizeof field && l->n + n + 2 < l->columns && l->n + n + 2 < (int)sizeof l->text)
        l->n += snprintf(l->text + l->n, sizeof l->text - (size_t)l->n, "%s%s", l->n ? "  " : "", field);
}

/* Steps per second since this process began to train; the steps before a resumption do not count. */
static double step_rate(const progress *p) { return (double)p->steps / fmax(progress_clock() - p->began, 1e-9); }

static void put_numbers(const progress *p, line *l, const mest_event *e)
{
    const mest_metrics *m = e->train.samples ? &e->train : &e->batch;
    bool end = e->kind == MEST_EVENT_EPOCH;
    put(l, "loss %.4f", m->loss);
    if (isfinite(m->accuracy))
        put(l, "acc %.2f%%", 100 * m->accuracy);
    if (end && e->validation.samples) {
        put(l, "val loss %.4f", e->validation.loss);
        if (isfinite(e->validation.accuracy))
            put(l, "val acc %.2f%%", 100 * e->validation.accuracy);
    }
    if (e->kind == MEST_EVENT_EVALUATION)
        return;
    if (e->sparsity > 0)
        put(l, "sparsity %.1f%%", 100 * e->sparsity);
    if (m->seconds > 0)
        put(l, "%.0f images/s", (double)m->samples / m->seconds);
    if (p->steps > 0 && e->n_total_steps > e->total_step) {
        char eta[32];
        progress_duration(eta, sizeof eta, (double)(e->n_total_steps - e->total_step) / step_rate(p));
        put(l, "eta %s", eta);
    }
    put(l, "%.1f MB", (double)e->peak_bytes / 1e6);
    put(l, "lr %.4g", e->lr);
}

static void put_place(const progress *p, line *l, const mest_event *e)
{
    if (e->kind == MEST_EVENT_EVALUATION)
        put(l, "%s", p->task);
    else if (e->n_epochs > 0)
        put(l, "epoch %" PRId64 "/%" PRId64, e->epoch + 1, e->n_epochs);
    else
        put(l, "epoch %" PRId64, e->epoch + 1);
}

static void show_bar(progress *p, const mest_event *e)
{
    line l = {.columns = progress_columns(STDERR_FILENO)};
    put_place(p, &l, e);
    double part = e->n_steps > 0 ? fmin((double)e->step / (double)e->n_steps, 1) : 0;
    int width = l.columns >= 100 ? 24 : l.columns >= 70 ? 14 : 0, from = 0, to = 0;
    if (width) {
        char bar[32];
        int full = (int)(part * width);
        for (int i = 0; i < width; i++)
            bar[i] = i < full ? '=' : i == full ? '>' : ' ';
        from = l.n;
        put(&l, "[%.*s]", width, bar);
        to = l.n;
    }
    put(&l, "%" PRId64 "/%" PRId64, e->step, e->n_steps);
    put_numbers(p, &l, e);
    if (p->colour && to > from)
        fprintf(stderr, "\r%.*s\033[32m%.*s\033[0m%s\033[K", from, l.text, to - from, l.text + from, l.text + to);
    else
        fprintf(stderr, "\r%s\033[K", l.text);
    fflush(stderr);
    p->t->line_open = true;
}

static void show_line(progress *p, const mest_event *e)
{
    line l = {.columns = (int)sizeof l.text};
    put_place(p, &l, e);
    put(&l, "step %" PRId64 "/%" PRId64, e->step, e->n_steps);
    put_numbers(p, &l, e);
    progress_clear(p);
    fprintf(stderr, "%s\n", l.text);
}

void progress_clear(progress *p)
{
    if (p->t->line_open)
        fputs("\r\033[K", stderr);
    p->t->line_open = false;
}

/* ---- events ---- */

static const char *event_name(mest_event_kind kind)
{
    switch (kind) {
    case MEST_EVENT_STEP: return "step";
    case MEST_EVENT_EPOCH: return "epoch";
    case MEST_EVENT_MUTATION: return "mutation";
    case MEST_EVENT_SAMPLES: return "samples";
    case MEST_EVENT_CHECKPOINT: return "checkpoint";
    case MEST_EVENT_EVALUATION: return "evaluation";
    case MEST_EVENT_VERSION: return "version";
    case MEST_EVENT_PAUSE: return "pause";
    case MEST_EVENT_CONTINUE: return "continue";
    }
    return "other";
}

/* What a mutation did to each layer that it changed. */
static void log_layers(const progress *p, cJSON *event)
{
    cJSON *layers = event ? cJSON_AddArrayToObject(event, "layers") : NULL;
    mest_pattern_info info = {.struct_size = sizeof info};
    for (int i = 0; layers && mest_session_pattern(p->t->session, i, &info); i++) {
        cJSON *layer = info.removed || info.grown ? cJSON_CreateObject() : NULL;
        if (!layer)
            continue;
        json_text(layer, "name", info.name);
        json_number(layer, "units", (double)info.n_active);
        json_number(layer, "density", info.density);
        json_number(layer, "removed", (double)info.removed);
        json_number(layer, "grown", (double)info.grown);
        json_number(layer, "earlier", (double)info.earlier);
        json_number(layer, "survivors", (double)info.survivors);
        json_number(layer, "distance", info.distance);
        cJSON_AddItemToArray(layers, layer);
    }
}

static void log_event(progress *p, const mest_event *e)
{
    if (!json_wanted(p->t))
        return;
    cJSON *event = json_event(event_name(e->kind));
    json_number(event, "epoch", (double)e->epoch);
    json_number(event, "step", (double)e->total_step);
    json_number(event, "steps", (double)e->n_total_steps);
    json_number(event, "time", progress_clock() - p->began);
    if (e->kind == MEST_EVENT_STEP || e->kind == MEST_EVENT_EPOCH) {
        json_number(event, "lr", e->lr);
        if (e->kind == MEST_EVENT_STEP)
            json_metrics(event, "batch", &e->batch);
        json_metrics(event, "train", &e->train);
        if (e->kind == MEST_EVENT_EPOCH && e->validation.samples)
            json_metrics(event, "validation", &e->validation);
        json_number(event, "sparsity", e->sparsity);
        json_number(event, "active_samples", (double)e->active_samples);
        json_number(event, "peak_bytes", (double)e->peak_bytes);
        int64_t held = 0; /* less than the peak once layers are frozen */
        mest_session_memory(p->t->session, &held, NULL);
        json_number(event, "held_bytes", (double)held);
        if (e->kind == MEST_EVENT_EPOCH)
            json_number(event, "scheduler_seconds", e->scheduler_seconds);
    } else {
        if (e->kind == MEST_EVENT_MUTATION) {
            json_number(event, "removed", (double)e->removed);
            json_number(event, "grown", (double)e->grown);
            json_number(event, "sparsity", e->sparsity);
            json_number(event, "earlier", (double)e->earlier);
            json_number(event, "survivors", (double)e->survivors);
            json_number(event, "distance", e->distance);
            json_number(event, "scheduler_seconds", e->scheduler_seconds);
            log_layers(p, event);
        }
        if (e->kind == MEST_EVENT_SAMPLES) {
            json_number(event, "active_samples", (double)e->active_samples);
            json_number(event, "samples", (double)e->n_samples);
        }
        if (e->text)
            json_text(event, "text", e->text);
    }
    if (!json_emit(p->t, event))
        p->failed = true;
}

/* Steps and batches of an evaluation: often, so they are shown and logged now and then only. */
static void frequent(progress *p, const mest_event *e)
{
    const settings *s = p->t->s;
    double now = progress_clock();
    bool train = e->kind == MEST_EVENT_STEP;
    int64_t number = e->total_step;
    bool due = train && s->log_interval > 0 ? number % s->log_interval == 0 : now - p->logged >= LINE_SECONDS;
    if (due) {
        p->logged = now;
        if (train)
            log_event(p, e);
        if (!s->quiet && !p->bar && strcmp(s->progress, "off") != 0)
            show_line(p, e);
    }
    if (p->bar && (now - p->shown >= BAR_SECONDS || e->step == e->n_steps)) {
        p->shown = now;
        show_bar(p, e);
    }
}

/* The parts of an event's text, which "; " divides, that speak of `what`: a callback that moves units and takes samples away is told in two events. */
static const char *parts_about(const char *text, const char *what, char *out, size_t size)
{
    out[0] = 0;
    for (size_t used = 0; text && *text;) {
        const char *end = strstr(text, "; ");
        const int n = end ? (int)(end - text) : (int)strlen(text);
        char part[256];
        snprintf(part, sizeof part, "%.*s", n, text);
        if (strstr(part, what) && used < size)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "; " : "", part);
        text = end ? end + 2 : NULL;
    }
    return out;
}

/* What the first step did to the weights, the loss of the second one tells. */
static bool has_trained(const progress *p, mest_event_kind kind)
{
    return kind == MEST_EVENT_EPOCH || kind == MEST_EVENT_CHECKPOINT || (kind == MEST_EVENT_STEP && p->steps > 0);
}

bool progress_event(void *user, const mest_event *event)
{
    progress *p = user;
    const settings *s = p->t->s;
    bool lines = !s->quiet && strcmp(s->progress, "off") != 0;
    char told[512];
    if (p->code == 0 && has_trained(p, event->kind))
        p->code = rundir_open(p->t);
    if (p->code)
        return false;
    switch (event->kind) {
    case MEST_EVENT_STEP:
        p->steps++;
        p->samples += event->batch.samples;
        p->train = event->train;
        p->last_epoch = event->epoch;
        frequent(p, event);
        break;
    case MEST_EVENT_EVALUATION:
        frequent(p, event);
        break;
    case MEST_EVENT_EPOCH:
        p->epochs_done++;
        p->train = event->train;
        if (event->validation.samples) {
            p->validation = event->validation;
            p->validation_epoch = event->epoch;
        }
        p->logged = progress_clock();
        log_event(p, event);
        if (lines)
            show_line(p, event);
        break;
    case MEST_EVENT_MUTATION:
        log_event(p, event);
        if (s->verbose && *parts_about(event->text, "units", told, sizeof told))
            tool_note(p->t, "epoch %" PRId64 ": %s", event->epoch + 1, told);
        else if (s->verbose)
            tool_note(p->t, "epoch %" PRId64 ": %" PRId64 " units removed, %" PRId64 " grown", event->epoch + 1, event->removed, event->grown);
        break;
    case MEST_EVENT_SAMPLES:
        log_event(p, event);
        if (lines) {
            const bool more = *parts_about(event->text, "samples", told, sizeof told);
            tool_note(p->t, "epoch %" PRId64 ": %" PRId64 " of %" PRId64 " samples are trained on%s%s", event->epoch + 1, event->active_samples,
                      event->n_samples, more ? "; " : "", told);
        }
        break;
    case MEST_EVENT_CHECKPOINT:
        log_event(p, event);
        if (s->verbose)
            tool_note(p->t, "checkpoint%s%s", event->text ? ": " : "", event->text ? event->text : "");
        break;
    case MEST_EVENT_PAUSE:
    case MEST_EVENT_CONTINUE:
        log_event(p, event);
        tool_note(p->t, "step %" PRId64 ": %s%s", event->total_step, event->text ? "paused: " : "going on", event->text ? event->text : "");
        break;
    case MEST_EVENT_VERSION: /* for services: the command line publishes nothing */
        log_event(p, event);
        break;
    }
    return !p->failed && !signals_caught();
}
