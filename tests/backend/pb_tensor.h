/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of the conformance data: a file holds one TensorProto. Floats of any width become MEST_F32, as in an imported model. */
#ifndef MEST_TESTS_BACKEND_PB_TENSOR_H
#define MEST_TESTS_BACKEND_PB_TENSOR_H

#include "runtime/tensor.h"

typedef struct pb_tensor {
    mest_type type;
    void *data;    /* malloc; MEST_F32 as mest_real */
    int64_t count;
} pb_tensor;

/* Returns NULL, or a text that says what is wrong. */
const char *pb_tensor_read(pb_tensor *t, const char *path);
void pb_tensor_free(pb_tensor *t);
/* rtol 1e-3, atol 1e-7 for floats, equality for the rest; writes the first difference to text. `data` has the type `type`. */
bool pb_tensor_same(const pb_tensor *want, const mest_type *type, const void *data, char *text, size_t size);

#endif
