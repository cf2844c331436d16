/* SPDX-License-Identifier: Apache-2.0 */
/* mest/guest.h - work that is a good guest on somebody else's machine: it takes a share of the time, ends after a while, and pauses while a file
 * exists, while a battery is low or the machine is hot, and goes on by itself.
 *
 *   mest_guest           the rules and where they stand; put it into mest_run_options.guest, or call mest_guest_rest between pieces of own work
 *
 * All times are of the monotonic clock: setting the machine's clock changes nothing, and a machine that sleeps takes no time. One guest belongs
 * to one thread at a time; mest_guest_wake may be called from any thread and from a signal handler.
 */
#ifndef MEST_GUEST_H
#define MEST_GUEST_H

#include "mest/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mest_guest mest_guest;

typedef struct mest_guest_options {
    uint32_t struct_size;
    double time_limit;       /* seconds from mest_guest_create on; 0 (default): none */
    double cpu_share;        /* part of the time in which there is work, above 0, up to 1 (default): after work of 10 ms at 0.25 follow 30 ms of rest */
    const char *pause_file;  /* paused while something has this name; NULL (default): none. Copied */
    double min_battery;      /* percent: paused while a battery of the machine discharges and all of them together hold less; 0 (default): never */
    double max_temperature;  /* degrees Celsius: paused while a thermal zone is hotter; 0 (default): never */
    const char *sys_root;    /* where the system's readings are; NULL: "/sys". Copied */
    double poll_seconds;     /* how often file and readings are looked at; default 1 */
    const mest_allocator *allocator; /* lent for the guest's life; NULL: malloc */
} mest_guest_options;
MEST_API void mest_guest_options_init(mest_guest_options *options);

/* Batteries and thermal zones are looked for now; later only their readings are read, and nothing is allocated. No battery: mains, never low.
 * Errors: MEST_E_ARGUMENT: a number out of range; MEST_E_UNSUPPORTED: max_temperature is given and there is no thermal zone to read;
 * MEST_E_NOMEM. */
MEST_NODISCARD MEST_API mest_status mest_guest_create(mest_guest **guest, const mest_guest_options *options, mest_error *err);
MEST_API void mest_guest_destroy(mest_guest *guest);

typedef enum mest_guest_answer {
    MEST_GUEST_GO = 0,       /* the next piece of work may begin */
    MEST_GUEST_TIME = 1,     /* the time limit is over */
    MEST_GUEST_WOKEN = 2     /* mest_guest_wake was called: the caller wants to stop or to look around. Said once a call */
} mest_guest_answer;

/* What happens while it rests, for messages: `why` is the reason of a pause that begins ("'/tmp/pause' exists"), NULL when it ends. */
typedef void (*mest_guest_told)(void *user, const char *why);

/* After a piece of work: returns when the next may begin. The time between the end of the call before and now counts as work. It rests first for
 * the share, then for as long as there is a reason for a pause. Readings have a distance between pause and resumption, so that they do not
 * flutter: 2 points of percent, 3 degrees. told may be NULL. */
MEST_API mest_guest_answer mest_guest_rest(mest_guest *guest, mest_guest_told told, void *user);
/* Ends a rest within a tenth of a second. */
MEST_API void mest_guest_wake(mest_guest *guest);
/* Is the time limit over? */
MEST_API bool mest_guest_time_over(const mest_guest *guest);
/* Seconds rested for the share and paused for a reason so far; pointers may be NULL. */
MEST_API void mest_guest_rested(const mest_guest *guest, double *for_share, double *paused);

#ifdef __cplusplus
}
#endif
#endif
