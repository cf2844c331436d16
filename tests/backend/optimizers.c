/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of ai.onnx.preview.training against the runtime's own update rules. ONNX's Adam differs from PyTorch's, which ours is, in two
 * places: it adds epsilon before the bias is corrected, and it corrects by T, the steps done before this one, not at all where T is 0. With
 *
 *     lr = R (1 - alpha^t) / c1,  eps = epsilon / c2,  c1 = sqrt(1 - beta^t) / s,  c2 = sqrt(1 - beta^t)
 *
 * where s is ONNX's correction, ours computes ONNX's numbers; so the test is of the whole rule, moments and their corrections included.
 * Momentum's beta (PyTorch's 1 - dampening) acts from the second step on. */
#include "tests/backend/optimizers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "onnx.pb-c.h"
#include "runtime/optim.h"
#include "tests/backend/pb_tensor.h"

enum { MOST = 16 };

typedef struct training {
    char rule; /* 'A' Adam, 'G' Adagrad, 'M' Momentum */
    double alpha, beta, decay, epsilon, norm, norm_post;
    bool nesterov;
} training;

static Onnx__ModelProto *unpack(const char *path)
{
    static uint8_t bytes[1 << 16];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f)
        fclose(f);
    return n > 0 && n < sizeof bytes ? onnx__model_proto__unpack(NULL, n, bytes) : NULL;
}

/* Attributes with the defaults of the operators' text. False: not an operator of the training domain. */
static bool read_training(const Onnx__NodeProto *n, training *t)
{
    if (!n->domain || strcmp(n->domain, "ai.onnx.preview.training"))
        return false;
    *t = (training){.rule = strcmp(n->op_type, "Adam") == 0 ? 'A' : strcmp(n->op_type, "Adagrad") == 0 ? 'G' : strcmp(n->op_type, "Momentum") == 0 ? 'M' : 0,
                    .alpha = 0.9, .beta = 0.999, .epsilon = 1e-6};
    for (size_t i = 0; i < n->n_attribute; i++) {
        const Onnx__AttributeProto *a = n->attribute[i];
        struct { const char *name; double *to; } known[] = {{"alpha", &t->alpha}, {"beta", &t->beta}, {"decay_factor", &t->decay}, {"epsilon", &t->epsilon},
                                                          {"norm_coefficient", &t->norm}, {"norm_coefficient_post", &t->norm_post}};
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            if (!strcmp(a->name, known[k].name))
                *known[k].to = (double)a->f;
        if (!strcmp(a->name, "mode"))
            t->nesterov = a->s.len == 8 && !memcmp(a->s.data, "nesterov", 8);
    }
    return t->rule != 0;
}

/* The rule's settings, and the learning rate, that make step number `done` (from 0) ONNX's. NULL, or why there are none. */
static const char *settle(const training *t, double rate, int64_t done, mest_optimizer *o, double *lr)
{
    const uint64_t step = (uint64_t)done + 1;
    mest_error err = {0};
    if (mest_optimizer_init(o, NULL, t->rule == 'A' ? "adam" : t->rule == 'G' ? "adagrad" : "sgd", &err) != MEST_OK)
        return "the rule is not known";
    *lr = rate;
    if (t->rule == 'A') {
        const double root = sqrt(1 - pow(t->beta, (double)step));
        const double correction = done > 0 ? sqrt(1 - pow(t->beta, (double)done)) / (1 - pow(t->alpha, (double)done)) : 1;
        o->beta1 = t->alpha;
        o->beta2 = t->beta;
        o->eps = t->epsilon / root;
        *lr = rate * correction * (1 - pow(t->alpha, (double)step)) / root;
        return t->norm_post != 0 ? "a norm_coefficient_post is not ours" : NULL;
    }
    if (t->rule == 'G') {
        o->eps = t->epsilon;
        o->lr_decay = t->decay;
        return NULL;
    }
    o->momentum = t->alpha;
    o->nesterov = t->nesterov;
    return done > 0 && t->beta != 1 ? "dampening is not ours" : NULL;
}

static bool read_all(const char *dir, const char *kind, pb_tensor *t, int *n, char *text, size_t size)
{
    for (*n = 0; *n < MOST; ++*n) {
        char path[1024];
        struct stat s;
        snprintf(path, sizeof path, "%s/test_data_set_0/%s_%d.pb", dir, kind, *n);
        if (stat(path, &s) != 0)
            return true;
        const char *why = pb_tensor_read(&t[*n], path);
        if (why) {
            snprintf(text, size, "test data: %s", why);
            return false;
        }
    }
    snprintf(text, size, "too many tensors");
    return false;
}

/* Inputs R, T, then all weights, all gradients, all of each state; outputs the weights, then the states. */
static bool compute(const training *t, pb_tensor *in, int n_in, const pb_tensor *out, int n_out, char *text, size_t size)
{
    const int states = t->rule == 'A' ? 2 : 1, weights = (n_in - 2) / (2 + states);
    mest_optimizer o;
    double lr;
    if (weights < 1 || 2 + weights * (2 + states) != n_in || weights * (1 + states) != n_out || in[0].type.dtype != MEST_F32 || in[1].type.dtype != MEST_I64) {
        snprintf(text, size, "%d inputs and %d outputs", n_in, n_out);
        return false;
    }
    const int64_t done = *(const int64_t *)in[1].data;
    const char *why = settle(t, (double)*(const mest_real *)in[0].data, done, &o, &lr);
    for (int i = 0; i < weights && !why; i++) {
        mest_real *slots[MEST_OPTIM_SLOTS] = {in[2 + 2 * weights + i].data, states > 1 ? in[2 + 3 * weights + i].data : NULL};
        o.rule->step(&o, in[2 + i].data, in[2 + weights + i].data, slots, in[2 + i].count, 1, lr, t->norm, (uint64_t)done + 1);
    }
    if (why) {
        snprintf(text, size, "%s", why);
        return false;
    }
    for (int i = 0; i < n_out; i++) {
        const pb_tensor *got = &in[i < weights ? 2 + i : 2 + weights + i];
        char difference[256];
        if (!pb_tensor_same(&out[i], &got->type, got->data, difference, sizeof difference)) {
            snprintf(text, size, "output %d: %s", i, difference);
            return false;
        }
    }
    return true;
}

int run_optimizer_case(const char *dir, char *text, size_t size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/model.onnx", dir);
    Onnx__ModelProto *m = unpack(path);
    training t;
    int result = -1;
    if (m && m->graph && m->graph->n_node == 1 && read_training(m->graph->node[0], &t)) {
        pb_tensor in[MOST] = {0}, out[MOST] = {0};
        int n_in, n_out;
        result = read_all(dir, "input", in, &n_in, text, size) && read_all(dir, "output", out, &n_out, text, size) &&
                 compute(&t, in, n_in, out, n_out, text, size);
        for (int i = 0; i < MOST; i++) {
            pb_tensor_free(&in[i]);
            pb_tensor_free(&out[i]);
        }
    }
    if (m)
        onnx__model_proto__free_unpacked(m, NULL);
    return result;
}
