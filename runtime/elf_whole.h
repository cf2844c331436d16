/* SPDX-License-Identifier: Apache-2.0 */
/* Is a shared object whole? The dynamic loader maps what a file's headers promise without asking how long the file is: of one that was cut
 * short it touches pages that do not exist, and the process ends in SIGBUS instead of an error. */
#ifndef MEST_RUNTIME_ELF_WHOLE_H
#define MEST_RUNTIME_ELF_WHOLE_H

#include "runtime/status.h"

/* MEST_E_PLUGIN, with the path, unless `path` is a regular file that is a shared object for this process and as long as its headers say.
 * MEST_OK where there is nothing to look at (the file cannot be opened, or the system has no ELF): dlopen tells why better. */
mest_status mest_elf_whole(const char *path, mest_error *err);

#endif
