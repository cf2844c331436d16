/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse/patterns.h"

#include <stdlib.h>
#include <string.h>

/* P1..P8 */
static const mest_patterns eight = {
    .n = 8, .kept = 4,
    .mask = {0x1b0, 0x0d8, 0x036, 0x01b, 0x1e0, 0x0b8, 0x0b2, 0x09a},
    .tap = {{4, 5, 7, 8}, {3, 4, 6, 7}, {1, 2, 4, 5}, {0, 1, 3, 4}, {5, 6, 7, 8}, {3, 4, 5, 7}, {1, 4, 5, 7}, {1, 3, 4, 7}},
    .rotates = false,
};

const mest_patterns *mest_patterns_default(void) { return &eight; }

static uint16_t rotated(uint16_t mask)
{
    uint16_t r = 0;
    for (int i = 0; i < MEST_PATTERN_TAPS; i++)
        if (mask >> i & 1)
            r |= (uint16_t)(1u << (MEST_PATTERN_TAPS - 1 - i));
    return r;
}

mest_status mest_patterns_make(mest_patterns *p, const uint16_t *mask, int n, mest_error *err)
{
    mest_patterns made = {.n = n, .rotates = true};
    MEST_CHECK(n >= 1 && n <= MEST_PATTERNS_MOST, err, MEST_E_ARGUMENT, "patterns: %d masks; 1 to %d are possible", n, (int)MEST_PATTERNS_MOST);
    for (int i = 0; i < n; i++) {
        MEST_CHECK(mask[i] > 0 && mask[i] < 1u << MEST_PATTERN_TAPS, err, MEST_E_ARGUMENT, "patterns: mask 0x%x is not one of 3x3 positions", mask[i]);
        int kept = 0;
        for (int t = 0; t < MEST_PATTERN_TAPS; t++)
            if (mask[i] >> t & 1)
                made.tap[i][kept++] = (uint8_t)t;
        MEST_CHECK(i == 0 || kept == made.kept, err, MEST_E_ARGUMENT, "patterns: mask 0x%x keeps %d positions, 0x%x keeps %d; all must keep the same",
                   mask[i], kept, mask[0], made.kept);
        made.kept = kept;
        made.mask[i] = mask[i];
        for (int k = 0; k < i; k++)
            MEST_CHECK(mask[k] != mask[i], err, MEST_E_ARGUMENT, "patterns: mask 0x%x is there twice", mask[i]);
    }
    for (int i = 0; i < n; i++) {
        bool found = false;
        for (int k = 0; k < n; k++)
            found |= mask[k] == rotated(mask[i]);
        made.rotates &= found;
    }
    *p = made;
    return MEST_OK;
}

/* One word of the text: a number, or a row of three. Returns false for anything else. */
static bool row_of(const char *at, size_t n, unsigned *bits)
{
    *bits = 0;
    if (n != 3)
        return false;
    for (int i = 0; i < 3; i++) {
        if (at[i] != 'x' && at[i] != '1' && at[i] != '.' && at[i] != '0')
            return false;
        *bits |= (at[i] == 'x' || at[i] == '1' ? 1u : 0u) << i;
    }
    return true;
}

mest_status mest_patterns_parse(mest_patterns *p, const char *text, const char *name, mest_error *err)
{
    uint16_t mask[MEST_PATTERNS_MOST];
    int n = 0, rows = 0, line = 1;
    unsigned open = 0;
    for (const char *at = text; *at;) {
        if (*at == '#') {
            at += strcspn(at, "\n");
            continue;
        }
        if (*at == '\n' || *at == '\r' || *at == ' ' || *at == '\t' || *at == ',') {
            line += *at++ == '\n';
            continue;
        }
        size_t length = strcspn(at, " \t\r\n,#");
        unsigned bits;
        bool whole = false;
        if (row_of(at, length, &bits)) { /* three digits 0 or 1 are a row, not a number */
            open |= bits << 3 * rows++;
            whole = rows == 3;
        } else {
            char *end;
            MEST_CHECK(rows == 0, err, MEST_E_FORMAT, "%s: line %d: a pattern needs three rows of three positions", name, line);
            unsigned long number = strtoul(at, &end, 0);
            MEST_CHECK(end == at + length && *at >= '0' && *at <= '9' && number < 1u << MEST_PATTERN_TAPS, err, MEST_E_FORMAT,
                       "%s: line %d: '%.*s' is neither a mask number nor a row of three (x or 1 kept, . or 0 not)", name, line,
                       (int)(length < 40 ? length : 40), at);
            open = (unsigned)number;
            whole = true;
        }
        at += length;
        if (!whole)
            continue;
        MEST_CHECK(n < MEST_PATTERNS_MOST, err, MEST_E_FORMAT, "%s: line %d: more than %d patterns", name, line, (int)MEST_PATTERNS_MOST);
        mask[n++] = (uint16_t)open;
        open = 0;
        rows = 0;
    }
    MEST_CHECK(rows == 0, err, MEST_E_FORMAT, "%s: the last pattern has %d rows, not three", name, rows);
    mest_error own = {MEST_OK, ""};
    if (mest_patterns_make(p, mask, n, &own) != MEST_OK)
        return mest_fail(err, MEST_E_FORMAT, "%s: %s", name, own.msg);
    return MEST_OK;
}
