/* SPDX-License-Identifier: Apache-2.0 */
/* A whole run: a model as its exporter left it becomes sparse, is trained with MEST, and is written as ONNX again.
 *
 *   finetune MODEL.onnx DATA SCALE OUT.onnx [EPOCHS]      finetune digits_cnn.onnx csv:digits.csv.gz 16 out.onnx 10
 *
 * A fifth of the data is held out. After each epoch the run is saved to OUT.onnx.ckpt; Ctrl-C stops it after a step, and the same command goes on
 * where it stopped. */
#define _POSIX_C_SOURCE 200809L
#include <mest/train.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static mest_session *running; /* for the signal handler; nothing else is global */

static void stop(int signal)
{
    (void)signal;
    mest_session_cancel(running);
}

static bool tell(void *user, const mest_event *e)
{
    (void)user;
    if (e->kind == MEST_EVENT_EPOCH)
        fprintf(stderr, "epoch %lld of %lld: loss %.4f, held out %.2f %%\n", (long long)e->epoch + 1, (long long)e->n_epochs, e->train.loss,
                100 * e->validation.accuracy);
    else if (e->kind == MEST_EVENT_MUTATION)
        fprintf(stderr, "  %lld units removed, %lld grown\n", (long long)e->removed, (long long)e->grown);
    return true;
}

/* Shape of one sample, from the model's input without its batch axis. */
static mest_status shape_of_model(const mest_model *model, mest_source_options *from, mest_error *err)
{
    mest_tensor_info in = {.struct_size = sizeof in};
    mest_status status = mest_model_input(model, 0, &in, err);
    from->input_rank = in.rank - 1;
    for (int i = 1; i < in.rank; i++)
        from->input_dim[i - 1] = in.dim[i];
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: finetune MODEL.onnx DATA SCALE OUT.onnx [EPOCHS]\n");
        return 2;
    }
    const char *out = argv[4];
    char checkpoint[4096];
    snprintf(checkpoint, sizeof checkpoint - 5, "%s.ckpt", out);
    mest_error err = {0};
    mest_model *model = NULL;
    mest_session *session = NULL;
    mest_source train = {0}, held_out = {0};

    mest_source_options from;
    mest_source_options_init(&from);
    from.scale = atof(argv[3]);
    from.val_split = 0.2;
    mest_source_options part = from;
    mest_sparsity sparse;
    mest_sparsity_init(&sparse);
    sparse.scheme = "block4";
    sparse.sparsity = 0.9;
    mest_train_config recipe;
    mest_train_config_init(&recipe);
    recipe.epochs = argc > 5 ? atol(argv[5]) : 10;
    recipe.lr = 0.05;
    recipe.schedule = "cosine";
    recipe.weight_decay = 5e-4;
    mest_run_options how;
    mest_run_options_init(&how);
    how.validation = &held_out;
    how.checkpoint_path = checkpoint;
    how.progress = tell;
    mest_metrics before = {.struct_size = sizeof before}, after = before;
    mest_export_options export = {.struct_size = sizeof export, .sparse = true};

    /* Each call runs only if all before it went well; the error is that of the one that failed. */
    bool ok = mest_model_load(&model, argv[1], NULL, &err) == MEST_OK && shape_of_model(model, &from, &err) == MEST_OK;
    part = from;
    part.val_part = true;
    ok = ok && mest_source_open(&train, argv[2], &from, &err) == MEST_OK && mest_source_open(&held_out, argv[2], &part, &err) == MEST_OK
         && mest_model_sparsify(model, &sparse, &err) == MEST_OK && mest_session_create(&session, model, &recipe, &err) == MEST_OK
         && mest_session_add_scheduler(session, "mest", "mode=em,freq=2", &err) == MEST_OK;
    if (ok && access(checkpoint, F_OK) == 0)
        ok = mest_session_resume(session, checkpoint, &err) == MEST_OK;
    ok = ok && mest_session_evaluate(session, &held_out, NULL, &before, &err) == MEST_OK;
    if (ok) {
        running = session;
        struct sigaction action = {.sa_handler = stop, .sa_flags = (int)SA_RESETHAND}; /* the second Ctrl-C ends the program */
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        ok = mest_session_train(session, &train, &how, &err) == MEST_OK;
    }
    ok = ok && mest_session_evaluate(session, &held_out, NULL, &after, &err) == MEST_OK && mest_model_export(model, out, &export, &err) == MEST_OK;
    if (ok) {
        remove(checkpoint);
        remove(strcat(checkpoint, ".prev")); /* the one before it */
        printf("held out: %.2f %% before, %.2f %% after; %s\n", 100 * before.accuracy, 100 * after.accuracy, out);
    } else if (err.code == MEST_E_CANCELLED) {
        fprintf(stderr, "stopped; the same command goes on\n");
    } else {
        fprintf(stderr, "%s: %s\n", mest_status_text(err.code), err.msg);
    }
    mest_session_destroy(session);
    mest_model_destroy(model);
    mest_source_close(&train);
    mest_source_close(&held_out);
    return (int)err.code;
}
