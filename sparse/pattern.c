/* SPDX-License-Identifier: Apache-2.0 */
/* pattern: 3x3 kernels that keep the positions of one of a few masks (4 of 9), or nothing; and the same number of kernels in every filter
 * ("connectivity"). With P masks, unit column i * P + p of row o is kernel (o, i) with mask p: a slot is a kernel, its choices are the
 * masks. Value e of a unit is M[o, 9 * i + tap[p][e]], taps ascending, so storage is in the order of the dense tensor.
 * Unit row o holds entries start[o]..start[o + 1]-1; col[q] / P is the input channel, col[q] % P the mask.
 *
 * A sparsity of the whole weight is converted to kernels once: kept of 9 positions remain in each kernel, so a part
 * 1 - (1 - s) * 9 / kept of the kernels goes, rounded down per filter (MEST's released code). */
#include "sparse/rows.h"

static bool pattern_parse(const char *suffix, mest_scheme *scheme)
{
    (void)scheme;
    return *suffix == 0;
}

static mest_status pattern_configure(mest_sparse *s, mest_error *err)
{
    MEST_CHECK(s->shape.rank == 4 && s->shape.dim[2] == 3 && s->shape.dim[3] == 3, err, MEST_E_SHAPE, "pattern: its masks are for 3x3 kernels");
    MEST_CHECK(!s->inputs_first, err, MEST_E_SHAPE, "pattern: not for transposed convolutions, whose filters lie apart");
    MEST_CHECK(s->channels > 1, err, MEST_E_SHAPE, "pattern: a filter of one kernel (depthwise) has none to remove");
    s->height = s->row_span = 1;
    s->unit_elements = s->patterns.kept;
    s->choices = s->patterns.n;
    s->unit_rows = s->rows;
    s->unit_cols = s->channels * s->choices;
    s->group_units = s->channels;
    s->cell_cols = MEST_PATTERN_TAPS;
    s->cell_units = 1;
    return mest_rows_configure(s, err);
}

static void pattern_element(const mest_sparse *s, int64_t k, int32_t *row, int32_t *col)
{
    const int32_t first = (int32_t)(k / s->choices * MEST_PATTERN_TAPS);
    const uint8_t *tap = s->patterns.tap[k % s->choices];
    for (int32_t e = 0; e < s->unit_elements; e++) {
        row[e] = 0;
        col[e] = first + tap[e];
    }
}

static int64_t pattern_units_at(const mest_sparse *s, double sparsity)
{
    const double kernels = 1 - (1 - sparsity) * MEST_PATTERN_TAPS / s->patterns.kept;
    if (kernels <= 0)
        return s->n_units;
    /* 1e-7 as in mest_units_at: 40 * 0.775 is a little below 31 in binary */
    return s->rows * (s->channels - (int64_t)((double)s->channels * kernels + 1e-7));
}

static double pattern_least_sparsity(const mest_sparse *s) { return 1.0 - (double)s->patterns.kept / MEST_PATTERN_TAPS; }

const mest_format mest_format_pattern = {
    .family = "pattern", .forms = "pattern", .parse = pattern_parse, .configure = pattern_configure, .element = pattern_element,
    .units_at = pattern_units_at, .least_sparsity = pattern_least_sparsity, MEST_ROWS_INDEX,
};
