/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - the command line: one table drives parsing, --help and the check of docs/cli.md.
 *
 *   option        one row: names, kind, argument, default, range, help line, target in struct settings
 *   option_kind   how the argument is read
 *
 * A row whose name is NULL starts a group; its `help` is the group's title and `argument` its name for --help=GROUP.
 */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include <stddef.h>
#include <stdio.h>

#include "settings.h"

typedef enum option_kind {
    OPT_FLAG,   /* no argument; sets a bool */
    OPT_MODE,   /* sets settings.mode to `value`, once; with an `argument` "[word]" that word may follow: settings.mode_word */
    OPT_MODE_OF, /* the same with one of the words of `argument`, which goes to the target */
    OPT_TEXT,
    OPT_CHOICE, /* one of the words of `argument`, "a|b|c" */
    OPT_INT,
    OPT_REAL,
    OPT_TIME,   /* seconds as a double, "90", "30m", "8h" */
    OPT_SIZE,   /* bytes with a unit, "64MiB"; a plain number counts units of `value` bytes, 0: the unit must be given */
    OPT_REALS,  /* numbers separated by commas; further arguments that are plain numbers belong to it, too */
    OPT_INTS,   /* as OPT_REALS, with whole numbers */
    OPT_LIST,   /* text, repeatable */
    OPT_RESUME, /* optional text: sets settings.resume */
    OPT_HELP    /* optional text: sets settings.help */
} option_kind;

typedef struct option {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    bool common;      /* shown by --help, not only by --help-all */
    option_kind kind;
    const char *argument; /* how help shows it; NULL for flags */
    const char *preset;   /* default, parsed like an argument; "(...)" only describes it; NULL: none */
    size_t target;        /* offset in struct settings */
    double low, high;     /* numbers: the range allowed, both ends included */
    int value;
    const char *help; /* one line or several, separated by newlines */
} option;

extern const option option_table[];
extern const int option_count;
/* Example commands, NULL-terminated; --help begins with them. */
extern const char *const option_examples[];

/* Fills *s with the defaults, then with argv. False: `message` holds one line that names the option. */
bool options_parse(settings *s, int argc, char **argv, char *message, size_t size);

/* Did this option stand on the command line? `name` must be in the table. */
bool options_given(const settings *s, const char *name);

/* Help: the common options, one group, or everything ("all"). False: no such group. */
bool options_help(FILE *out, const char *group, int columns);

/* options_near.c. The option that somebody may have meant by `text`, which is none; NULL: no idea. */
const char *options_nearest_option(const char *text, size_t n_text);
/* The word of `words` ("a|b|c") nearest to `text`, or NULL if none is near; `length` gets its length. */
const char *options_nearest_word(const char *words, const char *text, size_t *length);

#endif
