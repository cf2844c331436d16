/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEST_TESTS_BACKEND_UPGRADE_H
#define MEST_TESTS_BACKEND_UPGRADE_H

#include <stddef.h>

/* Reads a model; if its opset is 1 or 6, writes it to `to` in the form of opset 7 and returns `to`. Otherwise, and when that is not possible, returns
 * `from`. What opset 7 changed: is_test left BatchNormalization and Dropout; broadcast and axis left the arithmetic operators and Gemm (an
 * Unsqueeze of B stands for axis). */
const char *upgrade_model(const char *from, const char *to);

#endif
