/* SPDX-License-Identifier: Apache-2.0 */
/* http.h - requests and answers over libmicrohttpd. It reads bodies with limits, checks who may ask, and hands a whole request to a route. A route
 * answers at once, or later from another thread while the connection is put aside. */
#ifndef TOOLS_SERVE_HTTP_H
#define TOOLS_SERVE_HTTP_H

#include "serve/jobs.h"
#include "serve/served.h"

typedef struct server_options {
    const char *models;             /* folder */
    const char *address;            /* to listen on; default 127.0.0.1 */
    int64_t port;                   /* 0: any that is free */
    const char *port_file;          /* gets the number of the port; NULL: none */
    const char *token_file;         /* its first line becomes the token; NULL: none */
    char token[256];                /* "": none is asked for, which is allowed on loopback only */
    const char *allow_host;         /* a further value of the Host header that is accepted without a token; NULL: none */
    int64_t max_body, max_bodies;   /* bytes: of one request, of all requests together */
    int64_t max_connections, max_request_ms, idle_ms, drain_ms;
} server_options;

typedef struct server {
    server_options o;
    models models;
    jobs *jobs;                     /* requests that wait for a disk */
    server_metrics metrics;
    struct MHD_Daemon *daemon;
    int port;
    _Atomic int64_t body_bytes;     /* held by requests now */
    _Atomic int64_t open_requests, aside; /* begun; put aside until a route answers */
    atomic_bool stopping, closed;   /* answers end their connection; nothing is begun any more */
    struct watch *watch;            /* connections and how long they take */
} server;

typedef struct exchange {
    server *server;
    struct MHD_Connection *connection;
    char method[8], path[512];
    unsigned char *body;
    size_t size, room;
    size_t json_bytes;              /* Inference-Header-Content-Length of the request; 0: none */
    bool has_token;                 /* the right one */
    double begun_ms;
    int status;                     /* of the answer */
    text answer;
    const char *type;               /* of its content; default application/json */
    const char *policy;             /* Content-Security-Policy; NULL: none */
    size_t answer_json_bytes;       /* header of the same name; 0: none */
    atomic_bool done;
    bool aside, refused_early;
    struct route_job {              /* of a route that waits for a disk */
        job job;
        void (*answer)(struct exchange *x, served *model, int64_t version);
        served *model;
        int64_t version;
    } slow;
} exchange;

/* Starts listening. f says why not. */
bool http_start(server *s, fault *f);
/* Accepts nothing new, waits until every request is answered (drain_ms at most), stops. */
void http_stop(server *s);

/* For routes: the answer {"error": text} with f's status. */
void http_refuse(exchange *x, const fault *f);
/* A route that answers later calls http_later first, and http_done, from any thread, when the answer is complete; it must not touch x after that. */
void http_later(exchange *x);
void http_done(exchange *x);

#endif
