/* SPDX-License-Identifier: Apache-2.0 */
/* --eval: loss and accuracy of the model, as it is or made sparse first, on --data. */
#include "commands.h"
#include "op_times.h"
#include "progress.h"
#include "report.h"

int cmd_measure(tool *t, const mest_source *source, const char *task, mest_metrics *metrics)
{
    mest_run_options run;
    mest_error err = {0};
    progress p;
    progress_init(&p, t);
    p.task = task;
    mest_run_options_init(&run);
    run.progress = progress_event;
    run.progress_user = &p;
    run.guest = t->guest;
    *metrics = (mest_metrics){.struct_size = sizeof *metrics};
    mest_status status = mest_session_evaluate(t->session, source, &run, metrics, &err);
    progress_clear(&p);
    if (signals_caught())
        return tool_refuse(t, EXIT_SIGNAL + signals_caught(), "interrupted while %s", task);
    if (p.failed)
        return tool_refuse(t, EXIT_FILES, "the log or standard output cannot be written");
    return status == MEST_OK ? 0 : tool_fail(t, STAGE_RUN, &err);
}

int cmd_eval(tool *t)
{
    mest_metrics metrics;
    op_times ops;
    int code = tool_load_model(t);
    if (code == 0)
        code = tool_open_sources(t, false);
    if (code == 0)
        code = tool_check_sources(t, true);
    if (code == 0)
        code = tool_sparsify(t);
    if (code == 0)
        code = tool_create_session(t);
    if (code)
        return code;
    signals_watch(t->session);
    code = op_times_profile(t, &ops);
    if (code == 0)
        code = op_times_finish(t, &ops, cmd_measure(t, &t->data, "evaluating", &metrics));
    return code ? code : report_eval(t, &metrics);
}
