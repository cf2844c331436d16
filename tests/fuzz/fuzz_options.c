/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of mest-run: arguments separated by newlines. What parses is shown as help, too. */
#include "tools/options.h"
#include "tests/fuzz/fuzz.h"

enum { ARGUMENTS = 40, BYTES = 4000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[BYTES + 1], *argv[ARGUMENTS + 2];
    char message[400] = "";
    settings s;
    int argc = 1;
    size_t n = size < BYTES ? size : BYTES;
    memcpy(text, data, n);
    text[n] = 0;
    argv[0] = (char[]){ "mest-run" };
    for (char *at = text; argc <= ARGUMENTS && at;) {
        char *end = strchr(at, '\n');
        if (end)
            *end++ = 0;
        argv[argc++] = at;
        at = end;
    }
    argv[argc] = NULL;
    bool good = options_parse(&s, argc, argv, message, sizeof message);
    FUZZ_CHECK(good != (message[0] != 0));
    if (good && s.help) {
        FILE *out = fopen("/dev/null", "w");
        FUZZ_CHECK(out);
        (void)options_help(out, s.help_group, 80);
        fclose(out);
    }
    for (int i = 0; i < option_count; i++)
        if (option_table[i].name)
            (void)options_given(&s, option_table[i].name);
    return 0;
}
