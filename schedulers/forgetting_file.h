/* SPDX-License-Identifier: Apache-2.0 */
/* Forgetting counts and their file: "id,forgets,learned", one line per sample, numbers in decimal. */
#ifndef MEST_SCHEDULERS_FORGETTING_FILE_H
#define MEST_SCHEDULERS_FORGETTING_FILE_H

#include "mest/plugin.h"

/* State of a sample, 16 bits. */
enum {
    MEST_FORGET_PREVIOUS = 1, /* the last presentation was right */
    MEST_FORGET_LEARNED = 2,  /* some presentation was right */
    MEST_FORGET_EVENT = 4,    /* one forgetting event: the bits from here up count them */
    MEST_FORGET_MOST = 0x3fff,
    MEST_FORGET_PATH = 256
};

/* Writes the active samples of state[0..n-1]. MEST_E_IO. */
mest_status mest_forgetting_export(const char *path, const uint16_t *state, int64_t n, const mest_host_api *api, mest_host *host,
                                   mest_error *err);
/* Is there nothing at `path` that the export must not replace: a file that is none of ours? `import` (may be ""), a file that was read, is.
 * MEST_E_IO. */
mest_status mest_forgetting_may_export(const char *path, const char *import, mest_error *err);
/* Fills state[0..n-1] from lines "id,forgets" or "id,forgets,learned", all of one form, in any order, each sample once at most; one that is not
 * named counts as never learned. MEST_E_IO; MEST_E_DATA with file and line. */
mest_status mest_forgetting_import(const char *path, uint16_t *state, int64_t n, mest_error *err);
/* The same for a reader who does not know the samples yet: can it be read, and are its lines of that form? */
mest_status mest_forgetting_look(const char *path, mest_error *err);

#endif
