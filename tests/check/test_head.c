/* SPDX-License-Identifier: Apache-2.0 */
/* Transfer learning: a fresh head for another number of classes, and what is frozen before it. */
#include <check.h>
#include <math.h>
#include <unistd.h>

#include "mest/check.h"
#include "mest/train.h"
#include "runtime/rng.h"
#include "tests/onnx_write.h"

#define OK(call)                                                          \
    do {                                                                  \
        mest_error own = {0}, *err = &own;                                \
        const mest_status status_ = (call);                               \
        ck_assert_msg(status_ == MEST_OK, "%s: %s", #call, err->msg);     \
    } while (0)
#define FAILS(code, call, text)                                           \
    do {                                                                  \
        mest_error own = {0}, *err = &own;                                \
        const mest_status status_ = (call);                               \
        ck_assert_msg(status_ == (code), "%s: status %d, %s", #call, (int)status_, err->msg); \
        ck_assert_msg(strstr(err->msg, text) != NULL, "'%s' is not in '%s'", text, err->msg); \
    } while (0)

enum { SIDE = 12, PER = 3 * SIDE * SIDE, BATCH = 8 };

static char path[64], other[80];

static float wave(uint64_t i) { return (float)(.2 * sin(1.7 * (double)i + .3)); }

static float positive(uint64_t i) { return 1 + (float)i / 8; }

static void ints(onnx_bytes *g, const char *name, int64_t n, const int64_t *v)
{
    onnx_bytes t = {0};
    onnx_int(&t, 1, n);
    onnx_int(&t, 2, 7);
    onnx_text(&t, 8, name);
    onnx_blob(&t, 9, v, (size_t)n * sizeof *v);
    onnx_nest(g, 5, &t);
}

/* Three convolutions, then the nodes of the head. */
static onnx_bytes body(void)
{
    onnx_bytes g = {0};
    onnx_node(&g, "Conv:x,c1,cb1:a1:pads=1/1/1/1");
    onnx_node(&g, "Relu:a1:r1");
    onnx_node(&g, "Conv:r1,c2,cb2:a2:pads=1/1/1/1");
    onnx_node(&g, "Relu:a2:r2");
    onnx_node(&g, "Conv:r2,c3,cb3:a3:pads=1/1/1/1");
    onnx_node(&g, "Relu:a3:r3");
    onnx_weight(&g, "c1", 4, (int64_t[]){16, 3, 3, 3}, wave);
    onnx_weight(&g, "cb1", 1, (int64_t[]){16}, wave);
    onnx_weight(&g, "c2", 4, (int64_t[]){16, 16, 3, 3}, wave);
    onnx_weight(&g, "cb2", 1, (int64_t[]){16}, wave);
    onnx_weight(&g, "c3", 4, (int64_t[]){16, 16, 3, 3}, wave);
    onnx_weight(&g, "cb3", 1, (int64_t[]){16}, wave);
    onnx_value(&g, 11, "x", 3, (int64_t[]){3, SIDE, SIDE});
    return g;
}

static void save_gemm(void)
{
    onnx_bytes g = body();
    onnx_node(&g, "GlobalAveragePool:r3:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Gemm:f,w,b:z:transB=1");
    onnx_node(&g, "Softmax:z:y:axis=1");
    onnx_weight(&g, "w", 2, (int64_t[]){10, 16}, wave);
    onnx_weight(&g, "b", 1, (int64_t[]){10}, wave);
    onnx_value(&g, 12, "y", 1, (int64_t[]){10});
    onnx_save(&g, path);
}

static mest_model *load(const char *file)
{
    mest_model *m = NULL;
    OK(mest_model_load(&m, file, NULL, err));
    return m;
}

static int find(const mest_model *m, const char *name, mest_tensor_info *info)
{
    for (int i = 0; i < mest_model_parameter_count(m); i++) {
        *info = (mest_tensor_info){.struct_size = sizeof *info};
        OK(mest_model_parameter(m, i, info, err));
        if (!strcmp(info->name, name))
            return i;
    }
    ck_abort_msg("no parameter '%s'", name);
}

static void read_values(const mest_model *m, const char *name, float *v, size_t n)
{
    mest_tensor_info info;
    OK(mest_model_read_parameter(m, find(m, name, &info), v, n, err));
}

static mest_session *session(mest_model *m)
{
    mest_train_config c;
    mest_session *s = NULL;
    mest_train_config_init(&c);
    c.batch = BATCH;
    c.threads = 1;
    c.lr = .01;
    OK(mest_session_create(&s, m, &c, err));
    return s;
}

static void train_a_step(mest_session *s, int64_t classes)
{
    static float x[BATCH * PER];
    int64_t y[BATCH];
    mest_metrics metrics = {.struct_size = sizeof metrics};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = (float)mest_rng_uniform(3, 1, i) - .5f;
    for (int i = 0; i < BATCH; i++)
        y[i] = i % classes;
    OK(mest_session_step(s, x, y, BATCH, &metrics, err));
    ck_assert(isfinite(metrics.loss));
}

/* Trains a step, writes, reads: the file has the new number of classes and goes on learning. */
static void goes_on(mest_model *m, int64_t classes)
{
    mest_session *s = session(m);
    mest_tensor_info out = {.struct_size = sizeof out};
    train_a_step(s, classes);
    mest_session_destroy(s);
    OK(mest_model_export(m, other, NULL, err));
    mest_model *again = load(other);
    OK(mest_model_output(again, 0, &out, err));
    ck_assert_int_eq((int)out.dim[1], (int)classes);
    s = session(again);
    train_a_step(s, classes);
    mest_session_destroy(s);
    mest_model_destroy(again);
}

START_TEST(test_gemm)
{
    mest_head_info head = {.struct_size = sizeof head};
    mest_tensor_info w, b;
    float values[6 * 16], same[6 * 16], seed2[6 * 16], bias[6];
    save_gemm();
    mest_model *m = load(path), *n = load(path), *k = load(path);
    OK(mest_model_freeze(m, "*", true, NULL, err));
    OK(mest_model_new_head(m, NULL, 6, 1, &head, err));
    ck_assert_str_eq(head.op, "Gemm");
    ck_assert_str_eq(head.weight, "w");
    ck_assert_str_eq(head.bias, "b");
    ck_assert_int_eq((int)head.classes_before, 10);
    find(m, "w", &w);
    ck_assert(w.rank == 2 && w.dim[0] == 6 && w.dim[1] == 16 && w.role == MEST_ROLE_TRAINABLE);
    find(m, "b", &b);
    ck_assert(b.rank == 1 && b.dim[0] == 6 && b.role == MEST_ROLE_TRAINABLE);
    find(m, "c1", &w);
    ck_assert(w.role == MEST_ROLE_FROZEN);
    read_values(m, "w", values, 6 * 16);
    read_values(m, "b", bias, 6);
    double most = 0, sum = 0;
    for (int i = 0; i < 6 * 16; i++) {
        most = fmax(most, fabs((double)values[i]));
        sum += (double)values[i] * (double)values[i];
    }
    ck_assert_msg(most <= .25 && most > .2, "uniform in +-1/sqrt(16): the largest is %g", most);
    ck_assert_msg(fabs(sum / 96 - .0625 / 3) < .006, "variance %g", sum / 96);
    ck_assert(fabs((double)bias[0]) <= .25 && bias[0] != 0 && bias[0] != bias[1]);
    OK(mest_model_new_head(n, "y", 6, 1, NULL, err));
    read_values(n, "w", same, 6 * 16);
    ck_assert(!memcmp(values, same, sizeof values));
    OK(mest_model_new_head(k, NULL, 6, 2, NULL, err));
    read_values(k, "w", seed2, 6 * 16);
    ck_assert(memcmp(values, seed2, sizeof values));
    FAILS(MEST_E_STATE, mest_model_new_head(k, NULL, 5, 2, NULL, err), "once");
    goes_on(m, 6);
    mest_model_destroy(m);
    mest_model_destroy(n);
    mest_model_destroy(k);
}
END_TEST

/* More classes than before, too; and a sparse head. */
START_TEST(test_sparse_head)
{
    mest_sparsity how;
    mest_tensor_info w;
    save_gemm();
    mest_model *m = load(path);
    OK(mest_model_new_head(m, NULL, 40, 1, NULL, err));
    mest_sparsity_init(&how);
    how.scheme = "csr";
    how.rules = "w=csr:0.75;c2=block4:0.5";
    how.sparsity = 0;
    OK(mest_model_sparsify(m, &how, err));
    find(m, "w", &w);
    ck_assert_int_eq((int)w.stored, 160);
    goes_on(m, 40);
    mest_model_destroy(m);
}
END_TEST

START_TEST(test_conv)
{
    mest_head_info head = {.struct_size = sizeof head};
    mest_tensor_info w;
    onnx_bytes g = body();
    onnx_node(&g, "Conv:r3,w,b:z");
    onnx_node(&g, "Relu:z:q"); /* as SqueezeNet has it */
    onnx_node(&g, "GlobalAveragePool:q:p");
    onnx_node(&g, "Reshape:p,sizes:y");
    onnx_weight(&g, "w", 4, (int64_t[]){10, 16, 1, 1}, wave);
    onnx_weight(&g, "b", 1, (int64_t[]){10}, wave);
    ints(&g, "sizes", 2, (int64_t[]){-1, 10});
    onnx_value(&g, 12, "y", 1, (int64_t[]){10});
    onnx_save(&g, path);
    mest_model *m = load(path);
    OK(mest_model_new_head(m, NULL, 4, 1, &head, err));
    ck_assert_str_eq(head.op, "Conv");
    find(m, "w", &w);
    ck_assert(w.dim[0] == 4 && w.dim[1] == 16);
    goes_on(m, 4);
    mest_model_destroy(m);
}
END_TEST

/* Linear as the newer exporter writes it, with a bias of its own; a softmax with a temperature behind. */
START_TEST(test_matmul)
{
    mest_head_info head = {.struct_size = sizeof head};
    mest_tensor_info w;
    onnx_bytes g = body();
    onnx_node(&g, "GlobalAveragePool:r3:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Transpose:w:wt:perm=1/0");
    onnx_node(&g, "MatMul:f,wt:m");
    onnx_node(&g, "Add:b,m:z");
    onnx_node(&g, "Mul:z,t:y");
    onnx_weight(&g, "w", 2, (int64_t[]){10, 16}, wave);
    onnx_weight(&g, "b", 1, (int64_t[]){10}, wave);
    onnx_weight(&g, "t", 1, (int64_t[]){1}, wave);
    onnx_value(&g, 12, "y", 1, (int64_t[]){10});
    onnx_save(&g, path);
    mest_model *m = load(path);
    OK(mest_model_new_head(m, NULL, 3, 1, &head, err));
    ck_assert_str_eq(head.op, "MatMul");
    ck_assert_str_eq(head.bias, "b");
    find(m, "w", &w);
    ck_assert(w.dim[0] == 3 && w.dim[1] == 16);
    goes_on(m, 3);
    mest_model_destroy(m);
}
END_TEST

/* Behind a MatMul of tokens a sum over them; behind a convolution a Resize whose sizes are computed from its own Shape. */
START_TEST(test_computed_sizes)
{
    mest_tensor_info w;
    onnx_bytes g = body();
    onnx_node(&g, "Reshape:r3,tokens:t");
    onnx_node(&g, "Transpose:t:tt:perm=0/2/1");
    onnx_node(&g, "MatMul:tt,w:m");
    onnx_node(&g, "Add:m,b:z");
    onnx_node(&g, "ReduceSum:z,over:y:keepdims=0");
    ints(&g, "tokens", 3, (int64_t[]){0, 0, -1});
    ints(&g, "over", 1, (int64_t[]){1});
    onnx_weight(&g, "w", 2, (int64_t[]){16, 10}, wave);
    onnx_weight(&g, "b", 1, (int64_t[]){10}, wave);
    onnx_value(&g, 12, "y", 1, (int64_t[]){10});
    onnx_save(&g, path);
    mest_model *m = load(path);
    OK(mest_model_new_head(m, NULL, 4, 1, NULL, err));
    find(m, "w", &w);
    ck_assert(w.dim[0] == 16 && w.dim[1] == 4);
    goes_on(m, 4);
    mest_model_destroy(m);

    for (int i = 0; i < 3; i++) { /* the second has the number of classes in a piece of its sizes; the third computes it from others */
        g = body();
        onnx_node(&g, "Conv:r3,w,b:z");
        if (i == 0) {
            onnx_node(&g, "Shape:z:s");
            onnx_node(&g, "Slice:s,from,to:two");
        } else {
            onnx_node(&g, "Shape:x:s");
            onnx_node(&g, "Slice:s,from,one:n");
            if (i == 2)
                onnx_node(&g, "Add:five,five:ten");
            ints(&g, i == 2 ? "five" : "ten", 1, (int64_t[]){i == 2 ? 5 : 10});
            onnx_node(&g, "Concat:n,ten:two:axis=0");
        }
        onnx_node(&g, "Concat:two,side:sizes:axis=0");
        onnx_node(&g, "Resize:z,,,sizes:u");
        onnx_node(&g, "GlobalAveragePool:u:p");
        onnx_node(&g, "Flatten:p:y");
        ints(&g, "from", 1, (int64_t[]){0});
        ints(&g, "one", 1, (int64_t[]){1});
        ints(&g, "to", 1, (int64_t[]){2});
        ints(&g, "side", 2, (int64_t[]){2 * SIDE, 2 * SIDE});
        onnx_weight(&g, "w", 4, (int64_t[]){10, 16, 1, 1}, wave);
        onnx_weight(&g, "b", 1, (int64_t[]){10}, wave);
        onnx_value(&g, 12, "y", 1, (int64_t[]){10});
        onnx_save(&g, path);
        m = load(path);
        if (i < 2) {
            OK(mest_model_new_head(m, NULL, 4, 1, NULL, err));
            goes_on(m, 4);
        } else {
            FAILS(MEST_E_UNSUPPORTED, mest_model_new_head(m, NULL, 4, 1, NULL, err), "the number is fixed in front of it");
        }
        mest_model_destroy(m);
    }
}
END_TEST

static void refuses(onnx_bytes *g, const char *text)
{
    mest_tensor_info w;
    onnx_weight(g, "w", 2, (int64_t[]){10, 16}, wave);
    onnx_value(g, 12, "y", 1, (int64_t[]){10});
    onnx_save(g, path);
    mest_model *m = load(path);
    FAILS(MEST_E_UNSUPPORTED, mest_model_new_head(m, NULL, 4, 1, NULL, err), text);
    find(m, "w", &w);
    ck_assert(w.dim[0] == 10); /* nothing has changed */
    mest_model_destroy(m);
}

START_TEST(test_refusals)
{
    onnx_bytes g = body();
    onnx_node(&g, "GlobalAveragePool:r3:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Gemm:f,w:z:transB=1");
    onnx_node(&g, "Gemm:z,w:back"); /* an autoencoder's tied weight */
    onnx_node(&g, "Gemm:back,w:y:transB=1");
    refuses(&g, "of Gemm 'y' is shared: Gemm 'z' reads it too");
    g = body();
    onnx_node(&g, "GlobalAveragePool:r3:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Gemm:f,w:z:transB=1");
    onnx_node(&g, "Add:z,z:y");
    refuses(&g, "combines two activations");
    g = body();
    onnx_node(&g, "GlobalAveragePool:r3:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Gemm:f,w:z:transB=1");
    onnx_node(&g, "Concat:z,z:u:axis=1");
    onnx_node(&g, "Slice:u,from,to,axes:y");
    ints(&g, "from", 1, (int64_t[]){0});
    ints(&g, "to", 1, (int64_t[]){10});
    ints(&g, "axes", 1, (int64_t[]){1});
    refuses(&g, "Slice 'y' stands between the last layer and output 'y'");
    g = body();
    onnx_node(&g, "GlobalAveragePool:r3:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Gemm:f,w:z:transB=1");
    onnx_node(&g, "Mul:z,scales:y"); /* one for each class */
    onnx_weight(&g, "scales", 1, (int64_t[]){10}, wave);
    refuses(&g, "has an operand for each of the old classes");
    g = body();
    onnx_node(&g, "GlobalAveragePool:r3:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Gemm:f,w:z:transB=1");
    onnx_node(&g, "Reshape:z,sizes:u");
    onnx_node(&g, "Reshape:u,sizes2:y");
    ints(&g, "sizes", 3, (int64_t[]){-1, 2, 5});
    ints(&g, "sizes2", 2, (int64_t[]){-1, 10});
    refuses(&g, "hides along which axis the classes lie");
    save_gemm();
    mest_model *m = load(path);
    FAILS(MEST_E_ARGUMENT, mest_model_new_head(m, NULL, 0, 1, NULL, err), "0 classes");
    FAILS(MEST_E_ARGUMENT, mest_model_new_head(m, "nowhere", 4, 1, NULL, err), "no output 'nowhere'");
    mest_session *s = session(m);
    FAILS(MEST_E_STATE, mest_model_new_head(m, NULL, 4, 1, NULL, err), "comes before sessions");
    mest_session_destroy(s);
    mest_model_destroy(m);
}
END_TEST

/* ---- frozen prefixes ---- */

typedef struct plan {
    int64_t arena, optimizer, peak, backward_macs;
    int n_prefix; /* backward nodes of what is frozen before the head */
} plan;

static void note(void *user, const mest_node_info *n)
{
    plan *p = user;
    if (strcmp(n->phase, "forward") == 0)
        return;
    p->backward_macs += n->macs;
    static const char *const prefix[] = {"a1", "r1", "a2", "r2", "a3", "r3", "c1", "c2", "c3", "cb1", "cb2", "cb3"};
    for (size_t i = 0; i < sizeof prefix / sizeof *prefix; i++)
        p->n_prefix += !strncmp(n->name, prefix[i], strlen(prefix[i])) && (n->name[strlen(prefix[i])] == '/' || !n->name[strlen(prefix[i])]);
}

static plan measure(const char *frozen)
{
    plan p = {0};
    mest_plan_info info = {.struct_size = sizeof info};
    int64_t before = 0, now = 0;
    mest_model *m = load(path);
    if (frozen)
        OK(mest_model_freeze(m, frozen, true, NULL, err));
    mest_session *s = session(m);
    OK(mest_session_explain(s, MEST_PROGRAM_TRAIN, BATCH, note, &p, &info, err));
    train_a_step(s, 6);
    mest_session_memory(s, &now, &before);
    p.arena = info.arena_bytes;
    p.optimizer = info.optimizer_bytes;
    p.peak = before;
    mest_session_destroy(s);
    mest_model_destroy(m);
    return p;
}

/* Activations of a frozen prefix are let go at once, no gradient is computed there and no optimizer state kept: as planned, and as the allocator counts. */
START_TEST(test_frozen_prefix)
{
    save_gemm();
    const plan all = measure(NULL), none = measure("c*"), part = measure("c1,cb1,c2,cb2");
    const int64_t map = (int64_t)BATCH * 16 * SIDE * SIDE * (int64_t)sizeof(float); /* one activation of the body */
    ck_assert_msg(all.n_prefix >= 6 && all.backward_macs > 0, "%d", all.n_prefix);
    ck_assert_msg(none.n_prefix == 0, "%d backward nodes in a frozen prefix", none.n_prefix);
    ck_assert_msg(none.backward_macs < all.backward_macs / 100, "%ld of %ld", (long)none.backward_macs, (long)all.backward_macs);
    ck_assert_msg(part.backward_macs < all.backward_macs / 2 && part.backward_macs > none.backward_macs, "%ld", (long)part.backward_macs);
    ck_assert_msg(all.arena >= none.arena + map, "planned %ld and %ld, an activation has %ld", (long)all.arena, (long)none.arena, (long)map);
    ck_assert_msg(part.arena < all.arena && none.arena <= part.arena, "%ld", (long)part.arena);
    ck_assert_msg(all.peak >= none.peak + map, "measured %ld and %ld", (long)all.peak, (long)none.peak);
    ck_assert_msg(part.peak < all.peak, "%ld", (long)part.peak);
    ck_assert(none.optimizer < part.optimizer && part.optimizer < all.optimizer);
}
END_TEST

/* Patterns are globs over whole names; several are a list; what matches nothing is counted as nothing. */
START_TEST(test_patterns)
{
    static const struct { const char *pattern; int n; } cases[] = {{"*", 8}, {"c?", 3}, {"cb*", 3}, {"c*", 6}, {"w", 1}, {"W", 0}, {"c", 0}, {"*1", 2}, {"c1,cb1,w", 3}, {"?", 2},
                                                                   {"c1*,cb?", 4}, {"*b*", 4}, {"", 0}, {"c[12]", 0}};
    save_gemm();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = -1;
        mest_model *m = load(path);
        OK(mest_model_freeze(m, cases[i].pattern, true, &n, err));
        ck_assert_msg(n == cases[i].n, "'%s' matches %d, not %d", cases[i].pattern, n, cases[i].n);
        mest_model_destroy(m);
    }
}
END_TEST

/* ---- statistics of BatchNormalization that is frozen, or not ---- */

static void save_bn(void)
{
    onnx_bytes g = {0};
    onnx_node(&g, "Conv:x,c1:a1:pads=1/1/1/1");
    onnx_node(&g, "BatchNormalization:a1,scale,shift,mean,var:n");
    onnx_node(&g, "Relu:n:r");
    onnx_node(&g, "GlobalAveragePool:r:p");
    onnx_node(&g, "Flatten:p:f");
    onnx_node(&g, "Gemm:f,w,b:y:transB=1");
    onnx_weight(&g, "c1", 4, (int64_t[]){4, 3, 3, 3}, wave);
    onnx_weight(&g, "scale", 1, (int64_t[]){4}, positive);
    onnx_weight(&g, "shift", 1, (int64_t[]){4}, wave);
    onnx_weight(&g, "mean", 1, (int64_t[]){4}, wave);
    onnx_weight(&g, "var", 1, (int64_t[]){4}, positive);
    onnx_weight(&g, "w", 2, (int64_t[]){6, 4}, wave);
    onnx_weight(&g, "b", 1, (int64_t[]){6}, wave);
    onnx_value(&g, 11, "x", 3, (int64_t[]){3, SIDE, SIDE});
    onnx_value(&g, 12, "y", 1, (int64_t[]){6});
    onnx_save(&g, path);
}

START_TEST(test_frozen_statistics)
{
    static const struct { const char *bn, *frozen; bool moves; } cases[] = {
        {"auto", NULL, true}, {"auto", "scale,shift", false}, {"auto", "*", false}, {"auto", "shift", true}, {"train", "scale,shift", true}, {"frozen", NULL, false}};
    save_bn();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mest_train_config c;
        mest_session *s = NULL;
        mest_model *m = load(path);
        float before[2][4], after[2][4];
        if (cases[i].frozen)
            OK(mest_model_freeze(m, cases[i].frozen, true, NULL, err));
        OK(mest_model_freeze(m, "w", false, NULL, err));
        read_values(m, "mean", before[0], 4);
        read_values(m, "var", before[1], 4);
        mest_train_config_init(&c);
        c.batch = BATCH;
        c.threads = 1;
        c.batch_norm = cases[i].bn;
        OK(mest_session_create(&s, m, &c, err));
        train_a_step(s, 6);
        read_values(m, "mean", after[0], 4);
        read_values(m, "var", after[1], 4);
        ck_assert_msg((memcmp(before, after, sizeof before) != 0) == cases[i].moves, "bn %s, frozen %s", cases[i].bn, cases[i].frozen ? cases[i].frozen : "nothing");
        mest_session_destroy(s);
        mest_model_destroy(m);
    }
}
END_TEST

int main(void)
{
    snprintf(path, sizeof path, "/tmp/mest-head-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0)
        return 2;
    close(fd);
    snprintf(other, sizeof other, "%s.onnx", path);
    TCase *c = tcase_create("new head");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, test_gemm);
    tcase_add_test(c, test_sparse_head);
    tcase_add_test(c, test_conv);
    tcase_add_test(c, test_matmul);
    tcase_add_test(c, test_computed_sizes);
    tcase_add_test(c, test_refusals);
    tcase_add_test(c, test_frozen_prefix);
    tcase_add_test(c, test_patterns);
    tcase_add_test(c, test_frozen_statistics);
    Suite *suite = suite_create("head");
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner), n = srunner_ntests_run(runner);
    srunner_free(runner);
    unlink(path);
    unlink(other);
    printf("%d passed, %d failed, 0 skipped\n", n - failed, failed);
    return failed ? 1 : 0;
}
