/* SPDX-License-Identifier: Apache-2.0 */
/* A memory limit is obeyed, or refused with a number that then works; and what it leads to trains the same weights to the bit. */
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mest/memory.h"
#include "tests/memory/nets.h"

static int passed, failed, skipped;

static void check(bool ok, const net *n, const char *how, double limit, const char *what)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s (%s), limit %.2f MiB: %s\n", n->name, how, limit / (1 << 20), what);
}

/* "...; 12.3 MiB would do": bytes, 0 if the text does not say. */
static int64_t would_do(const char *text)
{
    const char *end = strstr(text, " MiB would do"), *from = end;
    while (from && from > text && strchr("0123456789.", from[-1]))
        from--;
    return end ? (int64_t)(strtod(from, NULL) * (1 << 20)) : 0;
}

static void obeyed(const net *n, const char *name, const net_how *how, const net_result *free_run, const net_result *r)
{
    const double limit = (double)how->config.memory_limit;
    check(r->memory.process_bytes <= how->config.memory_limit, n, name, limit, "the prediction is above the limit");
    check((int64_t)r->peak <= r->memory.heap_bytes, n, name, limit, "the allocator held more than was predicted");
    check((double)r->peak >= 0.95 * (double)r->memory.heap_bytes - (2 << 20), n, name, limit, "much less was held than was predicted");
    check(r->calls_in_steps == 0, n, name, limit, "allocations in the steps");
    check(r->now == 0, n, name, limit, "memory is left");
    check(r->weights == free_run->weights, n, name, limit, "the weights differ from those without a limit");
}

static void sweep(const net *n, net_how how, const char *name)
{
    net_result free_run, r;
    how.plan_first = true;
    for (int k = 0; k < 2; k++) { /* first runs leave code and threads' memory in this process, as the next ones find it; with a search, too */
        how.config.memory_limit = k;
        net_train(n, &how, &free_run);
        net_result_free(&free_run);
    }
    how.config.memory_limit = 0;
    const bool good = net_train(n, &how, &free_run) == MEST_OK;
    check(good, n, name, 0, free_run.error.msg);
    const mest_memory_plan *m = &free_run.memory;
    const int64_t fixed = m->process_bytes - m->arena_bytes;
    int runs = 0;
    char refusal[sizeof r.error.msg] = "";
    for (int k = 10; good && k >= 1; k -= n->shared ? 3 : 1) {
        how.config.memory_limit = fixed + m->arena_bytes * k / 10 + (256 << 10); /* this process has a little more from run to run */
        if (net_train(n, &how, &r) == MEST_OK) {
            obeyed(n, name, &how, &free_run, &r);
            runs++;
            net_result_free(&r);
            continue;
        }
        net_result_free(&r);
        snprintf(refusal, sizeof refusal, "%s", r.error.msg);
        check(r.error.code == MEST_E_LIMIT, n, name, (double)how.config.memory_limit, r.error.msg);
        check(r.steps == 0, n, name, (double)how.config.memory_limit, "steps were made before the refusal");
        const int64_t enough = would_do(r.error.msg);
        check(enough > how.config.memory_limit, n, name, (double)how.config.memory_limit, r.error.msg);
        how.config.memory_limit = enough;
        const bool works = net_train(n, &how, &r) == MEST_OK;
        check(works, n, name, (double)enough, works ? "" : r.error.msg);
        if (works)
            obeyed(n, name, &how, &free_run, &r);
        net_result_free(&r);
        break;
    }
    check(!good || runs > 0, n, name, (double)m->process_bytes, runs ? "" : refusal);
    net_result_free(&free_run);
}

int main(int argc, char **argv)
{
    char path[600];
    (void)mallopt(M_MMAP_THRESHOLD, 256 << 10); /* what is freed leaves the process, as with the library's own allocator */
    (void)mallopt(M_TRIM_THRESHOLD, 64 << 10);
    for (const net *n = nets; n->name; n++) {
        net_how how;
        if (argc > 1 && strcmp(argv[1], n->name))
            continue;
        if (!net_path(n, path, sizeof path)) {
            skipped++;
            continue;
        }
        net_how_init(&how);
        how.validate = true;
        how.samples = n->shared ? 24 : 40;
        how.epochs = 1;
        sweep(n, how, "dense");
        how.scheme = "block4";
        how.scheduler = true;
        how.config.clip_norm = 1;
        how.config.optimizer = "adamw";
        how.config.lr = 0.001;
        sweep(n, how, "block4, adamw, clipped");
        how.config.recompute = "off";
        how.config.threads = 1;
        if (!n->shared)
            sweep(n, how, "block4, no recomputation");
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}
