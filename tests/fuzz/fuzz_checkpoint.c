/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints. First byte 0: the rest is a checkpoint file as it is. Otherwise it chooses a small run (scheme and schedulers), whose
 * checkpoint is taken apart, changed section by section as the rest says, put together again with right checksums, and resumed from: what
 * checksums do not catch must be caught by whoever reads a section. A run that accepts the file makes a step.
 *
 *   change   section u8, what u8, place u16, then for what % 4: 0 n u8 and n bytes written there, 1 cut there, 2 n u8 and n bytes put in,
 *            3 the byte there with one bit (what / 4 % 8) turned */
#include "runtime/checkpoint.h"
#include "tests/fuzz/fuzz.h"

enum { CAP = 64 << 20, RUNS = 4, SAMPLES = 12, PIXELS = 36, CLASSES = 5, MOST_SECTIONS = 32, MOST_CHANGES = 16 };

static const struct run {
    const char *scheme, *scheduler, *options, *second, *second_options, *optimizer;
    bool watch;
} runs[RUNS] = {
    { "csr", "mest", "mode=em,freq=1,lambda=.5", "forgetting", "epoch=2,count=3", "sgd", false },
    { "block4", "mest", "mode=ems,freq=1", NULL, NULL, "adamw", true },
    { "nm2:4", "rigl", "every=2", NULL, NULL, "sgd", true },
    { "pattern", "set", "", "forgetting", "epoch=1,count=2", "adamw", false },
};

static mest_status info(void *self, mest_source_info *i, mest_error *err)
{
    (void)self, (void)err;
    *i = (mest_source_info){ .struct_size = sizeof *i, .count = SAMPLES, .input_type = MEST_SAMPLE_F32, .input_rank = 3, .input_dim = { 1, 6, 6 },
                             .target_type = MEST_SAMPLE_I64, .n_classes = CLASSES, .has_targets = true };
    return MEST_OK;
}

static mest_status fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *err)
{
    (void)self, (void)how, (void)err;
    for (int64_t k = 0; k < n; k++) {
        FUZZ_CHECK(ids[k] >= 0 && ids[k] < SAMPLES);
        for (int i = 0; i < PIXELS; i++)
            ((float *)inputs)[k * PIXELS + i] = (float)((ids[k] * 31 + i * i) % 17) / 8 - 1;
        if (targets)
            ((int64_t *)targets)[k] = ids[k] % CLASSES;
    }
    return MEST_OK;
}

static const mest_source source = { .struct_size = sizeof source, .info = info, .fetch = fetch };

static void open_run(const struct run *r, const mest_allocator *allocator, mest_model **m, mest_session **s)
{
    mest_error err = { 0 };
    mest_model_options mo;
    mest_sparsity sp;
    mest_train_config c;
    size_t n;
    const void *network = fuzz_network(&n);
    mest_model_options_init(&mo);
    mo.allocator = allocator;
    mest_sparsity_init(&sp);
    sp.scheme = r->scheme;
    sp.sparsity = strcmp(r->scheme, "nm2:4") ? .7 : -1;
    sp.dense_layers = "c1.weight";
    mest_train_config_init(&c);
    c.batch = 4;
    c.epochs = 3;
    c.threads = 1;
    c.optimizer = r->optimizer;
    c.watch_patterns = r->watch;
    c.use_xnnpack = false;
    FUZZ_CHECK(mest_model_load_memory(m, network, n, &mo, &err) == MEST_OK && mest_model_sparsify(*m, &sp, &err) == MEST_OK &&
               mest_session_create(s, *m, &c, &err) == MEST_OK && mest_session_add_scheduler(*s, r->scheduler, r->options, &err) == MEST_OK);
    FUZZ_CHECK(!r->second || mest_session_add_scheduler(*s, r->second, r->second_options, &err) == MEST_OK);
}

static bool stop(void *user, const mest_event *e) { return e->kind != MEST_EVENT_STEP || e->total_step < *(int64_t *)user; }

/* Trains some steps; cancelled or done. The status is the caller's to judge. */
static mest_status train(mest_session *s, int64_t until, const char *checkpoint, mest_error *err)
{
    mest_run_options o;
    mest_run_options_init(&o);
    o.progress = stop;
    o.progress_user = &until;
    o.checkpoint_path = checkpoint;
    return mest_session_train(s, &source, &o, err);
}

typedef struct section {
    char name[MEST_SECTION_NAME_MAX + 1];
    uint8_t *bytes;
    size_t n;
} section;

/* The sections of the run's own checkpoint, made once. */
static const section *base_of(int which, int *n)
{
    static section all[RUNS][MOST_SECTIONS];
    static int count[RUNS];
    if (!count[which]) {
        mest_model *m;
        mest_session *s;
        mest_error err = { 0 };
        mest_checkpoint *file;
        mest_heap heap;
        uint64_t bytes;
        open_run(&runs[which], NULL, &m, &s);
        const char *path = fuzz_path("base.mest");
        FUZZ_CHECK(train(s, 5, path, &err) == MEST_E_CANCELLED);
        mest_session_destroy(s);
        mest_model_destroy(m);
        FUZZ_CHECK(mest_heap_init(&heap, NULL, NULL, &err) == MEST_OK && mest_checkpoint_open(&file, &heap, fuzz_path("base.mest"), &err) == MEST_OK);
        for (int i = 0; i < mest_checkpoint_count(file); i++) {
            section *to = &all[which][i];
            const void *from;
            mest_section cursor;
            FUZZ_CHECK(i < MOST_SECTIONS);
            snprintf(to->name, sizeof to->name, "%s", mest_checkpoint_section(file, i, &bytes));
            to->n = (size_t)bytes;
            to->bytes = malloc(to->n + 1);
            FUZZ_CHECK(mest_section_find(&cursor, file, to->name, &err) == MEST_OK && mest_section_lend(&cursor, &from, to->n, &err) == MEST_OK);
            memcpy(to->bytes, from, to->n);
        }
        count[which] = mest_checkpoint_count(file);
        mest_checkpoint_close(file);
    }
    *n = count[which];
    return all[which];
}

static void change(section *s, int n, fuzz_input *in)
{
    section *one = &s[fuzz_number(in, 1) % (unsigned)n];
    unsigned what = fuzz_number(in, 1);
    size_t at = fuzz_number(in, 2) % (one->n + 1), length = 0;
    const uint8_t *bytes = NULL;
    if (what % 4 == 0 || what % 4 == 2) {
        length = fuzz_number(in, 1);
        bytes = fuzz_bytes(in, length, &length);
    }
    switch (what % 4) {
    case 0:
        if (length > one->n - at)
            length = one->n - at;
        if (length)
            memcpy(one->bytes + at, bytes, length);
        break;
    case 1: one->n = at; break;
    case 2: {
        uint8_t *longer = malloc(one->n + length + 1);
        memcpy(longer, one->bytes, at);
        if (length)
            memcpy(longer + at, bytes, length);
        memcpy(longer + at + length, one->bytes + at, one->n - at);
        free(one->bytes);
        one->bytes = longer;
        one->n += length;
        break;
    }
    default:
        if (at < one->n)
            one->bytes[at] ^= (uint8_t)(1u << (what / 4 % 8));
    }
}

static void changed(fuzz_input *in, int which, const mest_allocator *allocator)
{
    int n;
    const section *base = base_of(which, &n);
    section own[MOST_SECTIONS];
    mest_heap heap;
    mest_checkpoint_writer *w;
    mest_model *m;
    mest_session *s;
    mest_error err = { 0 };
    for (int i = 0; i < n; i++) {
        own[i] = base[i];
        own[i].bytes = malloc(base[i].n + 1);
        memcpy(own[i].bytes, base[i].bytes, base[i].n);
    }
    for (int i = 0; i < MOST_CHANGES && in->left; i++)
        change(own, n, in);
    FUZZ_CHECK(mest_heap_init(&heap, NULL, NULL, &err) == MEST_OK);
    remove(fuzz_path("changed.mest"));
    FUZZ_CHECK(mest_checkpoint_create(&w, &heap, fuzz_path("changed.mest"), &err) == MEST_OK);
    for (int i = 0; i < n; i++)
        FUZZ_CHECK(mest_checkpoint_put(w, own[i].name, own[i].bytes, own[i].n, &err) == MEST_OK);
    FUZZ_CHECK(mest_checkpoint_commit(w, &err) == MEST_OK);
    for (int i = 0; i < n; i++)
        free(own[i].bytes);
    open_run(&runs[which], allocator, &m, &s);
    mest_status status = mest_session_resume(s, fuzz_path("changed.mest"), &err);
    FUZZ_STATUS(status, err);
    if (status == MEST_OK) {
        status = train(s, 7, NULL, &err);
        FUZZ_STATUS(status, err);
        size_t size;
        status = mest_model_export_memory(m, NULL, 0, &size, &(mest_export_options){ .struct_size = sizeof(mest_export_options), .sparse = true }, &err);
        FUZZ_STATUS(status, err);
    }
    mest_session_destroy(s);
    mest_model_destroy(m);
}

static void as_it_is(const fuzz_input *in, const mest_allocator *allocator)
{
    mest_heap heap;
    mest_checkpoint *file;
    mest_error err = { 0 };
    FUZZ_CHECK(mest_heap_init(&heap, allocator, NULL, &err) == MEST_OK);
    mest_status status = mest_checkpoint_open(&file, &heap, fuzz_file(0, in->at, in->left), &err);
    FUZZ_STATUS(status, err);
    if (status != MEST_OK)
        return;
    for (int i = 0; i < mest_checkpoint_count(file); i++) {
        mest_section s;
        const void *bytes;
        uint64_t n;
        const char *name = mest_checkpoint_section(file, i, &n);
        FUZZ_CHECK(mest_section_find(&s, file, name, &err) == MEST_OK);
        FUZZ_CHECK(mest_section_lend(&s, &bytes, s.size, &err) == MEST_OK && mest_section_finish(&s, &err) == MEST_OK);
        for (size_t k = 0; k < s.size; k++)
            (void)((const volatile uint8_t *)bytes)[k];
    }
    mest_checkpoint_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = { data, size };
    fuzz_meter meter;
    mest_allocator allocator = fuzz_allocator(&meter, CAP);
    unsigned which = fuzz_number(&in, 1);
    if (which)
        changed(&in, (int)(which % RUNS), &allocator);
    else
        as_it_is(&in, &allocator);
    FUZZ_CHECK(meter.now == 0);
    return 0;
}
