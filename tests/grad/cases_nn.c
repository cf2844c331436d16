/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient cases of the neural-network operators. */
#include "tests/grad/cases.h"

const grad_case grad_cases_nn[] = { { .name = NULL } };
const grad_exempt grad_exempt_nn[] = { { .op = NULL } };
