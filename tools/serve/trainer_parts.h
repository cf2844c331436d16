/* SPDX-License-Identifier: Apache-2.0 */
/* trainer_parts.h - what the files of the trainer share. */
#ifndef TOOLS_SERVE_TRAINER_PARTS_H
#define TOOLS_SERVE_TRAINER_PARTS_H

#include "mest/guest.h"
#include "serve/clock.h"
#include "serve/measure.h"
#include "serve/trainer.h"

enum { CURVE = 1024 };

typedef struct curve_point {
    int64_t round, steps, version;  /* version 0: the candidate was refused */
    double seconds;                 /* since the trainer was made */
    double train_loss;              /* mean of the round's steps; NaN: none */
    measured candidate, current;    /* on the same samples */
} curve_point;

struct trainer {
    served *model;
    tensor_spec in[MAX_TENSORS], out; /* of a sample: every axis has a size */
    sample_spec spec;
    replay *store;
    pthread_t thread;
    bool started;
    double begun_ms;

    /* with the lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    settings settings;              /* those of the model, with what requests changed */
    bool wanted, quit;              /* training shall go on; the service ends */
    mest_guest *guest;              /* the thread's own but for waking it; NULL: there is no rule */
    int64_t restore;                /* version that training shall go on from, 0: none */
    bool anew;                      /* the engine was replaced: begin on the one that answers now */
    const char *state;              /* "idle", "waiting for samples", "training", "paused" */
    char note[512];                 /* what went wrong last; "" */
    int64_t ends_at;                /* number of the last round, 0: none */
    int64_t rounds, steps, candidate; /* candidate: held until it is promoted, 0: none */
    double loss;                    /* of the last step */
    curve_point curve[CURVE];
    int64_t n_curve;                /* ever; the last CURVE of them are kept */
    pthread_mutex_t versions;       /* one change of the current version at a time; taken before the lock */
    pthread_mutex_t saved;          /* of checkpoint and state on disk; taken after versions, before the lock */

    /* the thread's own */
    engine *engine;
    mest_session *session;
    bool fresh;                     /* the next session is that of the engine that answers, with nothing taken up */
    settings now;                   /* as of the beginning of the step */
    int64_t in_round, refusals;     /* steps of this round; candidates refused in a row */
    uint64_t drawn;                 /* counter of the random draws */
    double loss_sum;
    double worked_since;            /* end of the last rest */
    unsigned char *sample;          /* one input of the store */
    void *inputs[MAX_TENSORS], *targets; /* a batch */
    measure *measure;
};

/* train_session.c */
bool session_open(trainer *t, fault *f);
void session_close(trainer *t);
/* Checkpoint and state.json: of which file the checkpoint is, whether training goes on by itself after a start, for how many rounds, with what settings. */
bool session_save(trainer *t, fault *f);
/* state.json alone: what a request asked for is so after a power cut, too. */
bool session_note_wish(trainer *t, fault *f);
/* What was saved is of no use any more: a start begins with the version that answers, whose engine is of file `base`. */
bool session_forget(trainer *t, int64_t base, fault *f);
/* What state.json says of training that went on when the service ended, into t->wanted, ends_at, settings; before there is a thread. */
void session_recall(trainer *t);
bool session_learn(trainer *t, fault *f);  /* one step */
bool session_restore(trainer *t, int64_t version); /* false: it is no version of this engine */
/* train_round.c: the end of a round, a candidate and its test */
bool round_end(trainer *t, fault *f);
bool version_becomes_current(trainer *t, engine *e, int64_t id, fault *f);
void trainer_note(trainer *t, const char *note);
/* Is anything to be done but train: end, cancel, restore? */
bool trainer_interrupted(trainer *t);
/* After a piece of work, of whatever kind: rests for the share of the time that is not for training, then waits while many requests wait. */
void trainer_yield(trainer *t);

#endif
