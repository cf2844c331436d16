/* SPDX-License-Identifier: Apache-2.0 */
/* Random problems for kernels, and what must come out of them. */
#ifndef MEST_TESTS_PROBLEM_H
#define MEST_TESTS_PROBLEM_H

#include "naive.h"
#include "runtime/alloc.h"

enum { CONV, CONV_GRAD, TRANSPOSE, TRANSPOSE_GRAD, GEMM, GEMM_GRAD, MATMUL, MATMUL_GRAD };

/* A random problem; matrix products are 1x1 convolutions of 1x1 images. */
typedef struct problem {
    int op;
    bool transposed, matrix, gradient, inputs_first;
    mest_conv_geometry g;
    mest_conv_params conv;
    mest_gemm_params gemm;
    int64_t ints[16];
    int c_kind; /* Gemm's C: 0 absent, 1 [M], 2 [1, M], 3 [N, M], 4 [N, 1], 5 scalar, 6 [1] */
    bool bias;
    int lead;   /* MatMul: leading axes of A */
    bool want[3];
    char format[16];
    bool flag;   /* the format is told which axis is the input (or the contrary) */
    int density; /* percent */
    mest_shape weight_shape;
    int64_t rows, cols;
    double *x, *dy, *w, *b;            /* as naive.h wants them; x the operator's input, dy as its output */
    int64_t n_x, n_y, n_w, n_b;
    double *mask;                      /* of w: 1 stored */
} problem;

extern mest_heap test_heap;

void seed_problems(uint64_t seed);
int64_t pick(int64_t from, int64_t to); /* uniform, both ends included */
double value(void);                     /* exact in float */
void *get(size_t n, size_t size);       /* zeroed; ends the program when there is no memory */
double *doubles(int64_t n);
void drop(void *p, int64_t n, size_t size);

void draw_problem(problem *p);
void draw_fused_problem(problem *p, bool large); /* a convolution or its gradient; large: millions of multiply-adds */
void free_problem(problem *p);
/* From the storage of the weight (row * cols + col) to the order of p->w. */
int64_t weight_place(const problem *p, int64_t at);
mest_shape shape_of(int rank, int64_t a, int64_t b, int64_t c, int64_t d);
mest_shape image(const mest_conv_geometry *g, bool large);
mest_shape c_shape(const problem *p); /* of Gemm's C */
/* The outputs of the operator, all three of a gradient, at the entries p->mask says are stored. */
void expect(const problem *p, sums out[3]);

#endif
