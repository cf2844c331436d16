/* SPDX-License-Identifier: Apache-2.0 */
/* Online learning: samples arrive one by one; each is answered first, then its label becomes known, and one training step follows.
 *
 *   online_learning MODEL.onnx DATA SCALE OUT.onnx        online_learning digits_cnn.onnx csv:digits.csv.gz 16 out.onnx
 *
 * A step takes the new sample and a few older ones from a small memory (a reservoir: each sample that ever came has the same chance to be in
 * it), so that what was learnt is not forgotten. Every PERIOD samples the pattern mutates (mest_session_end_epoch) and the weights become the
 * next version, unless the answers got worse. Answers come from versions: in a service they are given by other threads, which never wait. */
#include <mest/serve.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPLAY = 7, MEMORY = 128, PERIOD = 200, MAX_CLASSES = 1000 };

typedef struct learner {
    mest_session *session;
    mest_predictor *predictor;
    float *memory;              /* [MEMORY, size]: samples seen */
    int64_t label[MEMORY];
    float *batch;               /* [1 + REPLAY, size] */
    int64_t size, classes, seen;
    uint64_t state;             /* of the random numbers */
} learner;

static uint64_t draw(learner *l, uint64_t n) /* 0..n-1; SplitMix64 (Steele, Lea, Flood 2014) */
{
    uint64_t z = l->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) % n;
}

static mest_status answer(learner *l, const float *x, int64_t *class, mest_error *err)
{
    float y[MAX_CLASSES];
    mest_status status = mest_predictor_infer(l->predictor, x, 1, y, (size_t)l->classes, NULL, err);
    *class = 0;
    for (int64_t c = 1; c < l->classes && status == MEST_OK; c++)
        if (y[c] > y[*class])
            *class = c;
    return status;
}

static mest_status learn(learner *l, const float *x, int64_t label, mest_error *err)
{
    const size_t bytes = (size_t)l->size * sizeof *x;
    int64_t labels[1 + REPLAY] = {label}, n = 1, held = l->seen < MEMORY ? l->seen : MEMORY;
    memcpy(l->batch, x, bytes);
    for (; n <= REPLAY && n <= held; n++) {
        uint64_t pick = draw(l, (uint64_t)held);
        memcpy(l->batch + n * l->size, l->memory + (int64_t)pick * l->size, bytes);
        labels[n] = l->label[pick];
    }
    mest_status status = mest_session_step(l->session, l->batch, labels, n, NULL, err);
    uint64_t place = l->seen < MEMORY ? (uint64_t)l->seen : draw(l, (uint64_t)l->seen + 1);
    if (place < MEMORY) {
        memcpy(l->memory + (int64_t)place * l->size, x, bytes);
        l->label[place] = label;
    }
    l->seen++;
    return status;
}

/* The end of a period: `right` of its PERIOD answers were. */
static mest_status publish(learner *l, int64_t right, mest_error *err)
{
    mest_publish_options version;
    mest_publish_options_init(&version);
    version.samples = PERIOD;
    version.accuracy = (double)right / PERIOD; /* of the answers so far: what is published now has learnt from them and should do better */
    version.max_accuracy_drop = 0.1;
    mest_version_info info = {.struct_size = sizeof info};
    mest_status status = mest_session_end_epoch(l->session, NULL, err);
    if (status != MEST_OK)
        return status;
    status = mest_session_publish(l->session, &version, &info, err);
    if (status == MEST_OK)
        printf("%6lld samples: %5.1f %% of the last %d answered right; version %lld\n", (long long)l->seen, 100 * version.accuracy, PERIOD,
               (long long)info.id);
    else if (status == MEST_E_LIMIT || status == MEST_E_NUMERIC) { /* readers stay with the version they have */
        printf("%6lld samples: %5.1f %% of the last %d answered right; %s\n", (long long)l->seen, 100 * version.accuracy, PERIOD, err->msg);
        *err = (mest_error){0};
        status = MEST_OK;
    }
    return status;
}

static mest_status follow(learner *l, const mest_source *stream, int64_t count, float *x, mest_error *err)
{
    const mest_fetch how = {.struct_size = sizeof how};
    int64_t right = 0;
    for (int64_t id = 0; id < count; id++) {
        int64_t label, class;
        mest_status status = stream->fetch(stream->self, &id, 1, &how, x, &label, err); /* a camera, a socket, a queue */
        if (status == MEST_OK)
            status = answer(l, x, &class, err);
        if (status == MEST_OK)
            status = learn(l, x, label, err);
        if (status != MEST_OK)
            return status;
        right += class == label;
        if ((id + 1) % PERIOD == 0) {
            status = publish(l, right, err);
            if (status != MEST_OK)
                return status;
            right = 0;
        }
    }
    return MEST_OK;
}

static mest_status prepare(learner *l, mest_model *model, mest_error *err)
{
    mest_sparsity sparse;
    mest_sparsity_init(&sparse);
    sparse.scheme = "block4";
    sparse.sparsity = 0.8;
    mest_train_config recipe;
    mest_train_config_init(&recipe);
    recipe.batch = 1 + REPLAY;
    recipe.lr = 0.05;
    recipe.threads = 1;           /* a step of eight samples is too little work for two */
    recipe.batch_norm = "frozen"; /* statistics of eight samples would say little */
    recipe.epochs = 1000;         /* periods; the stages of mode=em are fractions of these */
    mest_tensor_info in = {.struct_size = sizeof in}, out = {.struct_size = sizeof out};
    if (mest_model_sparsify(model, &sparse, err) != MEST_OK || mest_session_create(&l->session, model, &recipe, err) != MEST_OK ||
        mest_session_add_scheduler(l->session, "mest", "mode=em,freq=1,first=1,rate=.1/.05/0", err) != MEST_OK ||
        mest_session_publish(l->session, NULL, NULL, err) != MEST_OK || mest_predictor_create(&l->predictor, model, NULL, err) != MEST_OK ||
        mest_predictor_input(l->predictor, 0, &in, err) != MEST_OK || mest_predictor_output(l->predictor, 0, &out, err) != MEST_OK)
        return err->code;
    l->size = l->classes = 1;
    for (int i = 0; i < in.rank; i++)
        l->size *= in.dim[i];
    for (int i = 0; i < out.rank; i++)
        l->classes *= out.dim[i];
    l->memory = malloc((size_t)(MEMORY * l->size) * sizeof *l->memory);
    l->batch = malloc((size_t)((1 + REPLAY) * l->size) * sizeof *l->batch);
    if (!l->memory || !l->batch || l->classes > MAX_CLASSES)
        err->code = MEST_E_LIMIT;
    return err->code;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: online_learning MODEL.onnx DATA SCALE OUT.onnx\n");
        return 2;
    }
    mest_error err = {0};
    learner l = {0};
    mest_model *model = NULL;
    mest_source stream = {0};
    mest_source_info info = {.struct_size = sizeof info};
    mest_source_options from;
    mest_source_options_init(&from);
    from.scale = atof(argv[3]);
    float *x = NULL;
    mest_tensor_info in = {.struct_size = sizeof in};
    bool ok = mest_model_load(&model, argv[1], NULL, &err) == MEST_OK && prepare(&l, model, &err) == MEST_OK
              && mest_predictor_input(l.predictor, 0, &in, &err) == MEST_OK;
    from.input_rank = in.rank;
    memcpy(from.input_dim, in.dim, sizeof from.input_dim);
    ok = ok && mest_source_open(&stream, argv[2], &from, &err) == MEST_OK && stream.info(stream.self, &info, &err) == MEST_OK
         && (x = malloc((size_t)l.size * sizeof *x)) != NULL && follow(&l, &stream, info.count, x, &err) == MEST_OK
         && mest_model_export(model, argv[4], NULL, &err) == MEST_OK;
    if (!ok)
        fprintf(stderr, "%s: %s\n", mest_status_text(err.code), err.msg);
    free(x);
    free(l.memory);
    free(l.batch);
    mest_source_close(&stream);
    mest_predictor_destroy(l.predictor);
    mest_session_destroy(l.session);
    mest_model_destroy(model);
    return ok ? 0 : 1;
}
