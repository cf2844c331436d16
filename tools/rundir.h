/* SPDX-License-Identifier: Apache-2.0 */
/* rundir.h - where a training run writes: -o and the folder of --output-dir, checked before the first step. */
#ifndef TOOLS_RUNDIR_H
#define TOOLS_RUNDIR_H

#include "tool.h"

/* Can a file be written at `path`, without touching what may be there? EXIT_FILES, naming the reason, if not. */
int rundir_check_writable(tool *t, const char *option, const char *path);
/* Checks -o, creates and locks --output-dir, decides where the checkpoint is. Refuses to overwrite the input model
 * (unless -o names it) and an earlier run (unless --overwrite, or --resume and the run is the folder's own). */
int rundir_prepare(tool *t);
/* Creates and locks --output-dir of a sweep. */
int rundir_prepare_sweep(tool *t);
/* All else is ready: looks whether the folder can be written, and holds events from here on. Nothing of an earlier run is touched. */
int rundir_begin(tool *t);
/* Something was trained: what an earlier run left is removed, or its log cut behind the checkpoint, and the held events are written. Does nothing the second time. */
int rundir_open(tool *t);
/* The run failed: removes what this process made in a folder that was not opened, and the folder if it made that, too. */
void rundir_leave(tool *t);
/* The pattern at the start until the folder is opened. */
#define RUNDIR_PATTERN "pattern-start.json.tmp-held"
/* Does the folder of a run that ended hold both results, model.onnx as it was written and summary.json? A summary that is damaged is written again if the log
 * has it. */
bool rundir_has_results(tool *t);
/* The checkpoint to go on from, NULL: none (then --resume begins a new run). */
const char *rundir_resume_path(const tool *t);
/* Where a checkpoint goes when the run is interrupted; "" if nowhere. */
const char *rundir_interrupt_path(const tool *t);

#endif
