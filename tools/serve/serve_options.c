/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "serve/guard.h"

enum { EXIT_USAGE = 2, EXIT_FILES = 5 };

typedef struct serve_option {
    const char *name;
    int64_t *number;                /* one of these two */
    const char **text;
    double low, high;
} serve_option;

static void usage(FILE *to)
{
    fputs("usage: mest-serve MODELS [OPTION]...\n"
          "Answers inference requests for the ONNX models of a folder (MODELS/NAME/1/model.onnx) over HTTP, by the Open Inference Protocol v2, and trains\n"
          "them in the background on samples that clients send.\n\n"
          "  --address ADDRESS      to listen on; other addresses than loopback need a token [127.0.0.1]\n"
          "  --port PORT            0: any that is free [8080]\n"
          "  --port-file FILE       gets the number of the port once requests are taken\n"
          "  --token-file FILE      its first line must come with each request: Authorization: Bearer TOKEN\n"
          "  --allow-host NAME      a further name of this server that requests without a token may use\n"
          "  --max-body BYTES       of one request [16777216]\n"
          "  --max-bodies BYTES     of all requests together [134217728]\n"
          "  --max-connections N    at once [256]\n"
          "  --request-time MS      from the first byte of a request to its last [30000]\n"
          "  --idle-time MS         without a byte, until a connection is closed; whole seconds [60000]\n"
          "  --drain-time MS        for requests to end after SIGTERM [10000]\n"
          "  --help-config          settings of MODELS/NAME/config.json\n"
          "  --help, --version\n\n"
          "SIGTERM or SIGINT: requests that have begun are answered, training saves its state, exit code 0. docs/serve.md is the guide.\n",
          to);
}

static int wrong(const char *format, const char *what)
{
    fputs("mest-serve: ", stderr);
    fprintf(stderr, format, what);
    fputs("\n", stderr);
    return EXIT_USAGE;
}

static int read_token(server_options *o, const char *path)
{
    FILE *f = fopen(path, "r");
    bool good = f && fgets(o->token, sizeof o->token, f);
    int why = errno;
    if (f)
        fclose(f);
    if (!good) {
        fprintf(stderr, "mest-serve: %s: %s\n", path, f ? "no token in it" : strerror(why));
        return EXIT_FILES;
    }
    size_t n = strcspn(o->token, "\r\n");
    bool whole = o->token[n] != 0 || n < sizeof o->token - 1;
    o->token[n] = 0;
    return whole && n >= 16 ? 0 : wrong("%s: a token has 16 to 254 characters", path);
}

static int set(const serve_option *p, const char *value)
{
    if (p->text) {
        *p->text = value;
        return 0;
    }
    char *rest;
    errno = 0;
    long long n = strtoll(value, &rest, 10);
    if (errno || rest == value || *rest || (double)n < p->low || (double)n > p->high) {
        fprintf(stderr, "mest-serve: %s: '%s' is no whole number in %.0f..%.0f\n", p->name, value, p->low, p->high);
        return EXIT_USAGE;
    }
    *p->number = n;
    return 0;
}

int serve_options_read(server_options *o, int argc, char **argv, bool *end)
{
    *o = (server_options){.address = "127.0.0.1", .max_body = 16 << 20, .max_bodies = 128 << 20, .max_connections = 256, .max_request_ms = 30000,
                          .idle_ms = 60000, .drain_ms = 10000};
    int64_t port = 8080;
    const char *token_file = NULL;
    const serve_option options[] = {
        {.name = "--address", .text = &o->address}, {.name = "--port", .number = &port, .low = 0, .high = 65535},
        {.name = "--port-file", .text = &o->port_file}, {.name = "--token-file", .text = &token_file}, {.name = "--allow-host", .text = &o->allow_host},
        {.name = "--max-body", .number = &o->max_body, .low = 1024, .high = 1 << 30}, {.name = "--max-bodies", .number = &o->max_bodies, .low = 1024, .high = 1e12},
        {.name = "--max-connections", .number = &o->max_connections, .low = 1, .high = 100000},
        {.name = "--request-time", .number = &o->max_request_ms, .low = 100, .high = 3600000},
        {.name = "--idle-time", .number = &o->idle_ms, .low = 1000, .high = 3600000}, {.name = "--drain-time", .number = &o->drain_ms, .low = 0, .high = 3600000}};
    *end = true;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return usage(stdout), 0;
        if (!strcmp(argv[i], "--version"))
            return printf("mest-serve %d.%d.%d\n", mest_version() / 10000, mest_version() / 100 % 100, mest_version() % 100), 0;
        if (!strcmp(argv[i], "--help-config"))
            return settings_help(stdout), 0;
        if (argv[i][0] != '-') {
            if (o->models)
                return wrong("one folder of models, not '%s' as well", argv[i]);
            o->models = argv[i];
            continue;
        }
        const serve_option *found = NULL;
        for (size_t k = 0; k < sizeof options / sizeof *options && !found; k++)
            if (!strcmp(options[k].name, argv[i]))
                found = &options[k];
        if (!found)
            return wrong("there is no option '%s'; --help lists them", argv[i]);
        if (i + 1 == argc)
            return wrong("%s needs a value", argv[i]);
        int code = set(found, argv[++i]);
        if (code)
            return code;
    }
    if (!o->models)
        return usage(stderr), EXIT_USAGE;
    o->port = (int)port;
    int code = token_file ? read_token(o, token_file) : 0;
    if (code)
        return code;
    if (!*o->token && !guard_is_loopback(o->address))
        return wrong("--address %s can be reached from outside: a --token-file is needed", o->address);
    *end = false;
    return 0;
}
