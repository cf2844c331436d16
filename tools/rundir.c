/* SPDX-License-Identifier: Apache-2.0 */
#include "rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "summary.h"

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static bool is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* A checkpoint, or the one before it: where a file system has no links, a run that is killed between two renames leaves only that. */
static bool has_checkpoint(const char *path)
{
    char before[4200];
    snprintf(before, sizeof before, "%s.prev", path);
    return exists(path) || exists(before);
}

int rundir_check_writable(tool *t, const char *option, const char *path)
{
    char probe[4200];
    struct stat st;
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    if (strlen(path) > 4000)
        return tool_refuse(t, EXIT_FILES, "--%s: the path is too long", option);
    if (path[folder] == 0)
        return tool_refuse(t, EXIT_FILES, "--%s: '%s' is a folder", option, path);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return tool_refuse(t, EXIT_FILES, "--%s: '%s' is not a regular file", option, path);
    /* The only sure answer is to write: permissions do not bind root, and a file system may be read-only. */
    snprintf(probe, sizeof probe, "%.*s.mest-run-XXXXXX", folder, path);
    int fd = mkstemp(probe);
    if (fd < 0)
        return tool_refuse(t, EXIT_FILES, "--%s: '%s' cannot be written: %s", option, path, strerror(errno));
    close(fd);
    unlink(probe);
    return 0;
}

/* mkdir -p; *made: length of the first part of the path that was not there, 0: all was. */
static bool make_folder(const char *path, size_t *made)
{
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (size_t i = 1; i <= n; i++)
        if (path[i] == '/' || path[i] == 0) {
            memcpy(part, path, i);
            part[i] = 0;
            if (mkdir(part, 0777) == 0)
                *made = *made ? *made : i;
            else if (errno != EEXIST)
                return false;
        }
    return true;
}

/* Another run that is refused takes its new lock away with it: what was opened then is no lock any more. */
static bool is_still_at(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int lock_folder(tool *t, const char *folder)
{
    char path[4200], text[32];
    bool made = false;
    snprintf(path, sizeof path, "%s/lock", folder);
    for (int i = 0; i < 100; i++) {
        struct stat st;
        t->lock_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        made = t->lock_fd >= 0;
        if (t->lock_fd < 0 && errno == EEXIST)
            t->lock_fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (t->lock_fd < 0 && errno == ENOENT)
            continue;
        if (t->lock_fd < 0)
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' %s%s", path, errno == ELOOP ? "is a symbolic link" : "cannot be written: ",
                               errno == ELOOP ? "" : strerror(errno));
        if (fstat(t->lock_fd, &st) == 0 && !S_ISREG(st.st_mode))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is not a regular file", path);
        if (flock(t->lock_fd, LOCK_EX | LOCK_NB) != 0) {
            ssize_t n = read(t->lock_fd, text, sizeof text - 1);
            text[n > 0 ? n : 0] = 0;
            text[strcspn(text, "\n")] = 0;
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is in use by another run (process %s)", folder, *text ? text : "unknown");
        }
        if (is_still_at(t->lock_fd, path))
            break;
        close(t->lock_fd);
        t->lock_fd = -1;
    }
    if (t->lock_fd < 0)
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be locked", path);
    t->folder.made_lock = made;
    /* The number is only for the message above: a disk that is full is met, and named, where it matters. */
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(t->lock_fd, 0) == 0 && pwrite(t->lock_fd, text, (size_t)n, 0) != n)
        (void)!ftruncate(t->lock_fd, 0);
    return 0;
}

/* Is the checkpoint to go on from that of the folder itself? */
static bool goes_on_here(const tool *t)
{
    char before[sizeof t->checkpoint + 8], from_before[4200];
    const char *from = t->s->resume_file;
    snprintf(before, sizeof before, "%s.prev", t->checkpoint);
    snprintf(from_before, sizeof from_before, "%s.prev", from ? from : "");
    return t->s->resume && (!from || same_file(from, t->checkpoint) || same_file(from, before) || same_file(from_before, before));
}

/* A model or summary that no checkpoint belongs to, and, unless a run that was killed before its first one begins again, a log. "" if there is none. */
static void find_left(const tool *t, const char *folder, char *path, size_t size)
{
    const log_form *form;
    char name[200];
    snprintf(path, size, "%s", t->run_model);
    if (is_there(path))
        return;
    snprintf(path, size, "%s", t->summary);
    if (is_there(path))
        return;
    for (int i = 0; (form = log_form_at(i)) != NULL && !goes_on_here(t); i++) {
        if (form->keep)
            continue;
        form->file_name(name, sizeof name);
        snprintf(path, size, "%s/%s", folder, name);
        if (is_there(path))
            return;
    }
    *path = 0;
}

/* Is it another run's folder? */
static int refuse_other(tool *t, const char *folder)
{
    static const char anew[] = "--overwrite begins anew";
    char path[4400];
    const settings *s = t->s;
    const bool own = goes_on_here(t), ready = is_there(t->checkpoint) || has_checkpoint(t->checkpoint);
    const char *const through[] = {t->checkpoint, t->run_model}; /* the library would replace what they point to */
    struct stat st;
    for (int i = 0; i < 2; i++)
        if (lstat(through[i], &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is %s", through[i], S_ISLNK(st.st_mode) ? "a symbolic link" : "not a regular file");
    if (own && ready)
        return 0;
    t->folder.fresh = true;
    if (s->overwrite)
        return 0;
    if (ready)
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' holds the checkpoint of an earlier run: --resume%s goes on, %s", folder,
                           s->resume ? " without a file" : "", anew);
    find_left(t, folder, path, sizeof path);
    if (*path)
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is of an earlier run, and there is no checkpoint with it: %s", path, anew);
    return 0;
}

static int prepare_folder(tool *t)
{
    const settings *s = t->s;
    char folder[4000];
    size_t n = strlen(s->output_dir);
    if (n >= sizeof folder)
        return tool_refuse(t, EXIT_FILES, "--output-dir: the path is too long");
    while (n > 1 && s->output_dir[n - 1] == '/')
        n--;
    memcpy(folder, s->output_dir, n);
    folder[n] = 0;
    snprintf(t->checkpoint, sizeof t->checkpoint, "%s/checkpoint.mest", folder);
    snprintf(t->run_model, sizeof t->run_model, "%s/model.onnx", folder);
    snprintf(t->summary, sizeof t->summary, "%s/summary.json", folder);
    if (!make_folder(folder, &t->folder.made))
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be created: %s", folder, strerror(errno));
    int code = rundir_check_writable(t, "output-dir", t->checkpoint);
    if (code == 0 && same_file(t->run_model, s->model))
        code = tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is the input model and would be overwritten", t->run_model);
    if (code == 0)
        code = lock_folder(t, folder);
    if (code == 0)
        code = refuse_other(t, folder);
    return code;
}

/* The folder of a sweep: its runs' folders come below. */
int rundir_prepare_sweep(tool *t)
{
    if (strlen(t->s->output_dir) > 3600)
        return tool_refuse(t, EXIT_FILES, "--output-dir: the path is too long");
    if (!make_folder(t->s->output_dir, &t->folder.made))
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be created: %s", t->s->output_dir, strerror(errno));
    return lock_folder(t, t->s->output_dir);
}

/* Would a model take the place of a file that is none by its name? */
static bool replaces_other(const char *path)
{
    struct stat st;
    const char *dot = strrchr(path, '.');
    return stat(path, &st) == 0 && st.st_size > 0 && !(dot && strcmp(dot, ".onnx") == 0);
}

int rundir_prepare(tool *t)
{
    const settings *s = t->s;
    int code = 0;
    if (s->output)
        code = rundir_check_writable(t, "output", s->output);
    if (code == 0 && s->output && replaces_other(s->output))
        code = tool_refuse(t, EXIT_USAGE, "--output: '%s' is there and its name does not end in .onnx: it is not replaced by a model", s->output);
    if (code == 0 && s->output_dir)
        code = prepare_folder(t);
    else if (code == 0 && s->output)
        snprintf(t->checkpoint, sizeof t->checkpoint, "%s.checkpoint", s->output);
    if (code)
        return code;
    if (s->resume && s->resume_file && !has_checkpoint(s->resume_file))
        return tool_refuse(t, EXIT_FILES, "--resume: '%s': %s", s->resume_file, strerror(errno));
    if (s->resume && !s->resume_file && !*t->checkpoint)
        return tool_refuse(t, EXIT_USAGE, "--resume: from where? Give a file, or --output-dir");
    if (s->resume && !s->resume_file && !has_checkpoint(t->checkpoint))
        tool_note(t, "--resume: no checkpoint at '%s' yet; the run begins at its beginning", t->checkpoint);
    return 0;
}

bool rundir_has_results(tool *t)
{
    const cJSON *metrics;
    if (!*t->summary)
        return false;
    cJSON *summary = summary_read(t->summary, &metrics);
    if (!summary) {
        const bool good = summary_restore(t->summary);
        tool_note(t, "'%s' is missing or damaged: %s", t->summary, good ? "it was written again, from log.jsonl" : "it is made again");
        summary = good ? summary_read(t->summary, &metrics) : NULL;
    }
    const bool good = summary && summary_fits(summary, t->run_model);
    if (summary && !good)
        tool_note(t, "'%s' is missing or damaged: it is made again", t->run_model);
    cJSON_Delete(summary);
    return good;
}

const char *rundir_resume_path(const tool *t)
{
    if (!t->s->resume)
        return NULL;
    if (t->s->resume_file)
        return t->s->resume_file;
    return has_checkpoint(t->checkpoint) ? t->checkpoint : NULL;
}

const char *rundir_interrupt_path(const tool *t) { return t->checkpoint; }
