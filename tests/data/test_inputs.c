/* SPDX-License-Identifier: Apache-2.0 */
/* Networks with several inputs and outputs, fed from arrays: by name and by place, from a source and from the caller's memory. The model
 * (tests/fixtures/make_models.py, "several") has ids int64 [N,T], mask bool [N,T], extra float [N,2]; its output scores [N,3] needs all
 * three, lengths [N,2] = [-0.625, -0.5] * (number of mask entries). */
#include "mest/train.h"
#include "tests/data/data_util.h"

static mest_error err;
static mest_source source;
static mest_model *model;
static mest_session *session;
static mest_train_config config;

static const int64_t ids[4][3] = {{1, 2, 6}, {0, 3, 3}, {5, 1, 0}, {2, 4, 6}};
static const uint8_t mask[4][3] = {{1, 1, 0}, {1, 0, 0}, {1, 1, 1}, {0, 1, 1}};
static const float extra[4][2] = {{0.5f, -1}, {2, 0.25f}, {-0.5f, 1}, {1, 1}};
static const int64_t label[4] = {0, 2, 1, 1};

static void write_arrays(void)
{
    NPY("ids.npy", "<i8", "(4, 3)", ids);
    NPY("mask.npy", "|b1", "(4, 3)", mask);
    NPY("extra.npy", "<f4", "(4, 2)", extra);
    NPY("label.npy", "<i8", "(4,)", label);
}

/* npy:... with every "@" replaced by the test's folder. */
static mest_status open_spec(const char *text)
{
    char spec[4000] = "";
    for (size_t n = 0; *text; text++, n = strlen(spec))
        n += *text == '@' ? (size_t)snprintf(spec + n, sizeof spec - n, "%s/", temp_dir) : (size_t)snprintf(spec + n, sizeof spec - n, "%c", *text);
    return mest_source_open(&source, spec, NULL, &err);
}

static void open_model(const char *output)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/import/several.onnx", getenv("MEST_TEST_DATA") ? getenv("MEST_TEST_DATA") : "tests/data");
    mest_train_config_init(&config);
    config.batch = 2;
    config.shuffle = false;
    config.epochs = 3;
    config.lr = 0.0625;
    config.threads = 1;
    config.output = output;
    if (output && !strcmp(output, "lengths"))
        config.loss = "mse";
    assert_ok(mest_model_load(&model, path, NULL, &err));
    assert_ok(mest_session_create(&session, model, &config, &err));
}

static void close_all(void)
{
    mest_session_destroy(session);
    mest_model_destroy(model);
    mest_source_close(&source);
    session = NULL;
    model = NULL;
}

/* All trainable numbers of the model, one after another. */
static int weights(float *out)
{
    int n = 0;
    for (int i = 0; i < mest_model_parameter_count(model); i++) {
        mest_tensor_info info = {.struct_size = sizeof info};
        assert_ok(mest_model_parameter(model, i, &info, &err));
        int count = 1;
        for (int k = 0; k < info.rank; k++)
            count *= (int)info.dim[k];
        assert_ok(mest_model_read_parameter(model, i, out + n, (size_t)count, &err));
        n += count;
    }
    return n;
}

static void train_from(const char *spec, float *out, int *n)
{
    assert_ok(open_spec(spec));
    open_model(NULL);
    assert_ok(mest_session_train(session, &source, NULL, &err));
    *n = weights(out);
    close_all();
}

START_TEST(names_places_and_own_steps_agree)
{
    static float by_place[200], by_name[200], own[200], start[200];
    int n, m;
    write_arrays();
    open_model(NULL);
    weights(start);
    close_all();
    train_from("npy:@ids.npy,@mask.npy,@extra.npy,@label.npy", by_place, &n);
    ck_assert(memcmp(start, by_place, (size_t)n * sizeof *start) != 0);
    train_from("npy:target=@label.npy,extra=@extra.npy,ids=@ids.npy,mask=@mask.npy", by_name, &m);
    ck_assert(n == m && !memcmp(by_place, by_name, (size_t)n * sizeof *by_name));
    open_model(NULL);
    mest_source_info info = {.struct_size = sizeof info, .n_inputs = 3,
                             .input = {{"mask", MEST_SAMPLE_I64, 1, {3}, {0}}, {"ids", MEST_SAMPLE_I64, 1, {3}, {0}}, {"extra", MEST_SAMPLE_F32, 1, {2}, {0}}}};
    assert_ok(mest_session_expect(session, &info, &err));
    int64_t wide[4][3];
    for (int i = 0; i < 12; i++)
        wide[i / 3][i % 3] = mask[i / 3][i % 3];
    for (int step = 0; step < 6; step++) {
        int row = step % 2 * 2;
        const void *inputs[3] = {wide[row], ids[row], extra[row]};
        mest_metrics metrics = {.struct_size = sizeof metrics};
        assert_ok(mest_session_step_inputs(session, inputs, label + row, 2, &metrics, &err));
        ck_assert(metrics.samples == 2);
    }
    weights(own);
    ck_assert(!memcmp(by_place, own, (size_t)n * sizeof *own));
    close_all();
}
END_TEST

START_TEST(outputs_by_name)
{
    float out[8];
    const float v[2] = {(11 % 31) / 8.0f - 2, (12 % 31) / 8.0f - 2}; /* weight(1, 2, start=11) of make_models.py */
    write_arrays();
    assert_ok(open_spec("npy:mask=@mask.npy,target=@extra.npy")); /* lengths needs the mask only */
    open_model("lengths");
    mest_source_info info = {.struct_size = sizeof info};
    assert_ok(source.info(source.self, &info, &err));
    ck_assert(info.n_inputs == 1 && info.input[0].type == MEST_SAMPLE_F32 && !strcmp(info.input[0].name, "mask") && info.count == 4);
    assert_ok(mest_session_expect(session, &info, &err));
    int rank;
    int64_t dim[MEST_MAX_RANK];
    assert_ok(mest_session_output_shape(session, &rank, dim, &err));
    ck_assert(rank == 1 && dim[0] == 2);
    float counts[4][3];
    for (int i = 0; i < 12; i++)
        counts[i / 3][i % 3] = mask[i / 3][i % 3] ? 0.5f : 0; /* anything but 0 is true */
    const void *inputs[1] = {counts};
    assert_ok(mest_session_infer_inputs(session, inputs, 4, out, 8, &err));
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++)
            ck_assert_float_eq(out[2 * i + k], v[k] * (float)(mask[i][0] + mask[i][1] + mask[i][2]));
    static float before[200], after[200];
    int n = weights(before);
    assert_ok(mest_session_train(session, &source, NULL, &err));
    weights(after);
    ck_assert(memcmp(before, after, (size_t)n * sizeof *after) != 0);
    mest_metrics metrics = {.struct_size = sizeof metrics};
    assert_ok(mest_session_evaluate(session, &source, NULL, &metrics, &err));
    ck_assert(metrics.samples == 4 && metrics.loss > 0);
    close_all();
    mest_model *m = NULL;
    open_model(NULL);
    m = model;
    mest_session_destroy(session);
    config.output = "nothing";
    assert_fails(mest_session_create(&session, m, &config, &err), MEST_E_ARGUMENT, "no output 'nothing' (it has scores, lengths)");
    close_all();
}
END_TEST

START_TEST(what_does_not_fit)
{
    static const int64_t large[4][3] = {{1, 2, 3}, {1, 2, 3}, {1, 7, 3}, {1, 2, 3}};
    static const float broken[4][3] = {{1, 2, 3}, {1, 2.5f, 3}, {1, 1, 3}, {1, 2, 3}};
    static const struct {
        const char *spec, *says;
        mest_status code;
    } cases[] = {
        {"npy:@ids.npy,@label.npy", "3 inputs (ids, mask, extra), the data give 1", MEST_E_DATA},
        {"npy:ids=@ids.npy,extra=@extra.npy,target=@label.npy", "input 'mask' of the model is missing", MEST_E_DATA},
        {"npy:ids=@ids.npy,mask=@mask.npy,other=@extra.npy,target=@label.npy", "no input 'other' (it has ids, mask, extra)", MEST_E_DATA},
        {"npy:ids=@ids.npy,ids=@mask.npy,extra=@extra.npy,target=@label.npy", "'ids' twice", MEST_E_DATA},
        {"npy:ids=@broken.npy,mask=@mask.npy,extra=@extra.npy,target=@label.npy", "'ids' of the model is int64; element 4 of the batch is 2.5", MEST_E_DATA},
        {"npy:ids=@large.npy,mask=@mask.npy,extra=@extra.npy,target=@label.npy", "index 7 is out of range for 7 elements", MEST_E_DATA},
        {"npy:ids=@ids.npy,mask=@mask.npy,extra=@ids.npy,target=@label.npy", "'extra' of the model is [?,2], the data gives [2,3]", MEST_E_SHAPE},
        {"npy:@ids.npy,@mask.npy,@extra.npy,-", "no targets", MEST_E_DATA},
    };
    static const struct {
        const char *spec, *says;
    } specs[] = {
        {"npy:ids=@ids.npy,@mask.npy", "all or none"},       {"npy:@ids.npy,mask=@mask.npy", "all or none"},
        {"npy:ids=,mask=@mask.npy", "a file name is missing"}, {"npy:target=@a,target=@b", "two targets"},
        {"npy:target=@label.npy", "no input"},               {"npy:@ids.npy,,@label.npy", "a file name is missing"},
    };
    write_arrays();
    NPY("large.npy", "<i8", "(4, 3)", large);
    NPY("broken.npy", "<f4", "(4, 3)", broken);
    NPY("short.npy", "<f4", "(3, 4)", broken);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        assert_fails(open_spec(specs[i].spec), MEST_E_ARGUMENT, specs[i].says);
    assert_fails(open_spec("npy:ids=@ids.npy,mask=@short.npy"), MEST_E_DATA, "3 samples");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(open_spec(cases[i].spec));
        open_model(NULL);
        assert_fails(mest_session_train(session, &source, NULL, &err), cases[i].code, cases[i].says);
        close_all();
    }
    mest_source_options options;
    mest_source_options_init(&options);
    options.measure = true;
    char spec[2000];
    snprintf(spec, sizeof spec, "npy:a=%s/ids.npy,b=%s/mask.npy", temp_dir, temp_dir);
    assert_fails(mest_source_open(&source, spec, &options, &err), MEST_E_ARGUMENT, "for one input");
    open_model(NULL); /* one tensor where three are needed */
    float out[3];
    assert_fails(mest_session_infer(session, ids, 1, out, 3, &err), MEST_E_ARGUMENT, "mest_session_infer_inputs");
    assert_fails(mest_session_step(session, ids, label, 1, NULL, &err), MEST_E_ARGUMENT, "mest_session_step_inputs");
    close_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("inputs");
    TCase *c = temp_case(suite, "several inputs");
    tcase_add_test(c, names_places_and_own_steps_agree);
    tcase_add_test(c, outputs_by_name);
    tcase_add_test(c, what_does_not_fit);
    return run_suite(suite);
}
