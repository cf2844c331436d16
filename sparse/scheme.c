/* SPDX-License-Identifier: Apache-2.0 */
/* Names of schemes: the family of a format and what follows it. */
#include <stdio.h>
#include <string.h>

#include "sparse/format.h"

#define MEST_FORMAT(file) extern const mest_format mest_format_##file;
#include "sparse/formats.def"
#undef MEST_FORMAT

static const mest_format *const formats[] = {
#define MEST_FORMAT(file) &mest_format_##file,
#include "sparse/formats.def"
#undef MEST_FORMAT
    NULL,
};

const mest_format *mest_format_at(int index)
{
    int n = (int)(sizeof formats / sizeof *formats) - 1;
    return index >= 0 && index < n ? formats[index] : NULL;
}

int32_t mest_scheme_number(const char **text, int32_t most)
{
    int32_t number = 0;
    if (**text == '0')
        return 0;
    for (; **text >= '0' && **text <= '9'; ++*text) {
        number = number * 10 + (**text - '0');
        if (number > most)
            return 0;
    }
    return number;
}

mest_status mest_scheme_find(const char *name, mest_scheme *scheme, mest_error *err)
{
    char known[240] = "";
    for (int i = 0; formats[i]; i++) {
        size_t n = strlen(formats[i]->family), used = strlen(known);
        mest_scheme found = {.format = formats[i], .height = 1, .width = 1};
        if (name && strncmp(name, formats[i]->family, n) == 0 && strlen(name) < sizeof ((mest_sparse *)NULL)->name &&
            formats[i]->parse(name + n, &found)) {
            *scheme = found;
            return MEST_OK;
        }
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", formats[i]->forms);
    }
    return mest_fail(err, MEST_E_ARGUMENT, "there is no sparse format '%.40s'; there are: %s", name ? name : "", known);
}
