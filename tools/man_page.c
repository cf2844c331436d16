/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the manual page mest-run(1) from the option table: man_page VERSION > mest-run.1 */
#include <string.h>

#include "options.h"

/* roff takes '-' for a hyphen, '\' for an escape, and '.' or "'" at the beginning of a line for a request. */
static void put(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool begins = i == 0 || text[i - 1] == '\n';
        if (text[i] == '-')
            fputs("\\-", stdout);
        else if (text[i] == '\\')
            fputs("\\e", stdout);
        else if (begins && (text[i] == '.' || text[i] == '\''))
            printf("\\&%c", text[i]);
        else
            putchar(text[i]);
    }
}

static void put_option(const option *o)
{
    puts(".TP");
    fputs(".B ", stdout);
    if (o->letter)
        printf("\\-%c, ", o->letter);
    fputs("\\-\\-", stdout);
    put(o->name, strlen(o->name));
    if (o->argument) {
        fputs(" \\fI", stdout);
        put(o->argument, strlen(o->argument));
        fputs("\\fR", stdout);
    }
    putchar('\n');
    put(o->help, strlen(o->help));
    const char *preset = o->preset ? o->preset + (*o->preset == '(') : "";
    if (*preset) {
        fputs(" [", stdout);
        put(preset, strcspn(preset, ")"));
        putchar(']');
    }
    putchar('\n');
}

static void put_examples(void)
{
    puts(".SH EXAMPLES");
    for (int i = 0; option_examples[i]; i++) {
        const char *text = option_examples[i], *end = strchr(text, '\n');
        if (*text == '#' && end) {
            puts(".PP");
            put(text + 2, (size_t)(end - text - 2));
            text = end + 1;
        }
        puts("\n.nf");
        put(text, strlen(text));
        puts("\n.fi");
    }
}

static void put_exit_codes(void)
{
    static const struct { int code; const char *meaning; } codes[] = {
        {0, "done"}, {1, "internal error, or a gradient that --gradcheck finds off"}, {2, "wrong usage"},
        {3, "the model cannot be read, is damaged, or uses what is not supported; --check: it does not train"}, {4, "bad data"},
        {5, "a file cannot be written or read"}, {6, "the loss or a weight is not finite"}, {7, "out of memory, or over a limit"},
        {8, "a scheduler cannot be loaded or failed"}, {130, "interrupted by SIGINT, a checkpoint was written"}, {143, "the same by SIGTERM"}};
    puts(".SH EXIT STATUS");
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        printf(".TP\n.B %d\n", codes[i].code);
        put(codes[i].meaning, strlen(codes[i].meaning));
        putchar('\n');
    }
}

int main(int argc, char **argv)
{
    printf(".TH MEST\\-RUN 1 \"\" \"MEST Runtime %s\" \"User Commands\"\n", argc > 1 ? argv[1] : "");
    puts(".SH NAME\nmest\\-run \\- sparse training of ONNX models\n.SH SYNOPSIS\n.B mest\\-run\n.I MODEL.onnx\n.I MODE\n[\\fIOPTION\\fR]...\n.SH DESCRIPTION\n"
         "Trains ONNX models whose weights are sparse from the first step to the last, evaluates, runs, checks and explains them. Results go to standard\n"
         "output, everything else to standard error. Defaults are in brackets.");
    for (int i = 0; i < option_count; i++) {
        const option *o = &option_table[i];
        if (o->name) {
            put_option(o);
            continue;
        }
        fputs(i ? ".SS " : ".SH OPTIONS\n.SS ", stdout);
        put(o->help, strlen(o->help));
        putchar('\n');
    }
    put_examples();
    put_exit_codes();
    puts(".SH FILES\nThe reference with all that is said here at more length is docs/cli.md, in the documentation of the package.");
    return 0;
}
