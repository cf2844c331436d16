/* SPDX-License-Identifier: Apache-2.0 */
/* What somebody may have meant who wrote a name that there is not: a slip of the finger, the beginning of a name, or what it is called elsewhere. */
#include <string.h>

#include "options.h"

/* Edit distance with the swap of two neighbours as one edit, of texts up to 31 characters; more is "far". */
static int distance(const char *a, size_t na, const char *b, size_t nb)
{
    int row[3][32]; /* row i-2, i-1 and i of the table, in turn */
    if (na > 31 || nb > 31)
        return 99;
    for (size_t j = 0; j <= nb; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[na % 3][nb];
}

/* Is a word at this distance worth proposing? */
static bool is_near(int edits, size_t length) { return edits <= 1 + (int)length / 4; }

const char *options_nearest_word(const char *words, const char *text, size_t *length)
{
    const char *best = NULL;
    int least = 99;
    size_t n_text = strlen(text);
    for (const char *w = words; *w;) {
        size_t n = strcspn(w, "|");
        int edits = distance(w, n, text, n_text);
        if (n_text >= 2 && n_text < n && strncmp(w, text, n_text) == 0)
            edits = 1; /* the beginning of a word is near, however short */
        if (edits < least) {
            least = edits;
            best = w;
            *length = n;
        }
        w += n + (w[n] == '|');
    }
    return best && is_near(least, n_text) ? best : NULL;
}

/* Usual names in other programs (PyTorch's argument names and examples, Keras, timm's older ones) for what is there. */
static const char *elsewhere(const char *text, size_t n)
{
    static const char *const names[][2] = {
        { "learning-rate", "lr" },     { "learning_rate", "lr" },        { "optimizer", "opt" },           { "optim", "opt" },
        { "lr-schedule", "sched" },    { "lr-scheduler", "sched" },      { "schedule", "sched" },          { "batch", "batch-size" },
        { "bs", "batch-size" },        { "num-epochs", "epochs" },       { "iterations", "max-steps" },    { "num-steps", "max-steps" },
        { "wd", "weight-decay" },      { "workers", "threads" },         { "num-threads", "threads" },
        { "dataset", "data" },         { "train-data", "data" },         { "validation", "val" },          { "validation-split", "val-split" },
        { "test", "eval" },            { "evaluate", "eval" },           { "predict", "infer" },           { "inference", "infer" },
        { "density", "sparsity" },     { "label-smoothing", "smoothing" }, { "dropout", "drop" },          { "clip", "clip-grad" },
        { "clip-norm", "clip-grad" },  { "out", "output" },              { "save", "output" },             { "checkpoint", "output-dir" },
        { "normalize", "normalise" },   { "num-classes", "new-head" },    { "pruning", "method" },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i][0]) == n && !memcmp(names[i][0], text, n))
            return names[i][1];
    return NULL;
}

const char *options_nearest_option(const char *text, size_t n_text)
{
    const char *best = elsewhere(text, n_text);
    int least = 99;
    if (best)
        return best;
    for (int i = 0; i < option_count; i++) {
        const char *name = option_table[i].name;
        if (!name)
            continue;
        int edits = distance(name, strlen(name), text, n_text);
        if (n_text >= 3 && n_text < strlen(name) && strncmp(name, text, n_text) == 0)
            edits = 1;
        if (edits > 1 && n_text > 0 && *name != *text) /* short words are near to anything: "lern" is not "mean" */
            edits++;
        if (edits < least) {
            least = edits;
            best = name;
        }
    }
    return is_near(least, n_text) ? best : NULL;
}
