/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of channels through a residual sum, a depthwise convolution, a concatenation and a flattened image: what is found, that the small
 * layers compute what the large ones with zeros would, gradients included, and what a change of channels leaves alone. */
#include <check.h>
#include <math.h>
#include <unistd.h>

#include "mest/serve.h"
#include "mest/train.h"
#include "runtime/channels.h"
#include "runtime/session.h"
#include "tests/onnx_write.h"

enum { C = 3, SIDE = 6, CLASSES = 5, BATCH = 4, PIXELS = C * SIDE * SIDE };

static mest_error err;
#define OK(call) ck_assert_msg((call) == MEST_OK, "%s: %s", #call, err.msg)

static float pseudo(uint64_t i)
{
    const uint32_t state = (uint32_t)(i + 1) * 2654435761u;
    return (float)((double)(state >> 8) / (1 << 24) - 0.5) * 0.6f;
}

static float one(uint64_t i) { return 1 + pseudo(i) * 0.1f; }

static void norm(onnx_bytes *g, const char *name, const char *in, const char *out, int64_t n)
{
    static const char *const parts[] = {"scale", "bias", "mean", "var"};
    char text[200], names[4][40];
    for (int i = 0; i < 4; i++) {
        snprintf(names[i], sizeof names[i], "%s.%s", name, parts[i]);
        onnx_weight(g, names[i], 1, &n, i == 0 || i == 3 ? one : pseudo);
    }
    snprintf(text, sizeof text, "BatchNormalization:%s,%s,%s,%s,%s:%s", in, names[0], names[1], names[2], names[3], out);
    onnx_node(g, text);
}

/* a -> +b (residual) -> depthwise d -> e; f beside it; concatenated -> g -> flattened -> fc */
static void write_model(const char *path)
{
    onnx_bytes g = {0};
    onnx_node(&g, "Conv:x,a.weight,a.bias:a:pads=1/1/1/1,kernel_shape=3/3");
    norm(&g, "na", "a", "na", 12);
    onnx_node(&g, "Relu:na:r");
    onnx_node(&g, "Conv:r,b.weight:b:pads=1/1/1/1,kernel_shape=3/3");
    norm(&g, "nb", "b", "nb", 12);
    onnx_node(&g, "Add:r,nb:sum");
    onnx_node(&g, "Relu:sum:s");
    onnx_node(&g, "Conv:s,d.weight:d:pads=1/1/1/1,kernel_shape=3/3,group=12");
    norm(&g, "nd", "d", "nd", 12);
    onnx_node(&g, "Relu:nd:t");
    onnx_node(&g, "Conv:t,e.weight:e:kernel_shape=1/1");
    onnx_node(&g, "Relu:e:u");
    onnx_node(&g, "Conv:s,f.weight:f:kernel_shape=1/1");
    onnx_node(&g, "Relu:f:v");
    onnx_node(&g, "Concat:u,v:w:axis=1");
    onnx_node(&g, "Conv:w,g.weight:g:pads=1/1/1/1,kernel_shape=3/3,strides=2/2");
    onnx_node(&g, "Relu:g:q");
    onnx_node(&g, "Flatten:q:flat:axis=1");
    onnx_node(&g, "Gemm:flat,fc.weight,fc.bias:y:transB=1");
    onnx_weight(&g, "a.weight", 4, (int64_t[]){12, C, 3, 3}, pseudo);
    onnx_weight(&g, "a.bias", 1, (int64_t[]){12}, pseudo);
    onnx_weight(&g, "b.weight", 4, (int64_t[]){12, 12, 3, 3}, pseudo);
    onnx_weight(&g, "d.weight", 4, (int64_t[]){12, 1, 3, 3}, pseudo);
    onnx_weight(&g, "e.weight", 4, (int64_t[]){8, 12, 1, 1}, pseudo);
    onnx_weight(&g, "f.weight", 4, (int64_t[]){6, 12, 1, 1}, pseudo);
    onnx_weight(&g, "g.weight", 4, (int64_t[]){10, 14, 3, 3}, pseudo);
    onnx_weight(&g, "fc.weight", 2, (int64_t[]){CLASSES, 90}, pseudo);
    onnx_weight(&g, "fc.bias", 1, (int64_t[]){CLASSES}, pseudo);
    onnx_value(&g, 11, "x", 3, (int64_t[]){C, SIDE, SIDE});
    onnx_value(&g, 12, "y", 1, (int64_t[]){CLASSES});
    onnx_save(&g, path);
}

static char path[64], other[64];
static float x[BATCH * PIXELS];
static const int64_t labels[BATCH] = {0, 2, 4, 1};

static void setup(void)
{
    snprintf(path, sizeof path, "/tmp/mest-channels-%d.onnx", (int)getpid());
    snprintf(other, sizeof other, "/tmp/mest-channels-%d-out.onnx", (int)getpid());
    write_model(path);
    for (int i = 0; i < BATCH * PIXELS; i++)
        x[i] = (float)sin(0.37 * i);
}

static void teardown(void)
{
    unlink(path);
    unlink(other);
}

static mest_model *open_model(const char *file, const char *scheme, double sparsity, bool scratch)
{
    mest_model *m = NULL;
    OK(mest_model_load(&m, file, NULL, &err));
    if (scheme) {
        mest_sparsity how;
        mest_sparsity_init(&how);
        how.scheme = scheme;
        how.sparsity = sparsity;
        how.dense_layers = "none";
        how.from_scratch = scratch;
        OK(mest_model_sparsify(m, &how, &err));
    }
    return m;
}

static mest_session *open_session(mest_model *m)
{
    mest_session *s = NULL;
    mest_train_config c;
    mest_train_config_init(&c);
    c.batch = BATCH;
    c.lr = 0.01;
    c.momentum = 0.9;
    c.keep_gradients = true;
    c.threads = 1;
    OK(mest_session_create(&s, m, &c, &err));
    return s;
}

static int find(const mest_model *m, const char *name)
{
    for (int i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].name, name))
            return i;
    ck_abort_msg("no parameter %s", name);
}

static bool has(const mest_channel_group *g, int param)
{
    for (int32_t i = 0; i < g->n_params; i++)
        if (g->param[i] == param)
            return true;
    return false;
}

START_TEST(what_belongs_together)
{
    mest_model *m = open_model(path, "filter", .5, false);
    static const struct { const char *maker; int64_t channels; const char *members; } want[] = {
        {"channels of a.weight", 12, "a.weight a.bias na.scale na.bias na.mean na.var b.weight nb.scale nb.bias nb.mean nb.var d.weight nd.scale nd.bias nd.mean nd.var "
                                     "e.weight f.weight "},
        {"channels of e.weight", 8, "e.weight g.weight "},
        {"channels of f.weight", 6, "f.weight g.weight "},
        {"channels of g.weight", 10, "g.weight fc.weight "},
    };
    ck_assert_int_eq(m->channels->n_groups, 4);
    for (int k = 0; k < 4; k++) {
        const mest_channel_group *g = &m->channels->group[k];
        ck_assert_str_eq(g->name, want[k].maker);
        ck_assert_int_eq(g->units->n_units, want[k].channels);
        ck_assert_int_eq(g->units->active_units, want[k].channels / 2);
        for (int i = 0; i < m->n_params; i++) {
            char name[64];
            snprintf(name, sizeof name, "%s ", m->params[i].name);
            const char *at = strstr(want[k].members, name);
            ck_assert_msg(has(g, i) == (at && (at == want[k].members || at[-1] == ' ')), "%s in %s", m->params[i].name, g->name);
        }
    }
    ck_assert_int_eq(m->channels->n_convs, 1);
    const int64_t small[][2] = {{6, C}, {6, 6}, {6, 1}, {4, 6}, {3, 6}, {5, 7}, {CLASSES, 45}};
    const char *const weights[] = {"a.weight", "b.weight", "d.weight", "e.weight", "f.weight", "g.weight", "fc.weight"};
    for (int i = 0; i < 7; i++) {
        const mest_param *p = &m->params[find(m, weights[i])];
        ck_assert_int_eq(p->shape.dim[0], small[i][0]);
        ck_assert_int_eq(p->shape.dim[1], small[i][1]);
    }
    mest_model_destroy(m);
}
END_TEST

/* Largest difference between outputs of two models. */
static double outputs_differ(mest_model *a, mest_model *b)
{
    float ya[BATCH * CLASSES], yb[BATCH * CLASSES];
    mest_session *s = open_session(a), *t = open_session(b);
    double most = 0;
    OK(mest_session_infer(s, x, BATCH, ya, BATCH * CLASSES, &err));
    OK(mest_session_infer(t, x, BATCH, yb, BATCH * CLASSES, &err));
    for (int i = 0; i < BATCH * CLASSES; i++)
        most = fmax(most, fabs((double)ya[i] - (double)yb[i]));
    mest_session_destroy(s);
    mest_session_destroy(t);
    return most;
}

/* Small layers, the file's size with zeros, and the small file give the same outputs and gradients. */
START_TEST(small_layers_are_large_ones_with_zeros)
{
    for (int round = 0; round < 2; round++) {
        mest_model *m = open_model(path, round ? "channel" : "filter", .5, round);
        mest_export_options how = {.struct_size = sizeof how};
        OK(mest_model_export(m, other, &how, &err));
        mest_model *zeros = open_model(other, NULL, 0, false);
        ck_assert_double_lt(outputs_differ(m, zeros), 1e-5);
        mest_session *s = open_session(m), *t = open_session(zeros);
        mest_metrics a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
        OK(mest_session_step(s, x, labels, BATCH, &a, &err));
        OK(mest_session_step(t, x, labels, BATCH, &b, &err));
        ck_assert_double_lt(fabs(a.loss - b.loss), 1e-5);
        for (int i = 0; i < m->n_params; i++) {
            const mest_param *p = &m->params[i];
            if (p->role != MEST_ROLE_TRAINABLE)
                continue;
            const size_t n = (size_t)mest_param_file_count(p);
            float *ga = malloc(n * sizeof *ga + 4), *gb = malloc(n * sizeof *gb + 4), *there = malloc(n * sizeof *there + 4);
            OK(mest_session_read_gradient(s, i, ga, n, &err));
            OK(mest_session_read_gradient(t, i, gb, n, &err));
            for (size_t k = 0; k < n; k++)
                there[k] = 1;
            if (p->axes) { /* which elements are there: 1 where present, 0 elsewhere */
                mest_real *ones = malloc(((size_t)p->count + 1) * sizeof *ones);
                for (int64_t k = 0; k < p->count; k++)
                    ones[k] = 1;
                mest_channels_expand(p, ones, 0, 0, (int64_t)n, there);
                free(ones);
            }
            for (size_t k = 0; k < n; k++)
                ck_assert_msg(there[k] ? fabs((double)ga[k] - (double)gb[k]) < 2e-5 : ga[k] == 0, "gradient %zu of %s: %g, %g", k, p->name, (double)ga[k], (double)gb[k]);
            free(ga), free(gb), free(there);
        }
        mest_session_destroy(s);
        mest_session_destroy(t);
        mest_model_destroy(zeros);
        /* the small file, after a step */
        how.shrunk = true;
        OK(mest_model_export(m, other, &how, &err));
        mest_model *small = open_model(other, NULL, 0, false);
        for (int i = 0; i < m->n_params; i++)
            ck_assert_int_eq(small->params[find(small, m->params[i].name)].count, m->params[i].count);
        ck_assert_double_lt(outputs_differ(m, small), 1e-5);
        mest_model_destroy(small);
        mest_model_destroy(m);
    }
}
END_TEST

/* All parameters, or a slot of their optimizer state, at the file's size. */
static float **picture(const mest_session *s, int slot)
{
    const mest_model *m = s->model;
    float **all = calloc((size_t)m->n_params, sizeof *all);
    for (int i = 0; i < m->n_params; i++) {
        const mest_param *p = &m->params[i];
        all[i] = calloc((size_t)mest_param_file_count(p) + 1, sizeof **all);
        if (slot < 0)
            OK(mest_param_read(p, 0, mest_param_file_count(p), all[i], &err));
        else if (p->axes && s->optimizer.state[i].slot[slot])
            mest_channels_expand(p, s->optimizer.state[i].slot[slot], 0, 0, mest_param_file_count(p), all[i]);
    }
    return all;
}

static void drop_picture(float **all, int n)
{
    for (int i = 0; i < n; i++)
        free(all[i]);
    free(all);
}

/* Position k of parameter p: does it belong to channel `unit` of the group, and how? */
typedef struct place { bool made, read; } place;

static place place_of(const mest_param *p, int32_t group, int64_t k, const bool *which)
{
    const mest_axes *a = p->axes;
    const mest_shape *s = &a->file_shape;
    const int64_t rest = s->rank > 2 ? mest_shape_span(s, 2, s->rank) : 1, cols = s->rank > 1 ? s->dim[1] : 1;
    const int64_t at[2] = {k / rest / cols, k / rest % cols};
    place out = {0};
    for (int axis = 0; axis < 2; axis++) {
        int64_t first = 0;
        for (int32_t q = 0; q < a->axis[axis].n_parts; q++) {
            const mest_channel_part *part = &a->axis[axis].part[q];
            const int64_t channel = (at[axis] - first) / part->repeat;
            if (part->group == group && at[axis] >= first && channel < part->n && which[channel]) {
                if (a->kind == MEST_CHANNEL_WEIGHT && axis != a->out_axis)
                    out.read = true;
                else
                    out.made = true;
            }
            first += part->n * part->repeat;
        }
    }
    return out;
}

START_TEST(a_change_of_channels)
{
    for (int32_t group = 0; group < 4; group++) {
        mest_model *m = open_model(path, "filter", .5, false);
        mest_session *s = open_session(m);
        OK(mest_session_add_scheduler(s, "mest", "mode=ems,bound=.2/.1/0,freq=100", &err)); /* room for more */
        mest_metrics now = {.struct_size = sizeof now};
        for (int i = 0; i < 3; i++)
            OK(mest_session_step(s, x, labels, BATCH, &now, &err));
        mest_sparse *units = m->channels->group[group].units;
        const int64_t n = units->n_units, had = units->active_units;
        int64_t drop[2], grow[2], d = 0, g = 0;
        bool dropped[16] = {0}, grown[16] = {0};
        for (int64_t u = 0; u < n; u++) { /* two go, two come, of these one that goes */
            const bool active = mest_sparse_active(units, u), goes = active && d < 2, comes = (goes && d == 1) || (!active && (g == 0 || d == 2) && g < 2);
            if (goes)
                dropped[drop[d++] = u] = true;
            if (comes && g < 2)
                grown[grow[g++] = u] = true;
        }
        ck_assert(d == 2 && g == 2);
        float **before = picture(s, -1), **slots = picture(s, 0);
        OK(mest_channels_edit(m, &s->optimizer, group, drop, d, grow, g, NULL, 0, s->host.scratch, 7, 1, &err));
        ck_assert_int_eq(units->active_units, had);
        float **after = picture(s, -1), **slots_after = picture(s, 0);
        for (int i = 0; i < m->n_params; i++) {
            const mest_param *p = &m->params[i];
            bool touched = false;
            for (int64_t k = 0; k < mest_param_file_count(p); k++) {
                const place old = p->axes ? place_of(p, group, k, dropped) : (place){0}, new = p->axes ? place_of(p, group, k, grown) : (place){0};
                touched |= old.made || old.read || new.made || new.read;
                if ((old.made || old.read) && !new.made && !new.read) {
                    ck_assert_msg(after[i][k] == (p->axes->kind == MEST_CHANNEL_VECTOR ? p->axes->gone : 0), "%s [%d] of a channel that went", p->name, (int)k);
                } else if (new.made || new.read) {
                    ck_assert_msg(slots_after[i][k] == 0, "state of %s [%d]", p->name, (int)k);
                    if (p->axes->kind == MEST_CHANNEL_VECTOR)
                        ck_assert_msg(after[i][k] == p->axes->fresh, "%s [%d] of a new channel", p->name, (int)k);
                    else if (new.read)
                        ck_assert_msg(after[i][k] == 0, "%s [%d] reads a new channel", p->name, (int)k);
                } else {
                    ck_assert_msg(after[i][k] == before[i][k] && slots_after[i][k] == slots[i][k], "%s [%d] is of a channel that stays", p->name, (int)k);
                }
            }
            ck_assert_int_eq(touched, has(&m->channels->group[group], i));
        }
        /* what makes a new channel is not 0: b.weight is of the residual group on both axes, so look at what only makes it */
        const int maker = m->channels->group[group].maker;
        double sum = 0;
        for (int64_t k = 0; k < mest_param_file_count(&m->params[maker]); k++)
            sum += place_of(&m->params[maker], group, k, grown).made ? fabs((double)after[maker][k]) : 0;
        ck_assert_double_gt(sum, 0);
        for (int i = 0; i < 3; i++) /* and it trains on */
            OK(mest_session_step(s, x, labels, BATCH, &now, &err));
        /* refused, with nothing changed: out of range, not there, there already, over capacity */
        float **still = picture(s, -1);
        const int64_t far[1] = {n}, gone[1] = {mest_sparse_active(units, drop[0]) ? drop[1] : drop[0]}, there[1] = {grow[0]};
        ck_assert(mest_channels_edit(m, &s->optimizer, group, far, 1, NULL, 0, NULL, 0, s->host.scratch, 7, 1, &err) != MEST_OK);
        ck_assert(mest_channels_edit(m, &s->optimizer, group, gone, 1, NULL, 0, NULL, 0, s->host.scratch, 7, 1, &err) != MEST_OK);
        ck_assert(mest_channels_edit(m, &s->optimizer, group, NULL, 0, there, 1, NULL, 0, s->host.scratch, 7, 1, &err) != MEST_OK);
        int64_t all[16], n_all = 0;
        for (int64_t u = 0; u < n; u++)
            if (!mest_sparse_active(units, u))
                all[n_all++] = u;
        ck_assert(mest_channels_edit(m, &s->optimizer, group, NULL, 0, all, n_all, NULL, 0, s->host.scratch, 7, 1, &err) != MEST_OK);
        float **yet = picture(s, -1);
        for (int i = 0; i < m->n_params; i++)
            ck_assert_mem_eq(still[i], yet[i], (size_t)mest_param_file_count(&m->params[i]) * sizeof(float));
        drop_picture(before, m->n_params), drop_picture(after, m->n_params), drop_picture(slots, m->n_params), drop_picture(slots_after, m->n_params);
        drop_picture(still, m->n_params), drop_picture(yet, m->n_params);
        mest_session_destroy(s);
        mest_model_destroy(m);
    }
}
END_TEST

/* One channel of many goes: few enough to be moved in place. The others keep what they have. */
START_TEST(one_channel_of_many)
{
    enum { MANY = 48 };
    onnx_bytes g = {0};
    onnx_node(&g, "Conv:x,a.weight:a:kernel_shape=3/3");
    onnx_node(&g, "Relu:a:r");
    onnx_node(&g, "Flatten:r:flat:axis=1");
    onnx_node(&g, "Gemm:flat,fc.weight:y:transB=1");
    onnx_weight(&g, "a.weight", 4, (int64_t[]){MANY, C, 3, 3}, pseudo);
    onnx_weight(&g, "fc.weight", 2, (int64_t[]){CLASSES, MANY * 16}, pseudo);
    onnx_value(&g, 11, "x", 3, (int64_t[]){C, SIDE, SIDE});
    onnx_value(&g, 12, "y", 1, (int64_t[]){CLASSES});
    onnx_save(&g, path);
    mest_model *m = open_model(path, "filter", .25, false);
    mest_session *s = open_session(m);
    OK(mest_session_add_scheduler(s, "mest", "mode=em,freq=100", &err));
    mest_metrics now = {.struct_size = sizeof now};
    OK(mest_session_step(s, x, labels, BATCH, &now, &err));
    mest_sparse *units = m->channels->group[0].units;
    int64_t active[MANY];
    const int64_t had = units->active_units;
    ck_assert_int_eq(had, MANY * 3 / 4);
    units->format->units(units, 0, had, active);
    for (int round = 0; round < 3; round++) { /* the first, one between, the last */
        const int64_t at = round == 0 ? 0 : round == 1 ? 17 : units->active_units - 1, left = units->active_units - 1;
        units->format->units(units, 0, units->active_units, active);
        const int64_t drop[1] = {active[at]};
        bool which[MANY] = {0};
        which[drop[0]] = true;
        float **before = picture(s, -1), **slots = picture(s, 0);
        OK(mest_channels_edit(m, &s->optimizer, 0, drop, 1, NULL, 0, NULL, 0, s->host.scratch, 7, 1, &err));
        ck_assert_int_eq(units->active_units, left);
        float **after = picture(s, -1), **slots_after = picture(s, 0);
        for (int i = 0; i < m->n_params; i++) {
            const mest_param *p = &m->params[i];
            ck_assert(p->axes);
            for (int64_t k = 0; k < mest_param_file_count(p); k++) {
                const place old = place_of(p, 0, k, which);
                const bool gone = old.made || old.read;
                ck_assert_msg(after[i][k] == (gone ? 0 : before[i][k]), "%s [%d] of round %d", p->name, (int)k, round);
                ck_assert_msg(slots_after[i][k] == (gone ? 0 : slots[i][k]), "state of %s [%d] of round %d", p->name, (int)k, round);
            }
        }
        drop_picture(before, m->n_params), drop_picture(after, m->n_params), drop_picture(slots, m->n_params), drop_picture(slots_after, m->n_params);
    }
    mest_session_destroy(s);
    mest_model_destroy(m);
}
END_TEST

static void refused(const char *scheme, const char *dense, const char *text)
{
    mest_model *m = NULL;
    mest_sparsity how;
    mest_sparsity_init(&how);
    how.scheme = scheme;
    how.sparsity = .5;
    how.dense_layers = dense;
    OK(mest_model_load(&m, path, NULL, &err));
    ck_assert_int_ne(mest_model_sparsify(m, &how, &err), MEST_OK);
    ck_assert_msg(strstr(err.msg, text), "%s", err.msg);
    mest_model_destroy(m);
}

START_TEST(what_cannot_be)
{
    refused("*=filter:.99", "none", "leaves none");
    refused("a=filter:.5,b=filter:.25,filter", "none", "its sparsity is 0.25, not 0.5");
    /* an operator that mixes channels keeps them: Transpose has no rule */
    onnx_bytes g = {0};
    onnx_node(&g, "Conv:x,a.weight:a:kernel_shape=1/1");
    onnx_node(&g, "Transpose:a:t:perm=0/2/3/1");
    onnx_node(&g, "Flatten:t:f:axis=1");
    onnx_node(&g, "MatMul:f,w:y");
    onnx_weight(&g, "a.weight", 4, (int64_t[]){4, C, 1, 1}, pseudo);
    onnx_weight(&g, "w", 2, (int64_t[]){4 * SIDE * SIDE, CLASSES}, pseudo);
    onnx_value(&g, 11, "x", 3, (int64_t[]){C, SIDE, SIDE});
    onnx_value(&g, 12, "y", 1, (int64_t[]){CLASSES});
    onnx_save(&g, path);
    refused("filter", "none", "Transpose 't'");
    write_model(path);
    /* versions are of one size */
    mest_model *m = open_model(path, "filter", .5, false);
    mest_session *s = open_session(m);
    ck_assert_int_eq(mest_session_publish(s, NULL, NULL, &err), MEST_E_UNSUPPORTED);
    mest_session_destroy(s);
    mest_model_destroy(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("channels");
    TCase *t = tcase_create("channels");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, what_belongs_together);
    tcase_add_test(t, small_layers_are_large_ones_with_zeros);
    tcase_add_test(t, a_change_of_channels);
    tcase_add_test(t, one_channel_of_many);
    tcase_add_test(t, what_cannot_be);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
