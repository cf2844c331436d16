/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/version_dirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "whole_file.h"

enum { PATH_ROOM = 4096 };

/* "17" is 17; what is no plain positive number is 0. */
static int64_t number_of(const char *name)
{
    if (*name < '1' || *name > '9' || strlen(name) > 15 || name[strspn(name, "0123456789")])
        return 0;
    return strtoll(name, NULL, 10);
}

static bool path_to(char path[PATH_ROOM], const char *folder, int64_t id, const char *file)
{
    return (size_t)snprintf(path, PATH_ROOM, "%s/%" PRId64 "/%s", folder, id, file) < PATH_ROOM;
}

static bool has(const char *folder, int64_t id, const char *file)
{
    char path[PATH_ROOM];
    return path_to(path, folder, id, file) && access(path, R_OK) == 0;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int version_dirs_list(const char *folder, int64_t ids[MAX_DIRS])
{
    DIR *d = opendir(folder);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        int64_t id = number_of(e->d_name);
        if (!id || !has(folder, id, "model.onnx"))
            continue;
        int low = 0; /* full: the smallest gives way */
        for (int i = 1; n == MAX_DIRS && i < n; i++)
            low = ids[i] < ids[low] ? i : low;
        if (n < MAX_DIRS)
            ids[n++] = id;
        else if (id > ids[low])
            ids[low] = id;
    }
    if (d)
        closedir(d);
    qsort(ids, (size_t)n, sizeof *ids, ascending);
    return n;
}

int64_t version_dirs_current(const char *folder)
{
    char path[PATH_ROOM], line[32] = "";
    int64_t *ids = malloc(MAX_DIRS * sizeof *ids), id = 0;
    int n = ids ? version_dirs_list(folder, ids) : 0;
    if (n)
        id = ids[n - 1];
    free(ids);
    snprintf(path, sizeof path, "%s/current", folder);
    FILE *file = id ? fopen(path, "r") : NULL;
    if (!file)
        return id && errno != ENOENT ? -1 : id;
    if (!fgets(line, sizeof line, file))
        *line = 0;
    fclose(file);
    line[strcspn(line, "\r\n")] = 0;
    id = number_of(line); /* the largest may be one that was never promoted: it is no substitute */
    return id && has(folder, id, "model.onnx") ? id : -1;
}

bool version_dirs_settle(const char *folder, int64_t id, fault *f)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/current", folder);
    return access(path, F_OK) == 0 || version_dirs_set_current(folder, id, f);
}

bool sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return good;
}

bool version_dirs_set_current(const char *folder, int64_t id, fault *f)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/current", folder);
    whole_file w;
    bool good = whole_open(&w, path);
    if (good)
        good = whole_close(&w, fprintf(w.file, "%" PRId64 "\n", id) > 0) && sync_folder(folder);
    return good || refuse(f, 500, "%s: %s", path, strerror(errno));
}

/* ---- saving and removing ---- */
static void remove_folder(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(folder);
}

static bool write_text(const char *path, const char *text)
{
    whole_file w;
    return whole_open(&w, path) && whole_close(&w, fputs(text, w.file) >= 0);
}

bool version_dirs_save(const char *folder, int64_t id, const mest_snapshot *snapshot, const char *facts, fault *f)
{
    char hidden[PATH_ROOM], path[PATH_ROOM + 16], final[PATH_ROOM];
    if (strlen(folder) > DIR_PATH)
        return refuse(f, 500, "the folder's path is too long");
    snprintf(hidden, sizeof hidden, "%s/.%" PRId64 ".tmp", folder, id);
    snprintf(final, sizeof final, "%s/%" PRId64, folder, id);
    remove_folder(hidden);
    if (mkdir(hidden, 0777) != 0)
        return refuse(f, 500, "%s: %s", hidden, strerror(errno));
    mest_error err;
    snprintf(path, sizeof path, "%s/model.onnx", hidden);
    bool good = mest_snapshot_export(snapshot, path, NULL, &err) == MEST_OK || refuse_error(f, &err);
    snprintf(path, sizeof path, "%s/version.json", hidden);
    if (good && !(write_text(path, facts) && sync_folder(hidden) && rename(hidden, final) == 0 && sync_folder(folder)))
        good = refuse(f, 500, "%s: %s", final, strerror(errno));
    if (!good)
        remove_folder(hidden);
    return good;
}

void version_dirs_prune(const char *folder, int64_t keep, int64_t current, int64_t base)
{
    int64_t *ids = malloc(MAX_DIRS * sizeof *ids);
    int n = ids ? version_dirs_list(folder, ids) : 0;
    int64_t ours = 0;
    for (int i = n - 1; i >= 0; i--) {
        char path[PATH_ROOM];
        if (!has(folder, ids[i], "version.json") || ids[i] == current || ids[i] == base || ++ours <= keep)
            continue;
        snprintf(path, sizeof path, "%s/%" PRId64, folder, ids[i]);
        remove_folder(path);
    }
    free(ids);
}

void version_dirs_clean(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name);
        char path[PATH_ROOM];
        if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, e->d_name) >= sizeof path)
            continue;
        if (e->d_name[0] == '.' && n > 5 && !strcmp(e->d_name + n - 4, ".tmp"))
            remove_folder(path);
        else if (strstr(e->d_name, ".tmp-"))
            unlink(path); /* of a whole_file, or of a checkpoint */
    }
    if (d)
        closedir(d);
}

char *version_dirs_facts(const char *folder, int64_t id)
{
    enum { MOST = 8192 };
    char path[PATH_ROOM];
    FILE *file = path_to(path, folder, id, "version.json") ? fopen(path, "rb") : NULL;
    char *text = file ? malloc(MOST) : NULL;
    if (text) {
        size_t n = fread(text, 1, MOST - 1, file);
        text[n] = 0;
    }
    if (file)
        fclose(file);
    return text;
}
