/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

static void add(tool *t, const char *format, ...) MEST_PRINTF(2, 3);

static void add(tool *t, const char *format, ...)
{
    const size_t n = strlen(t->recipe);
    va_list args;
    va_start(args, format);
    vsnprintf(t->recipe + n, sizeof t->recipe - n, format, args);
    va_end(args);
}

void tool_recipe(tool *t, const mest_source_options *o)
{
    const settings *s = t->s;
    char normalisation[1200];
    t->recipe[0] = 0;
    tool_normalisation_text(&t->data, normalisation, sizeof normalisation); /* what is in force: numbers that were measured and numbers that were given are the same */
    add(t, "normalisation %s\n", *normalisation ? normalisation : "none");
    add(t, "augmentation --augment pad%d --hflip %.17g\n", o->pad_crop, o->flip);
    if (o->resize_height)
        add(t, "--img-size %d,%d\n", o->resize_height, o->resize_width);
    for (int i = 0; i < o->input_rank; i++)
        add(t, "%s%" PRId64 "%s", i ? "," : "--input-shape ", o->input_dim[i], i + 1 < o->input_rank ? "" : "\n");
    add(t, "--limit %" PRId64 "\n--val-split %.17g\n", s->limit, s->val_split);
    add(t, "weights%s%s%s\n", s->from_scratch ? " --from-scratch" : "", tool_starts_dense(s) ? " --start-dense" : "",
        s->from_scratch || tool_starts_dense(s) ? "" : " of the file");
    add(t, "--kernels %s\n--no-fuse %s\nXNNPACK %s\n", s->kernels, s->no_fuse ? s->no_fuse : "none", s->no_xnnpack ? "no" : "yes"); /* they round differently */
}
