/* SPDX-License-Identifier: Apache-2.0 */
/* Who is told of the times of nodes. */
#include <string.h>

#include "runtime/counter.h"
#include "runtime/session.h"

void mest_session_profile(mest_session *s, void (*node)(void *user, mest_program_kind kind, int index, double seconds), void *user)
{
    if (s)
        s->profile.node = node, s->profile.user = user;
}

bool mest_session_trace(mest_session *s, void (*node)(void *user, const mest_node_time *time), void *user)
{
    if (!s)
        return false;
    mest_counter_close(s->profile.counter);
    s->profile.counter = node ? mest_counter_open() : -1;
    s->profile.trace = node;
    s->profile.trace_user = user;
    if (node && s->profile.counter < 0)
        mest_logf(s->heap, MEST_LOG_INFO, "no cycle counter: perf_event_open: %s", strerror(-s->profile.counter));
    return s->profile.counter >= 0;
}
