/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of a run from when all is ready until something was trained. So long an earlier run in the folder is whole: an error of a scheduler, or a loss
 * that is not finite, leaves everything as it was. Events are held, and the pattern at the start has another name. */
#include "rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"

enum { ROOM = 4400 };

/* What a run leaves beside its logs. Results go before the checkpoint: one that stands alone is gone on from. */
static const char *const files[RUN_FILES] = {"summary.json", "model.onnx", "pattern-start.json", "pattern-end.json", "gallery.json", "forgetting.csv", "checkpoint.mest.prev",
                                    "checkpoint.mest"};

static char *in_folder(const tool *t, const char *name, char *path)
{
    snprintf(path, ROOM, "%.*s%s", (int)(strrchr(t->checkpoint, '/') - t->checkpoint + 1), t->checkpoint, name);
    return path;
}

static char *log_path(const tool *t, const log_form *form, char *path)
{
    char name[200];
    form->file_name(name, sizeof name);
    return in_folder(t, name, path);
}

/* A killed run may have left files that were not finished, ".checkpoint.mest.tmp-PID-N"; the folder is locked, so nobody writes them. */
static void remove_unfinished(const tool *t)
{
    static const char *const names[] = {".checkpoint.mest.tmp-", ".model.onnx.tmp-", ".mest-run-",
                                        "summary.json.tmp-", "pattern-start.json.tmp-", "pattern-end.json.tmp-", "gallery.json.tmp-",
                                        "forgetting.csv.tmp-"};
    char path[ROOM];
    DIR *dir = opendir(in_folder(t, "", path));
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (strncmp(entry->d_name, names[i], strlen(names[i])) == 0)
                unlink(in_folder(t, entry->d_name, path));
    if (dir)
        closedir(dir);
}

/* Opens a log that is there, to see whether it can be; nothing is written. */
static int try_log(tool *t, const char *path)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW); /* O_NONBLOCK: nobody may read a named pipe */
    const int why = errno;
    const bool link = fd < 0 && why == ELOOP, plain = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (fd >= 0)
        close(fd);
    if (plain || (fd < 0 && why == ENOENT))
        return 0;
    if (link)
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is a symbolic link", path);
    if (fd >= 0 || why == ENXIO)
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is not a regular file", path);
    return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be written: %s", path, strerror(why));
}

int rundir_begin(tool *t)
{
    const log_form *form;
    run_folder *f = &t->folder;
    char path[ROOM];
    struct stat st;
    if (!t->s->output_dir)
        return 0;
    remove_unfinished(t);
    for (int i = 0; i < RUN_FILES; i++) {
        const bool there = lstat(in_folder(t, files[i], path), &st) == 0;
        if (there && S_ISDIR(st.st_mode) && rmdir(path) != 0)
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' is a folder", path);
        f->earlier[i] = there ? (uint64_t)st.st_ino : 0;
    }
    for (int i = 0; (form = log_form_at(i)) != NULL; i++) {
        if (!log_in_list(t->s->log, form->name))
            continue;
        int code = try_log(t, log_path(t, form, path));
        if (code)
            return code;
        t->logging = true;
    }
    if (rundir_resume_path(t))
        mest_session_position(t->session, &f->epochs, &f->steps);
    f->held = cJSON_CreateArray();
    f->waiting = true;
    return 0;
}

/* Of what was there before? A checkpoint of this run, or counts that its scheduler was told to write, may have taken the place, and the checkpoint before
 * it may have got the other name. */
static bool is_earlier(const run_folder *f, const char *path)
{
    struct stat st;
    bool earlier = false;
    if (lstat(path, &st) != 0)
        return false;
    for (int i = 0; i < RUN_FILES; i++)
        earlier = earlier || (uint64_t)st.st_ino == f->earlier[i];
    return earlier;
}

/* What an earlier run left would pass for this one's. */
static int remove_earlier(tool *t)
{
    const log_form *form;
    char path[ROOM];
    for (int i = 0; i < RUN_FILES; i++)
        if (is_earlier(&t->folder, in_folder(t, files[i], path)) && unlink(path) != 0)
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s': %s", path, strerror(errno));
    for (int i = 0; (form = log_form_at(i)) != NULL; i++)
        if (!form->keep && unlink(log_path(t, form, path)) != 0 && errno != ENOENT && (errno != EISDIR || log_in_list(t->s->log, form->name)))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s': %s", path, strerror(errno));
    return 0;
}

static int open_logs(tool *t)
{
    const log_form *form;
    const char *resumed = rundir_resume_path(t); /* NULL with --resume: the run begins at its beginning, and so does its log */
    for (int i = 0; (form = log_form_at(i)) != NULL; i++) {
        char path[ROOM];
        struct stat st;
        log_file *file = &t->log[i];
        if (!log_in_list(t->s->log, form->name))
            continue;
        log_path(t, form, path);
        file->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
        if (file->fd >= 0 && resumed && form->place && !log_go_on(form, file, path, t->folder.epochs, t->folder.steps, resumed))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be gone on with: %s", path, strerror(errno));
        if (file->fd < 0 || (fstat(file->fd, &st) == 0 && st.st_size == 0 && form->begin && !form->begin(file)))
            return tool_refuse(t, EXIT_FILES, "--output-dir: '%s' cannot be written: %s", path, strerror(errno));
    }
    return 0;
}

static bool write_held(tool *t)
{
    const cJSON *event;
    bool good = true;
    cJSON_ArrayForEach(event, t->folder.held)
    {
        char *line = cJSON_PrintUnformatted(event);
        for (int i = 0; line && log_form_at(i); i++)
            if (t->log[i].fd >= 0)
                good = log_form_at(i)->event(&t->log[i], event, line) && good;
        cJSON_free(line);
    }
    cJSON_Delete(t->folder.held);
    t->folder.held = NULL;
    return good;
}

int rundir_open(tool *t)
{
    char held[ROOM], path[ROOM];
    if (!t->folder.waiting)
        return 0;
    t->folder.waiting = false;
    t->folder.begun = true;
    int code = t->folder.fresh ? remove_earlier(t) : 0;
    if (code)
        return code;
    if (rename(in_folder(t, RUNDIR_PATTERN, held), in_folder(t, "pattern-start.json", path)) != 0 && errno != ENOENT)
        return tool_refuse(t, EXIT_FILES, "--output-dir: '%s': %s", path, strerror(errno));
    code = open_logs(t);
    if (code == 0 && !write_held(t))
        code = tool_refuse(t, EXIT_FILES, "--output-dir: the log cannot be written: %s", strerror(errno));
    return code;
}

void rundir_leave(tool *t)
{
    char path[ROOM];
    const run_folder *f = &t->folder;
    if (!t->s->output_dir || !*t->checkpoint || f->begun)
        return;
    unlink(in_folder(t, RUNDIR_PATTERN, path));
    if (f->made_lock)
        unlink(in_folder(t, "lock", path));
    in_folder(t, "", path);
    for (size_t n = strlen(path) - 1; f->made && n >= f->made;) {
        path[n] = 0;
        if (rmdir(path) != 0)
            break;
        const char *slash = strrchr(path, '/');
        n = slash ? (size_t)(slash - path) : 0;
    }
}
