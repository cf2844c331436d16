/* SPDX-License-Identifier: Apache-2.0 */
#include "whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool whole_open(whole_file *w, const char *path)
{
    w->file = NULL;
    if (strlen(path) >= sizeof w->path) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(w->path, path);
    snprintf(w->temporary, sizeof w->temporary, "%s.tmp-%ld", path, (long)getpid());
    w->file = fopen(w->temporary, "w");
    return w->file != NULL;
}

bool whole_close(whole_file *w, bool good)
{
    if (!w->file)
        return false;
    good = good && fflush(w->file) == 0 && !ferror(w->file) && fsync(fileno(w->file)) == 0;
    int why = errno;
    if (fclose(w->file) != 0 && good) {
        good = false;
        why = errno;
    }
    w->file = NULL;
    if (good && rename(w->temporary, w->path) != 0) {
        good = false;
        why = errno;
    }
    if (!good) {
        unlink(w->temporary);
        errno = why;
    }
    return good;
}

FILE *plain_open(const char *path, const char **why)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        *why = strerror(errno);
    } else if (!S_ISREG(st.st_mode)) {
        *why = S_ISDIR(st.st_mode) ? strerror(EISDIR) : "not a regular file";
    } else {
        FILE *file = fdopen(fd, "r");
        if (file)
            return file;
        *why = strerror(errno);
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

char *whole_read(const char *path, int64_t most)
{
    struct stat st;
    const char *why;
    FILE *file = plain_open(path, &why);
    char *text = NULL;
    if (file && fstat(fileno(file), &st) == 0 && st.st_size < most && (text = malloc((size_t)st.st_size + 1)))
        text[fread(text, 1, (size_t)st.st_size, file)] = 0;
    if (file)
        fclose(file);
    return text;
}
