/* SPDX-License-Identifier: Apache-2.0 */
/* mest_session_check: a verdict on every node, on models that train and on models that no other call would load. */
#include "mest/check.h"

#include "ops/nn.h"
#include "tests/import/import_fixture.h"

enum { MAX_NODES = 256, MAX_FINDINGS = 16 };

typedef struct seen {
    struct { char name[64], op[64], kernel[64]; bool forward; mest_check_gradient gradient; bool why, change; } node[MAX_NODES];
    int n_nodes;
    struct { mest_check_level level; char text[512]; } finding[MAX_FINDINGS];
    int n_findings;
    mest_check_summary sum;
    mest_plan_info explained; /* of the same model, by mest_session_explain */
    bool loads;               /* without being tolerant */
} seen;

static void on_node(void *user, const mest_check_node *n)
{
    seen *s = user;
    ck_assert_int_lt(s->n_nodes, MAX_NODES);
    snprintf(s->node[s->n_nodes].name, 64, "%s", n->name);
    snprintf(s->node[s->n_nodes].op, 64, "%s", n->op);
    snprintf(s->node[s->n_nodes].kernel, 64, "%s", n->kernel ? n->kernel : "");
    s->node[s->n_nodes].forward = n->forward;
    s->node[s->n_nodes].gradient = n->gradient;
    s->node[s->n_nodes].why = n->why && *n->why;
    s->node[s->n_nodes++].change = n->change && *n->change;
}

static void on_finding(void *user, const mest_check_finding *f)
{
    seen *s = user;
    ck_assert_int_lt(s->n_findings, MAX_FINDINGS);
    s->finding[s->n_findings].level = f->level;
    snprintf(s->finding[s->n_findings++].text, 512, "%s", f->text);
}

typedef void (*preparation)(mest_model *m);

static void look(seen *s, const char *path, int64_t batch, preparation prepare)
{
    memset(s, 0, sizeof *s);
    mest_model_options load;
    mest_train_config config;
    mest_check_options options;
    mest_model *m = NULL, *strict = NULL;
    mest_session *session = NULL;
    meter held = { 0 };
    mest_allocator allocator = meter_allocator(&held);
    mest_error e = { 0 };
    s->loads = mest_model_load(&strict, path, NULL, &e) == MEST_OK;
    mest_model_destroy(strict);
    mest_model_options_init(&load);
    load.tolerant = true;
    load.allocator = &allocator;
    OK(mest_model_load(&m, path, &load, err));
    if (prepare)
        prepare(m);
    mest_train_config_init(&config);
    config.batch = batch;
    config.threads = 1;
    OK(mest_session_create(&session, m, &config, err));
    mest_check_options_init(&options);
    options.node = on_node;
    options.finding = on_finding;
    options.user = s;
    s->sum.struct_size = sizeof s->sum;
    OK(mest_session_check(session, &options, &s->sum, err));
    ck_assert_int_eq(s->n_nodes, s->sum.n_nodes);
    if (s->sum.trains) { /* the same session then really trains */
        s->explained.struct_size = sizeof s->explained;
        OK(mest_session_explain(session, MEST_PROGRAM_TRAIN, batch, NULL, NULL, &s->explained, err));
    } else if (!s->loads) {
        mest_error refused = { 0 };
        mest_plan_info plan = {.struct_size = sizeof plan};
        ck_assert_int_ne(mest_session_explain(session, MEST_PROGRAM_INFER, batch, NULL, NULL, &plan, &refused), MEST_OK);
        ck_assert_msg(!strcmp(refused.msg, e.msg), "'%s' and '%s'", refused.msg, e.msg); /* what the load said */
    }
    mest_session_destroy(session);
    mest_model_destroy(m);
    ck_assert_int_eq(held.now, 0);
}

static const char *here(char buf[1024], const char *name)
{
    snprintf(buf, 1024, "%s/check/%s.onnx", getenv("MEST_TEST_DATA") ? getenv("MEST_TEST_DATA") : "tests/data", name);
    return buf;
}

static int place(const seen *s, const char *name)
{
    for (int i = 0; i < s->n_nodes; i++)
        if (!strcmp(s->node[i].name, name))
            return i;
    ck_abort_msg("no node '%s'", name);
    return -1;
}

/* ---- models that do not train ---- */
static const struct bad_model {
    const char *file;
    bool loads, trains;
    int no_forward, no_gradient;
    const char *verdicts; /* "NAME:FG": F forward y or n, G gradient y, n, e(nds), -, ? */
    const char *finding;  /* a piece of one; NULL: none is wanted */
} bad_models[] = {
    { "unknown", false, false, 3, 3, "gemm_a:yy fancy:nn draws:nn fused:nn relu:yy gemm_y:yy", NULL },
    { "unknown_blind", false, false, 1, 1, "gemm_a:yy fancy:nn relu:y? gemm_d:y? softplus:y?", NULL },
    { "control", true, false, 1, 1, "gemm_a:yy sum:y- greater:ye Relu_3:y? Tanh_4:y? choice:nn gemm_y:y?", NULL },
    { "loop", true, true, 0, 0, "gemm_a:yy loop.2.0/i:y- loop.2.0/cond:y- Relu_3:yy Identity_4:y- loop.6.1/i:y- loop.6.1/cond:y- Relu_7:yy Identity_8:y- loop.10.2/i:y- loop.10.2/cond:y- Relu_11:yy Identity_12:y- b:yy gemm_y:yy", NULL },
    { "quantised", true, false, 0, 0, "quantise:y- dequantise:y- dequantise_w:y- gemm:y-", "nothing in the model trains" },
    { "scikit", false, false, 2, 0, "classify:n- zip:n-", "a loss needs float32" },
    { "ends", true, true, 0, 0, "gemm_a:y- round:y- gemm_s:yy add:yy gemm_y:yy", "'fc1.weight' of 'gemm_a'" },
    { "ends_all", true, false, 0, 0, "gemm_a:y- round:y-", "nothing in the model trains" },
    { "second", false, false, 1, 0, "gemm_a:yy gemm_y:yy aside:y- fancy:n-", NULL },
    { "free", true, false, 0, 0, "matmul:y? mean:y?", "sizes that are free" },
    { "baked", true, false, 1, 0, "reshape:n- gemm_a:y? relu:y? gemm_y:y?", NULL },
    { "form", false, false, 1, 1, "gemm_a:yy norm:nn gemm_y:y?", NULL },
    { "text", false, false, 1, 0, "words:n- gather:y-", "nothing in the model trains" },
    { "constants", true, false, 0, 0, "w:y- gemm:y-", "nothing in the model trains" },
    { "new", false, false, 1, 1, "gemm_y:nn", NULL },
};
enum { N_BAD = sizeof bad_models / sizeof *bad_models };

static char letter(mest_check_gradient g) { return "-yne?"[g]; }

START_TEST(what_is_wrong_is_named)
{
    char path[1024];
    const struct bad_model *b = &bad_models[_i];
    static seen s;
    look(&s, here(path, b->file), 4, NULL);
    ck_assert_msg(s.loads == b->loads && s.sum.trains == b->trains, "%s: loads %d, trains %d", b->file, s.loads, s.sum.trains);
    int n = 0;
    char list[256], *rest = NULL;
    snprintf(list, sizeof list, "%s", b->verdicts);
    for (char *word = strtok_r(list, " ", &rest); word; word = strtok_r(NULL, " ", &rest), n++) {
        char *colon = strchr(word, ':');
        *colon = 0;
        int i = place(&s, word);
        ck_assert_msg(s.node[i].forward == (colon[1] == 'y') && letter(s.node[i].gradient) == colon[2], "%s: '%s' has %d%c instead of %s", b->file, word,
                      s.node[i].forward, letter(s.node[i].gradient), colon + 1);
        ck_assert_msg(s.node[i].why, "%s: '%s': no reason", b->file, word);
        ck_assert_msg(s.node[i].forward || s.node[i].change, "%s: '%s': what to change?", b->file, word);
    }
    ck_assert_int_eq(n, s.n_nodes);
    ck_assert_int_eq(s.sum.n_no_forward, b->no_forward);
    ck_assert_int_eq(s.sum.n_no_gradient, b->no_gradient);
    bool found = false;
    for (int i = 0; i < s.n_findings; i++)
        found |= b->finding && strstr(s.finding[i].text, b->finding);
    ck_assert_msg(found == (b->finding != NULL), "%s: finding '%s'", b->file, b->finding);
    ck_assert_msg(b->finding || s.n_findings == 0, "%s: %s", b->file, s.finding[0].text);
}
END_TEST

START_TEST(sizes_and_batch_help)
{
    char path[1024];
    mest_model_options load;
    mest_train_config config;
    mest_model *m;
    mest_session *session;
    static const char *const files[] = { "free", "baked" };
    for (int i = 0; i < 2; i++) {
        mest_model_options_init(&load);
        load.tolerant = true;
        OK(mest_model_load(&m, here(path, files[i]), &load, err));
        mest_train_config_init(&config);
        config.batch = i ? 1 : 4; /* the batch that is baked in; or with sizes */
        OK(mest_session_create(&session, m, &config, err));
        mest_source_info info = { .struct_size = sizeof info, .input_type = MEST_SAMPLE_F32, .input_rank = 2, .input_dim = { 7, 4 } };
        if (!i)
            OK(mest_session_expect(session, &info, err));
        mest_check_summary sum = { .struct_size = sizeof sum };
        OK(mest_session_check(session, NULL, &sum, err));
        ck_assert_msg(sum.trains && sum.planned, "%s", files[i]);
        mest_session_destroy(session);
        mest_model_destroy(m);
    }
}
END_TEST

/* A file of batch 4 whose samples look at each other is one of batch 4 only. */
START_TEST(a_batch_that_cannot_change)
{
    char path[1024];
    static seen s;
    mest_model *m;
    mest_error e = { 0 };
    bool found = false;
    look(&s, here(path, "mixed"), 4, NULL);
    ck_assert_msg(s.sum.trains && s.n_findings == 0, "%s", s.finding[0].text);
    look(&s, path, 6, NULL);
    ck_assert(s.loads && !s.sum.trains && s.sum.n_no_forward == 1 && !s.node[place(&s, "mix")].forward);
    for (int i = 0; i < s.n_findings; i++)
        found |= strstr(s.finding[i].text, "the file fixes its batch at 4 and cannot be taken for one of 6: MatMul 'mix' mixes the samples") != NULL;
    ck_assert_msg(found, "%s", s.n_findings ? s.finding[0].text : "no finding");
    OK(mest_model_load(&m, path, NULL, err));
    ck_assert_int_eq(mest_model_batch(m, 4, &e), 4);
    ck_assert_int_eq(mest_model_batch(m, 6, &e), 4);
    ck_assert_msg(e.code == MEST_E_SHAPE && strstr(e.msg, "'mix'"), "%s", e.msg);
    mest_session *session; /* 0: what the file allows */
    mest_train_config config;
    mest_train_config_init(&config);
    config.batch = 0;
    OK(mest_session_create(&session, m, &config, err));
    mest_plan_info plan = { .struct_size = sizeof plan };
    OK(mest_session_explain(session, MEST_PROGRAM_TRAIN, 4, NULL, NULL, &plan, err));
    mest_session_destroy(session);
    config.batch = 6;
    OK(mest_session_create(&session, m, &config, err));
    ck_assert_int_eq(mest_session_explain(session, MEST_PROGRAM_TRAIN, 6, NULL, NULL, &plan, &e), MEST_E_SHAPE);
    ck_assert_msg(strstr(e.msg, "take a batch of 4"), "%s", e.msg);
    mest_session_destroy(session);
    mest_model_destroy(m);
}
END_TEST

/* ---- operators without a gradient ---- */
static mest_status refuse(mest_vjp *v) { return mest_fail(mest_vjp_err(v), MEST_E_UNSUPPORTED, "Softplus '%s': not in this form", mest_vjp_node(v)->name); }

/* Relu loses its gradient, Softplus refuses; both on one path. */
static const mest_op *without_gradient(const mest_op *op)
{
    static mest_op relu, softplus;
    if (!strcmp(op->name, "Relu")) {
        relu = *op;
        relu.vjp = NULL;
        return &relu;
    }
    if (!strcmp(op->name, "Softplus")) {
        softplus = *op;
        softplus.vjp = refuse;
        return &softplus;
    }
    return op;
}

static void freeze_first(mest_model *m) { OK(mest_model_freeze(m, "fc1.*", true, NULL, err)); }

START_TEST(all_missing_gradients_are_named)
{
    char path[1024];
    static seen s;
    mest_op_replace = without_gradient;
    here(path, "no_gradient");
    look(&s, path, 4, NULL);
    ck_assert(!s.sum.trains && s.loads);
    ck_assert_int_eq(s.sum.n_no_gradient, 3);
    static const char *const missing[] = { "relu1", "softplus", "relu2" };
    for (int i = 0; i < 3; i++) {
        int k = place(&s, missing[i]);
        ck_assert_msg(s.node[k].forward && s.node[k].gradient == MEST_GRADIENT_NO && s.node[k].why && s.node[k].change, "%s", missing[i]);
    }
    ck_assert_int_eq(s.node[place(&s, "gemm_a")].gradient, MEST_GRADIENT_YES);
    ck_assert_int_eq(s.node[place(&s, "aside")].gradient, MEST_GRADIENT_UNNEEDED); /* a Relu where nothing learns */
    /* frozen as the advice says, it trains */
    look(&s, path, 4, freeze_first);
    ck_assert(s.sum.trains);
    ck_assert_int_eq(s.node[place(&s, "relu1")].gradient, MEST_GRADIENT_UNNEEDED);
    /* training itself refuses before the first step, and names all three at once, although one is behind the other */
    mest_model *m;
    mest_session *session;
    mest_train_config config;
    mest_plan_info plan = {.struct_size = sizeof plan};
    mest_error e = { 0 };
    OK(mest_model_load(&m, here(path, "no_gradient"), NULL, err));
    mest_train_config_init(&config);
    OK(mest_session_create(&session, m, &config, err));
    ck_assert_int_eq(mest_session_explain(session, MEST_PROGRAM_TRAIN, 4, NULL, NULL, &plan, &e), MEST_E_UNSUPPORTED);
    for (int i = 0; i < 3; i++)
        ck_assert_msg(strstr(e.msg, missing[i]), "'%s' is not in: %s", missing[i], e.msg);
    mest_session_destroy(session);
    mest_model_destroy(m);
    mest_op_replace = NULL;
}
END_TEST

/* ---- models that train ---- */
static const char *const good_models[] = { "mlp", "lenet5", "resnet8", "mobilenetv2", "vit", "bert", "dscnn1d", "lstm" };
enum { N_GOOD = sizeof good_models / sizeof *good_models };

static void half_sparse(mest_model *m)
{
    mest_sparsity how;
    mest_sparsity_init(&how);
    how.scheme = "csr";
    how.sparsity = 0.5;
    OK(mest_model_sparsify(m, &how, err));
}

START_TEST(networks_train)
{
    if (no_shared("networks that train"))
        return;
    char path[1024], file[128];
    static seen s;
    for (int sparse = 0; sparse < 2; sparse++) {
        snprintf(file, sizeof file, "%s/model.onnx", good_models[_i]);
        shared_path(path, file);
        look(&s, path, 4, sparse ? half_sparse : NULL);
        ck_assert_msg(s.sum.trains && s.sum.planned && s.sum.n_errors == 0, "%s: %s", good_models[_i], s.n_findings ? s.finding[0].text : "");
        ck_assert_int_eq(s.sum.n_without_gradient, 0);
        /* numbers of the plan as --explain has them */
        ck_assert_int_eq(s.sum.plan.macs, s.explained.macs);
        ck_assert_int_eq(s.sum.plan.n_nodes, s.explained.n_nodes);
        ck_assert_int_eq(s.sum.plan.arena_bytes, s.explained.arena_bytes);
        ck_assert_int_eq(s.sum.plan.optimizer_bytes, s.explained.optimizer_bytes);
        ck_assert_int_eq(s.sum.plan.parameter_bytes, s.explained.parameter_bytes);
        /* all of it: the check itself holds some kilobytes besides */
        ck_assert_msg(s.sum.plan.total_bytes < s.explained.total_bytes + 32768 && s.sum.plan.total_bytes * 4 > s.explained.total_bytes * 3, "%s: %lld and %lld bytes",
                      good_models[_i], (long long)s.sum.plan.total_bytes, (long long)s.explained.total_bytes);
        for (int i = 0; i < s.n_nodes; i++)
            ck_assert_msg(s.node[i].forward && s.node[i].kernel[0], "%s: '%s'", good_models[_i], s.node[i].name);
    }
}
END_TEST

START_TEST(arguments_are_checked)
{
    char path[1024];
    mest_model *m;
    mest_session *session;
    mest_train_config config;
    mest_error e = { 0 };
    mest_check_summary sum = { .struct_size = sizeof sum };
    OK(mest_model_load(&m, here(path, "ends"), NULL, err));
    mest_train_config_init(&config);
    OK(mest_session_create(&session, m, &config, err));
    ck_assert_int_eq(mest_session_check(NULL, NULL, &sum, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_session_check(session, NULL, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_session_check(session, NULL, &sum, &e), MEST_E_STATE); /* not loaded for it */
    ck_assert(strstr(e.msg, "tolerant"));
    mest_session_destroy(session);
    mest_model_destroy(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("check");
    TCase *t = tcase_create("check");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, what_is_wrong_is_named, 0, N_BAD);
    tcase_add_test(t, sizes_and_batch_help);
    tcase_add_test(t, a_batch_that_cannot_change);
    tcase_add_test(t, all_missing_gradients_are_named);
    tcase_add_loop_test(t, networks_train, 0, N_GOOD);
    tcase_add_test(t, arguments_are_checked);
    suite_add_tcase(suite, t);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
