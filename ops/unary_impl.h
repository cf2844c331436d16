/* SPDX-License-Identifier: Apache-2.0 */
/* How the elementwise float operators are written: one expression each. Included by the files that define them.
 *
 *   UNARY(name, P, expr)   name_forward: y = expr of x;              P: type of the params, `p` points to them
 *   GRAD(name, P, expr)    name_grad_forward: dx = expr of z and dy; z is the operator's input or output, see the operator's entry
 *   OP / GRAD_OP           table entries
 */
#ifndef MEST_OPS_UNARY_IMPL_H
#define MEST_OPS_UNARY_IMPL_H

#include "ops/elements.h"

typedef struct no_params { char unused; } no_params;

#define UNARY(name, P, expr)                                                  \
    static void name##_row(const mest_io *io, const int64_t *off, int64_t n)  \
    {                                                                         \
        const mest_real *in = (const mest_real *)io->in[0] + off[1];          \
        mest_real *out = (mest_real *)io->out + off[0];                       \
        const P *p = io->params;                                              \
        (void)p;                                                              \
        MEST_IVDEP                                                            \
        for (int64_t i = 0; i < n; i++) {                                     \
            mest_real x = in[i];                                              \
            out[i] = (expr);                                                  \
        }                                                                     \
    }                                                                         \
    static mest_status name##_forward(const mest_args *a)                     \
    {                                                                         \
        mest_rows_all(a, name##_row);                                         \
        return MEST_OK;                                                       \
    }

#define GRAD(name, P, expr)                                                                            \
    static void name##_grad_row(const mest_io *io, const int64_t *off, int64_t n)                      \
    {                                                                                                  \
        const mest_real *zs = (const mest_real *)io->in[0] + off[1], *dys = (const mest_real *)io->in[1] + off[2]; \
        mest_real *out = (mest_real *)io->out + off[0];                                                \
        const P *p = io->params;                                                                       \
        (void)p;                                                                                       \
        MEST_IVDEP                                                                                     \
        for (int64_t i = 0; i < n; i++) {                                                              \
            mest_real z = zs[i], dy = dys[i];                                                          \
            out[i] = (expr);                                                                           \
        }                                                                                              \
    }                                                                                                  \
    static mest_status name##_grad_forward(const mest_args *a)                                         \
    {                                                                                                  \
        mest_rows_all(a, name##_grad_row);                                                             \
        return MEST_OK;                                                                                \
    }

/* PIXEL: may run over storage rows, where lanes past the batch hold any finite number: not for functions with poles. */
#define OP(onnx, c_name, pixel, attributes, P, vjp_rule)                                                               \
    {.domain = "", .name = onnx, .since = 1, .in_min = 1, .in_max = 1, .out_min = 1, .out_max = 1,                      \
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE, .act_in = (pixel) ? 1 : 0, .act_out = (pixel) ? 1 : 0,             \
     .attrs = attributes, .params_bytes = sizeof(P), .infer = mest_infer_float, .forward = c_name##_forward, .vjp = vjp_rule}
#define GRAD_OP(onnx, c_name, pixel, P)                                                                                \
    {.domain = "mest", .name = "mest." onnx "Grad", .since = 1, .in_min = 2, .in_max = 2, .out_min = 1, .out_max = 1,   \
     .flags = MEST_OP_ELEMENTWISE | MEST_OP_INPLACE, .act_in = (pixel) ? 3 : 0, .act_out = (pixel) ? 1 : 0,             \
     .params_bytes = sizeof(P), .infer = mest_infer_float, .forward = c_name##_grad_forward}

#define NO_ATTRS ((const mest_attr[]){{.name = NULL}})

#endif
