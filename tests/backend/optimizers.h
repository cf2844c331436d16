/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance cases of the training domain: one node that is an optimizer's step. */
#ifndef MEST_TESTS_BACKEND_OPTIMIZERS_H
#define MEST_TESTS_BACKEND_OPTIMIZERS_H

#include <stddef.h>

/* 1: the numbers are those of the case; 0: they are not, with a reason in text; -1: the model is not an optimizer. */
int run_optimizer_case(const char *dir, char *text, size_t size);

#endif
