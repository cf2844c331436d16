/* SPDX-License-Identifier: Apache-2.0 */
/* Comma-separated numbers, a sample a line; held in memory as float32. Read twice: once to count lines and columns, so that memory is taken
 * in one piece of the right size, once to convert. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "importers/csv_line.h"
#include "importers/source.h"

typedef enum label_place { LABEL_LAST, LABEL_FIRST, LABEL_NONE } label_place;
typedef enum header_mode { HEADER_AUTO, HEADER_YES, HEADER_NO } header_mode;

typedef struct csv {
    mest_heap *heap;
    mest_region region;
    char *path;
    label_place label;
    header_mode header;
    bool target_float;
    int64_t rows, fields, columns; /* fields: with the label; columns: without */
    float *values;                 /* [rows, columns] */
    int32_t *classes;              /* [rows], or NULL */
    float *targets;                /* [rows], or NULL */
} csv;

static mest_status parse_option(csv *s, const char *text, mest_error *err)
{
    static const struct {
        const char *text;
        int place, header, target;
    } known[] = {{"label=first", LABEL_FIRST, -1, -1}, {"label=last", LABEL_LAST, -1, -1}, {"label=none", LABEL_NONE, -1, -1},
                 {"header=yes", -1, HEADER_YES, -1},   {"header=no", -1, HEADER_NO, -1},   {"target=class", -1, -1, 0},
                 {"target=float", -1, -1, 1}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(text, known[i].text) == 0) {
            s->label = known[i].place >= 0 ? (label_place)known[i].place : s->label;
            s->header = known[i].header >= 0 ? (header_mode)known[i].header : s->header;
            s->target_float = known[i].target >= 0 ? known[i].target == 1 : s->target_float;
            return MEST_OK;
        }
    return mest_fail(err, MEST_E_ARGUMENT, "%s: unknown option '%s' (label=first|last|none, header=yes|no, target=class|float)", s->path, text);
}

static mest_status parse_spec(csv *s, const char *rest, mest_error *err)
{
    s->path = mest_region_strdup(&s->region, rest);
    MEST_CHECK(s->path, err, MEST_E_NOMEM, "csv: no memory");
    char *options = strrchr(s->path, '?'), *next;
    if (!options)
        return MEST_OK;
    *options++ = 0;
    for (; *options; options = next) {
        size_t n = strcspn(options, ",&");
        next = options + n + (options[n] != 0);
        options[n] = 0;
        MEST_TRY(parse_option(s, options, err));
    }
    return MEST_OK;
}

/* A first line with a field of letters (a name) is a header; an empty field or "?" is a missing number, which is an error later. */
static bool is_header(char *line)
{
    double v;
    for (char *p = line; p;)
        if (!mest_csv_number(&p, &v)) {
            for (; *p && *p != ','; p++)
                if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p & 0x80))
                    return true;
            p = *p ? p + 1 : NULL;
        }
    return false;
}

/* The next data line, the header left out. */
static mest_status next_row(csv *s, mest_csv_reader *r, bool *first, char **line, mest_error *err)
{
    MEST_TRY(mest_csv_next(r, line, err));
    if (*line && *first && (s->header == HEADER_YES || (s->header == HEADER_AUTO && is_header(*line))))
        MEST_TRY(mest_csv_next(r, line, err));
    *first = false;
    return MEST_OK;
}

static mest_status count_rows(csv *s, mest_error *err)
{
    mest_csv_reader r;
    mest_status status;
    char *line;
    bool first = true;
    MEST_TRY_OUT(mest_csv_open(&r, s->heap, s->path, err));
    for (;;) {
        MEST_TRY_OUT(next_row(s, &r, &first, &line, err));
        if (!line)
            break;
        int64_t n = mest_csv_fields(line);
        if (s->rows++ == 0)
            s->fields = n;
        if (n != s->fields) {
            status = mest_fail(err, MEST_E_DATA, "%s: line %" PRId64 ": %" PRId64 " fields, the lines before have %" PRId64, s->path, r.line, n,
                               s->fields);
            goto out;
        }
    }
    if (s->rows == 0)
        status = mest_fail(err, MEST_E_DATA, "%s: no data", s->path);
out:
    mest_csv_close(&r);
    return status;
}

static mest_status store_target(csv *s, int64_t row, int64_t line, double v, int64_t *n_classes, mest_error *err)
{
    if (s->targets) {
        s->targets[row] = (float)v;
        return MEST_OK;
    }
    MEST_CHECK(v >= 0 && v < INT32_MAX && v == floor(v), err, MEST_E_DATA, "%s: line %" PRId64 ": label %.17g is not a class index", s->path,
               line, v);
    s->classes[row] = (int32_t)v;
    *n_classes = *n_classes > (int64_t)v ? *n_classes : (int64_t)v + 1;
    return MEST_OK;
}

static mest_status convert_row(csv *s, char *text, int64_t row, int64_t line, int64_t *n_classes, mest_error *err)
{
    int64_t label = s->label == LABEL_LAST ? s->fields - 1 : s->label == LABEL_FIRST ? 0 : -1;
    float *out = s->values + row * s->columns;
    double v;
    for (int64_t i = 0; i < s->fields; i++) {
        char *field = text;
        MEST_CHECK(text && mest_csv_number(&text, &v), err, MEST_E_DATA, "%s: line %" PRId64 ", field %" PRId64 ": '%.*s' is not a number",
                   s->path, line, i + 1, field ? (int)strcspn(field, ",") % 64 : 0, field ? field : "");
        MEST_CHECK(isfinite((float)v), err, MEST_E_DATA, "%s: line %" PRId64 ", field %" PRId64 ": %g is not finite", s->path, line, i + 1, v);
        if (i == label)
            MEST_TRY(store_target(s, row, line, v, n_classes, err));
        else
            *out++ = (float)v;
    }
    return MEST_OK;
}

static mest_status convert_rows(csv *s, int64_t *n_classes, mest_error *err)
{
    mest_csv_reader r;
    mest_status status;
    char *line;
    bool first = true;
    MEST_TRY_OUT(mest_csv_open(&r, s->heap, s->path, err));
    for (int64_t row = 0;; row++) {
        MEST_TRY_OUT(next_row(s, &r, &first, &line, err));
        if (!line && row == s->rows)
            break;
        if (!line || row == s->rows || mest_csv_fields(line) != s->fields) {
            status = mest_fail(err, MEST_E_DATA, "%s: changed while it was read", s->path);
            goto out;
        }
        MEST_TRY_OUT(convert_row(s, line, row, r.line, n_classes, err));
    }
out:
    mest_csv_close(&r);
    return status;
}

static mest_status csv_read(void *self, int64_t id, void *input, void *target, mest_error *err)
{
    const csv *s = self;
    (void)err;
    if (input)
        memcpy(input, s->values + id * s->columns, (size_t)s->columns * sizeof *s->values);
    if (target && s->targets)
        *(float *)target = s->targets[id];
    else if (target)
        *(int64_t *)target = s->classes[id];
    return MEST_OK;
}

static void csv_sample_name(void *self, int64_t id, char *text, size_t size)
{
    const csv *s = self;
    snprintf(text, size, "%s, row %" PRId64, s->path, id);
}

static void csv_destroy(void *self)
{
    csv *s = self;
    mest_heap *heap = s->heap;
    mest_free(heap, s->values, (size_t)(s->rows * s->columns), sizeof *s->values);
    mest_free(heap, s->classes, (size_t)s->rows, sizeof *s->classes);
    mest_free(heap, s->targets, (size_t)s->rows, sizeof *s->targets);
    mest_region_free(&s->region);
    mest_free(heap, s, 1, sizeof *s);
}

static mest_status set_shape(const csv *s, const mest_source_options *options, mest_source_info *info, mest_error *err)
{
    info->input_rank = options->input_rank ? options->input_rank : 1;
    info->input_dim[0] = s->columns;
    if (!options->input_rank)
        return MEST_OK;
    int64_t product = 1;
    for (int i = 0; i < options->input_rank; i++) {
        info->input_dim[i] = options->input_dim[i];
        if (__builtin_mul_overflow(product, options->input_dim[i], &product))
            product = -1;
    }
    MEST_CHECK(product == s->columns, err, MEST_E_ARGUMENT, "%s: %" PRId64 " columns cannot become samples of the shape asked for (%" PRId64 " numbers)",
               s->path, s->columns, product);
    return MEST_OK;
}

static mest_status csv_open(mest_heap *heap, const char *rest, const mest_source_options *options, mest_dataset *data, mest_error *err)
{
    csv *s = mest_calloc(heap, 1, sizeof *s);
    MEST_CHECK(s, err, MEST_E_NOMEM, "csv: no memory");
    s->heap = heap;
    mest_region_init(&s->region, heap);
    data->self = s;
    data->destroy = csv_destroy;
    data->read = csv_read;
    data->sample_name = csv_sample_name;
    data->raw = MEST_RAW_F32;
    mest_source_info *info = &data->info;
    MEST_TRY(parse_spec(s, rest, err));
    MEST_TRY(count_rows(s, err));
    s->columns = s->fields - (s->label != LABEL_NONE);
    MEST_CHECK(s->columns > 0, err, MEST_E_DATA, "%s: a single column, which is the label; nothing is left as input", s->path);
    info->count = s->rows;
    info->has_targets = s->label != LABEL_NONE;
    MEST_TRY(set_shape(s, options, info, err));
    MEST_NEW(heap, s->values, s->rows * s->columns, err, s->path);
    if (info->has_targets && s->target_float) {
        MEST_NEW(heap, s->targets, s->rows, err, s->path);
        info->target_type = MEST_SAMPLE_F32;
        info->target_rank = 1; /* [1], as the output of a network with one output is */
        info->target_dim[0] = 1;
    } else if (info->has_targets) {
        MEST_NEW(heap, s->classes, s->rows, err, s->path);
    }
    return convert_rows(s, &info->n_classes, err);
}

const mest_source_kind mest_source_csv[] = {
    {"csv", "FILE[?label=first|last|none,header=yes|no,target=class|float]  comma-separated numbers, gzip allowed", csv_open},
    {NULL, NULL, NULL},
};
