/* SPDX-License-Identifier: Apache-2.0 */
/* The ONNX conformance cases as folders: model.onnx and test_data_set_0 with input_N.pb and output_N.pb.
 *
 *   case_data    tensors of one case
 *   case_result  what became of it
 *   cases_main   runs the suites against a list of expected failures
 */
#ifndef MEST_TESTS_BACKEND_CASES_H
#define MEST_TESTS_BACKEND_CASES_H

#include "runtime/graph.h"
#include "tests/backend/pb_tensor.h"

enum { MAX_VALUES = 64 };

typedef struct case_data {
    pb_tensor in[MAX_VALUES], out[MAX_VALUES];
    int n_in, n_out;
} case_data;

/* NULL, or what is wrong; to be freed in either case. */
const char *case_read(case_data *d, const char *dir);
void case_free(case_data *d);
/* Turns input i of the graph into a constant. The data stays with the case. */
void case_make_constant(mest_graph *g, int i, const pb_tensor *t);

typedef enum case_result { CASE_FAILED = 0, CASE_GOOD = 1, CASE_NOT_APPLICABLE = 2 } case_result;

/* Arguments of the program: folder of the suites, list of expected failures, then names of cases to run (default: all). Lines of the list are a name,
 * a tab and a reason; with a `prefix`, those that begin with it are meant, otherwise those without a colon. A listed case that does not fail is a
 * failure of the list, and so is one that does not exist. `end` prints a last line. Returns the exit code. */
int cases_main(int argc, char **argv, const char *prefix, case_result (*run)(const char *dir, char *text, size_t size), void (*end)(void));

#endif
