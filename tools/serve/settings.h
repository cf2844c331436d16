/* SPDX-License-Identifier: Apache-2.0 */
/* settings.h - how one model is served and trained: MODELS/NAME/config.json. */
#ifndef TOOLS_SERVE_SETTINGS_H
#define TOOLS_SERVE_SETTINGS_H

#include <stdint.h>
#include <stdio.h>

#include "serve/fault.h"
#include "serve/text.h"

enum { SETTING_TEXT = 256 };

typedef struct settings {
    /* serving */
    int64_t max_batch;                  /* samples that are answered together, and the most of one request */
    int64_t max_axis;                   /* longest that a free axis may be */
    int64_t max_shapes;                 /* predictors that a worker keeps, each for one length of the free axes */
    double batch_delay_ms;              /* how long a request may wait for others to join it */
    int64_t infer_threads;              /* workers, each with a predictor of its own */
    int64_t max_waiting;                /* requests in the queue; more are turned away with 503 */
    char output[SETTING_TEXT];          /* that the loss is put on; "": the first */
    /* weights */
    char scheme[SETTING_TEXT], dense_layers[SETTING_TEXT];
    double sparsity;                    /* 0: dense */
    char freeze[SETTING_TEXT];          /* name pattern of parameters that are not trained */
    /* training */
    char class_axis[SETTING_TEXT];      /* "last" or "first": of the classes where each point of a sample has one */
    char sample_shape[SETTING_TEXT];    /* of a training sample, where axes are free */
    char loss[SETTING_TEXT], optimizer[SETTING_TEXT], batch_norm[SETTING_TEXT];
    char scheduler[SETTING_TEXT], scheduler_options[SETTING_TEXT];
    double lr, momentum, weight_decay, clip_norm;
    int64_t batch, round_steps, seed;   /* steps between two candidates for a version */
    int64_t rounds;                     /* after which training ends by itself; 0: never */
    double hold_out;                    /* share of the samples that is tested on and never trained on */
    double max_accuracy_drop;           /* a candidate may be worse by this much on the held-out samples */
    int64_t min_samples;                /* training waits for that many */
    bool auto_promote;                  /* a candidate that passed becomes current by itself */
    int64_t keep_versions;              /* that training made and that stay in the folder */
    /* being a good guest */
    double duty;                        /* share of the time that training works, 0..1 */
    int64_t nice;                       /* of the training thread, 0..19 */
    int64_t pause_waiting;              /* training pauses while more requests wait than that */
    double pause_at_most_ms;            /* then it makes one step nevertheless; 0: it waits for as long as it takes */
    char pause_file[SETTING_TEXT];      /* training pauses while it exists; "": none */
    double min_battery, max_temperature; /* per cent, degrees Celsius; 0: never mind */
    char sys_root[SETTING_TEXT];        /* where they are read */
    /* replay store */
    int64_t replay_bytes;               /* on disk */
    char replay_keep[SETTING_TEXT];     /* "newest" or "sample": what stays when it is full */
} settings;

void settings_init(settings *s);
/* Reads config.json; a file that does not exist is no error. Unknown names are refused, so that a slip of the pen is not a silent default. */
bool settings_read(settings *s, const char *path, fault *f);
/* Name, default and meaning of setting `index`; false past the end. */
bool settings_describe(int index, const char **name, char preset[SETTING_TEXT], const char **help);
/* All of them, for --help-config. */
void settings_help(FILE *to);
/* Those that a request may change (POST train, "start"): a JSON object of name and value. */
struct cJSON;
bool settings_change(settings *s, const struct cJSON *object, fault *f);
/* Those of them that differ, as such an object. */
void settings_changes(const settings *now, const settings *before, text *out);

#endif
