/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the manual page mest-serve(1) from the tables of options and settings: serve-man VERSION > mest-serve.1 */
#include <string.h>

#include "serve/serve_options.h"

/* '-' is a hyphen and '\' an escape to roff. */
static void put(const char *words)
{
    for (; *words; words++)
        if (*words == '-')
            fputs("\\-", stdout);
        else if (*words == '\\')
            fputs("\\e", stdout);
        else
            putchar(*words);
}

static void put_entry(const char *name, const char *argument, const char *help, const char *preset)
{
    fputs(".TP\n.B ", stdout);
    put(name);
    if (argument) {
        fputs(" \\fI", stdout);
        put(argument);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    put(help);
    if (preset) {
        fputs(" [", stdout);
        put(preset);
        putchar(']');
    }
    putchar('\n');
}

int main(int argc, char **argv)
{
    printf(".TH MEST\\-SERVE 1 \"\" \"MEST Runtime %s\" \"User Commands\"\n", argc > 1 ? argv[1] : "");
    puts(".SH NAME\nmest\\-serve \\- inference service that also trains\n.SH SYNOPSIS\n.B mest\\-serve\n.I MODELS\n[\\fIOPTION\\fR]...\n.SH DESCRIPTION\n"
         "Answers inference requests for the ONNX models of a folder, MODELS/NAME/1/model.onnx, over HTTP by the Open Inference Protocol v2, and trains\n"
         "them in the background on labelled samples that clients send. The page at / shows models, versions and training. SIGTERM and SIGINT end it:\n"
         "requests that have begun are answered, training saves its state.\n.SH OPTIONS");
    for (const serve_option *p = serve_options; p->name; p++)
        put_entry(p->name, p->argument, p->help, NULL);
    puts(".SH SETTINGS\nMODELS/NAME/config.json is a JSON object of these, all of them optional:");
    const char *name, *help;
    char preset[SETTING_TEXT];
    for (int i = 0; settings_describe(i, &name, preset, &help); i++)
        put_entry(name, NULL, help, preset);
    puts(".SH EXIT STATUS");
    put_entry("0", NULL, "ended by a signal, or --help", NULL);
    put_entry("2", NULL, "wrong usage", NULL);
    put_entry("3", NULL, "no model can be served", NULL);
    put_entry("5", NULL, "the address cannot be listened on, or a file not be read or written", NULL);
    puts(".SH FILES\nThe guide is docs/serve.md, in the documentation of the package.\n.SH SEE ALSO\n.BR mest\\-run (1)");
    return 0;
}
