/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve_options.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2, EXIT_FILES = 5 };

#define NUMBER(field, low, high) .number = true, .offset = offsetof(server_options, field), low, high
#define TEXT(field) .offset = offsetof(server_options, field)

static const struct server_options preset = {.address = "127.0.0.1", .port = 8080, .max_body = 16 << 20, .max_bodies = 128 << 20, .max_connections = 256,
                                             .max_request_ms = 30000, .idle_ms = 60000, .drain_ms = 10000};

const serve_option serve_options[] = {
    {"--address", "ADDRESS", "address to listen on; others than loopback need a token [127.0.0.1]", TEXT(address), 0, 0},
    {"--port", "PORT", "0: any that is free [8080]", NUMBER(port, 0, 65535)},
    {"--port-file", "FILE", "gets the number of the port once requests are taken", TEXT(port_file), 0, 0},
    {"--token-file", "FILE", "its first line, 16 to 254 characters, must come with each request: Authorization: Bearer TOKEN", TEXT(token_file), 0, 0},
    {"--allow-host", "NAME", "a further name of this server that requests without a token may use", TEXT(allow_host), 0, 0},
    {"--max-body", "BYTES", "of one request [16777216]", NUMBER(max_body, 1024, 1 << 30)},
    {"--max-bodies", "BYTES", "of all requests together [134217728]", NUMBER(max_bodies, 1024, 1e12)},
    {"--max-connections", "N", "connections at once [256]", NUMBER(max_connections, 1, 100000)},
    {"--request-time", "MS", "from the first byte of a request to its last [30000]", NUMBER(max_request_ms, 100, 3600000)},
    {"--idle-time", "MS", "without a byte, until a connection is closed; whole seconds [60000]", NUMBER(idle_ms, 1000, 3600000)},
    {"--drain-time", "MS", "for requests that are still being received after SIGTERM [10000]", NUMBER(drain_ms, 0, 3600000)},
    {"--help-config", NULL, "lists the settings of MODELS/NAME/config.json", .offset = 0, 0, 0},
    {"--help", NULL, "this text", .offset = 0, 0, 0},
    {"--version", NULL, "version of the library", .offset = 0, 0, 0},
    {.name = NULL},
};

static void usage(FILE *to)
{
    fputs("usage: mest-serve MODELS [OPTION]...\n"
          "Answers inference requests for the ONNX models of a folder (MODELS/NAME/1/model.onnx) over HTTP, by the Open Inference Protocol v2, and trains\n"
          "them in the background on samples that clients send.\n\n",
          to);
    for (const serve_option *p = serve_options; p->name; p++)
        fprintf(to, "  %s %-*s %s\n", p->name, (int)(24 - strlen(p->name)), p->argument ? p->argument : "", p->help);
    fputs("\nSIGTERM or SIGINT: requests that have begun are answered, training saves its state, exit code 0. docs/serve.md is the guide.\n", to);
}

static int wrong(const char *format, const char *what)
{
    fputs("mest-serve: ", stderr);
    fprintf(stderr, format, what);
    fputs("\n", stderr);
    return EXIT_USAGE;
}

static bool is_loopback(const char *address) { return !strncmp(address, "127.", 4) || !strcmp(address, "::1"); }

static int read_token(server_options *o)
{
    FILE *f = fopen(o->token_file, "r");
    bool good = f && fgets(o->token, sizeof o->token, f);
    int why = errno;
    if (f)
        fclose(f);
    if (!good) {
        fprintf(stderr, "mest-serve: %s: %s\n", o->token_file, f ? "no token in it" : strerror(why));
        return EXIT_FILES;
    }
    size_t n = strcspn(o->token, "\r\n");
    bool whole = o->token[n] != 0 || n < sizeof o->token - 1;
    o->token[n] = 0;
    return whole && n >= 16 ? 0 : wrong("%s: a token has 16 to 254 characters", o->token_file);
}

static int set(server_options *o, const serve_option *p, const char *value)
{
    char *rest, *at = (char *)o + p->offset;
    if (!p->number) {
        memcpy(at, &value, sizeof value);
        return 0;
    }
    errno = 0;
    long long n = strtoll(value, &rest, 10);
    if (errno || rest == value || *rest || (double)n < p->low || (double)n > p->high) {
        fprintf(stderr, "mest-serve: %s: '%s' is no whole number in %.0f..%.0f\n", p->name, value, p->low, p->high);
        return EXIT_USAGE;
    }
    int64_t number = n;
    memcpy(at, &number, sizeof number);
    return 0;
}

int serve_options_read(server_options *o, int argc, char **argv, bool *end)
{
    *o = preset;
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
        const serve_option *p = serve_options;
        while (p->name && strcmp(p->name, argv[i]) != 0)
            p++;
        if (!p->name)
            return wrong("there is no option '%s'; --help lists them", argv[i]);
        if (i + 1 == argc)
            return wrong("%s needs a value", argv[i]);
        int code = set(o, p, argv[++i]);
        if (code)
            return code;
    }
    if (!o->models)
        return usage(stderr), EXIT_USAGE;
    int code = o->token_file ? read_token(o) : 0;
    if (code)
        return code;
    if (!*o->token && !is_loopback(o->address))
        return wrong("--address %s can be reached from outside: a --token-file is needed", o->address);
    *end = false;
    return 0;
}
