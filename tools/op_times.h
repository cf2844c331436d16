/* SPDX-License-Identifier: Apache-2.0 */
/* op_times.h - where the time goes: node times of a session as a table by kind of node and, in the Chrome trace format, as a file.
 *
 *   op_times   what was gathered; op_times_begin asks the session to report nodes, op_times_end stops that
 */
#ifndef TOOLS_OP_TIMES_H
#define TOOLS_OP_TIMES_H

#include <cjson/cJSON.h>

#include "tool.h"
#include "whole_file.h"

enum { OP_TIMES_RUNS = 32, OP_TIMES_EVENTS = 50000 };

typedef struct op_node { /* a node of one program: the times of its latest runs */
    mest_program_kind kind;
    int index;
    int64_t batch, macs, nonzeros, bytes, runs, cycles; /* cycles: of all runs; negative: not counted */
    char op[48], kernel[48], phase[12], name[96];
    double seconds[OP_TIMES_RUNS];
    double median; /* after op_times_end */
} op_node;

typedef struct op_times {
    op_node *nodes;
    int n, room, last;
    bool counted;     /* cycles */
    bool failed;      /* memory ran out */
    whole_file trace; /* trace.file NULL: none is written */
    int64_t events, left_out;
    double began;
} op_times;

/* trace: path of the file, NULL: none. False: the file cannot be written, errno says why. */
bool op_times_begin(op_times *o, mest_session *session, const char *trace);
/* The session may be gone (NULL). Completes the trace file, if `good`; false: it is not there, errno says why. */
bool op_times_end(op_times *o, mest_session *session, bool good);
/* Kinds of nodes by falling time, then the `top` slowest nodes. For programs of one batch size. */
void op_times_print(const op_times *o, FILE *file, int top);
void op_times_json(const op_times *o, cJSON *event);
void op_times_free(op_times *o);

/* --profile of a command: begins before the run, ends after it with a note about the file. An exit code. */
int op_times_profile(tool *t, op_times *o);
int op_times_finish(tool *t, op_times *o, int code);

#endif
