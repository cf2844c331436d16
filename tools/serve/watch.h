/* SPDX-License-Identifier: Apache-2.0 */
/* watch.h - connections that take too long. libmicrohttpd ends connections that are idle; a client that sends a byte now and then is never idle, so
 * the whole time from the first byte of a request to its last is bounded here. */
#ifndef TOOLS_SERVE_WATCH_H
#define TOOLS_SERVE_WATCH_H

#include <microhttpd.h>

#include "serve/metrics.h"

struct watch *watch_create(double max_request_ms, server_metrics *metrics);
void watch_destroy(struct watch *w);
/* MHD_NotifyConnectionCallback */
void watch_connection(void *user, struct MHD_Connection *c, void **state, enum MHD_ConnectionNotificationCode code);
/* The request was read to its end; the answer was sent, the next may come. */
void watch_received(struct watch *w, struct MHD_Connection *c);
void watch_answered(struct watch *w, struct MHD_Connection *c);
/* Ends all connections that wait for a request or are in the middle of one. */
void watch_hang_up(struct watch *w);

#endif
