/* SPDX-License-Identifier: Apache-2.0 */
/* Texts a user writes. First byte: which one.
 *   0 --scheme, --dense-layers, --rules, one a line     3 options of a built-in scheduler (second byte: which)
 *   1 a ratios file (YAML)                              4 texts of a training recipe, one a line
 *   2 a masks file                                      5 KIND:PATH of a data source */
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

enum { CAP = 64 << 20, KINDS = 6, TEXT = 2000 };

static mest_model *load(const mest_allocator *allocator)
{
    mest_model_options o;
    mest_model *m;
    mest_error err = { 0 };
    size_t n;
    const void *network = fuzz_network(&n);
    mest_model_options_init(&o);
    o.allocator = allocator;
    FUZZ_CHECK(mest_model_load_memory(&m, network, n, &o, &err) == MEST_OK);
    return m;
}

static void plan(mest_model *m, const mest_train_config *c, const char *scheduler, const char *options)
{
    mest_session *s;
    mest_error err = { 0 };
    mest_status status = mest_session_create(&s, m, c, &err);
    FUZZ_STATUS(status, err);
    if (status == MEST_OK && scheduler) {
        status = mest_session_add_scheduler(s, scheduler, options, &err);
        FUZZ_STATUS(status, err);
    }
    mest_plan_info p = { .struct_size = sizeof p };
    if (status == MEST_OK) {
        status = mest_session_explain(s, MEST_PROGRAM_TRAIN, 2, NULL, NULL, &p, &err);
        FUZZ_STATUS(status, err);
    }
    mest_session_destroy(s);
}

static void recipe(mest_train_config *c)
{
    mest_train_config_init(c);
    c->threads = 1;
    c->batch = 2;
    c->use_xnnpack = false;
}

/* Empty lines are what was not given. */
static const char *line(fuzz_input *in, char *text)
{
    fuzz_text(in, text, TEXT);
    return *text ? text : NULL;
}

static void sparsify(fuzz_input *in, unsigned kind, const mest_allocator *allocator)
{
    char text[4][TEXT];
    mest_error err = { 0 };
    mest_sparsity s;
    mest_train_config c;
    mest_model *m = load(allocator);
    mest_sparsity_init(&s);
    s.sparsity = .5;
    if (kind == 0) {
        const char *scheme = line(in, text[0]), *dense = line(in, text[1]), *rules = line(in, text[2]), *distribution = line(in, text[3]);
        s.scheme = scheme ? scheme : "csr";
        s.dense_layers = dense;
        s.rules = rules;
        s.distribution = distribution ? distribution : "uniform";
        s.from_scratch = in->left & 1;
        s.sparsity = in->left & 2 ? -1 : .5;
    } else if (kind == 1) {
        s.ratios = fuzz_file(0, in->at, in->left);
    } else {
        s.scheme = "pattern";
        s.patterns = fuzz_file(0, in->at, in->left);
    }
    mest_status status = mest_model_sparsify(m, &s, &err);
    FUZZ_STATUS(status, err);
    recipe(&c);
    if (status == MEST_OK)
        plan(m, &c, NULL, NULL);
    mest_model_destroy(m);
}

static void scheduler(fuzz_input *in, const mest_allocator *allocator)
{
    char text[TEXT];
    mest_error err = { 0 };
    mest_sparsity s;
    mest_train_config c;
    int n = 0;
    while (mest_scheduler_builtin(n, NULL, NULL))
        n++;
    const char *name = mest_scheduler_builtin((int)(fuzz_number(in, 1) % (unsigned)n), NULL, NULL);
    mest_model *m = load(allocator);
    mest_sparsity_init(&s);
    s.sparsity = .5;
    s.start_dense = mest_scheduler_flags(name) != 0 && in->left & 1;
    FUZZ_CHECK(mest_model_sparsify(m, &s, &err) == MEST_OK);
    recipe(&c);
    plan(m, &c, name, line(in, text));
    mest_model_destroy(m);
}

static void training(fuzz_input *in, const mest_allocator *allocator)
{
    char text[9][TEXT];
    mest_train_config c;
    mest_model *m = load(allocator);
    recipe(&c);
    const char *given[9];
    for (int i = 0; i < 9; i++)
        given[i] = line(in, text[i]);
    const char **const field[] = { &c.loss, &c.optimizer, &c.schedule, &c.batch_norm, &c.kernels, &c.no_decay, &c.no_fuse, &c.output, &c.recompute };
    for (int i = 0; i < 9; i++)
        if (given[i])
            *field[i] = given[i];
    plan(m, &c, NULL, NULL);
    mest_model_destroy(m);
}

static void data(fuzz_input *in, const mest_allocator *allocator)
{
    static bool there;
    char text[TEXT];
    mest_source_options o;
    mest_source s;
    mest_error err;
    if (!there) { /* what a text can hit upon: names are short */
        fuzz_put("c", "1,2,0\n3,4,1\n", 12);
        static const char array[] = "\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }                                                            \n01234567";
        fuzz_put("n", array, sizeof array - 1);
        fuzz_put("d/a/f", "x", 1);
        there = chdir(fuzz_folder()) == 0;
        FUZZ_CHECK(there);
    }
    const char *spec = line(in, text);
    if (!spec || strchr(spec, '/') || strstr(spec, "..")) /* not out of the folder: what lies there is not the same everywhere */
        return;
    mest_source_options_init(&o);
    o.allocator = allocator;
    mest_status status = mest_source_open(&s, spec, &o, &err);
    FUZZ_STATUS(status, err);
    if (status == MEST_OK)
        mest_source_close(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_input in = { bytes, size };
    fuzz_meter meter;
    mest_allocator allocator = fuzz_allocator(&meter, CAP);
    unsigned kind = fuzz_number(&in, 1) % KINDS;
    if (size < 2)
        return 0;
    if (kind < 3)
        sparsify(&in, kind, &allocator);
    else if (kind == 3)
        scheduler(&in, &allocator);
    else if (kind == 4)
        training(&in, &allocator);
    else
        data(&in, &allocator);
    FUZZ_CHECK(meter.now == 0);
    return 0;
}
