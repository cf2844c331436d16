/* SPDX-License-Identifier: Apache-2.0 */
/* The pretended library, continued: what changes a model before it trains. */
#include "fake.h"

mest_status mest_model_new_head(mest_model *model, const char *output, int64_t classes, uint64_t seed, mest_head_info *info, mest_error *err)
{
    MAY_FAIL(err);
    (void)model;
    echo("new head %" PRId64 " of %s, seed %" PRIu64, classes, output ? output : "the first", seed);
    info->op = "Gemm";
    info->node = "last";
    info->weight = "fc2.weight";
    info->bias = "fc2.bias";
    info->classes_before = 10;
    return MEST_OK;
}

int mest_model_folded_count(const mest_model *model) { return model && getenv("FAKE_FOLDED") ? 2 : 0; }

mest_status mest_model_folded(const mest_model *model, int index, mest_folded_info *info, mest_error *err)
{
    (void)model, (void)index;
    MAY_FAIL(err);
    *info = (mest_folded_info){.struct_size = sizeof *info, .node = "/conv", .weight = "onnx::Conv_7", .sign = "the sign"};
    return MEST_OK;
}

mest_status mest_model_unfold_batch_norm(mest_model *model, int *n_layers, mest_error *err)
{
    (void)model;
    MAY_FAIL(err);
    if (n_layers)
        *n_layers = 2;
    echo("unfold");
    return MEST_OK;
}

mest_status mest_session_recompute_statistics(mest_session *session, const mest_source *source, int64_t batches, int *n_layers, mest_error *err)
{
    (void)session, (void)source;
    MAY_FAIL(err);
    *n_layers = 3;
    echo("statistics %" PRId64, batches);
    return MEST_OK;
}

int64_t mest_model_batch(const mest_model *model, int64_t wanted, mest_error *why)
{
    (void)model, (void)why;
    return wanted;
}
