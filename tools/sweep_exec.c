/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of a sweep. Each run is this program again, in a process of its own: a run that fails, or is killed for its memory, takes no
 * other with it. Its messages go to messages.txt of its folder. A signal is passed on, so that runs write their checkpoints and end; when
 * this process dies otherwise, the system tells them. */
#include "sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

static volatile sig_atomic_t caught;
static _Atomic int running[SWEEP_MOST_JOBS]; /* process ids, 0: free */

static void pass_on(int number)
{
    int before = errno;
    if (!caught)
        caught = number;
    for (int i = 0; i < SWEEP_MOST_JOBS; i++) {
        int process = atomic_load(&running[i]);
        if (process > 0)
            kill(process, SIGTERM);
    }
    errno = before;
}

static void watch_signals(bool on)
{
    static struct sigaction old[2];
    struct sigaction action = {.sa_handler = pass_on};
    sigemptyset(&action.sa_mask);
    if (on) {
        caught = 0;
        sigaction(SIGINT, &action, &old[0]);
        sigaction(SIGTERM, &action, &old[1]);
    } else {
        sigaction(SIGINT, &old[0], NULL);
        sigaction(SIGTERM, &old[1], NULL);
    }
}

/* In the new process. */
static void become(char **argv, int messages, pid_t parent)
{
    static const char failed[] = "mest-run: the program cannot be started again\n";
    setpgid(0, 0); /* Ctrl-C reaches the sweep alone, which passes it on once */
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    if (getppid() != parent)
        _exit(EXIT_SIGNAL + SIGTERM);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(messages, 1) < 0 || dup2(messages, 2) < 0)
        _exit(EXIT_FILES);
    execv("/proc/self/exe", argv);
    if (write(2, failed, sizeof failed - 1) < 0)
        _exit(EXIT_INTERNAL);
    _exit(EXIT_INTERNAL);
}

/* A run whose sweep was killed may still be writing its checkpoint. */
static void wait_for_folder(const sweep_run *r)
{
    char path[4400];
    struct timespec moment = {0, 50 * 1000 * 1000};
    snprintf(path, sizeof path, "%s/lock", r->folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    for (int i = 0; fd >= 0 && i < 600 && !caught && flock(fd, LOCK_EX | LOCK_NB) != 0; i++)
        nanosleep(&moment, NULL);
    if (fd >= 0)
        close(fd);
}

static int start(tool *t, sweep *s, sweep_run *r, int slot)
{
    char path[4400];
    static char self[] = "mest-run", bar[] = "--progress=off", resume[] = "--resume", anew[] = "--overwrite", folder[] = "--output-dir";
    int code = sweep_begin_run(t, r), n = 0;
    if (code)
        return code;
    if (r->begun)
        wait_for_folder(r);
    char **argv = sweep_take(s, (size_t)r->n_arguments + 8, sizeof *argv);
    if (!argv)
        return tool_refuse(t, EXIT_LIMIT, "--sweep: out of memory");
    snprintf(path, sizeof path, "%s/messages.txt", r->folder);
    int messages = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | (r->begun ? 0 : O_TRUNC), 0666);
    if (messages < 0)
        return tool_refuse(t, EXIT_FILES, "--sweep: '%s' cannot be written: %s", path, strerror(errno));
    argv[n++] = self;
    for (int i = 0; i < r->n_arguments; i++)
        argv[n++] = r->argument[i];
    argv[n++] = bar;
    argv[n++] = folder;
    argv[n++] = r->folder;
    argv[n++] = r->begun ? resume : anew;
    fflush(NULL);
    sigset_t both, before; /* a signal between fork and the note of its number would miss the new process */
    sigemptyset(&both);
    sigaddset(&both, SIGINT);
    sigaddset(&both, SIGTERM);
    sigprocmask(SIG_BLOCK, &both, &before);
    pid_t parent = getpid(), process = fork();
    if (process == 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        sigprocmask(SIG_SETMASK, &before, NULL);
        become(argv, messages, parent);
    }
    if (process > 0)
        atomic_store(&running[slot], (int)process);
    int why = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(messages);
    if (process < 0)
        return tool_refuse(t, EXIT_LIMIT, "--sweep: no process for a run: %s", strerror(why));
    r->process = process;
    r->state = SWEEP_RUNNING;
    return 0;
}

/* A run ended. What a signal ended is open again. */
static void settle(sweep_run *r, int status)
{
    r->begun = true;
    r->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL + WTERMSIG(status);
    if (r->exit_code == 0 && !sweep_results(r)) {
        r->exit_code = EXIT_FILES;
        r->state = SWEEP_FAILED;
        r->unreadable = true;
    } else if (r->exit_code != 0) {
        r->state = caught && (r->exit_code == EXIT_SIGNAL + SIGTERM || r->exit_code == EXIT_SIGNAL + SIGINT) ? SWEEP_OPEN : SWEEP_FAILED;
    }
}

/* Waits for one of them; NULL: none is left. */
static sweep_run *wait_for_one(sweep *s)
{
    for (;;) {
        int status;
        pid_t process = waitpid(-1, &status, 0);
        if (process < 0 && errno == EINTR)
            continue;
        if (process < 0)
            return NULL;
        for (int i = 0; i < SWEEP_MOST_JOBS; i++)
            if (atomic_load(&running[i]) == (int)process)
                atomic_store(&running[i], 0);
        for (int i = 0; i < s->n_runs; i++)
            if (s->run[i].state == SWEEP_RUNNING && s->run[i].process == process) {
                settle(&s->run[i], status);
                return &s->run[i];
            }
    }
}

int sweep_execute(tool *t, sweep *s, int64_t jobs, int (*told)(tool *t, sweep *s, const sweep_run *r))
{
    int code = 0, next = 0, busy = 0;
    watch_signals(true);
    for (;;) {
        while (busy < jobs && next < s->n_runs && code == 0 && !caught) {
            sweep_run *r = &s->run[next++];
            int slot = 0;
            while (slot < SWEEP_MOST_JOBS - 1 && atomic_load(&running[slot]))
                slot++;
            if (r->state == SWEEP_OPEN)
                code = start(t, s, r, slot);
            busy += r->state == SWEEP_RUNNING;
        }
        if (busy == 0)
            break;
        sweep_run *r = wait_for_one(s);
        if (!r)
            break;
        busy--;
        int failed = r->state == SWEEP_OPEN ? 0 : told(t, s, r);
        code = code ? code : failed;
    }
    watch_signals(false);
    if (code == 0 && caught)
        code = tool_refuse(t, EXIT_SIGNAL + caught, "interrupted; the same command goes on where this one stopped");
    return code;
}
