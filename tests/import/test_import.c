/* SPDX-License-Identifier: Apache-2.0 */
/* The importer on small models of its own (tests/fixtures/make_models.py): aliases, old forms, types, constants, functions, roles,
 * metadata, external data, messages; what the public functions say; export of each. */
#include "tests/import/import_fixture.h"

static mest_model *load_own(const char *name)
{
    char path[1024];
    return load(data_path(path, name));
}

/* Loads, and expects failure with this status and this piece of text. */
static void refused(const char *name, mest_status status, const char *text)
{
    char path[1024];
    mest_model *m = (mest_model *)(uintptr_t)1;
    mest_error e;
    mest_status got = mest_model_load(&m, data_path(path, name), NULL, &e);
    ck_assert_msg(got == status && e.code == status, "%s: %s: %s", name, mest_status_text(got), e.msg);
    ck_assert_msg(strstr(e.msg, text) != NULL, "%s: '%s' is not in: %s", name, text, e.msg);
    ck_assert_ptr_null(m);
}

static const mest_node *find_node(const mest_model *m, const char *name)
{
    for (int i = 0; i < m->graph.n_nodes; i++)
        if (!strcmp(m->graph.nodes[i].name, name))
            return &m->graph.nodes[i];
    ck_abort_msg("no node '%s'", name);
}

static const mest_value *input_of(const mest_model *m, const char *node, int input)
{
    const mest_node *n = find_node(m, node);
    ck_assert_msg(input < n->n_in && n->in[input] != MEST_NONE, "%s has no input %d", node, input);
    return &m->graph.values[n->in[input]];
}

static void ints_are(const mest_model *m, const char *node, int input, int n, const int64_t *expected)
{
    const mest_value *v = input_of(m, node, input);
    ck_assert_int_eq(v->kind, MEST_VALUE_CONST);
    ck_assert_int_eq(v->type.dtype, MEST_I64);
    ck_assert(v->type.shape.rank == 1 && v->type.shape.dim[0] == n);
    ck_assert(!memcmp(v->data, expected, (size_t)n * 8));
}

static double real_of(const mest_model *m, const char *node, int input)
{
    const mest_value *v = input_of(m, node, input);
    ck_assert(v->kind == MEST_VALUE_CONST && v->type.dtype == MEST_F32 && v->type.shape.rank == 0);
    return (double)*(const mest_real *)v->data;
}

static mest_role role_of(const mest_model *m, const char *name, const char *reason)
{
    const mest_param *p = find_param(m, name);
    ck_assert_msg(p != NULL, "no parameter '%s'", name);
    ck_assert_msg(strstr(p->role_reason, reason) != NULL, "'%s': %s", name, p->role_reason);
    return p->role;
}

/* Export and load again: parameters by name, bit for bit. */
static mest_model *again(mest_model *m, bool sparse, int n_params)
{
    char out[1024];
    mest_export_options o = { .struct_size = sizeof o, .sparse = sparse };
    temporary(out);
    OK(mest_model_export(m, out, &o, err));
    mest_model *back = load(out);
    ck_assert_int_eq(unlink(out), 0);
    ck_assert_int_eq(back->n_params, n_params);
    ck_assert_int_eq(back->graph.n_nodes, m->graph.n_nodes);
    for (int i = 0; i < m->n_params; i++) {
        const mest_param *p = &m->params[i], *q = find_param(back, p->name);
        float x[256], y[256];
        ck_assert_msg(q && q->count == p->count && q->payload.dtype == p->payload.dtype && q->role == p->role, "'%s'", p->name);
        OK(mest_param_read(p, 0, p->count, x, err));
        OK(mest_param_read(q, 0, p->count, y, err));
        ck_assert_msg(!memcmp(x, y, (size_t)p->count * 4), "'%s'", p->name);
    }
    OK(infer_model(back, 3, err));
    return back;
}

START_TEST(aliases_are_untied)
{
    static const char *const files[] = { "untied.onnx", "untied_ir3.onnx" };
    for (int f = 0; f < 2; f++) {
        mest_model *m = load_own(files[f]);
        static const char *const names[] = { "w", "b", "c", "d", "b1", "b2", "c2" };
        ck_assert_int_eq(m->n_params, 7);
        ck_assert_int_eq(m->n_untied, 3);
        ck_assert_int_eq(m->graph.n_inputs, 1);
        for (int i = 0; i < 7; i++) {
            ck_assert_str_eq(m->params[i].name, names[i]);
            ck_assert(m->params[i].untied == (i > 3));
        }
        ck_assert_int_eq(count_ops(m, "Identity"), 0);
        /* train: every copy goes its own way, and comes back under its own name */
        for (int i = 0; i < 7; i++) {
            OK(mest_param_load(m, &m->params[i], err));
            m->params[i].values[1] = (mest_real)(i + 100);
        }
        mest_model *back = again(m, false, 7);
        ck_assert_int_eq(back->n_untied, 0);
        mest_model_destroy(back);
        mest_model_destroy(m);
        char path[1024];
        mest_model_options o;
        mest_model_options_init(&o);
        o.keep_aliases = true;
        OK(mest_model_load(&m, data_path(path, files[f]), &o, err));
        ck_assert_int_eq(m->n_params, 4);
        ck_assert_int_eq(count_ops(m, "Identity"), 5);
        mest_model_destroy(m);
    }
}
END_TEST

START_TEST(old_forms_become_new_ones)
{
    mest_model *m = load_own("old8.onnx");
    ints_are(m, "pad", 1, 8, (int64_t[]){ 0, 0, 1, 1, 0, 0, 1, 1 });
    ck_assert(real_of(m, "pad", 2) == 0.5);
    ints_are(m, "slice", 1, 2, (int64_t[]){ 1, 1 });
    ints_are(m, "slice", 2, 2, (int64_t[]){ 7, 7 });
    ints_are(m, "slice", 3, 2, (int64_t[]){ 2, 3 });
    ck_assert(real_of(m, "clip", 1) == -1 && real_of(m, "clip", 2) == 6);
    ck_assert(find_node(m, "clip_max")->in[1] == MEST_NONE && real_of(m, "clip_max", 2) == 5);
    ints_are(m, "split", 1, 2, (int64_t[]){ 1, 1 });
    ints_are(m, "squeeze", 1, 1, (int64_t[]){ 1 });
    ints_are(m, "unsqueeze", 1, 1, (int64_t[]){ 1 });
    ints_are(m, "mean", 1, 2, (int64_t[]){ 2, 3 });
    ints_are(m, "sum", 1, 2, (int64_t[]){ 2, 3 });
    ck_assert(real_of(m, "drop", 1) == 0.25);
    ck_assert(*(const bool *)input_of(m, "drop", 2)->data);
    ck_assert_str_eq(find_node(m, "up")->op->name, "Resize");
    ck_assert(find_node(m, "up")->in[1] == MEST_NONE && input_of(m, "up", 2)->type.shape.dim[0] == 4);
    const mest_node *bn = find_node(m, "bn");
    ck_assert_int_eq(bn->n_out, 1);
    for (const mest_attr *a = bn->op->attrs; a->name; a++) {
        const char *field = (const char *)bn->params + a->offset;
        ck_assert(strcmp(a->name, "training_mode") || *(const int64_t *)(const void *)field == 1);
        ck_assert(strcmp(a->name, "momentum") || *(const double *)(const void *)field == 0.75);
    }
    OK(infer_model(m, 3, err));
    mest_model_destroy(again(m, false, 4));
    mest_model_destroy(m);
    m = load_own("old10.onnx");
    ck_assert(find_node(m, "resize")->in[1] == MEST_NONE && input_of(m, "resize", 2)->kind == MEST_VALUE_CONST);
    OK(infer_model(m, 3, err));
    mest_model_destroy(m);
    m = load_own("resize11.onnx");
    ck_assert(find_node(m, "resize")->in[1] == MEST_NONE);
    OK(infer_model(m, 3, err));
    mest_model_destroy(m);
}
END_TEST

START_TEST(weights_of_every_float_type)
{
    mest_model *m = load_own("types.onnx");
    ck_assert_int_eq(m->n_params, 4);
    ck_assert_int_eq(m->n_fixed, 1);
    for (int i = 0; i < 4; i++) {
        float x[16];
        OK(mest_model_read_parameter(m, i, x, 16, err));
        for (int k = 0; k < 16; k++)
            ck_assert_msg(x[k] == (float)k / 8 - 2, "%s[%d] = %g", m->params[i].name, k, (double)x[k]);
    }
    OK(infer_model(m, 3, err));
    mest_model_destroy(again(m, false, 4)); /* as they lie in the file */
    for (int i = 0; i < 4; i++) {
        OK(mest_param_load(m, &m->params[i], err));
        m->params[i].values[3] = -0.0f;
        m->params[i].values[5] = 0x1.8p-20f; /* a subnormal half */
    }
    mest_model_destroy(again(m, false, 4)); /* converted on the way out */
    mest_model_destroy(m);
}
END_TEST

START_TEST(constants_of_every_kind)
{
    mest_model *m = load_own("constants.onnx");
    ck_assert_int_eq(m->n_params, 0);
    ck_assert_int_eq(count_ops(m, "Constant"), 0);
    const mest_value *s = input_of(m, "Gemm_11", 1);
    static const float dense[8] = { 0, 2, 0, 0, 0, 0, 3, 0 };
    for (int i = 0; i < 8; i++)
        ck_assert(((const mest_real *)s->data)[i] == dense[i]);
    const uint8_t *flags = input_of(m, "Where_10", 0)->data;
    ck_assert(flags[0] == 1 && flags[1] == 0 && flags[2] == 1 && flags[3] == 1);
    ck_assert(((const mest_real *)input_of(m, "Add_7", 1)->data)[3] == 4);
    ck_assert(real_of(m, "Mul_6", 1) == 0.5);
    OK(infer_model(m, 3, err));
    mest_model_destroy(again(m, false, 0));
    mest_model_destroy(m);
}
END_TEST

START_TEST(functions_are_inlined)
{
    mest_model *m = load_own("functions.onnx");
    ck_assert_int_eq(m->graph.n_nodes, 6);
    double alpha[2];
    int n = 0;
    for (int i = 0; i < 6; i++) {
        const mest_node *node = &m->graph.nodes[i];
        ck_assert_int_eq(node->origin, -1);
        for (const mest_attr *a = node->op->attrs; !strcmp(node->op->name, "LeakyRelu") && a->name; a++)
            if (!strcmp(a->name, "alpha"))
                alpha[n++] = *(const double *)(const void *)((const char *)node->params + a->offset);
    }
    ck_assert_int_eq(n, 2);
    ck_assert(alpha[0] == 0.5);  /* the call's */
    ck_assert(alpha[1] == 0.25); /* the function's default */
    ck_assert_int_eq(m->n_params, 1);
    OK(infer_model(m, 3, err));
    mest_model_destroy(again(m, false, 1));
    mest_model_destroy(m);
}
END_TEST

START_TEST(roles_follow_the_rules)
{
    mest_model *m = load_own("roles.onnx");
    ck_assert_int_eq(role_of(m, "factor", "only scales"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "scalar", "scalar"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "mask", "no output depends"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "fill", "only scales"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "unused", "no node"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "w", "weight of MatMul 'mm'"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "one_bias", "bias of MatMul 'mm'"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "unit", "weight of MatMul 'mm2' through Reshape"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(input_of(m, "scale", 1)->kind, MEST_VALUE_CONST); /* what never changes is data of the graph */
    OK(mest_param_load(m, &m->params[find_param(m, "mask") - m->params], err));
    mest_model_destroy(again(m, false, m->n_params));
    mest_model_summary s = { .struct_size = sizeof s };
    OK(mest_model_summarize(m, &s, err));
    ck_assert_int_eq(s.n_trainable, 3);
    ck_assert_int_eq(s.trainable_elements, 4 + 1 + 3);
    ck_assert_int_eq(s.n_constants, 7);
    int n;
    OK(mest_model_freeze(m, "*_bias,w", true, &n, err));
    ck_assert_int_eq(n, 2);
    ck_assert_int_eq(find_param(m, "w")->role, MEST_ROLE_FROZEN);
    OK(mest_model_freeze(m, "?", false, &n, err));
    ck_assert_int_eq(n, 1);
    ck_assert_int_eq(find_param(m, "w")->role, MEST_ROLE_TRAINABLE);
    mest_model_destroy(m);
    m = load_own("metadata.onnx");
    ck_assert_int_eq(role_of(m, "gain", "Mul"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "w", "MatMul"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "table", "BUFFER"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "c0", "CONSTANT_TENSOR"), MEST_ROLE_CONSTANT);
    mest_model_destroy(again(m, false, 4)); /* metadata survives the export */
    mest_model_destroy(m);
    m = load_own("masks.onnx");
    ck_assert_int_eq(role_of(m, "causal", "a mask"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "shift", "bias of MatMul 'out'"), MEST_ROLE_TRAINABLE);
    mest_model_destroy(m);
    m = load_own("buffers.onnx");
    ck_assert_int_eq(role_of(m, "mean", "mean or deviation"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "std", "mean or deviation"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "positions", "positions"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "kept", "a mask"), MEST_ROLE_CONSTANT);
    ck_assert_int_eq(role_of(m, "gain", "Mul"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "less", "Sub"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "learned", "Add"), MEST_ROLE_TRAINABLE);
    mest_model_destroy(m);
}
END_TEST

START_TEST(constants_can_be_called_parameters)
{
    char path[1024];
    mest_model_options o;
    mest_model_options_init(&o);
    o.trainable = "w*";
    mest_model *m;
    OK(mest_model_load(&m, data_path(path, "promoted.onnx"), &o, err));
    ck_assert_int_eq(m->n_params, 5);
    ck_assert_int_eq(role_of(m, "w", "weight of Gemm 'first'"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "w2", "weight of Gemm 'second'"), MEST_ROLE_TRAINABLE);
    ck_assert_int_eq(role_of(m, "keep", "a mask"), MEST_ROLE_CONSTANT);
    float x[16];
    OK(mest_param_read(find_param(m, "w2"), 0, 16, x, err));
    ck_assert(x[0] == 5.0f / 8 - 2);
    for (int i = 0; i < 5; i++) { /* what was trained is in the file that is written, as initializers */
        if (m->params[i].role != MEST_ROLE_TRAINABLE)
            continue;
        OK(mest_param_load(m, &m->params[i], err));
        m->params[i].values[1] = (mest_real)(i + 100);
    }
    mest_model_destroy(again(m, false, 5));
    mest_model_destroy(m);

    o.trainable = "keep";
    OK(mest_model_load(&m, path, &o, err));
    ck_assert_int_eq(m->n_params, 3);
    ck_assert_int_eq(role_of(m, "keep", "Max"), MEST_ROLE_TRAINABLE);
    mest_model_destroy(m);

    mest_error e;
    o.trainable = "w,vv";
    ck_assert_int_eq(mest_model_load(&m, path, &o, &e), MEST_E_ARGUMENT);
    ck_assert_msg(strstr(e.msg, "'vv' matches no"), "%s", e.msg);
}
END_TEST

START_TEST(external_data_is_folded_in)
{
    mest_model *m = load_own("external.onnx");
    ck_assert_int_eq(m->external_bytes, 85 + 16);
    ck_assert_int_eq(m->n_untied, 1);
    float x[4];
    OK(mest_param_read(find_param(m, "b1"), 0, 4, x, err));
    ck_assert(x[0] == 9.0f / 8 - 2 && x[3] == 12.0f / 8 - 2);
    ints_are(m, "Reshape_3", 1, 2, (int64_t[]){ -1, 4 });
    mest_model *back = again(m, false, 3);
    ck_assert_int_eq(back->external_bytes, 0);
    mest_model_destroy(back);
    mest_model_destroy(m);
}
END_TEST

START_TEST(refusals_say_why)
{
    refused("unsupported.onnx", MEST_E_UNSUPPORTED, "Loopy (2 x, first 'first'), com.microsoft.Gelu (1 x, first 'ms')");
    refused("attribute.onnx", MEST_E_UNSUPPORTED, "Relu 'odd': attribute 'foo'");
    refused("bn_used.onnx", MEST_E_UNSUPPORTED, "BatchNormalization 'bn'");
    refused("not_there.onnx", MEST_E_IO, "not_there.onnx");
    refused("weights", MEST_E_IO, "not a regular file");
    mest_model *m;
    mest_error e;
    ck_assert_int_eq(mest_model_load(&m, NULL, NULL, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_model_load(&m, "", NULL, NULL), MEST_E_ARGUMENT);
    mest_model_options o = { 0 };
    ck_assert_int_eq(mest_model_load(&m, "x", &o, &e), MEST_E_ARGUMENT);
    mest_model_options_init(&o);
    o.max_metadata_bytes = 300;
    char path[1024];
    ck_assert_int_eq(mest_model_load(&m, data_path(path, "types.onnx"), &o, &e), MEST_E_LIMIT);
    mest_model_destroy(NULL);
}
END_TEST

START_TEST(public_functions_check_their_arguments)
{
    mest_model *m = load_own("untied.onnx");
    mest_error e;
    mest_tensor_info t = { .struct_size = sizeof t };
    float x[16];
    ck_assert_int_eq(mest_model_parameter(m, -1, &t, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_model_parameter(m, 7, &t, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_model_read_parameter(m, 0, x, 15, &e), MEST_E_ARGUMENT);
    ck_assert(strstr(e.msg, "16 elements, not 15"));
    OK(mest_model_parameter(m, 0, &t, err));
    ck_assert(!strcmp(t.name, "w") && t.dtype == 1 && t.rank == 2 && t.dim[1] == 4 && t.stored == 16 && t.sparsity == 0 && !strcmp(t.scheme, "dense"));
    t.struct_size = 0;
    ck_assert_int_eq(mest_model_parameter(m, 0, &t, &e), MEST_E_ARGUMENT);
    ck_assert_int_eq(mest_model_freeze(m, NULL, true, NULL, &e), MEST_E_ARGUMENT);
    m->n_sessions = 1;
    ck_assert_int_eq(mest_model_freeze(m, "*", true, NULL, &e), MEST_E_STATE);
    m->n_sessions = 0;
    ck_assert_int_eq(mest_model_export(m, "no/such/folder/x.onnx", NULL, &e), MEST_E_IO);
    const char *odd[] = { "key", NULL };
    mest_export_options o = { .struct_size = sizeof o, .metadata = odd };
    ck_assert_int_eq(mest_model_export(m, "x.onnx", &o, &e), MEST_E_ARGUMENT);
    mest_model_destroy(m);
}
END_TEST

/* Sparse weights go out in ascending linear order whatever the storage order is, and come back as they were. */
START_TEST(sparse_weights_export_both_ways)
{
    static const char *const formats[] = { "csr", "block3", "block4" };
    static const int64_t n_units[] = { 16, 8, 4 };
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        mest_model *m = load_own("untied.onnx");
        mest_param *p = &m->params[0]; /* w[4, 4]: a block height of 3 leaves padding */
        OK(mest_sparse_create(&p->sparse, &m->heap, formats[f], &p->shape, n_units[f], err));
        int64_t units[3] = { 0, 2, f ? p->sparse->n_units - 1 : 13 };
        OK(mest_sparse_from_units(p->sparse, units, 3, NULL, err));
        int64_t coords[64];
        mest_sparse_coords(p->sparse, 0, p->sparse->stored, coords);
        for (int64_t i = 0; i < p->sparse->stored; i++)
            p->sparse->values[i] = coords[i] < 0 ? 0 : (mest_real)(coords[i] == 2 ? 0 : coords[i] + 1); /* one stored zero */
        p->loaded = true;
        mest_model *dense = again(m, false, 7), *sparse = again(m, true, 7);
        ck_assert_ptr_null(dense->params[0].payload.linear);
        const mest_param *q = find_param(sparse, "w");
        ck_assert_ptr_nonnull(q->payload.linear);
        ck_assert_int_eq(q->payload.nnz, mest_sparse_nnz(p->sparse)); /* the stored zero stays stored, padding does not */
        ck_assert_int_ge(sparse->ir_version, 8);
        mest_model *twice = again(sparse, true, 7);
        ck_assert_int_eq(find_param(twice, "w")->payload.nnz, q->payload.nnz);
        mest_model_destroy(twice);
        mest_model_destroy(sparse);
        mest_model_destroy(dense);
        mest_model_destroy(m);
    }
}
END_TEST

START_TEST(metadata_is_merged)
{
    mest_model *m = load_own("untied.onnx");
    char one[1024], two[1024], text[4096];
    temporary(one);
    temporary(two);
    const char *first[] = { "color", "red", "mest.version", "mine", NULL }, *second[] = { "color", "green", NULL };
    mest_export_options o = { .struct_size = sizeof o, .metadata = first };
    OK(mest_model_export(m, one, &o, err));
    mest_model_destroy(m);
    m = load(one);
    o.metadata = second;
    OK(mest_model_export(m, two, &o, err));
    mest_model_destroy(m);
    FILE *f = fopen(two, "rb");
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    ck_assert(memmem(text, n, "green", 5) && memmem(text, n, "color", 5) && !memmem(text, n, "red", 3));
    ck_assert(!memmem(text, n, "mine", 4)); /* the library's own key is renewed */
    unlink(one);
    unlink(two);
}
END_TEST

START_TEST(patterns_match_as_in_a_shell)
{
    ck_assert(mest_match_any("*", "conv1.weight"));
    ck_assert(mest_match_any("a,conv?.*", "conv1.weight"));
    ck_assert(mest_match_any("*.weight", "conv1.weight"));
    ck_assert(mest_match_any("*a*b*c", "xxaxxbxxbxxc"));
    ck_assert(!mest_match_any("*.bias,conv1", "conv1.weight"));
    ck_assert(!mest_match_any("", "x"));
    ck_assert(!mest_match_any(NULL, "x"));
    ck_assert(!mest_match_any("?", ""));
    ck_assert(mest_match_any(",,**", ""));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("import");
    TCase *t = tcase_create("own models");
    tcase_add_test(t, aliases_are_untied);
    tcase_add_test(t, old_forms_become_new_ones);
    tcase_add_test(t, weights_of_every_float_type);
    tcase_add_test(t, constants_of_every_kind);
    tcase_add_test(t, functions_are_inlined);
    tcase_add_test(t, roles_follow_the_rules);
    tcase_add_test(t, constants_can_be_called_parameters);
    tcase_add_test(t, external_data_is_folded_in);
    tcase_add_test(t, refusals_say_why);
    tcase_add_test(t, public_functions_check_their_arguments);
    tcase_add_test(t, sparse_weights_export_both_ways);
    tcase_add_test(t, metadata_is_merged);
    tcase_add_test(t, patterns_match_as_in_a_shell);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
