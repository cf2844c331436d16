/* SPDX-License-Identifier: Apache-2.0 */
/* Training with recomputed activations gives the bits of training without, needs less memory, and allocates nothing in a step. */
#include <stdio.h>
#include <string.h>

#include "tests/memory/nets.h"

static int passed, failed, skipped;

static void check(bool ok, const net *n, const char *how, const char *what)
{
    passed += ok;
    failed += !ok;
    if (!ok)
        printf("FAIL %s (%s): %s\n", n->name, how, what);
}

static void compare(const net *n, net_how how, const char *name)
{
    static const char *const modes[] = {"least", "30%", "5%"};
    const size_t n_modes = n->shared ? 2 : 3;
    net_result plain, again;
    how.config.recompute = "off";
    const bool good = net_train(n, &how, &plain) == MEST_OK;
    check(good, n, name, plain.error.msg);
    int64_t least = plain.plan.arena_bytes, arena = 0;
    for (size_t i = 0; good && i < n_modes; i++) {
        char text[200];
        how.config.recompute = modes[i];
        snprintf(text, sizeof text, "%s, recompute %s", name, modes[i]);
        const bool ran = net_train(n, &how, &again) == MEST_OK;
        check(ran, n, text, again.error.msg);
        if (ran) {
            check(again.weights == plain.weights, n, text, "the weights differ");
            check(memcmp(&again.loss, &plain.loss, sizeof plain.loss) == 0, n, text, "the losses differ");
            check((double)again.plan.arena_bytes >= 0.95 * (double)arena && again.plan.arena_bytes <= plain.plan.arena_bytes, n, text, "memory does not fall with more recomputation"); /* 5 %: the search is a heuristic */
            check(again.calls_in_steps == 0, n, text, "allocations in the steps");
            check(again.now == 0, n, text, "memory is left");
            arena = again.plan.arena_bytes;
            least = arena < least ? arena : least;
        }
        net_result_free(&again);
    }
    if (strcmp(n->name, "mlp") && strcmp(n->name, "lenet5")) /* one layer of theirs is most of what is alive */
        check(least < plain.plan.arena_bytes * 0.8, n, name, "the least memory is more than 80 % of what keeps everything");
    net_result_free(&plain);
}

int main(int argc, char **argv)
{
    char path[600];
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
        compare(n, how, "dense");
        how.config.kernels = "scalar";
        how.config.clip_norm = 1;
        how.epochs = 1;
        if (!n->shared)
            compare(n, how, "dense, scalar, clipped");
        how.config.kernels = "auto";
        how.scheme = "block4";
        how.config.optimizer = "adamw";
        how.config.lr = 0.001;
        how.scheduler = true;
        how.config.batch_norm = "frozen";
        compare(n, how, "block4, adamw, frozen statistics");
        how.config.batch_norm = "train";
        how.scheme = "csr";
        how.config.threads = 1;
        how.config.no_fuse = "all";
        if (!n->shared && strcmp(n->name, "mixer")) /* its sparse weights reach the layers through passes */
            compare(n, how, "csr, nothing fused, one thread");
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}
