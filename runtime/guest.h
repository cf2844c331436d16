/* SPDX-License-Identifier: Apache-2.0 */
/* What the trainer needs of a guest beside mest/guest.h. */
#ifndef MEST_RUNTIME_GUEST_H
#define MEST_RUNTIME_GUEST_H

#include <stdatomic.h>

#include "mest/guest.h"

/* Work begins now, and a rest ends with MEST_GUEST_WOKEN when *stop is set (it is not cleared); NULL: no longer. Returns what it was before. */
const _Atomic bool *mest_guest_work(mest_guest *guest, const _Atomic bool *stop);

#endif
