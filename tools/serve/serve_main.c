/* SPDX-License-Identifier: Apache-2.0 */
/* mest-serve: an inference service that also trains. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "serve/serve_options.h"

enum { EXIT_MODEL = 3, EXIT_LISTEN = 5 };

int main(int argc, char **argv)
{
    static server s;
    bool end;
    int code = serve_options_read(&s.o, argc, argv, &end);
    if (code || end)
        return code;
    /* Signals are waited for here; no other thread takes them. */
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that grows past ulimit -f: a write error, as a full disk is */

    fault f = {0};
    if (!models_open(&s.models, s.o.models, &f)) {
        fprintf(stderr, "mest-serve: %s\n", f.text);
        models_close(&s.models);
        return EXIT_MODEL;
    }
    int working = 0;
    for (int i = 0; i < s.models.count; i++) {
        const served *m = s.models.list[i];
        working += !m->broken.status;
        if (m->broken.status)
            fprintf(stderr, "mest-serve: model '%s' cannot be served: %s\n", m->name, m->broken.text);
        else if (!m->trainer)
            fprintf(stderr, "mest-serve: model '%s' cannot be trained: %s\n", m->name, m->untrained.text);
    }
    code = working ? 0 : EXIT_MODEL;
    if (!code && !http_start(&s, &f)) {
        fprintf(stderr, "mest-serve: %s\n", f.text);
        code = EXIT_LISTEN;
    }
    if (!code) {
        fprintf(stderr, "mest-serve: %d of %d models, http://%s:%d/\n", working, s.models.count, s.o.address, s.port);
        int caught = 0;
        while (sigwait(&signals, &caught) != 0)
            ;
        fprintf(stderr, "mest-serve: %s, finishing\n", strsignal(caught));
    }
    http_stop(&s);
    models_close(&s.models);
    return code;
}
