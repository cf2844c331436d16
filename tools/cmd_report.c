/* SPDX-License-Identifier: Apache-2.0 */
/* --report: the folder of a run as one HTML page. All it shows is put into the page, so that it can be moved, mailed and opened anywhere. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "json.h"
#include "report.h"
#include "report_page.h"
#include "rundir.h"
#include "whole_file.h"

enum { STEPS = 4000 }; /* most events within epochs that are shown, the last ones */

typedef struct folder {
    tool *t;
    char path[4000]; /* with a slash at the end */
    cJSON *data;     /* what goes into the page */
    int64_t broken;  /* lines of the log that are no JSON */
} folder;

/* A small file of the folder, as JSON; NULL if there is none or it is damaged. */
static cJSON *read_file(const folder *f, const char *name)
{
    char path[4200];
    snprintf(path, sizeof path, "%s%s", f->path, name);
    char *text = whole_read(path, 256 << 20);
    cJSON *object = text ? cJSON_Parse(text) : NULL;
    free(text);
    return object;
}

static void add_file(folder *f, const char *name, const char *key)
{
    cJSON *object = read_file(f, name);
    if (object && !cJSON_AddItemToObject(f->data, key, object))
        cJSON_Delete(object);
}

/* Events of one kind go into a list; of those that describe the run the last one counts, as it may have been resumed. */
static void add_event(folder *f, cJSON *event)
{
    static const char *const lists[] = {"step", "epoch", "mutation", "samples"};
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "event"));
    for (size_t i = 0; kind && i < sizeof lists / sizeof *lists; i++)
        if (strcmp(kind, lists[i]) == 0) {
            cJSON *list = cJSON_GetObjectItemCaseSensitive(f->data, kind);
            if (!list)
                list = cJSON_AddArrayToObject(f->data, kind);
            if (i == 0 && cJSON_GetArraySize(list) >= STEPS)
                cJSON_DeleteItemFromArray(list, 0);
            if (!cJSON_AddItemToArray(list, event))
                cJSON_Delete(event);
            return;
        }
    if (kind && strcmp(kind, "start") == 0) {
        cJSON_DeleteItemFromObjectCaseSensitive(f->data, kind);
        if (!cJSON_AddItemToObject(f->data, kind, event))
            cJSON_Delete(event);
        return;
    }
    cJSON_Delete(event);
}

/* A line that is no JSON is counted: a power cut may have torn the last one. */
static int read_log(folder *f)
{
    char path[4200], *line = NULL;
    const char *why;
    size_t size = 0;
    ssize_t n;
    snprintf(path, sizeof path, "%slog.jsonl", f->path);
    FILE *file = plain_open(path, &why);
    if (!file)
        return tool_refuse(f->t, EXIT_FILES, "--report: '%s': %s; the folder of a run (--output-dir) with its log.jsonl is needed", path, why);
    while ((n = getline(&line, &size, file)) > 0) {
        cJSON *event = cJSON_ParseWithLength(line, (size_t)n);
        if (cJSON_IsObject(event)) {
            add_event(f, event);
        } else {
            cJSON_Delete(event);
            f->broken++;
        }
    }
    bool good = !ferror(file);
    free(line);
    fclose(file);
    if (!good)
        return tool_refuse(f->t, EXIT_FILES, "--report: '%s': %s", path, strerror(errno));
    if (!cJSON_HasObjectItem(f->data, "epoch") && !cJSON_HasObjectItem(f->data, "step"))
        return tool_refuse(f->t, EXIT_FILES, "--report: '%s' tells of no epoch; nothing to show", path);
    return 0;
}

/* JSON inside a script element: "<" could begin its end. */
static bool put_data(FILE *out, const char *text)
{
    for (; *text; text++)
        if ((*text == '<' ? fputs("\\u003c", out) : fputc(*text, out)) == EOF)
            return false;
    return fputc('\n', out) != EOF;
}

/* Is the file at `path` a page of ours, of whatever version, or empty? */
static bool is_page(const char *path)
{
    static const char begin[] = "<!DOCTYPE html>\n", title[] = "<title>Training run</title>";
    char head[1024];
    const char *why;
    FILE *file = plain_open(path, &why);
    if (!file)
        return errno == ENOENT;
    size_t n = fread(head, 1, sizeof head - 1, file);
    fclose(file);
    head[n] = 0;
    return n == 0 || (strncmp(head, begin, sizeof begin - 1) == 0 && strstr(head, title));
}

/* A page takes the place of what is there: that must be no result of a run, nor anything else that cannot be made again. */
static int check_place(const folder *f, const char *path)
{
    char parent[4200];
    struct stat mine, its;
    int code = rundir_check_writable(f->t, "output", path);
    if (code)
        return code;
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    snprintf(parent, sizeof parent, "%.*s.", slash ? (int)(slash - path) + 1 : 0, path);
    bool inside = stat(parent, &its) == 0 && stat(f->path, &mine) == 0 && its.st_dev == mine.st_dev && its.st_ino == mine.st_ino;
    if (inside && !(dot && strcmp(dot, ".html") == 0))
        return tool_refuse(f->t, EXIT_FILES, "--report: '%s' would be a file of the run itself; in its folder the name of a page ends in .html", path);
    if (!is_page(path))
        return tool_refuse(f->t, EXIT_FILES, "--report: '%s' is there and is no page of --report: it is not replaced; take another name (-o)", path);
    return 0;
}

static int write_page(const folder *f, const char *path)
{
    whole_file w;
    int code = check_place(f, path);
    if (code)
        return code;
    char *text = cJSON_PrintUnformatted(f->data);
    if (!text)
        return tool_refuse(f->t, EXIT_LIMIT, "--report: out of memory");
    bool good = whole_open(&w, path);
    for (int i = 0; good && report_page[i]; i++)
        good = strcmp(report_page[i], "@DATA@\n") == 0 ? put_data(w.file, text) : fputs(report_page[i], w.file) >= 0;
    good = whole_close(&w, good);
    cJSON_free(text);
    return good ? 0 : tool_refuse(f->t, EXIT_FILES, "--report: '%s': %s", path, strerror(errno));
}

static int build(folder *f, const char *path)
{
    int code = read_log(f);
    if (code)
        return code;
    add_file(f, "summary.json", "summary");
    add_file(f, "pattern-start.json", "pattern_start");
    add_file(f, "pattern-end.json", "pattern_end");
    add_file(f, "gallery.json", "gallery");
    if (f->broken)
        tool_note(f->t, "%lld lines of log.jsonl are damaged and left out", (long long)f->broken);
    code = write_page(f, path);
    if (code == 0 && f->t->s->json) {
        cJSON *event = json_event("report");
        json_text(event, "output", path);
        (void)json_emit(f->t, event); /* report_finish tells of a failure */
    } else if (code == 0) {
        printf("%s\n", path);
    }
    return code;
}

int cmd_report(tool *t)
{
    const settings *s = t->s;
    folder f = {.t = t};
    char path[4200];
    size_t n = strlen(s->model);
    if (n + 2 > sizeof f.path)
        return tool_refuse(t, EXIT_FILES, "--report: the path is too long");
    snprintf(f.path, sizeof f.path, "%s%s", s->model, s->model[n - 1] == '/' ? "" : "/");
    snprintf(path, sizeof path, "%sreport.html", f.path);
    f.data = cJSON_CreateObject();
    int code = f.data ? build(&f, s->output ? s->output : path) : tool_refuse(t, EXIT_LIMIT, "--report: out of memory");
    cJSON_Delete(f.data);
    return code ? code : report_finish(t);
}
