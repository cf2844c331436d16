/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as a model file: loaded, inferred with a small batch, parameters read; what is small enough to run is planned, run forward, trained for
 * a step and exported. */
#include "runtime/infer.h"
#include "runtime/model.h"
#include "tests/fuzz/fuzz.h"

enum { CAP = 80 << 20, RUN_BYTES = 4 << 20, RUN_MACS = 2000000, INPUT_BYTES = 1 << 20, BATCH = 2 };

static mest_status infer(mest_model *m, mest_error *err)
{
    mest_graph g;
    mest_status status = mest_graph_copy(&g, &m->graph, err);
    if (status != MEST_OK)
        return status;
    for (int i = 0; i < g.n_inputs; i++)
        for (int k = 0; k < g.values[g.inputs[i]].type.shape.rank; k++)
            if (g.values[g.inputs[i]].type.shape.dim[k] < 0)
                g.values[g.inputs[i]].type.shape.dim[k] = BATCH;
    status = mest_infer_graph(&g, true, (size_t)1 << 20, err);
    mest_graph_free(&g);
    return status;
}

/* Elements of a shape, the batch axis as BATCH; 0: too many. */
static size_t elements(int rank, const int64_t *dim)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++) {
        size_t d = dim[i] < 0 ? BATCH : (size_t)dim[i];
        if (d > INPUT_BYTES || (n *= d) > INPUT_BYTES / 8)
            return 0;
    }
    return n;
}

static void step(mest_model *m, mest_session *s)
{
    mest_error err = { 0 };
    int n = mest_model_input_count(m), rank;
    int64_t dim[MEST_MAX_RANK];
    void *inputs[16] = { 0 };
    mest_metrics metrics = { .struct_size = sizeof metrics };
    for (int i = 0; i < n && i < 16; i++) {
        mest_tensor_info t = { .struct_size = sizeof t };
        FUZZ_CHECK(mest_model_input(m, i, &t, &err) == MEST_OK);
        size_t count = elements(t.rank, t.dim);
        inputs[i] = calloc(count + 1, 8);
        for (size_t k = 0; k < count && t.dtype == 1; k++)
            ((float *)inputs[i])[k] = (float)(k % 7) - 3;
    }
    if (n <= 16 && mest_session_output_shape(s, &rank, dim, &err) == MEST_OK) {
        size_t count = elements(rank, dim) * BATCH;
        float *out = calloc(count + 1, sizeof *out), *target = calloc(count + 1, sizeof *target);
        mest_status status = mest_session_infer_inputs(s, (const void *const *)inputs, BATCH, out, count, &err);
        FUZZ_STATUS(status, err);
        status = mest_session_step_inputs(s, (const void *const *)inputs, target, BATCH, &metrics, &err);
        FUZZ_STATUS(status, err);
        free(out);
        free(target);
    }
    for (int i = 0; i < n && i < 16; i++)
        free(inputs[i]);
}

static void run(mest_model *m, bool xnnpack)
{
    mest_error err = { 0 };
    mest_train_config c;
    mest_session *s;
    mest_train_config_init(&c);
    c.batch = BATCH;
    c.loss = "mse";
    c.threads = 1;
    c.use_xnnpack = xnnpack;
    mest_status status = mest_session_create(&s, m, &c, &err);
    FUZZ_STATUS(status, err);
    if (status != MEST_OK)
        return;
    mest_plan_info plan = { .struct_size = sizeof plan };
    status = mest_session_explain(s, MEST_PROGRAM_TRAIN, BATCH, NULL, NULL, &plan, &err);
    FUZZ_STATUS(status, err);
    bool small = status == MEST_OK && plan.total_bytes < RUN_BYTES && plan.macs < RUN_MACS && plan.n_nodes < 2000;
    for (int i = 0; i < mest_model_input_count(m); i++) {
        mest_tensor_info t = { .struct_size = sizeof t };
        FUZZ_CHECK(mest_model_input(m, i, &t, &err) == MEST_OK);
        small &= elements(t.rank, t.dim) > 0;
    }
    if (small)
        step(m, s);
    mest_session_destroy(s);
    if (small) {
        size_t size;
        status = mest_model_export_memory(m, NULL, 0, &size, NULL, &err);
        FUZZ_STATUS(status, err);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_meter meter;
    mest_allocator allocator = fuzz_allocator(&meter, CAP);
    mest_model_options options;
    mest_model *m;
    mest_error err;
    mest_model_options_init(&options);
    options.allocator = &allocator;
    options.lend_memory = true; /* reads past the end are reads past the fuzzer's block */
    if (!size)
        return 0;
    mest_status status = mest_model_load_memory(&m, data, size, &options, &err);
    FUZZ_STATUS(status, err);
    FUZZ_CHECK((status == MEST_OK) == (m != NULL));
    if (m) {
        err = (mest_error){ 0 };
        status = infer(m, &err);
        FUZZ_STATUS(status, err);
        for (int i = 0; i < m->n_params; i++) {
            float x[4];
            int64_t n = m->params[i].count < 4 ? m->params[i].count : 4;
            FUZZ_CHECK(mest_param_read(&m->params[i], m->params[i].count - n, n, x, &err) == MEST_OK);
        }
        if (status == MEST_OK)
            run(m, size % 2);
    }
    mest_model_destroy(m);
    FUZZ_CHECK(meter.now == 0);
    return 0;
}
