/* SPDX-License-Identifier: Apache-2.0 */
/* Layer by layer: rules of schemes, Erdos-Renyi densities, files of ratios. */
#include <unistd.h>

#include "runtime/distribution.h"
#include "runtime/op.h"
#include "runtime/ratios.h"
#include "runtime/rules.h"
#include "tests/sparse/fixture.h"

static mest_rule rule(const char *rules, const char *scheme, const char *name)
{
    mest_rule r;
    OK(mest_rule_find(rules, scheme, name, &r, err));
    return r;
}

START_TEST(the_first_rule_counts)
{
    mest_rule r = rule(NULL, NULL, "fc.weight");
    MUST(!strcmp(r.scheme, "csr") && r.sparsity < 0 && !r.named);
    r = rule(NULL, "block", "fc.weight");
    MUST(!strcmp(r.scheme, "block4") && !r.named);
    const char *scheme = "layer1.*=pattern, fc=block16 ,conv1=dense,*.conv2=nm2:4:0.6,nm1:4x4";
    r = rule(NULL, scheme, "layer1.0.conv2.weight");
    MUST(!strcmp(r.scheme, "pattern") && r.named && r.sparsity < 0);
    r = rule(NULL, scheme, "fc.weight");
    MUST(!strcmp(r.scheme, "block16") && r.named);
    r = rule(NULL, scheme, "conv1.weight");
    MUST(!strcmp(r.scheme, "dense") && r.named && r.sparsity == 0);
    r = rule(NULL, scheme, "layer2.0.conv2.weight");
    MUST(!strcmp(r.scheme, "nm2:4") && r.named && r.sparsity == .6);
    r = rule(NULL, scheme, "layer2.0.conv1.weight");
    MUST(!strcmp(r.scheme, "nm1:4x4") && !r.named && r.sparsity < 0);
    r = rule("a,fc*=csr:0.5;*=block8:.75", scheme, "fc.weight");
    MUST(!strcmp(r.scheme, "csr") && r.named && r.sparsity == .5);
    r = rule("a,fc*=csr:0.5;*=block8:.75", scheme, "layer1.0.conv1.weight");
    MUST(!strcmp(r.scheme, "block8") && r.sparsity == .75);
    r = rule("x=nm2:4", NULL, "x");
    MUST(!strcmp(r.scheme, "nm2:4") && r.sparsity < 0);
    const char *bad_scheme[] = { "blok", "a=", "=csr", "a=csr:1", "a=csr:x", "a=csr:-.1", "csr,block4", "a=nm2:4:2", "a=b=c" };
    for (size_t i = 0; i < sizeof bad_scheme / sizeof *bad_scheme; i++) {
        REFUSED(MEST_E_ARGUMENT, mest_rule_find(NULL, bad_scheme[i], "zz", &r, err));
        if (!strchr(bad_scheme[i], ','))
            REFUSED(MEST_E_ARGUMENT, mest_rule_find(bad_scheme[i], NULL, "zz", &r, err));
    }
    char longest[400];
    memset(longest, 'a', sizeof longest);
    strcpy(longest + 380, "=csr");
    REFUSED(MEST_E_ARGUMENT, mest_rule_find(longest, NULL, "zz", &r, err));
}
END_TEST

/* ResNet-32 of doubled width, its first convolution dense: methods of RigL's paper, numbers worked out by hand beforehand. */
START_TEST(erk_of_resnet32)
{
    mest_shape shape[40];
    mest_layer_density l[40];
    int n = 0;
    shape[n++] = (mest_shape){ 4, { 32, 3, 3, 3 } };
    for (int stage = 0; stage < 3; stage++)
        for (int block = 0; block < 5; block++) {
            const int64_t w = 32 << stage, in = stage && block == 0 ? w / 2 : w;
            shape[n++] = (mest_shape){ 4, { w, in, 3, 3 } };
            shape[n++] = (mest_shape){ 4, { w, w, 3, 3 } };
            if (in != w)
                shape[n++] = (mest_shape){ 4, { w, in, 1, 1 } };
        }
    shape[n++] = (mest_shape){ 2, { 10, 128 } };
    MUST(n == 34);
    const double sparsity[3] = { .9, .95, .98 }, want[3] = { 38.118, 18.665, 7.258 }, mac_share[3] = { .175, .088, .036 };
    for (int s = 0; s < 3; s++) {
        double eps, kept = 0, all = 0, macs = 0, dense_macs = 0;
        for (int i = 0; i < n; i++)
            l[i] = (mest_layer_density){ .shape = &shape[i], .fixed = i == 0 ? 1 : -1, .most = 1 };
        OK(mest_distribute(l, n, sparsity[s], true, &eps, err));
        ck_assert_double_eq_tol(eps, want[s], 5e-4);
        for (int i = 0; i < n; i++) {
            const double size = (double)mest_shape_span(&shape[i], 0, shape[i].rank);
            const double pixels = shape[i].rank == 2 ? 1 : shape[i].dim[0] == 32 ? 1024 : shape[i].dim[0] == 64 ? 256 : 64;
            kept += l[i].density * size;
            all += size;
            macs += l[i].density * size * pixels;
            dense_macs += size * pixels;
            MUST(l[i].density > 0 && l[i].density <= 1);
        }
        ck_assert_double_eq_tol(kept, (1 - sparsity[s]) * all, 1e-6 * all);
        ck_assert_double_eq_tol(macs / dense_macs, mac_share[s], 6e-4);
        if (s == 0) { /* l1 3x3, l2.0.c1, its shortcut, l2 3x3, l3.0.c1, its shortcut, l3 3x3, linear */
            const int at[] = { 1, 11, 13, 12, 22, 24, 23, 33 };
            const double d[] = { .2895, .2109, 1, .1386, .1024, .9027, .0677, 1 };
            for (int i = 0; i < 8; i++)
                ck_assert_double_eq_tol(l[at[i]].density, d[i], 6e-5);
        }
    }
}
END_TEST

START_TEST(densities_obey_their_limits)
{
    const mest_shape small = { 2, { 4, 4 } }, large = { 2, { 100, 100 } }, kernel = { 4, { 64, 64, 3, 3 } };
    mest_layer_density l[] = { { .shape = &small, .fixed = -1, .most = 1 }, { .shape = &large, .fixed = -1, .most = 1 }, { .shape = &kernel, .fixed = -1, .most = .05 } };
    double eps;
    OK(mest_distribute(l, 3, .8, true, &eps, err)); /* the small one full, the kernels at their limit, the rest for the other */
    MUST(l[0].density == 1 && l[2].density == .05);
    ck_assert_double_eq_tol(l[1].density, (.2 * (16 + 10000 + 36864) - 16 - 36864 * .05) / 10000, 1e-9);
    OK(mest_distribute(l, 2, .9, false, &eps, err));
    ck_assert_double_eq_tol(l[0].density * 16 + l[1].density * 10000, 1001.6, 1e-6);
    l[1].fixed = .05;
    OK(mest_distribute(l, 2, .9, true, NULL, err));
    MUST(l[1].density == .05 && l[0].density == 1); /* more is left than the small one can hold */
    l[1].fixed = .5;
    REFUSED(MEST_E_ARGUMENT, mest_distribute(l, 2, .9, true, NULL, err));
    l[0].fixed = 1;
    OK(mest_distribute(l, 2, .9, true, NULL, err)); /* nothing to distribute */
}
END_TEST

static char path[] = "/tmp/mest-ratios-XXXXXX";

static const char *file(const char *text)
{
    FILE *f = fopen(path, "w");
    MUST(f && fputs(text, f) >= 0 && fclose(f) == 0);
    return path;
}

START_TEST(ratios_are_read_as_they_are)
{
    bench_heap b;
    heap_open(&b);
    mest_ratios r;
    OK(mest_ratios_read(&r, &b.heap, file("prune_ratios:\n  layer1.0.conv1.weight:\n    0.6\n  module.fc.weight:\n    0\n\nrho:\n  0.001\nmore: [1, {a: b}]\n"
                                          "lower_bound:\n  0.5-0.5-0.5 # stages\n"), err));
    MUST(r.n == 2 && !strcmp(r.ratio[0].name, "layer1.0.conv1.weight") && r.ratio[0].sparsity == .6 && r.ratio[1].sparsity == 0);
    mest_ratios_free(&r);
    char many[20000] = "rho: 1\nprune_ratios:\n";
    for (int i = 0; i < 500; i++)
        sprintf(many + strlen(many), " a.%d.weight: 0.%d\n", i, i % 10);
    OK(mest_ratios_read(&r, &b.heap, file(many), err));
    MUST(r.n == 500 && !strcmp(r.ratio[499].name, "a.499.weight") && r.ratio[499].sparsity == .9);
    mest_ratios_free(&r);
    const char *bad[] = { "", "[]", "just text", "rho: 1", "prune_ratios: 3", "prune_ratios: [a, b]", "prune_ratios:\n a: 1.0\n", "prune_ratios:\n a: -0.1\n",
                          "prune_ratios:\n a: x\n", "prune_ratios:\n a: [0.5]\n", "prune_ratios:\n a: 0.5\n a: 0.6\n", "prune_ratios:\n [a]: 0.5\n",
                          "prune_ratios:\n a: 0.5\nprune_ratios:\n b: .5\n", "prune_ratios:\n a: 0.5\n  b: 0.5\n", "prune_ratios: {a: nan}",
                          "x: &a [1]\nprune_ratios:\n b: *a\n", "prune_ratios:\n '': 0.5\n", "prune_ratios: {a: 0.5", "\x01\x02" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(MEST_E_FORMAT, mest_ratios_read(&r, &b.heap, file(bad[i]), err));
    for (size_t level = 60; level < 9000; level += level < 70 ? 1 : 8000) { /* 64 levels, the top included */
        const size_t begin = (size_t)sprintf(many, "prune_ratios: {a: .5}\nx: ");
        memset(many + begin, '[', level);
        memset(many + begin + level, ']', level);
        many[begin + 2 * level] = 0;
        mest_error e = { 0 };
        const mest_status status = mest_ratios_read(&r, &b.heap, file(many), &e);
        MUST(level < 64 ? status == MEST_OK : status == MEST_E_FORMAT && strstr(e.msg, "line 2: nested deeper"));
        mest_ratios_free(&r);
    }
    REFUSED(MEST_E_IO, mest_ratios_read(&r, &b.heap, "/nowhere/at/all", err));
    unlink(path);
    heap_close(&b);
}
END_TEST

START_TEST(ratios_find_their_parameters)
{
    bench_heap b;
    heap_open(&b);
    static const char *const names[] = { "conv1.weight", "net.layer1.0.conv1.weight", "net.layer1.1.conv1.weight", "onnx::Conv_12", "fc.weight", "fc.bias" };
    mest_param params[6];
    memset(params, 0, sizeof params);
    for (int i = 0; i < 6; i++)
        params[i].name = names[i];
    mest_model m;
    memset(&m, 0, sizeof m);
    m.heap = b.heap;
    m.params = params;
    m.n_params = 6;
    /* one node, whose weight has lost its name */
    static const mest_op conv = { .name = "Conv", .sparse_in = 1u << 1 };
    mest_id in[2] = { MEST_NONE, 0 };
    mest_node node = { .name = "/layer2/layer2.0/downsample/downsample.0/Conv", .op = &conv, .in = in, .n_in = 2 };
    mest_value value = { .kind = MEST_VALUE_PARAM, .param = 3 };
    mest_graph g;
    memset(&g, 0, sizeof g);
    g.nodes = &node;
    g.n_nodes = 1;
    g.values = &value;
    g.n_values = 1;
    mest_ratios r;
    OK(mest_ratios_read(&r, &b.heap, file("prune_ratios:\n conv1.weight: .1\n module.layer1.0.conv1.weight: .2\n layer1.1.conv1.weight: .3\n"
                                          " layer2.0.downsample.0.weight: .4\n model.fc.weight: .5\n"), err));
    OK(mest_ratios_match(&r, &m, &g, path, err));
    const int32_t want[] = { 0, 1, 2, 3, 4 };
    for (int i = 0; i < 5; i++)
        MUST(r.ratio[i].param == want[i]);
    mest_ratios_free(&r);
    OK(mest_ratios_read(&r, &b.heap, file("prune_ratios:\n layer9.weight: .1\n fc.weight: .2\n layer2.0.conv.weight: .3\n"), err));
    mest_error e = { 0 };
    MUST(mest_ratios_match(&r, &m, &g, path, &e) == MEST_E_ARGUMENT && strstr(e.msg, "2 names") && strstr(e.msg, "layer9.weight") &&
         strstr(e.msg, "layer2.0.conv.weight") && !strstr(e.msg, "fc.weight"));
    mest_ratios_free(&r);
    OK(mest_ratios_read(&r, &b.heap, file("prune_ratios:\n fc.weight: .1\n module.fc.weight: .2\n"), err));
    REFUSED(MEST_E_ARGUMENT, mest_ratios_match(&r, &m, &g, path, err)); /* two names, one parameter */
    mest_ratios_free(&r);
    OK(mest_ratios_read(&r, &b.heap, file("prune_ratios:\n weight: .1\n"), err));
    REFUSED(MEST_E_ARGUMENT, mest_ratios_match(&r, &m, &g, path, err)); /* the end of many */
    mest_ratios_free(&r);
    char many[9000] = "prune_ratios:\n";
    for (int i = 0; i < 200; i++)
        sprintf(many + strlen(many), " not.there.%d.weight: 0.5\n", i);
    OK(mest_ratios_read(&r, &b.heap, file(many), err));
    memset(&e, 0, sizeof e);
    MUST(mest_ratios_match(&r, &m, &g, path, &e) == MEST_E_ARGUMENT && strstr(e.msg, "200 names") && strstr(e.msg, "..."));
    mest_ratios_free(&r);
    unlink(path);
    heap_close(&b);
}
END_TEST

int main(void)
{
    const int fd = mkstemp(path);
    const TTest *const tests[] = { the_first_rule_counts, erk_of_resnet32, densities_obey_their_limits, ratios_are_read_as_they_are,
                                   ratios_find_their_parameters };
    return fd < 0 || close(fd) || run_suite("layer by layer", tests, (int)(sizeof tests / sizeof *tests));
}
