/* SPDX-License-Identifier: Apache-2.0 */
/* commands.h - one function a mode. Each gets an initialised tool whose settings were checked, and returns the exit code. */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

#include "tool.h"

/* --sweep; settings other than its own are refused. */
int cmd_sweep(tool *t);
int cmd_train(tool *t);
int cmd_eval(tool *t);
int cmd_infer(tool *t);
int cmd_info(tool *t);
int cmd_explain(tool *t);
int explain_memory(tool *t, mest_program_kind kind); /* the part of --explain memory, once the session stands */
int cmd_check(tool *t);
int cmd_gradcheck(tool *t);
int cmd_report(tool *t);
int cmd_bench(tool *t);

/* Loss and accuracy of the session over a source, with progress that says `task`. Shared by --train and --eval. */
int cmd_measure(tool *t, const mest_source *source, const char *task, mest_metrics *metrics);

#endif
