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
    if (r->memory.micro_batch == how->config.batch)
        check(r->weights == free_run->weights, n, name, limit, "the weights differ from those without a limit");
    else
        check(how->config.micro_batch == 0 && *r->memory.chosen, n, name, limit, "steps in parts that nobody asked for");
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

/* A limit that whole steps cannot obey, though parts can: 1 if there is one. */
static int sweep_parts(const net *n, net_how how)
{
    net_result whole, parts, r;
    how.plan_first = true;
    how.config.batch = 128; /* so many that what parts save is far more than what the process wanders by */
    how.samples = 192;
    how.config.micro_batch = -1;
    how.config.recompute = "least";
    how.config.memory_limit = 0;
    bool good = net_train(n, &how, &whole) == MEST_OK;
    how.config.micro_batch = 32;
    good = good && net_train(n, &how, &parts) == MEST_OK;
    check(good, n, "parts", 0, "without a limit");
    const int64_t room = good ? whole.memory.process_bytes - parts.memory.process_bytes : 0;
    how.config.memory_limit = good ? parts.memory.process_bytes + room / 3 : 0;
    how.config.micro_batch = 0;
    how.config.recompute = "auto";
    net_result_free(&whole);
    net_result_free(&parts);
    if (room < 3 << 20) /* what the process holds beside the run changes by a third of a MiB from run to run */
        return 0;
    const bool works = net_train(n, &how, &r) == MEST_OK;
    check(works, n, "parts", (double)how.config.memory_limit, works ? "" : r.error.msg);
    if (works) {
        obeyed(n, "parts", &how, &r, &r);
        check(r.memory.micro_batch < 128 && strstr(r.memory.chosen, "parts of"), n, "parts", (double)how.config.memory_limit, r.memory.chosen);
    }
    net_result_free(&r);
    how.config.micro_batch = -1; /* forbidden: the refusal says what parts would bring */
    check(net_train(n, &how, &r) == MEST_E_LIMIT && strstr(r.error.msg, "micro-batch"), n, "parts, forbidden", (double)how.config.memory_limit, r.error.msg);
    net_result_free(&r);
    return 1;
}

/* Layers in front are frozen where nothing else is left, only if that is allowed, and a resumed run goes on with it: 1 if it came to that,
 * 2 if a resumed run was compared as well. */
static int sweep_front(const net *n, net_how how)
{
    net_result r, other;
    int64_t least, frozen;
    how.plan_first = true;
    how.config.batch = 76;
    how.samples = 76;
    how.epochs = 2;
    how.config.memory_limit = 1 << 20;
    how.config.freeze_front = "off";
    check(net_train(n, &how, &r) == MEST_E_LIMIT, n, "front", 0, r.error.msg);
    least = would_do(r.error.msg);
    const bool told = strstr(r.error.msg, "freeze-front");
    net_result_free(&r);
    how.config.freeze_front = "auto";
    check(net_train(n, &how, &r) == MEST_E_LIMIT, n, "front", 0, r.error.msg);
    frozen = would_do(r.error.msg);
    check(frozen <= least && (told || frozen > least - (1 << 20)), n, "front", (double)least, r.error.msg);
    net_result_free(&r);
    if (frozen > least - (3 << 20)) /* one layer, or weights so large that activations are nothing */
        return 0;
    how.config.memory_limit = frozen + (512 << 10); /* this process has a little more from run to run */
    const bool works = net_train(n, &how, &r) == MEST_OK;
    check(works && strstr(r.memory.chosen, "frozen"), n, "front", (double)frozen, works ? r.memory.chosen : r.error.msg);
    check(r.memory.process_bytes <= how.config.memory_limit && (int64_t)r.peak <= r.memory.heap_bytes, n, "front", (double)frozen, "more than the limit");
    net_result_free(&r);
    how.config.memory_limit = least + (512 << 10); /* enough without */
    const bool free_of_it = net_train(n, &how, &r) == MEST_OK;
    check(free_of_it && !strstr(r.memory.chosen, "frozen"), n, "front", (double)least, free_of_it ? r.memory.chosen : r.error.msg);
    net_result_free(&r);
    char path[64];
    snprintf(path, sizeof path, "front-%s.ckpt", n->name);
    for (char *c = path; *c; c++)
        *c = *c == '/' || *c == ' ' ? '-' : *c;
    if (how.scheme || !how.config.epochs)
        return 1;
    /* What is free beside the heap differs from run to run, and so may the number of layers: bits are compared where the same ones were chosen. */
    how.config.memory_limit = frozen + (least - frozen) / 3;
    const bool whole = net_half(n, &how.config, NULL, NULL, &r) == MEST_OK, begun = net_half(n, &how.config, NULL, path, &other) == MEST_OK;
    check(whole && begun, n, "front, first half", (double)how.config.memory_limit, begun ? r.error.msg : other.error.msg);
    int frozen_whole = 0, frozen_half = 0;
    (void)sscanf(r.memory.chosen, "%d parameters", &frozen_whole);
    (void)sscanf(other.memory.chosen, "%d parameters", &frozen_half);
    net_result_free(&other);
    const bool same = frozen_whole > 0 && frozen_whole == frozen_half && r.memory.micro_batch == other.memory.micro_batch;
    how.config.memory_limit += 2 << 20; /* for that, too */
    check(net_half(n, &how.config, path, NULL, &other) == MEST_OK, n, "front, second half", (double)how.config.memory_limit, other.error.msg);
    check(!same || r.weights == other.weights, n, "front, resumed", (double)frozen, "other bits than without an interruption");
    net_result_free(&other);
    net_result_free(&r);
    remove(path);
    return same ? 2 : 1;
}

int main(int argc, char **argv)
{
    int in_parts = 0, with_front = 0, resumed = 0;
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
        how.config.micro_batch = -1; /* what leads to other bits comes after */
        sweep(n, how, "dense");
        how.config.epochs = 2;
        const int front = sweep_front(n, how);
        with_front += front > 0;
        resumed += front > 1;
        how.config.epochs = 1;
        how.scheme = "block4";
        how.scheduler = true;
        how.config.clip_norm = 1;
        how.config.optimizer = "adamw";
        how.config.lr = 0.001;
        sweep(n, how, "block4, adamw, clipped");
        how.config.micro_batch = 0;
        in_parts += sweep_parts(n, how);
        how.config.recompute = "off";
        how.config.threads = 1;
        if (!n->shared)
            sweep(n, how, "block4, no recomputation");
    }
    if (argc == 1) {
        const net none = {.name = "all"};
        check(in_parts > 0, &none, "parts", 0, "no network that needs them was tried");
        check(resumed > 0, &none, "front", 0, "no resumed run with the same layers frozen was compared");
        check(with_front > 0, &none, "front", 0, "no network for which layers in front must be frozen was tried");
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}
