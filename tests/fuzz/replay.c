/* SPDX-License-Identifier: Apache-2.0 */
/* main of a target without libFuzzer: runs every file named on the command line, and those in the folders named there, through it. */
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

static int n_files, n_errors;
static const char *now; /* what to blame when the process ends here */

static void run(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        n_errors++;
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        struct dirent **entry;
        int n = scandir(path, &entry, NULL, alphasort);
        for (int i = 0; i < n; i++) {
            char inner[4096];
            snprintf(inner, sizeof inner, "%s/%s", path, entry[i]->d_name);
            if (entry[i]->d_name[0] != '.')
                run(inner);
            free(entry[i]);
        }
        if (n >= 0)
            free(entry);
        return;
    }
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc((size_t)st.st_size + 1), *exact;
    size_t n = f && data ? fread(data, 1, (size_t)st.st_size, f) : 0;
    if (!f || !data || n != (size_t)st.st_size || fclose(f) || !(exact = malloc(n ? n : 1))) {
        perror(path);
        n_errors++;
        return;
    }
    memcpy(exact, data, n);
    now = path;
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    free(data);
    n_files++;
}

static void blame(int sig)
{
    if (now && (write(2, "while replaying ", 16) < 0 || write(2, now, strlen(now)) < 0 || write(2, "\n", 1) < 0))
        _exit(3);
    signal(sig, SIG_DFL);
    raise(sig);
}

int main(int argc, char **argv)
{
    signal(SIGABRT, blame);
    for (int i = 1; i < argc; i++) {
        if (getenv("MEST_VERBOSE"))
            fprintf(stderr, "%s\n", argv[i]);
        run(argv[i]);
    }
    now = NULL;
    printf("%d files replayed\n", n_files);
    return n_errors || !n_files;
}
