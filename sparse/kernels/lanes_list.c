/* SPDX-License-Identifier: Apache-2.0 */
/* Offset lists of the batch-lane kernels.
 *
 * A forward list has a row per output channel (or per four, where four outputs share their columns) and reads X; a backward list has a row per
 * input channel and phase and reads dY. Entries are ordered by phase, channel tile, row, row of the tap (if the key says so), then ascending as
 * the weight is stored. */
#include "sparse/kernels/lanes.h"

int64_t mest_lanes_tap(const mest_lanes_key *k, int64_t r, int64_t s, int32_t *phase)
{
    if (!k->backward) {
        *phase = 0;
        return r * k->dilation_y * k->row_bytes + s * k->dilation_x * k->pixel_bytes;
    }
    /* dX[y] takes dY[(y + top - r * dilation) / stride] where that divides; y = phase + stride * i reads row i + (phase + ...) / stride */
    const int64_t ry = r * k->dilation_y - k->top, sx = s * k->dilation_x - k->left;
    const int64_t py = (ry % k->stride_y + k->stride_y) % k->stride_y, px = (sx % k->stride_x + k->stride_x) % k->stride_x;
    *phase = (int32_t)(py * k->stride_x + px);
    return (py - ry) / k->stride_y * k->row_bytes + (px - sx) / k->stride_x * k->pixel_bytes;
}

static int64_t lane_bytes(const mest_lanes_key *k) { return k->channel_bytes ? k->channel_bytes : (int64_t)k->lanes * (int64_t)sizeof(mest_real); }
static int32_t read_channels(const mest_lanes_key *k) { return k->backward ? k->m : k->c; }
static int32_t list_rows(const mest_lanes_key *k)
{
    return ((k->backward ? k->c : k->m) + k->height - 1) / k->height;
}
static int32_t n_tiles(const mest_lanes_key *k, int32_t channels) { return channels > 0 ? (channels + k->tile - 1) / k->tile : 1; }

/* ---- sparse ---- */
typedef struct layout { size_t start, runs, off, perm, w, bytes; int64_t n_start; } layout;

static int32_t parts_of(const mest_lanes_key *k) { return k->by_rows ? k->r : 1; }
static size_t align64(size_t n) { return (n + 63) / 64 * 64; }

static layout layout_of(const mest_lanes_key *k)
{
    layout l = {.n_start = (int64_t)mest_lanes_phases(k) * n_tiles(k, read_channels(k)) * list_rows(k) * parts_of(k) + 1};
    l.runs = align64((size_t)l.n_start * sizeof(int32_t));
    l.off = l.runs + (k->step_bytes ? align64((size_t)(l.n_start - 1) * sizeof(int32_t)) : 0);
    l.perm = l.off + align64((size_t)k->cap * sizeof(int32_t));
    l.w = l.perm + (k->direct ? 0 : align64((size_t)k->cap * sizeof(int32_t)));
    l.bytes = l.w + (k->direct ? 0 : (size_t)k->cap * k->height * sizeof(mest_real)) + 64;
    return l;
}

size_t mest_lanes_bytes(const mest_lanes_key *key) { return layout_of(key).bytes; }

/* What the entries of a tap have in common. Found once for each tap of ordinary kernels: a method that moves weights in every step has lists built
 * in every step, and divisions were most of that. */
typedef struct tap_place { int64_t at; int32_t phase, part; } tap_place;
enum { TAPS = 128 };

static tap_place tap_of(const mest_lanes_key *k, int64_t tap)
{
    tap_place p = {.part = parts_of(k) > 1 ? (int32_t)(tap / k->s) : 0};
    p.at = mest_lanes_tap(k, tap / k->s, tap % k->s, &p.phase);
    return p;
}

/* Most columns of a weight for which the next walk has a table. */
enum { COLUMNS = 2048 };
typedef struct column_places { int32_t place[COLUMNS], off[COLUMNS]; } column_places;

/* What a column of a weight and a row of it add to the place in `start`, and to the offset, of an entry. Only where the tile follows from one of both. */
static bool splits(const mest_lanes_key *k, const mest_sparse *weight) { return k->group == 1 && weight->cols <= COLUMNS; }

static void place_columns(const mest_lanes_key *k, const mest_sparse *weight, column_places *to)
{
    const int64_t tiles = n_tiles(k, read_channels(k)), rows = list_rows(k), parts = parts_of(k), lane = lane_bytes(k);
    const int64_t taps = k->inputs_first ? 1 : (int64_t)k->r * k->s;
    const bool reads = k->inputs_first == k->backward; /* the column says which channel is read, else which one is written */
    for (int64_t tap = 0; tap < taps; tap++) {
        const tap_place p = tap_of(k, tap);
        for (int64_t channel = 0; channel * taps + tap < weight->cols; channel++) {
            const int64_t col = channel * taps + tap, tile = reads ? channel / (k->tile > 0 ? k->tile : INT32_MAX) : 0;
            const int64_t writes = reads ? 0 : k->backward ? channel : channel / k->height;
            to->place[col] = (int32_t)(((p.phase * tiles + tile) * rows + writes) * parts + p.part);
            to->off[col] = (int32_t)(p.at + (reads ? channel * lane : 0));
        }
    }
}

static void walk_columns(const mest_lanes_key *k, const mest_sparse *weight, const column_places *at, bool fill, int32_t *start, int32_t *off, int32_t *perm)
{
    const int64_t rows = list_rows(k), parts = parts_of(k), lane = lane_bytes(k), quads = k->height - 1;
    const bool reads = k->inputs_first == k->backward;
    int64_t last = -1;
    int32_t row_place = 0, row_off = 0;
    MEST_FOR_ENTRIES(weight, 0, weight->active_units, {
        if (e & quads)
            continue;
        if (row != last) {
            last = row;
            row_place = (int32_t)(reads ? (k->backward ? row : row / k->height) * parts : row / (k->tile > 0 ? k->tile : INT32_MAX) * rows * parts);
            row_off = (int32_t)(reads ? 0 : row * lane);
        }
        int32_t *place = &start[at->place[col] + row_place];
        if (!fill) {
            place[1]++;
            continue;
        }
        off[*place] = at->off[col] + row_off;
        if (perm)
            perm[*place] = (int32_t)e;
        ++*place;
    });
}

/* Walks all entries in storage order; counts them per list row (fill false) or files them (fill true, start[i] being the next free
 * place of row i). */
static void walk(const mest_lanes_key *k, const mest_sparse *weight, bool fill, int32_t *start, int32_t *off, int32_t *perm)
{
    const int64_t tiles = n_tiles(k, read_channels(k)), rows = list_rows(k), parts = parts_of(k);
    const int64_t group_m = k->m / k->group, group_c = k->c / k->group, lane = lane_bytes(k), quads = k->height - 1;
    const uint32_t taps = k->inputs_first ? 1 : (uint32_t)k->r * (uint32_t)k->s;
    tap_place table[TAPS];
    for (uint32_t t = 0; t < taps && t < TAPS; t++)
        table[t] = tap_of(k, t);
    MEST_FOR_ENTRIES(weight, 0, weight->active_units, {
        if (e & quads)
            continue; /* not the first of its block: a unit's entries come in runs of a multiple of height */
        const uint32_t channel = taps == 1 ? (uint32_t)col : (uint32_t)col / taps, tap = (uint32_t)col - channel * taps;
        const int64_t m = k->inputs_first ? (int64_t)channel : row;
        const int64_t c = k->inputs_first ? row : (int64_t)channel + (k->group == 1 ? 0 : row / group_m * group_c);
        const tap_place p = tap < TAPS ? table[tap] : tap_of(k, tap);
        const int64_t reads = k->backward ? m : c, writes = k->backward ? c : (int64_t)((uint32_t)m / k->height);
        const int64_t tile = tiles == 1 ? 0 : (int64_t)((uint32_t)reads / (uint32_t)k->tile);
        int32_t *place = &start[((p.phase * tiles + tile) * rows + writes) * parts + p.part];
        if (!fill) {
            place[1]++;
            continue;
        }
        off[*place] = (int32_t)(p.at + reads * lane);
        if (perm)
            perm[*place] = (int32_t)e;
        ++*place;
    });
}

void mest_lanes_build(void *data, const mest_sparse *weight, const void *key)
{
    mest_lanes_key k;
    memcpy(&k, key, sizeof k);
    const layout l = layout_of(&k);
    int32_t *start = data, *off = (int32_t *)((char *)data + l.off), *perm = k.direct ? NULL : (int32_t *)((char *)data + l.perm);
    memset(start, 0, (size_t)l.n_start * sizeof *start);
    column_places at;
    const bool split = splits(&k, weight);
    if (split)
        place_columns(&k, weight, &at);
    if (split)
        walk_columns(&k, weight, &at, false, start, NULL, NULL);
    else
        walk(&k, weight, false, start, NULL, NULL);
    for (int64_t i = 1; i < l.n_start; i++)
        start[i] += start[i - 1];
    if (split) /* filing leaves each start at its row's end, the next row's start */
        walk_columns(&k, weight, &at, true, start, off, perm);
    else
        walk(&k, weight, true, start, off, perm);
    memmove(start + 1, start, (size_t)(l.n_start - 1) * sizeof *start);
    start[0] = 0;
    int32_t *runs = (int32_t *)((char *)data + l.runs);
    for (int64_t i = 0; k.step_bytes && i < l.n_start - 1; i++)
        runs[i] = mest_lanes_order_runs(k.step_bytes, start[i + 1] - start[i], off + start[i], perm + start[i]);
    mest_lanes_refresh(data, weight, key);
}

void mest_lanes_refresh(void *data, const mest_sparse *weight, const void *key)
{
    mest_lanes_key k;
    memcpy(&k, key, sizeof k);
    if (k.direct)
        return;
    const layout l = layout_of(&k);
    const int32_t *start = data, *perm = (const int32_t *)((char *)data + l.perm);
    mest_real *w = (mest_real *)((char *)data + l.w);
    const int64_t n = start[l.n_start - 1];
    if (k.height == 1)
        for (int64_t e = 0; e < n; e++)
            w[e] = weight->values[perm[e]];
    else
        for (int64_t e = 0; e < n; e++)
            memcpy(w + k.height * e, weight->values + perm[e], k.height * sizeof *w);
}

mest_lanes_list mest_lanes_view(const void *data, const mest_lanes_key *key, const mest_real *values, int32_t phase, const int32_t **perm,
                                int64_t *entries)
{
    const layout l = layout_of(key);
    const int32_t tiles = n_tiles(key, read_channels(key)), rows = list_rows(key), parts = parts_of(key);
    const int32_t *start = data;
    if (perm)
        *perm = key->direct ? NULL : (const int32_t *)((const char *)data + l.perm);
    if (entries)
        *entries = start[l.n_start - 1];
    return (mest_lanes_list){
        .n_tiles = tiles, .n_rows = rows, .height = key->height, .start = start + (int64_t)phase * tiles * rows * parts,
        .runs = key->step_bytes ? (const int32_t *)((const char *)data + l.runs) + (int64_t)phase * tiles * rows * parts : NULL,
        .parts = parts, .to = parts,
        .off = (const int32_t *)((const char *)data + l.off),
        .w = key->direct ? values : (const mest_real *)((const char *)data + l.w),
    };
}

/* ---- dense: every column present, so all rows of a tile share their offsets ---- */
static int32_t group_read(const mest_lanes_key *k) { return read_channels(k) / k->group; }
static int64_t n_first(const mest_lanes_key *k) { return (int64_t)mest_lanes_phases(k) * n_tiles(k, group_read(k)) + 1; }

int64_t mest_lanes_dense_entries(const mest_lanes_key *k) { return (int64_t)list_rows(k) * group_read(k) * k->r * k->s; }
size_t mest_lanes_dense_bytes(const mest_lanes_key *k)
{
    return align64((size_t)n_first(k) * sizeof(int32_t)) + (size_t)group_read(k) * (size_t)k->r * (size_t)k->s * sizeof(int32_t) + 64;
}

void mest_lanes_dense_offsets(const mest_lanes_key *k, void *memory)
{
    int32_t *first = memory, *off = (int32_t *)((char *)memory + align64((size_t)n_first(k) * sizeof *first)), n = 0;
    const int32_t channels = group_read(k), tiles = n_tiles(k, channels);
    for (int32_t phase = 0; phase < mest_lanes_phases(k); phase++)
        for (int32_t tile = 0; tile < tiles; tile++) {
            *first++ = n;
            for (int32_t c = tile * k->tile; c < channels && c < (tile + 1) * k->tile; c++)
                for (int32_t tap = 0; tap < k->r * k->s; tap++) {
                    int32_t at_phase;
                    const int64_t at = mest_lanes_tap(k, tap / k->s, tap % k->s, &at_phase);
                    if (at_phase == phase)
                        off[n++] = (int32_t)(at + c * lane_bytes(k));
                }
        }
    *first = n;
}

mest_lanes_list mest_lanes_dense_view(const void *memory, const mest_lanes_key *key, const mest_real *pack, int32_t phase)
{
    const int32_t tiles = n_tiles(key, group_read(key));
    return (mest_lanes_list){
        .n_tiles = tiles, .n_rows = list_rows(key), .height = key->height, .first = (const int32_t *)memory + (int64_t)phase * tiles,
        .off = (const int32_t *)((const char *)memory + align64((size_t)n_first(key) * sizeof(int32_t))), .w = pack,
    };
}

/* Where the weight of the first output of list row `row`, channel 0 of those it reads, tap 0 lies; steps to the next channel read and
 * to the next of the row's four outputs. */
typedef struct dense_row { int64_t at, channel, next; } dense_row;
static dense_row dense_row_of(const mest_lanes_key *k, int64_t row)
{
    const int64_t group_m = k->m / k->group, group_c = k->c / k->group, taps = (int64_t)k->r * k->s, one = row * k->height;
    if (k->inputs_first) /* [C, M], one group */
        return k->backward ? (dense_row){one * k->m, 1, k->m} : (dense_row){one, k->m, 1};
    if (k->backward)
        return (dense_row){(one / group_c * group_m * group_c + one % group_c) * taps, group_c * taps, taps};
    return (dense_row){one * group_c * taps, taps, group_c * taps};
}

/* Calls BODY with e (entry), at (position in the weight) and place.next (from it to the next output of the row). */
#define FOR_DENSE(k, memory, r0, r1, BODY)                                                                                             \
    do {                                                                                                                               \
        const int32_t *first_ = (memory);                                                                                              \
        const int32_t channels_ = group_read(k), tiles_ = n_tiles(k, channels_), rows_ = list_rows(k), taps_ = (k)->r * (k)->s;        \
        const int32_t phases_ = mest_lanes_phases(k);                                                                                  \
        for (int32_t phase_ = 0; phase_ < phases_; phase_++)                                                                           \
            for (int32_t tile_ = 0; tile_ < tiles_; tile_++, first_++)                                                                 \
                for (int32_t row = (r0); row < (r1); row++) {                                                                          \
                    const dense_row place = dense_row_of(k, row);                                                                      \
                    int64_t e = (int64_t)first_[0] * rows_ + (int64_t)row * (first_[1] - first_[0]);                                   \
                    for (int32_t c_ = tile_ * (k)->tile; c_ < channels_ && c_ < (tile_ + 1) * (k)->tile; c_++)                         \
                        for (int32_t tap_ = 0; tap_ < taps_; tap_++) {                                                                 \
                            if (phases_ > 1) {                                                                                         \
                                int32_t at_phase_;                                                                                     \
                                mest_lanes_tap(k, tap_ / (k)->s, tap_ % (k)->s, &at_phase_);                                           \
                                if (at_phase_ != phase_)                                                                               \
                                    continue;                                                                                          \
                            }                                                                                                          \
                            const int64_t at = place.at + c_ * place.channel + tap_;                                                   \
                            BODY                                                                                                       \
                            e++;                                                                                                       \
                        }                                                                                                              \
                }                                                                                                                      \
    } while (0)

void mest_lanes_dense_pack(const mest_lanes_key *key, const void *memory, const mest_real *weight, mest_real *pack, int32_t r0, int32_t r1)
{
    const int64_t rows = key->backward ? key->c : key->m;
    if (key->height == 1) {
        FOR_DENSE(key, memory, r0, r1, { pack[e] = weight[at]; });
        return;
    }
    FOR_DENSE(key, memory, r0, r1, {
        const int64_t valid = rows - 4 * (int64_t)row;
        mest_real *to = pack + 4 * e;
        to[0] = weight[at];
        to[1] = valid > 1 ? weight[at + place.next] : 0;
        to[2] = valid > 2 ? weight[at + 2 * place.next] : 0;
        to[3] = valid > 3 ? weight[at + 3 * place.next] : 0;
    });
}

void mest_lanes_dense_unpack(const mest_lanes_key *key, const void *memory, const mest_real *parts, int32_t n_parts, int64_t stride,
                             mest_real *dw, int32_t r0, int32_t r1)
{
    FOR_DENSE(key, memory, r0, r1, {
        mest_real sum = parts[e];
        for (int32_t i = 1; i < n_parts; i++)
            sum += parts[i * stride + e];
        dw[at] = sum;
    });
}
