/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the option table as the tables of docs/cli.md. test_docs.sh compares; update_docs.sh writes them there. */
#include <string.h>

#include "options.h"

/* '|' separates columns in Markdown. */
static void put(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] == '\n')
            putchar(' ');
        else
            printf(text[i] == '|' ? "\\%c" : "%c", text[i]);
}

int main(void)
{
    for (int i = 0; i < option_count; i++) {
        const option *o = &option_table[i];
        if (!o->name) {
            printf("%s### %s (`--help %s`)\n\n| option | default | meaning |\n| --- | --- | --- |\n", i ? "\n" : "", o->help, o->argument);
            continue;
        }
        printf("| `");
        if (o->letter)
            printf("-%c, ", o->letter);
        printf("--%s%s", o->name, o->argument ? " " : "");
        put(o->argument ? o->argument : "", o->argument ? strlen(o->argument) : 0);
        const char *preset = o->preset ? o->preset + (*o->preset == '(') : "";
        printf("` |%s", *preset ? " " : "");
        put(preset, strcspn(preset, ")"));
        printf(" | ");
        put(o->help, strlen(o->help));
        printf(" |\n");
    }
    return 0;
}
