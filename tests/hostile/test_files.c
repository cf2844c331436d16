/* SPDX-License-Identifier: Apache-2.0 */
/* Every hostile model of the project's own: refused with a message that names the place, on a small stack, in little memory and time.
 *   hostile_files            runs them in a temporary folder
 *   hostile_files FOLDER     only writes them, with hostile.tsv, for tests of the command line */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

static int n_run, n_failed;

static int run(void *user, const hostile_file *file, const char *path)
{
    (void)user;
    hostile_result r;
    const char *wrong;
    hostile_try(&r, path, NULL, 0);
    n_run++;
    wrong = hostile_wrong(&r);
    if (!wrong && file->want != HOSTILE_EITHER && (r.status == MEST_OK) != (file->want == HOSTILE_ACCEPT))
        wrong = r.status == MEST_OK ? "it was accepted" : "it was refused";
    if (!wrong && r.status != MEST_OK && file->want == HOSTILE_REJECT && file->place && !strstr(r.err.msg, file->place))
        wrong = "the message does not name the place";
    if (wrong || getenv("MEST_VERBOSE"))
        printf("%s%s (%s): %s; %s: %s; %.3f s, %.1f MB\n", wrong ? "FAIL " : "", file->name, file->why, wrong ? wrong : "ok", r.stage, r.err.msg,
               r.cpu_seconds, (double)r.peak_bytes * 1e-6);
    n_failed += wrong != NULL;
    return 0;
}

static int write_line(void *user, const hostile_file *file, const char *path)
{
    (void)path;
    static const char *const want[] = { "reject", "accept", "either" };
    return fprintf(user, "%s\t%s\t%s\n", file->name, want[file->want], file->why) < 0;
}

static void empty(const char *folder)
{
    char path[4096];
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlink(path) != 0)
            rmdir(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

int main(int argc, char **argv)
{
    char folder[256], path[4200];
    if (argc > 1) {
        snprintf(path, sizeof path, "%s/hostile.tsv", argv[1]);
        FILE *f = fopen(path, "w");
        return !f || hostile_each(argv[1], write_line, f) || fclose(f);
    }
    snprintf(folder, sizeof folder, "%s/mest-hostile-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder))
        return 2;
    (void)hostile_each(folder, run, NULL);
    empty(folder);
    printf("%d passed, %d failed, 0 skipped\n", n_run - n_failed, n_failed);
    return n_failed != 0;
}
