/* SPDX-License-Identifier: Apache-2.0 */
/* punchedFxC: blocks of F consecutive outputs by C consecutive inputs, "punched" at the same kernel position (YOLObile, Cai et al., AAAI
 * 2021; its code has 8x4 and 16x4). A unit is one tap of such a block: F * C weights. With a 1x1 kernel it is the whole block.
 * Value e = j * F + h of a unit is output h, input j of its block. fb, cb count blocks of outputs and of inputs, t is the tap:
 *   outputs first   unit row fb, unit column cb * taps + t:  M[fb * F + h, (cb * C + j) * taps + t]
 *   inputs first    unit row cb, unit column fb * taps + t:  M[cb * C + j, (fb * F + h) * taps + t]
 * So the entries are those of C columns of blockF, and the block kernels run them. Blocks may reach past the matrix on both sides. */
#include <inttypes.h>

#include "sparse/rows.h"

static bool punched_parse(const char *suffix, mest_scheme *scheme)
{
    scheme->height = mest_scheme_number(&suffix, 64);
    if (scheme->height == 0 || *suffix++ != 'x')
        return false;
    scheme->width = mest_scheme_number(&suffix, 64);
    return scheme->width > 0 && *suffix == 0 && scheme->height * scheme->width <= MEST_UNIT_MOST;
}

static mest_status punched_configure(mest_sparse *s, mest_error *err)
{
    const int32_t f = s->scheme.height, c = s->scheme.width, span = s->inputs_first ? c : f, along = s->inputs_first ? f : c;
    s->height = f;
    s->unit_elements = f * c;
    s->row_span = span;
    s->unit_rows = (s->rows + span - 1) / span;
    s->unit_cols = (s->channels + along - 1) / along * s->taps;
    s->cell_cols = along * s->taps;
    s->cell_units = s->taps;
    s->ragged = s->channels % along != 0;
    return mest_rows_configure(s, err);
}

static void punched_element(const mest_sparse *s, int64_t k, int32_t *row, int32_t *col)
{
    const int32_t f = s->scheme.height, c = s->scheme.width;
    const int64_t first = k / s->taps * (s->inputs_first ? f : c), tap = k % s->taps;
    for (int32_t j = 0; j < c; j++)
        for (int32_t h = 0; h < f; h++) {
            const int32_t e = j * f + h, across = s->inputs_first ? j : h;
            const int64_t along = first + (s->inputs_first ? h : j);
            row[e] = across;
            col[e] = (int32_t)(along < s->channels ? along * s->taps + tap : -1);
        }
}

const mest_format mest_format_punched = {
    .family = "punched", .forms = "punchedFxC", .parse = punched_parse, .configure = punched_configure, .element = punched_element, MEST_ROWS_INDEX,
};
