/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/watch.h"

#include <linux/tcp.h> /* that of the C library lacks tcpi_bytes_received */
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "serve/clock.h"

typedef struct watched {
    int socket;
    double since_ms;      /* since when a request comes in; 0: none does */
    bool answering;       /* one is being answered, which is not the client's time */
    unsigned long long bytes; /* received when the last answer was done: with more a request has begun */
    bool ended;
    struct watched *next, **link;
} watched;

struct watch {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    watched *first;
    double limit_ms;
    bool stopping;
    server_metrics *metrics;
};

/* Its owner sees the end of the connection and closes it; as long as it is in the list the socket is its own. */
static void end(watched *c, const char *words)
{
    if (words && send(c->socket, words, strlen(words), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        /* it was told, or it was not: it is ended either way */
    }
    shutdown(c->socket, SHUT_RDWR);
    c->ended = true;
}

#define UNKNOWN (~0ULL)

static unsigned long long received(const watched *c)
{
    struct tcp_info info;
    socklen_t n = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(c->socket, IPPROTO_TCP, TCP_INFO, &info, &n) != 0 || n < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return UNKNOWN; /* of an old kernel: its time goes on from the last answer */
    return info.tcpi_bytes_received;
}

static void *look(void *argument)
{
    struct watch *w = argument;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        double now = clock_ms();
        for (watched *c = w->first; c; c = c->next) {
            /* Nobody tells of a request's first byte. A connection that rests is closed after --idle-time, without a word. */
            const unsigned long long bytes = c->since_ms <= 0 && !c->answering && !c->ended ? received(c) : 0;
            if (bytes > c->bytes || bytes == UNKNOWN)
                c->since_ms = now;
            if (c->since_ms > 0 && !c->ended && now - c->since_ms > w->limit_ms) {
                end(c, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                atomic_fetch_add(&w->metrics->timed_out, 1);
            }
        }
        clock_wait(&w->changed, &w->lock, now + (w->limit_ms < 1000 ? w->limit_ms / 4 + 1 : 250));
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

struct watch *watch_create(double max_request_ms, server_metrics *metrics)
{
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    clock_condition(&w->changed);
    w->limit_ms = max_request_ms;
    w->metrics = metrics;
    if (pthread_create(&w->thread, NULL, look, w) == 0)
        return w;
    free(w);
    return NULL;
}

void watch_destroy(struct watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void watch_connection(void *user, struct MHD_Connection *connection, void **state, enum MHD_ConnectionNotificationCode code)
{
    struct watch *w = user;
    pthread_mutex_lock(&w->lock);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        watched *c = info ? calloc(1, sizeof *c) : NULL;
        if (c) {
            *c = (watched){.socket = info->connect_fd, .next = w->first, .link = &w->first};
            if (w->first)
                w->first->link = &c->next;
            w->first = c;
        }
        *state = c;
        atomic_fetch_add(&w->metrics->connections, 1);
        atomic_fetch_add(&w->metrics->connections_now, 1);
    } else {
        watched *c = *state;
        if (c) {
            *c->link = c->next;
            if (c->next)
                c->next->link = c->link;
            free(c);
        }
        *state = NULL;
        atomic_fetch_sub(&w->metrics->connections_now, 1);
    }
    pthread_mutex_unlock(&w->lock);
}

static void mark(struct watch *w, struct MHD_Connection *connection, bool answering)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    pthread_mutex_lock(&w->lock);
    watched *c = info ? info->socket_context : NULL;
    if (c) {
        c->answering = answering;
        c->since_ms = 0;
        if (!answering)
            c->bytes = received(c);
    }
    pthread_mutex_unlock(&w->lock);
}

void watch_received(struct watch *w, struct MHD_Connection *c) { mark(w, c, true); }
void watch_answered(struct watch *w, struct MHD_Connection *c) { mark(w, c, false); }

void watch_hang_up(struct watch *w)
{
    pthread_mutex_lock(&w->lock);
    for (watched *c = w->first; c; c = c->next)
        if (!c->answering && !c->ended)
            end(c, NULL);
    pthread_mutex_unlock(&w->lock);
}
