/* SPDX-License-Identifier: Apache-2.0 */
/* Messages are one line, whatever the names in a file hold. */
#ifndef MEST_RUNTIME_ONELINE_H
#define MEST_RUNTIME_ONELINE_H

/* Control characters (newlines, escape sequences of terminals) become question marks. */
static inline void mest_one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 32 || *text == 127)
            *text = '?';
}

#endif
