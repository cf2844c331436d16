/* SPDX-License-Identifier: Apache-2.0 */
/* EmbeddingBag over two-dimensional ids. Both exporters write a Loop over the bags that cuts the flat ids at offsets 0, L, 2L, ..: the older
 * one cuts the ids, gathers and reduces; the newer one gathers all rows, cuts them, and collects a sequence. Where every link of such a chain
 * is found, the loop is Gather of the ids as they are and a reduction over axis 1. In files of a fixed batch the offsets are numbers: the flat
 * ids are cut into as many rows then. Anything else stays a Loop, and is refused as one. */
#include <stdio.h>

#include "importers/onnx.h"

enum { BRANCHES = 6 };

typedef struct bag {
    onnx_importer *im;
    mest_strmap makers;               /* value outside the loop to node */
    const Onnx__GraphProto *body;
    const Onnx__GraphProto *branch[BRANCHES]; /* of Ifs in the body, those that are taken, from the outer to the inner */
    int n_branches;
    int64_t last;                     /* the bag that has a branch of its own, as a number in the file; -1: no number */
} bag;

/* What a loop does. Rows of L ids: ids as they are, [bags, L], or, if the offsets are numbers, flat ids that are to be brought to that shape. */
typedef struct found {
    const char *op, *table, *ids;
    int64_t bags, length;             /* 0: ids are not flat */
} found;

/* A node outside or inside the loop, in one form. */
typedef struct link {
    const char *op;
    int n_in, n_attrs;
    int output, n_out;                /* the place of the value that was asked for among its outputs */
    char *const *in;
    Onnx__AttributeProto *const *attrs;
} link;

static mest_status out_of_memory(onnx_importer *im) { return mest_fail(im->err, MEST_E_NOMEM, "onnx '%s': out of memory", im->path); }

static bool in_graph(const Onnx__GraphProto *g, const char *name, link *l)
{
    for (size_t i = 0; g && i < g->n_node; i++)
        for (size_t k = 0; k < g->node[i]->n_output; k++)
            if (!strcmp(g->node[i]->output[k], name)) {
                const Onnx__NodeProto *n = g->node[i];
                *l = (link){ onnx_text(n->op_type), (int)n->n_input, (int)n->n_attribute, (int)k, (int)n->n_output, n->input, n->attribute };
                return !*onnx_domain(n->domain);
            }
    return false;
}

/* Who makes `name`, seen from where the reader stands. */
static bool maker(const bag *b, const char *name, link *l)
{
    for (int i = b->n_branches - 1; i >= 0; i--)
        if (in_graph(b->branch[i], name, l))
            return true;
    if (in_graph(b->body, name, l))
        return true;
    int32_t at = *name ? mest_strmap_get(&b->makers, name) : -1;
    if (at < 0 || *b->im->nodes[at].domain || b->im->nodes[at].skip)
        return false;
    const onnx_node *n = &b->im->nodes[at];
    *l = (link){ n->op, n->n_in, n->n_attrs, 0, n->n_out, (char *const *)(uintptr_t)n->in_names, (Onnx__AttributeProto *const *)n->attrs };
    for (int k = 0; k < n->n_out; k++)
        if (!strcmp(n->out_names[k], name))
            l->output = k;
    return true;
}

static const Onnx__AttributeProto *attribute(const link *l, const char *name)
{
    for (int i = 0; i < l->n_attrs; i++)
        if (!strcmp(l->attrs[i]->name, name))
            return l->attrs[i];
    return NULL;
}

/* The payload of an initializer or of a Constant's tensor. */
static bool payload_of(const bag *b, const char *name, mest_payload *p)
{
    const onnx_symbol *s = onnx_find_symbol(b->im, name);
    mest_shape shape;
    link l;
    bool external = false;
    *p = (mest_payload){ 0 };
    if (s && s->tensor >= 0) {
        *p = b->im->tensors[s->tensor].payload;
    } else {
        const Onnx__AttributeProto *a = maker(b, name, &l) && !strcmp(l.op, "Constant") ? attribute(&l, "value") : NULL;
        if (!a || !a->t || mest_onnx_payload(b->im, a->t, name, &shape, p, &external) != MEST_OK || external)
            return false;
    }
    return !p->linear && p->raw;
}

static bool element(const mest_payload *p, int64_t i, int64_t *value)
{
    int32_t narrow;
    float real;
    const uint8_t *at = p->raw + (size_t)i * mest_dtype_file_size(p->dtype);
    if (p->dtype == MEST_I64)
        memcpy(value, at, sizeof *value);
    else if (p->dtype == MEST_I32)
        *value = (memcpy(&narrow, at, sizeof narrow), narrow);
    else if (p->dtype == MEST_BOOL)
        *value = *at != 0;
    else if (p->dtype == MEST_F32 && (memcpy(&real, at, sizeof real), real > -1e9f && real < 1e9f))
        return *value = (int64_t)real, real == (float)*value;
    else
        return false;
    return true;
}

/* The one number, as an integer, of an initializer or Constant, through casts and changes of shape. */
static bool number(const bag *b, const char *name, int64_t *value)
{
    static const char *const through[] = { "Cast", "CastLike", "Identity", "Unsqueeze", "Squeeze", "Reshape" };
    mest_payload p;
    link l;
    if (payload_of(b, name, &p))
        return p.count == 1 && element(&p, 0, value);
    if (!maker(b, name, &l))
        return false;
    if (!strcmp(l.op, "Constant")) {
        const Onnx__AttributeProto *i = attribute(&l, "value_int"), *list = attribute(&l, "value_ints"), *reals = attribute(&l, "value_floats");
        if (i || (list && list->n_ints == 1)) {
            *value = i ? i->i : list->ints[0];
            return true;
        }
        if (!reals || reals->n_floats != 1 || !(reals->floats[0] > -1e9f && reals->floats[0] < 1e9f))
            return false;
        *value = (int64_t)reals->floats[0];
        return reals->floats[0] == (float)*value;
    }
    for (size_t i = 0; i < sizeof through / sizeof *through; i++)
        if (!strcmp(l.op, through[i]) && l.n_in >= 1)
            return number(b, l.in[0], value);
    int64_t left, right;
    if (!strcmp(l.op, "Concat") && l.n_in == 1)
        return number(b, l.in[0], value);
    if (strcmp(l.op, "Equal") || l.n_in != 2 || !number(b, l.in[0], &left) || !number(b, l.in[1], &right))
        return false;
    *value = left == right;
    return true;
}

static bool is_number(const bag *b, const char *name, int64_t value)
{
    int64_t n;
    return number(b, name, &n) && n == value;
}

/* The value that an If outside the loop takes by a constant condition; the importer gives it the values of both branches as inputs. */
static const char *chosen(const bag *b, const link *l)
{
    int64_t yes;
    return l->n_in == 1 + 2 * l->n_out && number(b, l->in[0], &yes) ? l->in[1 + l->output + (yes ? 0 : l->n_out)] : NULL;
}

/* `name` is made by `op`, maybe through Cast and Unsqueeze or Squeeze; its inputs are in *l. */
static bool made_by(const bag *b, const char *name, const char *op, int n_in, link *l)
{
    for (int hops = 0; hops < 8 && maker(b, name, l); hops++) {
        if (!strcmp(l->op, op))
            return l->n_in >= n_in;
        if (!strcmp(l->op, "If")) {
            if (!(name = chosen(b, l)))
                return false;
            continue;
        }
        if (l->n_in < 1 || (strcmp(l->op, "Cast") && strcmp(l->op, "CastLike") && strcmp(l->op, "Unsqueeze") && strcmp(l->op, "Squeeze") && strcmp(l->op, "Identity")))
            return false;
        name = l->in[0];
    }
    return false;
}

/* Reads axis or axes 0: as an attribute, as an input, or by default (`otherwise` is 0). */
static bool axis_is_0(const bag *b, const link *l, const char *name, int input, int64_t otherwise)
{
    const Onnx__AttributeProto *a = attribute(l, name);
    if (a)
        return a->n_ints ? a->n_ints == 1 && a->ints[0] == 0 : a->i == 0;
    return input >= 0 && l->n_in > input && *l->in[input] ? is_number(b, l->in[input], 0) : otherwise == 0;
}

/* The ids that `flat` holds one after the other. */
static const char *ids_of(const bag *b, const char *flat)
{
    link l;
    const char *ids = NULL;
    while (maker(b, flat, &l) && !strcmp(l.op, "Reshape") && l.n_in == 2 && is_number(b, l.in[1], -1))
        flat = ids = l.in[0];
    return ids;
}

/* Shape(x)[axis] */
static bool is_extent(const bag *b, const char *name, const char *x, int64_t axis)
{
    link l, shape;
    if (!made_by(b, name, "Gather", 2, &l))
        return made_by(b, name, "Shape", 1, &shape) && !strcmp(shape.in[0], x) && attribute(&shape, "start") && attribute(&shape, "start")->i == axis &&
               attribute(&shape, "end") && attribute(&shape, "end")->i == axis + 1;
    return is_number(b, l.in[1], axis) && made_by(b, l.in[0], "Shape", 1, &shape) && !strcmp(shape.in[0], x);
}

/* Numbers 0, L, 2L, .. */
static bool are_multiples(const bag *b, const char *name, int64_t *count, int64_t *step)
{
    mest_payload p;
    int64_t value = 1;
    if (!payload_of(b, name, &p) || p.count < 2 || (p.dtype != MEST_I64 && p.dtype != MEST_I32) || !element(&p, 1, step) || *step < 1 ||
        *step > INT64_MAX / (p.count + 1))
        return false;
    *count = p.count;
    for (int64_t i = 0; i < p.count && value; i++)
        value = element(&p, i, &value) && value == i * *step;
    return value != 0;
}

/* Is name the number of ids in `flat`? */
static bool is_count(const bag *b, const char *name, const char *flat)
{
    link shape;
    return is_extent(b, name, flat, 0) || (made_by(b, name, "Shape", 1, &shape) && !strcmp(shape.in[0], flat));
}

/* 0, L, 2L, .. up to the number of ids, which is the last of the offsets. */
static bool are_offsets(const bag *b, const char *name, const char *flat, found *f)
{
    link l, range, limit, rest;
    int64_t step, factor;
    const char *ids = f->ids = ids_of(b, flat);
    f->bags = f->length = 0;
    if (are_multiples(b, name, &f->bags, &f->length)) {
        f->bags--;
        f->ids = flat;
        return true;
    }
    if (!made_by(b, name, "Concat", 2, &l) || l.n_in != 2 || !axis_is_0(b, &l, "axis", -1, 1))
        return false;
    if (are_multiples(b, l.in[0], &f->bags, &f->length)) {
        f->ids = flat;
        return is_count(b, l.in[1], flat);
    }
    if (!ids || !made_by(b, l.in[0], "Range", 3, &range) || !is_number(b, range.in[0], 0))
        return false;
    const bool whole = is_count(b, l.in[1], flat);
    if (made_by(b, range.in[1], "ReduceProd", 1, &limit)) /* of all of Shape(ids) */
        return whole && made_by(b, limit.in[0], "Shape", 1, &rest) && !strcmp(rest.in[0], ids) && is_extent(b, range.in[2], ids, 1);
    if (!made_by(b, range.in[1], "Mul", 2, &limit) || !is_extent(b, limit.in[0], ids, 0))
        return false;
    if (is_extent(b, limit.in[1], ids, 1))
        return whole && is_extent(b, range.in[2], ids, 1);
    return whole && number(b, limit.in[1], &factor) && number(b, range.in[2], &step) && factor == step && step > 0;
}

/* Reduce.. of one operand over axis 0: its name and operand. */
static bool is_reduction(const bag *b, const char *name, const char **op, const char **of)
{
    static const char *const ops[] = { "ReduceSum", "ReduceMean", "ReduceMax" };
    link l;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (made_by(b, name, ops[i], 1, &l) && axis_is_0(b, &l, "axes", 1, 1)) {
            *op = ops[i];
            *of = l.in[0];
            return true;
        }
    return false;
}

/* The older form: body (i, condition) -> (true, Reduce(Gather(table, Slice(flat, offsets[i], offsets[1:][i])))) */
static bool older(const bag *b, found *f)
{
    const char *i, *rows;
    link gather, cut, first, last, next;
    if (b->body->n_input != 2 || b->body->n_output != 2 || !is_number(b, b->body->output[0]->name, 1) || !is_reduction(b, b->body->output[1]->name, &f->op, &rows))
        return false;
    i = b->body->input[0]->name;
    if (!made_by(b, rows, "Gather", 2, &gather) || !axis_is_0(b, &gather, "axis", -1, 0) || !made_by(b, gather.in[1], "Slice", 3, &cut) ||
        !axis_is_0(b, &cut, "axes", 3, 0))
        return false;
    f->table = gather.in[0];
    return made_by(b, cut.in[1], "Gather", 2, &first) && !strcmp(first.in[1], i) && are_offsets(b, first.in[0], cut.in[0], f) &&
           made_by(b, cut.in[2], "Gather", 2, &last) && !strcmp(last.in[1], i) && made_by(b, last.in[0], "Slice", 3, &next) && !strcmp(next.in[0], first.in[0]) &&
           is_number(b, next.in[1], 1) && axis_is_0(b, &next, "axes", 3, 0);
}

/* `name` is the counter, plus `plus`. */
static bool is_counter(const bag *b, const char *name, const char *counter, int64_t plus)
{
    link l;
    if (plus == 0)
        return !strcmp(name, counter) || (maker(b, name, &l) && !strcmp(l.op, "Reshape") && l.n_in == 2 && is_counter(b, l.in[0], counter, 0));
    return made_by(b, name, "Add", 2, &l) && is_counter(b, l.in[0], counter, 0) && is_number(b, l.in[1], plus);
}

/* offsets[counter + plus] */
static bool is_offset(const bag *b, const char *name, const char *counter, int64_t plus, const char **offsets)
{
    link l;
    if (!made_by(b, name, "Slice", 3, &l) || l.n_in != 3 || !is_counter(b, l.in[1], counter, plus) || !is_counter(b, l.in[2], counter, plus + 1))
        return false;
    bool same = !*offsets || !strcmp(*offsets, l.in[0]);
    *offsets = l.in[0];
    return same;
}

/* Goes into the branches that an If of the body takes, as deep as there are some; the value that comes out, NULL: cannot be told. The last
 * bag has a branch of its own for what the ids leave over; here that is as much as the others have. */
static const char *enter(bag *b, const char *value, const char *counter)
{
    link l, equal, last;
    int64_t yes = 0;
    while (maker(b, value, &l) && !strcmp(l.op, "If")) {
        if (!number(b, l.in[0], &yes)) {
            if (!made_by(b, l.in[0], "Equal", 2, &equal) || !is_counter(b, equal.in[0], counter, 0) ||
                (!number(b, equal.in[1], &b->last) && (!made_by(b, equal.in[1], "Sub", 2, &last) || !is_number(b, last.in[1], 1))))
                return NULL;
            yes = 0;
        }
        const Onnx__AttributeProto *a = attribute(&l, yes ? "then_branch" : "else_branch");
        if (!a || !a->g || (size_t)l.output >= a->g->n_output || b->n_branches == BRANCHES)
            return NULL;
        b->branch[b->n_branches++] = a->g;
        value = a->g->output[l.output]->name;
    }
    return value;
}

/* All numbers are 1. */
static bool are_ones(const bag *b, const char *name)
{
    link ones;
    mest_payload p;
    int64_t value = 1;
    if (made_by(b, name, "Expand", 2, &ones))
        return is_number(b, ones.in[0], 1);
    if (!payload_of(b, name, &p))
        return false;
    for (int64_t i = 0; i < p.count && value == 1; i++)
        value = element(&p, i, &value) && value == 1;
    return value == 1;
}

/* The newer form: body (_, condition, counter, sequence) -> (counter + 1 < n, counter + 1, sequence with Reduce(rows[offset:next offset])), the
 * two states in either order: `at` is the counter's place among them. */
static bool newer(bag *b, int at, found *f)
{
    const Onnx__GraphProto *body = b->body;
    const char *rows, *offsets = NULL;
    link add, condition, gather, cut, times, equal;
    if (body->n_input != 4 || body->n_output != 3 || !is_counter(b, body->output[1 + at]->name, body->input[2 + at]->name, 1) ||
        !made_by(b, body->output[2 - at]->name, "SequenceInsert", 2, &add) || add.n_in != 2 || strcmp(add.in[0], body->input[3 - at]->name) ||
        !made_by(b, body->output[0]->name, "Less", 2, &condition) || strcmp(condition.in[0], body->output[1 + at]->name) || !made_by(b, add.in[1], "If", 1, &condition))
        return false;
    const Onnx__AttributeProto *full = attribute(&condition, "else_branch");
    if (!full || !full->g || full->g->n_output != 1 || !made_by(b, condition.in[0], "Equal", 2, &equal))
        return false;
    const char *counter = body->input[2 + at]->name, *row;
    b->last = -1;
    b->n_branches = 1;
    b->branch[0] = full->g; /* the other is for empty bags, which there are none of */
    bool good = (row = enter(b, full->g->output[0]->name, counter)) != NULL && is_reduction(b, row, &f->op, &rows) && (rows = enter(b, rows, counter)) != NULL &&
                made_by(b, rows, "Slice", 3, &cut) && cut.n_in == 3 && is_offset(b, cut.in[1], counter, 0, &offsets) &&
                is_offset(b, cut.in[2], counter, 1, &offsets) && !strcmp(equal.in[0], cut.in[1]) && !strcmp(equal.in[1], cut.in[2]);
    b->n_branches = 0;
    if (!good)
        return false;
    const char *gathered = cut.in[0];
    if (made_by(b, gathered, "Mul", 2, &times)) { /* weights of the samples, all one */
        if (!are_ones(b, times.in[1]))
            return false;
        gathered = times.in[0];
    }
    if (!made_by(b, gathered, "Gather", 2, &gather) || !axis_is_0(b, &gather, "axis", -1, 0))
        return false;
    f->table = gather.in[0];
    return are_offsets(b, offsets, gather.in[1], f) && (b->last < 0 || b->last == f->bags - 1);
}

/* The only reader of the sequence; -1: none, or several. */
static int32_t reader(const onnx_importer *im, const char *name)
{
    int32_t only = -1;
    for (int32_t i = 0; i < im->n_nodes; i++)
        for (int32_t k = 0; k < im->nodes[i].n_in; k++)
            if (!strcmp(im->nodes[i].in_names[k], name)) {
                if (only >= 0)
                    return -1;
                only = i;
            }
    return only;
}

/* Flat ids as [bags, length]. */
static mest_status cut_into_rows(onnx_importer *im, int32_t at, const found *f, const char **ids)
{
    const char *shape = mest_region_printf(&im->scratch, "%.200s/bags", im->nodes[at].out_names[0]), *in[2] = { f->ids, shape };
    Onnx__AttributeProto *value = mest_onnx_ints_attribute(im, "value_ints", f->bags);
    int64_t *dims = mest_region_alloc(&im->scratch, 2, sizeof *dims);
    *ids = mest_region_printf(&im->scratch, "%.200s/ids", im->nodes[at].out_names[0]);
    if (!shape || !*ids || !value || !dims)
        return out_of_memory(im);
    dims[0] = f->bags;
    dims[1] = f->length;
    value->ints = dims;
    value->n_ints = 2;
    MEST_TRY(mest_onnx_insert(im, &im->nodes[at], "Constant", 13, 0, NULL, shape, 1, &value));
    return mest_onnx_insert(im, &im->nodes[at], "Reshape", 13, 2, in, *ids, 0, NULL);
}

static mest_status rewrite(onnx_importer *im, int32_t at, const found *f)
{
    const char *gathered = mest_region_printf(&im->scratch, "%.200s/rows", im->nodes[at].out_names[0]), *pair[2] = { f->table, f->ids };
    if (!gathered)
        return out_of_memory(im);
    if (f->length)
        MEST_TRY(cut_into_rows(im, at, f, &pair[1]));
    MEST_TRY(mest_onnx_insert(im, &im->nodes[at], "Gather", 11, 2, pair, gathered, 0, NULL));
    Onnx__AttributeProto *attrs[2] = { mest_onnx_ints_attribute(im, "axes", 1), mest_onnx_int_attribute(im, "keepdims", 0) };
    return mest_onnx_become(im, &im->nodes[at], f->op, 11, 1, &gathered, 2, attrs);
}

mest_status mest_onnx_bags(onnx_importer *im)
{
    bag b = { .im = im };
    bool any = false;
    const int32_t n = im->n_nodes;
    for (int32_t i = 0; i < n && !any; i++)
        any = !*im->nodes[i].domain && !strcmp(im->nodes[i].op, "Loop");
    if (!any)
        return MEST_OK;
    mest_strmap_init(&b.makers, &im->scratch);
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < im->nodes[i].n_out; k++)
            if (*im->nodes[i].out_names[k] && !mest_strmap_put(&b.makers, im->nodes[i].out_names[k], i))
                return out_of_memory(im);
    for (int32_t i = 0; i < n; i++) {
        onnx_node *loop = &im->nodes[i];
        const Onnx__AttributeProto *body = !*loop->domain && !strcmp(loop->op, "Loop") ? onnx_attribute(loop, "body") : NULL;
        link shape, empty, join;
        found f;
        if (!body || !body->g)
            continue;
        b.body = body->g;
        if (loop->n_in == 2 && loop->n_out == 1 && older(&b, &f) && made_by(&b, loop->in_names[0], "Gather", 2, &shape)) {
            MEST_TRY(rewrite(im, i, &f));
            continue;
        }
        for (int at = 0; at < 2 && loop->n_in == 4 && loop->n_out == 2; at++) { /* the counter's place among the states */
            if (*loop->in_names[0] || !is_number(&b, loop->in_names[2 + at], 0) || !made_by(&b, loop->in_names[3 - at], "SequenceEmpty", 0, &empty) ||
                !newer(&b, at, &f))
                continue;
            int32_t to = reader(im, loop->out_names[1 - at]), from = mest_strmap_get(&b.makers, loop->in_names[3 - at]);
            b.body = NULL;
            if (to < 0 || !maker(&b, im->nodes[to].out_names[0], &join) || strcmp(join.op, "ConcatFromSequence") || !axis_is_0(&b, &join, "axis", -1, 1) ||
                onnx_attribute(&im->nodes[to], "new_axis"))
                break;
            loop->skip = true;
            if (reader(im, loop->in_names[3 - at]) == i)
                im->nodes[from].skip = true;
            MEST_TRY(rewrite(im, to, &f));
            break;
        }
    }
    return MEST_OK;
}
