/* SPDX-License-Identifier: Apache-2.0 */
/* rundir.h - where a training run writes: -o and the folder of --output-dir, checked before the first step. */
#ifndef TOOLS_RUNDIR_H
#define TOOLS_RUNDIR_H

#include "tool.h"

/* Can a file be written at `path`, without touching what may be there? EXIT_FILES, naming the reason, if not. */
int rundir_check_writable(tool *t, const char *option, const char *path);
/* Checks -o, creates and locks --output-dir, decides where the checkpoint is. Refuses to overwrite the input model
 * (unless -o names it) and a checkpoint of an earlier run (unless --resume or --overwrite). */
int rundir_prepare(tool *t);
/* Creates and locks --output-dir of a sweep. */
int rundir_prepare_sweep(tool *t);
/* All else is ready: opens the log and, with --overwrite, removes the old checkpoint and results. Nothing of an earlier run is touched before. */
int rundir_begin(tool *t);
/* Does the folder of a run that ended hold both results, model.onnx and summary.json? A summary that is damaged is written again if the log has it. */
bool rundir_has_results(tool *t);
/* The checkpoint to go on from, NULL: none (then --resume begins a new run). */
const char *rundir_resume_path(const tool *t);
/* Where a checkpoint goes when the run is interrupted; "" if nowhere. */
const char *rundir_interrupt_path(const tool *t);

#endif
