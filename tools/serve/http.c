/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "serve/clock.h"
#include "serve/guard.h"
#include "serve/routes.h"
#include "serve/watch.h"
#include "whole_file.h"

/* ---- answers ---- */
void http_refuse(exchange *x, const fault *f)
{
    text_free(&x->answer);
    x->answer = (text){0};
    x->status = f->status ? f->status : 500;
    x->type = NULL;
    x->answer_json_bytes = 0;
    text_printf(&x->answer, "{\"error\":");
    text_quote(&x->answer, f->text);
    text_printf(&x->answer, "}\n");
}

static enum MHD_Result send_answer(exchange *x)
{
    if (x->answer.failed) {
        x->answer = (text){0};
        x->status = 503;
    }
    struct MHD_Response *r = MHD_create_response_from_buffer(x->answer.size, x->answer.data, MHD_RESPMEM_MUST_FREE);
    if (!r)
        return MHD_NO;
    x->answer = (text){0}; /* the response's now */
    MHD_add_response_header(r, "Content-Type", x->answer_json_bytes ? "application/octet-stream" : x->type ? x->type : "application/json");
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (x->policy)
        MHD_add_response_header(r, "Content-Security-Policy", x->policy);
    if (x->answer_json_bytes) {
        char number[32];
        snprintf(number, sizeof number, "%zu", x->answer_json_bytes);
        MHD_add_response_header(r, "Inference-Header-Content-Length", number);
    }
    if (x->status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (x->status == 503)
        MHD_add_response_header(r, "Retry-After", "1");
    if (x->refused_early || atomic_load(&x->server->stopping))
        MHD_add_response_header(r, "Connection", "close");
    enum MHD_Result queued = MHD_queue_response(x->connection, (unsigned)x->status, r);
    MHD_destroy_response(r);
    atomic_fetch_add(&x->server->metrics.requests[x->status / 100 % 6], 1);
    return queued;
}

static enum MHD_Result refuse_now(exchange *x, fault *f)
{
    http_refuse(x, f);
    x->refused_early = true; /* the rest of the body is not read */
    return send_answer(x);
}

void http_later(exchange *x)
{
    x->aside = true;
    atomic_fetch_add(&x->server->aside, 1);
    MHD_suspend_connection(x->connection);
}

void http_done(exchange *x)
{
    struct MHD_Connection *c = x->connection;
    server *s = x->server;
    bool aside = x->aside;
    atomic_store(&x->done, true);
    if (!aside)
        return;
    MHD_resume_connection(c);
    atomic_fetch_sub(&s->aside, 1);
}

/* ---- requests ---- */
static bool begin(exchange *x, const char *url, const char *method, fault *f)
{
    x->begun_ms = clock_ms();
    if (strlen(url) >= sizeof x->path || strlen(method) >= sizeof x->method)
        return refuse(f, 414, "the path is too long");
    strcpy(x->path, url);
    strcpy(x->method, method);
    if (!guard_admits(x, f))
        return false;
    const char *length = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Content-Length");
    const char *encoding = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Content-Encoding");
    const char *json = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Inference-Header-Content-Length");
    if (encoding && strcasecmp(encoding, "identity") != 0)
        return refuse(f, 415, "Content-Encoding is not supported");
    if (length && strtoull(length, NULL, 10) > (unsigned long long)x->server->o.max_body)
        return refuse(f, 413, "the body is larger than %lld bytes", (long long)x->server->o.max_body);
    if (json) {
        char *end;
        errno = 0;
        unsigned long long n = strtoull(json, &end, 10);
        if (*json < '0' || *json > '9' || *end || errno || n == 0 || n > (unsigned long long)x->server->o.max_body)
            return refuse(f, 400, "Inference-Header-Content-Length is no number of bytes");
        x->json_bytes = (size_t)n;
    }
    return true;
}

/* Room is counted as it is taken: a header that promises much takes nothing. */
static bool receive(exchange *x, const char *data, size_t size, fault *f)
{
    server *s = x->server;
    if (x->size + size > (size_t)s->o.max_body)
        return refuse(f, 413, "the body is larger than %lld bytes", (long long)s->o.max_body);
    if (x->size + size > x->room) {
        size_t room = x->room ? x->room : 4096;
        while (room < x->size + size)
            room *= 2;
        int64_t more = (int64_t)(room - x->room);
        if (atomic_fetch_add(&s->body_bytes, more) + more > s->o.max_bodies) {
            atomic_fetch_sub(&s->body_bytes, more);
            return refuse(f, 503, "the bodies of all requests together are larger than %lld bytes", (long long)s->o.max_bodies);
        }
        unsigned char *body = realloc(x->body, room);
        if (!body) {
            atomic_fetch_sub(&s->body_bytes, more);
            return refuse(f, 503, "out of memory");
        }
        x->body = body;
        x->room = room;
    }
    memcpy(x->body + x->size, data, size);
    x->size += size;
    atomic_fetch_add(&s->metrics.bytes_in, (int64_t)size);
    return true;
}

static enum MHD_Result access_handler(void *user, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
                                      const char *data, size_t *data_size, void **state)
{
    (void)version;
    server *s = user;
    exchange *x = *state;
    fault f = {0};
    if (!x) {
        x = calloc(1, sizeof *x);
        if (!x)
            return MHD_NO;
        *state = x;
        atomic_init(&x->done, false);
        x->server = s;
        x->connection = connection;
        atomic_fetch_add(&s->open_requests, 1);
        return begin(x, url, method, &f) ? MHD_YES : refuse_now(x, &f);
    }
    if (x->refused_early) {
        if (!*data_size)
            return send_answer(x);
        *data_size = 0;
        return MHD_YES;
    }
    if (*data_size) {
        bool good = receive(x, data, *data_size, &f);
        *data_size = 0;
        if (good)
            return MHD_YES;
        /* a response cannot be queued before the body ends: say it when it does, and keep nothing until then */
        http_refuse(x, &f);
        x->refused_early = true;
        atomic_fetch_sub(&s->body_bytes, (int64_t)x->room);
        free(x->body);
        x->body = NULL;
        x->size = x->room = 0;
        return MHD_YES;
    }
    watch_received(s->watch, connection);
    if (!x->aside)
        route(x);
    return atomic_load(&x->done) ? send_answer(x) : MHD_YES;
}

static void completed(void *user, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode code)
{
    (void)code;
    server *s = user;
    exchange *x = *state;
    if (!x)
        return;
    watch_answered(s->watch, connection);
    atomic_fetch_sub(&s->body_bytes, (int64_t)x->room);
    atomic_fetch_sub(&s->open_requests, 1);
    free(x->body);
    text_free(&x->answer);
    free(x);
    *state = NULL;
}

static void quiet(void *user, const char *format, va_list args)
{
    (void)user, (void)format, (void)args; /* what clients do wrong is counted, not logged: a log is a disk that can be filled */
}

/* ---- life ---- */
static bool write_port(const server *s, fault *f)
{
    whole_file w;
    bool good = !s->o.port_file || (whole_open(&w, s->o.port_file) && whole_close(&w, fprintf(w.file, "%d\n", s->port) > 0));
    return good || refuse(f, 500, "%s: %s", s->o.port_file, strerror(errno));
}

bool http_start(server *s, fault *f)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->o.port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)s->o.port)};
    bool six = strchr(s->o.address, ':') != NULL;
    if (inet_pton(six ? AF_INET6 : AF_INET, s->o.address, six ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1)
        return refuse(f, 400, "'%s' is no address", s->o.address);
    s->jobs = jobs_create();
    s->watch = watch_create((double)s->o.max_request_ms, &s->metrics);
    if (!s->watch || !s->jobs)
        return refuse(f, 503, "out of memory");
    unsigned flags = MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (six ? MHD_USE_IPv6 : 0u);
    s->daemon = MHD_start_daemon(flags, (uint16_t)s->o.port, NULL, NULL, access_handler, s, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL,
                                 MHD_OPTION_SOCK_ADDR, six ? (void *)&v6 : (void *)&v4, MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.max_connections,
                                 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)((s->o.idle_ms + 999) / 1000), MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32768,
                                 MHD_OPTION_NOTIFY_COMPLETED, completed, s, MHD_OPTION_NOTIFY_CONNECTION, watch_connection, s->watch,
                                 MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    if (!s->daemon)
        return refuse(f, 500, "cannot listen on %s port %d: %s", s->o.address, (int)s->o.port, strerror(errno));
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info ? info->port : (int)s->o.port;
    return write_port(s, f);
}

void http_stop(server *s)
{
    if (s->daemon) {
        atomic_store(&s->stopping, true);
        int listening = MHD_quiesce_daemon(s->daemon);
        if (listening >= 0)
            close(listening);
        double until = clock_ms() + (double)s->o.drain_ms;
        /* requests that are put aside must come back before the daemon may stop, however long that takes: workers always finish */
        while (atomic_load(&s->open_requests) > 0 && clock_ms() < until)
            usleep(2000);
        atomic_store(&s->closed, true);
        while (atomic_load(&s->aside) > 0)
            usleep(2000);
        watch_hang_up(s->watch);
        MHD_stop_daemon(s->daemon);
        s->daemon = NULL;
    }
    jobs_destroy(s->jobs);
    s->jobs = NULL;
    watch_destroy(s->watch);
    s->watch = NULL;
}
