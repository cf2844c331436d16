/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEST_RUNTIME_SPARSIFY_H
#define MEST_RUNTIME_SPARSIFY_H

#include "runtime/model.h"

/* Loads every parameter that has no values yet. Initializers that are sparse in the file and were not sparsified otherwise keep their
 * pattern (csr), where kernels allow it. */
mest_status mest_model_materialise(mest_model *m, mest_error *err);

#endif
