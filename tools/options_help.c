/* SPDX-License-Identifier: Apache-2.0 */
/* --help: the option table for people. */
#include <string.h>

#include "options.h"

/* Prints `text` in the columns from `indent` on, words unbroken; newlines in it begin a new line. */
static void put_wrapped(FILE *out, const char *text, int indent, int columns)
{
    int at = indent;
    while (*text) {
        int n = (int)strcspn(text, " \n");
        if (at > indent && at + 1 + n > columns) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", n, text);
        at += n;
        text += n;
        if (*text == '\n') {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        }
        if (*text)
            text++;
    }
    fputc('\n', out);
}

static void put_option(FILE *out, const option *o, int columns)
{
    char left[96], text[600];
    int n = o->letter ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                      : snprintf(left, sizeof left, "      --%s", o->name);
    if (o->argument)
        n += snprintf(left + n, sizeof left - (size_t)n, " %s", o->argument);
    /* "(...)" only describes what the default depends on; the brackets are enough then. */
    const char *preset = o->preset ? o->preset + (*o->preset == '(') : "";
    snprintf(text, sizeof text, "%s%s%.*s%s", o->help, *preset ? " [" : "", (int)strcspn(preset, ")"), preset, *preset ? "]" : "");
    if (n > 29)
        fprintf(out, "%s\n%31s", left, "");
    else
        fprintf(out, "%-31s", left);
    put_wrapped(out, text, 31, columns);
}

static void put_introduction(FILE *out)
{
    fputs("usage: mest-run MODEL.onnx --train | --eval | --infer | --info | --check | --gradcheck | --bench infer|train | --explain [options]\n"
          "       mest-run --sweep FILE.yaml | --report DIR\n\n"
          "Trains ONNX models whose weights are sparse from the first step to the last.\n\nExamples:\n", out);
    for (int i = 0; option_examples[i]; i++)
        for (const char *line = option_examples[i]; line;) {
            int n = (int)strcspn(line, "\n");
            fprintf(out, "  %.*s\n", n, line);
            line = line[n] ? line + n + 1 : NULL;
        }
}

static void put_groups(FILE *out)
{
    fputs("\nMore: --help GROUP with GROUP one of", out);
    for (int i = 0; i < option_count; i++)
        if (!option_table[i].name)
            fprintf(out, " %s", option_table[i].argument);
    fputs(", or --help-all. [Defaults] stand in brackets.\n", out);
}

bool options_help(FILE *out, const char *group, int columns)
{
    bool all = group && strcmp(group, "all") == 0, found = !group || all, on = false;
    if (columns < 60 || columns > 140)
        columns = columns < 60 ? 60 : 140;
    for (int i = 0; i < option_count && !found; i++)
        found = !option_table[i].name && strcmp(option_table[i].argument, group) == 0;
    if (!found)
        return false;
    if (!group || all)
        put_introduction(out);
    for (int i = 0; i < option_count; i++) {
        const option *o = &option_table[i];
        if (!o->name) {
            on = !group || all || strcmp(o->argument, group) == 0;
            /* The short help leaves out groups without a common option. */
            bool any = group != NULL;
            for (int j = i + 1; j < option_count && option_table[j].name; j++)
                any = any || option_table[j].common;
            if (on && any)
                fprintf(out, "\n%s:\n", o->help);
        } else if (on && (group || o->common)) {
            put_option(out, o, columns);
        }
    }
    if (!group)
        put_groups(out);
    if (!group || all)
        fputs("\nExit codes: 0 done; 1 internal error; 2 wrong usage; 3 model unreadable or unsupported; 4 bad data; 5 files cannot be\n"
              "read or written; 6 loss not finite; 7 out of memory or over a limit; 8 scheduler failed; 130 or 143 interrupted\n"
              "(the step was finished and a checkpoint written). See mest-run's reference in docs/cli.md.\n", out);
    return true;
}
