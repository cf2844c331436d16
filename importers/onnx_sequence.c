/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences whose contents are known in the file: SplitToSequence, SequenceConstruct and their like become lists of names, and what reads
 * them at a constant index reads a part of a Split, a Slice, or the tensor itself. The newer exporter writes split, chunk and unbind so
 * when it does not optimise. Sequences that depend on the data stay, and are named as not supported. */
#include <inttypes.h>
#include <stdio.h>

#include "importers/onnx.h"

typedef struct sequence {
    int32_t n, cap;
    const char **parts;   /* names of the tensors */
    /* SplitToSequence by a size: how many parts there are follows from a shape that is not known yet; parts is NULL */
    const onnx_node *split;
    int64_t size, axis;
    bool keep;            /* the axis stays */
    const char *sizes;    /* the list of sizes, if it is computed; else NULL */
} sequence;

typedef struct state {
    onnx_importer *im;
    mest_strmap names;    /* of sequences */
    sequence *list;
    int32_t n, cap;
    mest_strmap makers;   /* value to node, for constants */
} state;

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static mest_status wrong(onnx_importer *im, const onnx_node *n, const char *what)
{
    return mest_fail(im->err, MEST_E_UNSUPPORTED, "onnx '%s': %s '%s': %s", im->path, n->op, n->name, what);
}

static sequence *find(const state *s, const char *name)
{
    int32_t at = mest_strmap_get(&s->names, name);
    return at < 0 ? NULL : &s->list[at];
}

/* A new sequence under `name`; its parts are the caller's to fill in. NULL when out of memory. */
static sequence *add(state *s, const char *name)
{
    if (!MEST_REGION_GROW(&s->im->scratch, s->list, s->n, s->cap) || !mest_strmap_put(&s->names, name, s->n))
        return NULL;
    sequence *q = &s->list[s->n++];
    memset(q, 0, sizeof *q);
    return q;
}

static bool push(state *s, sequence *q, const char *name)
{
    if (!MEST_REGION_GROW(&s->im->scratch, q->parts, q->n, q->cap))
        return false;
    q->parts[q->n++] = name;
    return true;
}

/* The integers of an initializer or Constant node. False (status OK) if the value is none of these. */
static bool constant_ints(state *s, const char *name, int64_t *n, const int64_t **values, int *rank, mest_status *status)
{
    onnx_importer *im = s->im;
    const onnx_symbol *symbol = onnx_find_symbol(im, name);
    mest_payload payload;
    mest_shape shape;
    int32_t at = mest_strmap_get(&s->makers, name);
    *status = MEST_OK;
    if (symbol && symbol->tensor >= 0) {
        payload = im->tensors[symbol->tensor].payload;
        shape = im->tensors[symbol->tensor].shape;
    } else if (at >= 0 && onnx_is_constant(&im->nodes[at]) && im->nodes[at].n_attrs == 1) {
        const Onnx__AttributeProto *a = im->nodes[at].attrs[0];
        bool external = false;
        if (!strcmp(a->name, "value_int") || !strcmp(a->name, "value_ints")) {
            *rank = !strcmp(a->name, "value_ints");
            *n = *rank ? (int64_t)a->n_ints : 1;
            *values = *rank ? a->ints : &a->i;
            return true;
        }
        if (strcmp(a->name, "value") || !a->t)
            return false;
        *status = mest_onnx_payload(im, a->t, name, &shape, &payload, &external);
        if (*status != MEST_OK)
            return false;
    } else {
        return false;
    }
    if ((payload.dtype != MEST_I64 && payload.dtype != MEST_I32) || payload.linear || shape.rank > 1)
        return false;
    int64_t *out = mest_region_alloc(&im->scratch, (size_t)payload.count + 1, sizeof *out);
    if (!out) {
        *status = out_of_memory(im);
        return false;
    }
    for (int64_t i = 0; i < payload.count; i++) {
        int32_t narrow;
        memcpy(&narrow, payload.raw + (size_t)i * mest_dtype_file_size(payload.dtype), sizeof narrow);
        out[i] = narrow;
        if (payload.dtype == MEST_I64)
            memcpy(&out[i], payload.raw + (size_t)i * 8, 8);
    }
    *n = payload.count;
    *values = out;
    *rank = shape.rank;
    return true;
}

/* Is it a list, whatever is in it? Split takes a scalar or a list, and Concat, as which exporters write computed sizes, makes no scalar. */
static bool is_computed_list(const state *s, const char *name)
{
    int32_t at = mest_strmap_get(&s->makers, name);
    return at >= 0 && !*s->im->nodes[at].domain && !strcmp(s->im->nodes[at].op, "Concat");
}

static int64_t int_attribute(const onnx_node *n, const char *name, int64_t otherwise)
{
    const Onnx__AttributeProto *a = onnx_attribute(n, name);
    return a ? a->i : otherwise;
}

/* ---- operators ---- */

/* With a list of sizes the number of parts is known: a Split. With one size, none (parts of one), or a list that is computed from shapes, each
 * part is cut when it is asked for. */
static mest_status split(state *s, int32_t at)
{
    onnx_importer *im = s->im;
    onnx_node *n = &im->nodes[at];
    mest_status status = MEST_OK;
    int64_t count = 0, axis = int_attribute(n, "axis", 0);
    const int64_t *sizes = NULL;
    int rank = 0;
    bool given = n->n_in > 1 && *n->in_names[1], computed = false;
    if (n->n_in < 1 || n->n_out != 1)
        return wrong(im, n, "it needs an input and one output");
    if (given && !constant_ints(s, n->in_names[1], &count, &sizes, &rank, &status)) {
        computed = is_computed_list(s, n->in_names[1]);
        if (!computed)
            return status != MEST_OK ? status : wrong(im, n, "the sizes of the parts are not constant");
    }
    sequence *q = add(s, n->out_names[0]);
    if (!q)
        return out_of_memory(im);
    if (!given || computed || rank == 0) {
        q->split = mest_region_alloc(&im->scratch, 1, sizeof *q->split);
        if (!q->split)
            return out_of_memory(im);
        memcpy((void *)(uintptr_t)q->split, n, sizeof *n);
        q->size = given && !computed ? sizes[0] : 1;
        q->sizes = computed ? n->in_names[1] : NULL;
        q->axis = axis;
        q->keep = given || int_attribute(n, "keepdims", 1) != 0;
        if (q->size <= 0)
            return wrong(im, n, "the size of the parts is not positive");
        n->skip = true;
        return MEST_OK;
    }
    const char *in[2] = { n->in_names[0], n->in_names[1] };
    Onnx__AttributeProto *attrs[1] = { mest_onnx_int_attribute(im, "axis", axis) };
    for (int64_t i = 0; i < count; i++) {
        const char *part = mest_region_printf(&im->scratch, "%.200s/%" PRId64, n->out_names[0], i);
        if (!part || !push(s, q, part))
            return out_of_memory(im);
    }
    MEST_TRY(mest_onnx_become(im, n, "Split", 13, 2, in, 1, attrs));
    n->n_out = (int32_t)count;
    n->out_names = q->parts;
    n->out = mest_region_alloc(&im->scratch, (size_t)count + 1, sizeof *n->out);
    return n->out ? MEST_OK : out_of_memory(im);
}

/* Place of a constant index in a list of n; false (status OK or set) if it is not constant. */
static bool constant_index(state *s, const char *name, int64_t *index, mest_status *status)
{
    int64_t count;
    const int64_t *values;
    int rank;
    if (!constant_ints(s, name, &count, &values, &rank, status) || count != 1)
        return false;
    *index = values[0];
    return true;
}

/* Part i of computed sizes: from the sum of the sizes before it to that with its own. */
static mest_status cut_computed(onnx_importer *im, onnx_node *n, const sequence *q, int64_t i)
{
    const char *out = n->out_names[0], *from = q->split->in_names[0], *sizes = q->sizes;
    const char *upto = mest_region_printf(&im->scratch, "%.200s/sizes", out), *own = mest_region_printf(&im->scratch, "%.200s/size", out);
    const char *start = mest_region_printf(&im->scratch, "%.200s/start", out), *end = mest_region_printf(&im->scratch, "%.200s/end", out);
    const char *axis = mest_region_printf(&im->scratch, "%.200s/axis", out);
    if (!upto || !own || !start || !end || !axis)
        return out_of_memory(im);
    if (i < 0)
        return wrong(im, n, "an index from the end of parts whose number is not known");
    Onnx__AttributeProto *first[3] = { mest_onnx_ints_attribute(im, "starts", 0), mest_onnx_ints_attribute(im, "ends", i + 1), mest_onnx_ints_attribute(im, "axes", 0) };
    Onnx__AttributeProto *one[3] = { mest_onnx_ints_attribute(im, "starts", i), mest_onnx_ints_attribute(im, "ends", i + 1), mest_onnx_ints_attribute(im, "axes", 0) };
    Onnx__AttributeProto *sum[1] = { mest_onnx_ints_attribute(im, "axes", 0) }, *value[1] = { mest_onnx_ints_attribute(im, "value_ints", q->axis) };
    const char *in[4] = { from, start, end, axis }, *difference[2] = { end, own };
    const onnx_node like = *n; /* adding moves the list */
    MEST_TRY(mest_onnx_become(im, n, "Slice", 13, 4, in, 0, NULL));
    MEST_TRY(mest_onnx_insert(im, &like, "Slice", 9, 1, &sizes, upto, 3, first));
    MEST_TRY(mest_onnx_insert(im, &like, "Slice", 9, 1, &sizes, own, 3, one));
    MEST_TRY(mest_onnx_insert(im, &like, "ReduceSum", 11, 1, &upto, end, 1, sum));
    MEST_TRY(mest_onnx_insert(im, &like, "Sub", 13, 2, difference, start, 0, NULL));
    return mest_onnx_insert(im, &like, "Constant", 13, 0, NULL, axis, 1, value);
}

static mest_status at_index(state *s, int32_t at, const sequence *q)
{
    onnx_importer *im = s->im;
    onnx_node *n = &im->nodes[at];
    mest_status status = MEST_OK;
    int64_t i;
    if (n->n_in != 2 || n->n_out != 1 || !constant_index(s, n->in_names[1], &i, &status))
        return status != MEST_OK ? status : wrong(im, n, "the index is not constant");
    if (!q->split) {
        i = i < 0 ? i + q->n : i;
        if (i < 0 || i >= q->n)
            return wrong(im, n, "the index is outside the sequence");
        return mest_onnx_become(im, n, "Identity", 13, 1, &q->parts[i], 0, NULL);
    }
    if (q->sizes)
        return cut_computed(im, n, q, i);
    if (i < 0 && q->size != 1)
        return wrong(im, n, "an index from the end of parts whose number is not known");
    if (i > INT64_MAX / 2 / q->size || i < -INT32_MAX)
        return wrong(im, n, "the index is outside the sequence");
    int64_t end = i == -1 ? INT64_MAX : (i + 1) * q->size;
    Onnx__AttributeProto *cut[3] = { mest_onnx_ints_attribute(im, "starts", i * q->size), mest_onnx_ints_attribute(im, "ends", end), mest_onnx_ints_attribute(im, "axes", q->axis) };
    const char *from = q->split->in_names[0];
    if (q->keep)
        return mest_onnx_become(im, n, "Slice", 9, 1, &from, 3, cut);
    const char *whole = mest_region_printf(&im->scratch, "%.200s/cut", n->out_names[0]);
    if (!whole)
        return out_of_memory(im);
    Onnx__AttributeProto *axes[1] = { mest_onnx_ints_attribute(im, "axes", q->axis) };
    MEST_TRY(mest_onnx_become(im, n, "Squeeze", 11, 1, &whole, 1, axes));
    return mest_onnx_insert(im, n, "Slice", 9, 1, &from, whole, 3, cut);
}

/* SequenceConstruct, SequenceEmpty, SequenceInsert, SequenceErase: a new list. */
static mest_status build_list(state *s, int32_t at, const sequence *from)
{
    onnx_importer *im = s->im;
    onnx_node *n = &im->nodes[at];
    mest_status status = MEST_OK;
    bool inserts = !strcmp(n->op, "SequenceInsert"), erases = !strcmp(n->op, "SequenceErase"), constructs = !strcmp(n->op, "SequenceConstruct");
    const char *place = inserts && n->n_in > 2 ? n->in_names[2] : erases && n->n_in > 1 ? n->in_names[1] : "";
    int64_t i = -1, count = from ? from->n : 0;
    if (n->n_out != 1 || ((inserts || erases) && !from) || (inserts && n->n_in < 2))
        return wrong(im, n, "its sequence is not known in the file");
    if (from && from->split)
        return wrong(im, n, "a sequence of parts whose number is not known");
    if (*place && !constant_index(s, place, &i, &status))
        return status != MEST_OK ? status : wrong(im, n, "the position is not constant");
    i = inserts && !*place ? count : i < 0 ? i + count : i;
    if ((inserts && (i < 0 || i > count)) || (erases && (i < 0 || i >= count)))
        return wrong(im, n, "the position is outside the sequence");
    sequence copy = from ? *from : (sequence){ 0 }; /* adding moves the list */
    sequence *q = add(s, n->out_names[0]);
    if (!q)
        return out_of_memory(im);
    for (int32_t k = 0; constructs && k < n->n_in; k++)
        if (!push(s, q, n->in_names[k]))
            return out_of_memory(im);
    for (int32_t k = 0; k < copy.n + inserts; k++) {
        if (erases && k == i)
            continue;
        if (!push(s, q, inserts && k == i ? n->in_names[1] : copy.parts[inserts && k > i ? k - 1 : k]))
            return out_of_memory(im);
    }
    n->skip = true;
    return MEST_OK;
}

/* ConcatFromSequence: Concat, of tensors with a new axis where it stacks. */
static mest_status concat(state *s, int32_t at, const sequence *q)
{
    onnx_importer *im = s->im;
    int64_t axis = int_attribute(&im->nodes[at], "axis", 0);
    bool stacks = int_attribute(&im->nodes[at], "new_axis", 0) != 0;
    if (q->split || q->n == 0)
        return wrong(im, &im->nodes[at], "a sequence whose length is not known, or that is empty");
    const char **names = mest_region_alloc(&im->scratch, (size_t)q->n, sizeof *names);
    if (!names)
        return out_of_memory(im);
    for (int32_t k = 0; k < q->n; k++) {
        names[k] = q->parts[k];
        if (!stacks)
            continue;
        names[k] = mest_region_printf(&im->scratch, "%.200s/row%d", im->nodes[at].out_names[0], k);
        Onnx__AttributeProto *axes[1] = { mest_onnx_ints_attribute(im, "axes", axis) };
        if (!names[k])
            return out_of_memory(im);
        MEST_TRY(mest_onnx_insert(im, &im->nodes[at], "Unsqueeze", 11, 1, &q->parts[k], names[k], 1, axes));
    }
    Onnx__AttributeProto *attrs[1] = { mest_onnx_int_attribute(im, "axis", axis) };
    return mest_onnx_become(im, &im->nodes[at], "Concat", 13, q->n, names, 1, attrs);
}

static mest_status length(state *s, int32_t at, const sequence *q)
{
    onnx_importer *im = s->im;
    if (q->split)
        return wrong(im, &im->nodes[at], "a sequence of parts whose number is not known");
    Onnx__AttributeProto *attrs[1] = { mest_onnx_int_attribute(im, "value_int", q->n) };
    return mest_onnx_become(im, &im->nodes[at], "Constant", 13, 0, NULL, 1, attrs);
}

static mest_status resolve(state *s, int32_t at)
{
    onnx_importer *im = s->im;
    const onnx_node *n = &im->nodes[at];
    const char *op = n->op;
    const sequence *q = n->n_in > 0 ? find(s, n->in_names[0]) : NULL;
    if (!strcmp(op, "SplitToSequence"))
        return split(s, at);
    if (!strcmp(op, "SequenceConstruct") || !strcmp(op, "SequenceEmpty") || !strcmp(op, "SequenceInsert") || !strcmp(op, "SequenceErase"))
        return build_list(s, at, q);
    if (!q)
        return MEST_OK;
    if (!strcmp(op, "SequenceAt"))
        return at_index(s, at, q);
    if (!strcmp(op, "ConcatFromSequence"))
        return concat(s, at, q);
    if (!strcmp(op, "SequenceLength"))
        return length(s, at, q);
    if (strcmp(op, "Identity"))
        return wrong(im, n, "it takes a sequence");
    sequence copy = *q;
    sequence *alias = add(s, n->out_names[0]);
    if (!alias)
        return out_of_memory(im);
    *alias = copy;
    alias->cap = alias->n; /* growing copies */
    im->nodes[at].skip = true;
    return MEST_OK;
}

mest_status mest_onnx_sequences(onnx_importer *im)
{
    state s = { .im = im };
    bool any = false;
    for (int32_t i = 0; i < im->n_nodes && !any; i++)
        any = !*im->nodes[i].domain && (strstr(im->nodes[i].op, "Sequence") != NULL);
    if (!any)
        return MEST_OK;
    mest_strmap_init(&s.names, &im->scratch);
    mest_strmap_init(&s.makers, &im->scratch);
    int32_t n = im->n_nodes;
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < im->nodes[i].n_out; k++)
            if (*im->nodes[i].out_names[k] && !mest_strmap_put(&s.makers, im->nodes[i].out_names[k], i))
                return out_of_memory(im);
    for (int32_t i = 0; i < n; i++)
        if (!*im->nodes[i].domain && im->nodes[i].n_out > 0) {
            mest_status status = resolve(&s, i);
            if (status != MEST_E_UNSUPPORTED || !im->tolerant)
                MEST_TRY(status);
            else
                mest_error_clear(im->err); /* the operator itself is refused later, with advice */
        }
    return MEST_OK;
}
