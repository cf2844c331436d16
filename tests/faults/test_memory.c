/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that runs out at every allocation of a whole use of the library: load, sparsify, a source, a session with schedulers, training with
 * checkpoints and validation, publication, a predictor, evaluation, inference, export, resumption. The n-th allocation fails, for every n (or every
 * STRIDE-th), alone or with all after it. Each time: MEST_E_NOMEM with a text (or success, where nothing was needed after all), every byte
 * given back, no file that is not whole, none left over, and the file of before where the new one did not come to be.
 *
 *   faults_memory [STRIDE [FIRST]]      ends with the numbers of allocations and runs */
#include <dirent.h>
#include <stdatomic.h>
#include <unistd.h>

#include "mest/memory.h"
#include "mest/serve.h"
#include "tests/fuzz/fuzz.h"

enum { SAMPLES = 24, PIXELS = 36, CLASSES = 5 };

static atomic_long calls, fail_at, bytes_out;
static atomic_int from_then_on;
static int failed;

static void *take(void *user, size_t size, size_t align)
{
    (void)user;
    const long n = atomic_fetch_add(&calls, 1), at = atomic_load(&fail_at);
    if (at >= 0 && (n == at || (from_then_on && n > at)))
        return NULL;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p)
        atomic_fetch_add(&bytes_out, (long)size);
    return p;
}

static void give(void *user, void *p, size_t size)
{
    (void)user;
    atomic_fetch_sub(&bytes_out, (long)size);
    free(p);
}

static const mest_allocator allocator = { sizeof allocator, NULL, take, give };

static const char *model_path, *data_spec;
static char folder_path[256];
static const char *in_run(const char *name)
{
    static char path[4][300];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", folder_path, name);
    return path[k];
}

typedef struct use {
    mest_model *model, *again;
    mest_session *session, *second;
    mest_source data, val;
    mest_predictor *predictor;
} use;

#define STEP(call) \
    if ((status = (call)) != MEST_OK) return status

static mest_status open_session(mest_model **m, mest_session **s, int form, mest_error *err)
{
    static const struct { const char *scheme, *scheduler, *options, *second, *second_options, *optimizer; bool watch; int64_t micro_batch; const char *activations, *recompute; } forms[] = {
        { "csr", "mest", "mode=ems,freq=1,lambda=.5", "forgetting", "epoch=1,count=3", "sgd", true, 0, "f32", "auto" },
        { "block4", "rigl", "every=2", NULL, NULL, "adamw", false, 4, "bf16", "least" },
        { "pattern", "set", "every=2", NULL, NULL, "sgd", false, 2, "f32", "off" },
        { "nm2:4", "mest", "mode=em,freq=1", NULL, NULL, "adamw", true, 0, "bf16", "least" },
    };
    mest_status status;
    mest_model_options mo;
    mest_sparsity sp;
    mest_train_config c;
    mest_model_options_init(&mo);
    mo.allocator = &allocator;
    mest_sparsity_init(&sp);
    sp.scheme = forms[form].scheme;
    sp.sparsity = strcmp(sp.scheme, "nm2:4") ? .7 : -1;
    sp.dense_layers = "c1.weight";
    mest_train_config_init(&c);
    c.batch = 8;
    c.epochs = 2;
    c.threads = 1;
    c.lr = .01;
    c.optimizer = forms[form].optimizer;
    c.watch_patterns = forms[form].watch;
    c.use_xnnpack = form % 2 == 0;
    c.micro_batch = forms[form].micro_batch;
    c.activations = forms[form].activations;
    c.recompute = forms[form].recompute;
    c.memory_limit = form == 0 ? 0 : INT64_C(1) << 40; /* never in the way, but planned for */
    STEP(mest_model_load(m, model_path, &mo, err));
    STEP(mest_model_sparsify(*m, &sp, err));
    STEP(mest_session_create(s, *m, &c, err));
    STEP(mest_session_add_scheduler(*s, forms[form].scheduler, forms[form].options, err));
    return forms[form].second ? mest_session_add_scheduler(*s, forms[form].second, forms[form].second_options, err) : MEST_OK;
}

/* What was asked for is in use, or this test would not test it. */
static bool as_asked(mest_session *s, int form)
{
    mest_memory_plan plan = { .struct_size = sizeof plan };
    mest_error err;
    if (mest_session_plan_memory(s, NULL, NULL, &plan, &err) != MEST_OK)
        return false;
    const bool parts = form == 1 || form == 2, halves = form == 1 || form == 3;
    return (plan.micro_batch < plan.batch) == parts && (strstr(plan.chosen, "as bf16") != NULL) == halves && (form != 1 || plan.n_again > 0);
}

static mest_status whole_use(use *u, int form, mest_error *err)
{
    mest_status status;
    mest_source_options so;
    mest_run_options ro;
    mest_metrics metrics = { .struct_size = sizeof metrics };
    mest_export_options eo = { .struct_size = sizeof eo, .sparse = form % 2 };
    mest_publish_options po;
    float x[3 * PIXELS] = { 1, -1 }, y[3 * CLASSES];
    STEP(open_session(&u->model, &u->session, form, err));
    mest_source_options_init(&so);
    so.allocator = &allocator;
    so.input_rank = 3, so.input_dim[0] = 1, so.input_dim[1] = so.input_dim[2] = 6;
    so.val_split = .25, so.scale = 9, so.pad_crop = 1;
    STEP(mest_source_open(&u->data, data_spec, &so, err));
    so.val_part = true, so.pad_crop = 0;
    STEP(mest_source_open(&u->val, data_spec, &so, err));
    mest_run_options_init(&ro);
    mest_publish_options_init(&po);
    ro.validation = &u->val;
    ro.checkpoint_path = in_run("run.mest");
    ro.checkpoint_every_steps = 2;
    ro.publish = &po;
    STEP(mest_session_train(u->session, &u->data, &ro, err));
    STEP(mest_session_evaluate(u->session, &u->val, NULL, &metrics, err));
    STEP(mest_session_infer(u->session, x, 3, y, 3 * CLASSES, err));
    mest_predictor_options p;
    mest_predictor_options_init(&p);
    p.use_xnnpack = false;
    STEP(mest_predictor_create(&u->predictor, u->model, &p, err));
    STEP(mest_predictor_infer(u->predictor, x, 3, y, 3 * CLASSES, NULL, err));
    STEP(mest_model_export(u->model, in_run("out.onnx"), &eo, err));
    STEP(open_session(&u->again, &u->second, form, err));
    return mest_session_resume(u->second, in_run("run.mest"), err);
}

static void close_all(use *u)
{
    mest_predictor_destroy(u->predictor);
    mest_session_destroy(u->second);
    mest_session_destroy(u->session);
    mest_model_destroy(u->again);
    mest_model_destroy(u->model);
    mest_source_close(&u->data);
    mest_source_close(&u->val);
}

static void wrong(int form, long n, bool all, const char *what, const char *more)
{
    failed++;
    printf("FAIL form %d, allocation %ld%s: %s%s\n", form, n, all ? " and all after it" : "", what, more);
}

/* Only whole files, under their own names; out.onnx is the earlier text or a model. */
static void look_at_files(int form, long n, bool all, bool done)
{
    mest_model *m;
    mest_error err;
    DIR *dir = opendir(folder_path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (e->d_name[0] == '.' ? e->d_name[1] && strcmp(e->d_name, "..") : strcmp(e->d_name, "run.mest") && strcmp(e->d_name, "run.mest.prev") && strcmp(e->d_name, "out.onnx"))
            wrong(form, n, all, "left behind: ", e->d_name);
    closedir(dir);
    FILE *f = fopen(in_run("out.onnx"), "rb");
    char text[8] = "";
    const bool earlier = f && fread(text, 1, 7, f) == 7 && !strcmp(text, "earlier");
    if (f)
        fclose(f);
    if (!earlier && mest_model_load(&m, in_run("out.onnx"), NULL, &err) != MEST_OK)
        wrong(form, n, all, "out.onnx is neither the old nor a new file", "");
    else if (!earlier)
        mest_model_destroy(m);
    if (done && earlier)
        wrong(form, n, all, "success, but no file", "");
    if (access(in_run("run.mest"), F_OK) == 0) { /* a checkpoint that stands there serves */
        use u = { 0 };
        err = (mest_error){ 0 };
        mest_status status = open_session(&u.model, &u.session, form, &err);
        if (status != MEST_OK || (status = mest_session_resume(u.session, in_run("run.mest"), &err)) != MEST_OK)
            wrong(form, n, all, "the checkpoint does not serve: ", err.msg);
        close_all(&u);
    }
}

static void clean(void)
{
    static const char *const names[] = { "run.mest", "run.mest.prev", "out.onnx" };
    for (int i = 0; i < 3; i++)
        unlink(in_run(names[i]));
}

static mest_status run(int form, long n, bool all)
{
    use u = { 0 };
    mest_error err = { 0 };
    clean();
    fuzz_put("run/out.onnx", "earlier", 7);
    calls = 0;
    fail_at = n;
    from_then_on = all;
    mest_status status = whole_use(&u, form, &err);
    fail_at = -1;
    if (n < 0 && status == MEST_OK && !as_asked(u.session, form))
        wrong(form, n, all, "memory is not saved in the ways that were asked for", "");
    close_all(&u);
    if (status != MEST_OK && (status != MEST_E_NOMEM || err.code != status || !err.msg[0]))
        wrong(form, n, all, mest_status_text(status), err.msg);
    if (bytes_out)
        wrong(form, n, all, "memory is lost", "");
    bytes_out = 0;
    if (n >= 0)
        look_at_files(form, n, all, status == MEST_OK);
    bytes_out = 0;
    return status;
}

int main(int argc, char **argv)
{
    const long stride = argc > 1 ? atol(argv[1]) : 1, first = argc > 2 ? atol(argv[2]) : 0;
    char csv[SAMPLES * PIXELS * 3 + 1000];
    size_t at = 0, n_model;
    long runs = 0, survived = 0;
    for (int i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < PIXELS; k++)
            at += (size_t)snprintf(csv + at, sizeof csv - at, "%d,", (i * 7 + k * k * (i % CLASSES + 1)) % 10);
        at += (size_t)snprintf(csv + at, sizeof csv - at, "%d\n", i % CLASSES);
    }
    const void *network = fuzz_network(&n_model);
    static char model[300], data[300];
    snprintf(model, sizeof model, "%s", fuzz_put("model.onnx", network, n_model));
    snprintf(data, sizeof data, "csv:%s", fuzz_put("data.csv", csv, at));
    model_path = model;
    data_spec = data;
    fuzz_put("run/out.onnx", "", 0);
    snprintf(folder_path, sizeof folder_path, "%s/run", fuzz_folder());
    for (int form = 0; form < 4; form++) {
        if (run(form, -1, false) != MEST_OK) {
            wrong(form, -1, false, "does not run", "");
            continue;
        }
        const long n_calls = calls;
        for (int all = 0; all < 2; all++)
            for (long n = first; n < n_calls; n += stride, runs++)
                survived += run(form, n, all) == MEST_OK;
        printf("form %d: %ld allocations\n", form, n_calls);
    }
    clean();
    printf("%ld runs (%ld of them went on without what they did not get), %d failed\n", runs, survived, failed);
    return failed != 0;
}
