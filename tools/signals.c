/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <unistd.h>

#include "tool.h"

static volatile sig_atomic_t caught;
static _Atomic(mest_session *) watched;

static void on_signal(int number)
{
    mest_session *session = atomic_load(&watched);
    if (caught || !session)
        _exit(EXIT_SIGNAL + number);
    caught = number;
    mest_session_cancel(session);
}

void signals_install(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* A closed pipe (mest-run ... | head) shall be a write error with its exit code, after the step was finished. */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* so is a file that grows past ulimit -f */
}

void signals_watch(mest_session *session) { atomic_store(&watched, session); }

int signals_caught(void) { return caught; }
