/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEST_RUNTIME_SPARSIFY_H
#define MEST_RUNTIME_SPARSIFY_H

#include "runtime/model.h"

/* Initializers that are sparse in the file and were not sparsified otherwise keep their pattern (csr), where kernels allow it. */
mest_status mest_adopt_sparse_initializers(mest_model *m, mest_error *err);

#endif
