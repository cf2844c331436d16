/* SPDX-License-Identifier: Apache-2.0 */
/* Inference: the class of each sample of a data set.
 *
 *   infer MODEL.onnx DATA [SCALE]          infer digits_sparse.onnx csv:digits.csv.gz 16
 *
 * Prints "name<tab>class<tab>probability" for each sample. A predictor needs a version of the weights; borrowing the model's own memory makes one
 * without a copy. A model with sparse weights (sparse_initializer, or many zeros and mest_model_sparsify) runs on its stored entries. */
#include <math.h>
#include <mest/serve.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32 };

typedef struct job {
    mest_model *model;
    mest_predictor *predictor;
    mest_source data;
    mest_source_info info;
    float *x, *y;
    int64_t x_count, classes; /* floats of one sample */
} job;

static int64_t product(int rank, const int64_t *dim)
{
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dim[i];
    return n;
}

static mest_status prepare(job *j, const char *model, const char *data, double scale, mest_error *err)
{
    mest_publish_options version;
    mest_publish_options_init(&version);
    version.borrow = true;
    mest_predictor_options options;
    mest_predictor_options_init(&options);
    options.max_batch = BATCH;
    mest_tensor_info in = {.struct_size = sizeof in}, out = {.struct_size = sizeof out};
    mest_status status = mest_model_load(&j->model, model, NULL, err);
    if (status == MEST_OK)
        status = mest_model_publish(j->model, &version, NULL, err);
    if (status == MEST_OK)
        status = mest_predictor_create(&j->predictor, j->model, &options, err);
    if (status == MEST_OK)
        status = mest_predictor_input(j->predictor, 0, &in, err);
    if (status == MEST_OK)
        status = mest_predictor_output(j->predictor, 0, &out, err);
    if (status != MEST_OK)
        return status;
    mest_source_options from; /* the data in the shape that the model wants */
    mest_source_options_init(&from);
    from.scale = scale;
    from.input_rank = in.rank;
    memcpy(from.input_dim, in.dim, sizeof from.input_dim);
    status = mest_source_open(&j->data, data, &from, err);
    j->info.struct_size = sizeof j->info;
    if (status == MEST_OK)
        status = j->data.info(j->data.self, &j->info, err);
    if (status != MEST_OK)
        return status;
    j->x_count = product(j->info.input_rank, j->info.input_dim);
    j->classes = product(out.rank, out.dim);
    j->x = malloc((size_t)(BATCH * j->x_count) * sizeof *j->x);
    j->y = malloc((size_t)(BATCH * j->classes) * sizeof *j->y);
    if (j->info.input_type != MEST_SAMPLE_F32 || j->x_count != product(in.rank, in.dim) || !j->x || !j->y) {
        snprintf(err->msg, sizeof err->msg, "the data do not fit the model's input '%s', or there is no memory", in.name);
        return err->code = MEST_E_SHAPE;
    }
    return MEST_OK;
}

static void print_class(const job *j, int64_t id, const float *logits)
{
    int64_t best = 0;
    double sum = 0;
    for (int64_t c = 1; c < j->classes; c++)
        if (logits[c] > logits[best])
            best = c;
    for (int64_t c = 0; c < j->classes; c++)
        sum += exp(logits[c] - logits[best]);
    char name[200] = "";
    if (j->data.sample_name)
        j->data.sample_name(j->data.self, id, name, sizeof name);
    printf("%s\t%lld\t%.4f\n", name, (long long)best, 1 / sum);
}

static mest_status run(job *j, mest_error *err)
{
    mest_fetch how = {.struct_size = sizeof how};
    for (int64_t first = 0; first < j->info.count; first += BATCH) {
        int64_t n = j->info.count - first < BATCH ? j->info.count - first : BATCH, ids[BATCH];
        for (int64_t i = 0; i < n; i++)
            ids[i] = first + i;
        mest_status status = j->data.fetch(j->data.self, ids, n, &how, j->x, NULL, err);
        if (status == MEST_OK)
            status = mest_predictor_infer(j->predictor, j->x, n, j->y, (size_t)(n * j->classes), NULL, err);
        if (status != MEST_OK)
            return status;
        for (int64_t i = 0; i < n; i++)
            print_class(j, ids[i], j->y + i * j->classes);
    }
    return MEST_OK;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: infer MODEL.onnx DATA [SCALE]\n");
        return 2;
    }
    mest_error err = {0};
    job j = {0};
    if (prepare(&j, argv[1], argv[2], argc > 3 ? atof(argv[3]) : 0, &err) != MEST_OK || run(&j, &err) != MEST_OK)
        fprintf(stderr, "%s: %s\n", mest_status_text(err.code), err.msg);
    mest_source_close(&j.data);
    mest_predictor_destroy(j.predictor);
    mest_model_destroy(j.model);
    free(j.x);
    free(j.y);
    return (int)err.code;
}
