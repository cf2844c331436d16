/* SPDX-License-Identifier: Apache-2.0 */
#include "rundir.h"

#include <dirent.h>
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

/* mkdir -p */
static bool make_folder(const char *path)
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
            if (mkdir(part, 0777) != 0 && errno != EEXIST)
                return false;
        }
    return true;
}

static int lock_folder(tool *t, const char *folder)
{
    char path[4200], text[32];
    snprintf(path, sizeof path, "%s/lock", folder);
    t->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (t->lock_fd < 0)
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be written: %s", path, strerror(errno));
    if (flock(t->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t n = read(t->lock_fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = 0;
        text[strcspn(text, "\n")] = 0;
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is in use by another run (process %s)", folder, *text ? text : "unknown");
    }
    /* The number is only for the message above: a disk that is full is met, and named, where it matters. */
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(t->lock_fd, 0) == 0 && pwrite(t->lock_fd, text, (size_t)n, 0) != n)
        (void)!ftruncate(t->lock_fd, 0);
    return 0;
}

static int open_logs(tool *t, const char *folder)
{
    const log_form *form;
    const char *resumed = rundir_resume_path(t); /* NULL with --resume: the run begins at its beginning, and so does its log */
    int64_t epochs = 0, steps = 0;
    if (resumed)
        mest_session_position(t->session, &epochs, &steps);
    for (int i = 0; (form = log_form_at(i)) != NULL; i++) {
        char path[4400], name[200];
        struct stat st;
        log_file *file = &t->log[i];
        if (!log_in_list(t->s->log, form->name))
            continue;
        form->file_name(name, sizeof name);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        /* O_NONBLOCK: a named pipe that nobody reads must not make us wait */
        file->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | (resumed || form->keep ? 0 : O_TRUNC), 0666);
        if (file->fd >= 0 && fstat(file->fd, &st) == 0 && !S_ISREG(st.st_mode))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is not a regular file", path);
        if (file->fd >= 0 && resumed && form->place && !log_go_on(form, file, path, epochs, steps, resumed))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be gone on with: %s", path, strerror(errno));
        if (file->fd < 0 || (fstat(file->fd, &st) == 0 && st.st_size == 0 && form->begin && !form->begin(file)))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be written: %s", path, strerror(errno));
        t->logging = true;
    }
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
    if (!make_folder(folder))
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be created: %s", folder, strerror(errno));
    snprintf(t->checkpoint, sizeof t->checkpoint, "%s/checkpoint.mest", folder);
    snprintf(t->run_model, sizeof t->run_model, "%s/model.onnx", folder);
    snprintf(t->summary, sizeof t->summary, "%s/summary.json", folder);
    int code = rundir_check_writable(t, "output-dir", t->checkpoint);
    if (code == 0 && same_file(t->run_model, s->model))
        code = tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is the input model and would be overwritten", t->run_model);
    if (code == 0)
        code = lock_folder(t, folder);
    if (code == 0 && has_checkpoint(t->checkpoint) && !s->resume && !s->overwrite)
        code = tool_refuse(t, EXIT_FILES, "--output-dir: '%s' holds the checkpoint of an earlier run: --resume goes on, --overwrite begins anew",
                           folder);
    return code;
}

/* A killed run may have left files that were not finished, ".checkpoint.mest.tmp-PID-N"; the folder is locked, so nobody writes them. */
static void remove_unfinished(const char *folder)
{
    static const char *const names[] = {".checkpoint.mest.tmp-", ".model.onnx.tmp-", ".mest-run-",
                                        "summary.json.tmp-", "pattern-start.json.tmp-", "pattern-end.json.tmp-", "gallery.json.tmp-",
                                        "forgetting.csv.tmp-"};
    char path[4400];
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (strncmp(entry->d_name, names[i], strlen(names[i])) == 0) {
                snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
                unlink(path);
            }
    if (dir)
        closedir(dir);
}

int rundir_begin(tool *t)
{
    char folder[sizeof t->checkpoint];
    if (!t->s->output_dir)
        return 0;
    snprintf(folder, sizeof folder, "%s", t->checkpoint);
    *strrchr(folder, '/') = 0;
    remove_unfinished(*folder ? folder : "/");
    char before[sizeof t->checkpoint + 8]; /* of another run: it must not stand in for one of this */
    snprintf(before, sizeof before, "%s.prev", t->checkpoint);
    if (!t->s->resume && ((unlink(before) != 0 && errno != ENOENT) || (unlink(t->checkpoint) != 0 && errno != ENOENT)))
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s': %s", t->checkpoint, strerror(errno));
    /* Results of an earlier run would pass for those of this one. */
    static const char *const results[] = {"summary.json", "model.onnx", "pattern-start.json", "pattern-end.json", "gallery.json", "forgetting.csv"};
    for (size_t i = 0; !t->s->resume && i < sizeof results / sizeof *results; i++) {
        char path[sizeof folder + 32];
        snprintf(path, sizeof path, "%s/%s", folder, results[i]);
        if (unlink(path) != 0 && errno != ENOENT)
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s': %s", path, strerror(errno));
    }
    return open_logs(t, folder);
}

/* The folder of a sweep: its runs' folders come below. */
int rundir_prepare_sweep(tool *t)
{
    if (strlen(t->s->output_dir) > 3600)
        return tool_refuse(t, EXIT_FILES, "--output-dir: the path is too long");
    if (!make_folder(t->s->output_dir))
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
    if (!*t->summary || !exists(t->run_model))
        return false;
    cJSON *summary = summary_read(t->summary, &metrics);
    const bool good = summary || summary_restore(t->summary);
    if (!summary)
        tool_note(t, "'%s' is missing or damaged: %s", t->summary, good ? "it was written again, from log.jsonl" : "it is made again");
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
