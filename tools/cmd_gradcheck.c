/* SPDX-License-Identifier: Apache-2.0 */
/* --gradcheck: are the gradients of this model right? The float32 step is run here, the rest by the library in double. Models that were changed
 * by options (sparse, another head) go there as a temporary file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "json.h"
#include "options.h"
#include "report.h"

#if TOOL_GRADCHECK

#include "mest/gradcheck.h"

enum { SAMPLES = 4 };

typedef struct gradchecking {
    tool *t;
    int listed[4];      /* lines printed of each kind */
    char problem[512];  /* why the float32 step could not be run; "": it could */
} gradchecking;

static const char *const kinds[] = {"kernels", "node", "model", "parameter"};
static const char *const results[] = {"good", "OFF", "unchecked"};

static void on_item(void *user, const mest_gradcheck_item *i)
{
    gradchecking *g = user;
    if (g->t->s->json) {
        cJSON *event = json_event("gradcheck_item");
        json_text(event, "kind", kinds[i->kind]);
        json_text(event, "result", i->result == MEST_GRADCHECK_OFF ? "off" : results[i->result]);
        json_text(event, "name", i->name);
        json_text(event, "op", i->op);
        json_text(event, "input", i->input);
        json_number(event, "analytic", i->analytic);
        json_number(event, "numeric", i->numeric);
        json_number(event, "error", i->error);
        json_number(event, "step", i->step);
        json_text(event, "why", i->why);
        (void)json_emit(g->t, event); /* a failure stays in ferror(stdout) */
        return;
    }
    if (i->result == MEST_GRADCHECK_GOOD && !g->t->s->verbose)
        return;
    printf("%-9s %-9s %-20s %s", results[i->result], kinds[i->kind], *i->op ? report_plain(i->op).s : "-", report_plain(i->name).s);
    if (*i->input)
        printf(" by %s", report_plain(i->input).s);
    if (i->result == MEST_GRADCHECK_UNCHECKED)
        printf(": %s\n", report_plain(i->why).s);
    else
        printf(": %.9g, numeric %.9g, error %.2g\n", i->analytic, i->numeric, i->error);
}

/* ---- the step in float32 ---- */
static bool float_step(void *user, const mest_source_info *info, const void *const *inputs, const void *targets, int64_t n)
{
    gradchecking *g = user;
    mest_error err = {0};
    mest_status status = mest_session_expect(g->t->session, info, &err);
    if (status == MEST_OK)
        status = mest_session_step_inputs(g->t->session, inputs, targets, n, NULL, &err);
    if (status != MEST_OK)
        snprintf(g->problem, sizeof g->problem, "%s", err.msg);
    return status == MEST_OK;
}

static int find(const tool *t, const char *parameter, mest_tensor_info *info)
{
    for (int i = 0; i < mest_model_parameter_count(t->model); i++)
        if (mest_model_parameter(t->model, i, info, NULL) == MEST_OK && strcmp(info->name, parameter) == 0)
            return i;
    return -1;
}

static bool float_gradient(void *user, const char *parameter, float *out, size_t count)
{
    gradchecking *g = user;
    mest_tensor_info info = {.struct_size = sizeof info};
    int i = find(g->t, parameter, &info);
    return i >= 0 && mest_session_read_gradient(g->t->session, i, out, count, NULL) == MEST_OK;
}

static bool frozen(void *user, const char *parameter)
{
    gradchecking *g = user;
    mest_tensor_info info = {.struct_size = sizeof info};
    return find(g->t, parameter, &info) < 0 || info.role != MEST_ROLE_TRAINABLE;
}

/* ---- the command ---- */

/* The model as the options have made it, for the other library. "": the file itself. */
static int write_model(tool *t, char *path, size_t size)
{
    const char *folder = getenv("TMPDIR");
    mest_export_options how = {.struct_size = sizeof how, .sparse = true};
    mest_error err = {0};
    path[0] = 0;
    if (!t->sparsified && !t->s->from_scratch)
        return 0;
    snprintf(path, size, "%s/mest-gradcheck-XXXXXX", folder && *folder ? folder : P_tmpdir);
    int fd = mkstemp(path);
    if (fd < 0)
        return tool_refuse(t, EXIT_FILES, "'%s': the temporary file cannot be made", path);
    close(fd);
    if (mest_model_export(t->model, path, &how, &err) != MEST_OK)
        return tool_fail(t, STAGE_FILES, &err);
    return 0;
}

static int report(gradchecking *g, const mest_gradcheck_summary *s)
{
    if (g->t->s->json) {
        cJSON *event = json_event("gradcheck");
        json_number(event, "good", s->n_good);
        json_number(event, "off", s->n_off);
        json_number(event, "unchecked", s->n_unchecked);
        json_number(event, "nodes", s->n_nodes);
        json_number(event, "parameters", s->n_parameters);
        json_number(event, "worst", s->worst);
        json_number(event, "worst_float", s->worst_float);
        json_number(event, "loss", s->loss);
        json_number(event, "seconds", s->seconds);
        json_text(event, "first", s->first);
        (void)json_emit(g->t, event);
    } else {
        printf("checked     %d nodes alone, %d parameters, the whole along 2 directions; %d good, %d off, %d unchecked, in %.1f s\n", s->n_nodes, s->n_parameters,
               s->n_good, s->n_off, s->n_unchecked, s->seconds);
        printf("errors      at most %.2g in double where good; float32 against double at most %.2g\n", s->worst, s->worst_float);
        if (s->n_off)
            printf("verdict     gradients are OFF, first %s\n", report_plain(s->first).s);
        else
            printf("verdict     gradients are right%s\n", s->n_unchecked ? " as far as they were checked" : "");
    }
    int code = report_finish(g->t);
    return code ? code : s->n_off ? EXIT_INTERNAL : EXIT_DONE;
}

int cmd_gradcheck(tool *t)
{
    const settings *s = t->s;
    gradchecking g = {.t = t};
    mest_gradcheck_options options;
    mest_gradcheck_summary summary = {.struct_size = sizeof summary};
    mest_error err = {0};
    char path[4096] = "";
    int code = tool_load_model(t);
    if (code == 0 && s->data)
        code = tool_open_sources(t, false);
    if (code == 0 && s->data)
        code = tool_check_sources(t, true);
    if (code == 0)
        code = tool_sparsify(t);
    if (code == 0)
        code = write_model(t, path, sizeof path);
    if (code == 0)
        code = tool_create_session(t);
    if (code == 0) {
        mest_gradcheck_options_init(&options);
        options.allocator = s->memory_limit > 0 ? &t->allocator : NULL;
        options.config = &t->config;
        options.source = s->data ? &t->data : NULL;
        options.frozen = frozen;
        options.float_step = float_step;
        options.float_gradient = float_gradient;
        options.item = on_item;
        options.user = &g;
        options.seconds = s->gradcheck_seconds;
        if (mest_gradcheck(path[0] ? path : s->model, &options, &summary, &err) != MEST_OK)
            code = tool_fail(t, STAGE_PREPARE, &err);
        else
            code = report(&g, &summary);
        if (g.problem[0])
            tool_note(t, "the step in float32 failed: %s", g.problem);
    }
    if (path[0])
        unlink(path);
    return code;
}

void tool_gradcheck_config(const settings *s, mest_train_config *c)
{
    if (!options_given(s, "batch-size"))
        c->batch = SAMPLES;
    c->lr = 0; /* the weights stay */
    c->keep_gradients = true;
}

#else

int cmd_gradcheck(tool *t) { return tool_refuse(t, EXIT_USAGE, "--gradcheck: this build is without it (-Dgradcheck=true)"); }

void tool_gradcheck_config(const settings *s, mest_train_config *c)
{
    (void)s;
    (void)c;
}

#endif
