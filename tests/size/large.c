/* SPDX-License-Identifier: Apache-2.0 */
/* Models of size: writes one, imports one and says what that took.
 *
 *   large write FILE.onnx MB [external]      VGG-11 whose first dense layer is as wide as MB (10^6 bytes) needs, filled at random; with
 *                                            `external` the weights go into FILE.onnx.data, and MB may be above 2 GiB
 *   large import FILE.onnx [SCHEME [SPARSITY [EXTRA_MIB [SECONDS]]]]
 *                                            loads and makes it sparse (block4, 0.9), cold (file dropped from the system's cache) and warm; exit
 *                                            code 1 if more than the sparse size and EXTRA_MIB (64) become resident at once, or if it takes
 *                                            SECONDS of processor time (0: any) more than reading the file does
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mest/train.h"
#include "tests/onnx_write.h"

static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* ---- writing ---- */
static uint64_t state = 88172645463325252u;

static void put_random(FILE *f, uint64_t floats)
{
    static float buffer[1 << 14];
    while (floats) {
        size_t n = floats < 1 << 14 ? (size_t)floats : 1 << 14;
        for (size_t i = 0; i < n; i++) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            buffer[i] = (float)((int32_t)(state >> 32)) * 0x1p-36f;
        }
        if (fwrite(buffer, sizeof *buffer, n, f) != n)
            die("write");
        floats -= n;
    }
}

enum { MOST = 32 };
typedef struct tensor {
    onnx_bytes head;   /* the tensor without its values */
    uint64_t floats;
} tensor;
static tensor tensors[MOST];
static int n_tensors;
static uint64_t data_bytes;

static void weight(const char *name, int rank, const int64_t *dim, bool external)
{
    tensor *t = &tensors[n_tensors++];
    t->floats = 1;
    for (int i = 0; i < rank; i++) {
        onnx_int(&t->head, 1, dim[i]);
        t->floats *= (uint64_t)dim[i];
    }
    onnx_int(&t->head, 2, 1);
    onnx_text(&t->head, 8, name);
    if (external) {
        char number[32];
        const char *entry[3][2] = {{"location", "model.data"}, {"offset", number}, {"length", number}};
        for (int i = 0; i < 3; i++) {
            onnx_bytes e = {0};
            snprintf(number, sizeof number, "%" PRIu64, i == 1 ? data_bytes : t->floats * 4);
            onnx_text(&e, 1, entry[i][0]);
            onnx_text(&e, 2, entry[i][1]);
            onnx_nest(&t->head, 13, &e);
        }
        onnx_int(&t->head, 14, 1);
    } else {
        onnx_varint(&t->head, 9 << 3 | 2);
        onnx_varint(&t->head, t->floats * 4);
    }
    data_bytes += t->floats * 4;
}

static int write_model(const char *path, double mb, bool external)
{
    static const int64_t conv[8][2] = {{64, 3}, {128, 64}, {256, 128}, {256, 256}, {512, 256}, {512, 512}, {512, 512}, {512, 512}};
    static const bool pooled[8] = {true, true, false, true, false, true, false, true};
    const int64_t image[3] = {3, 224, 224}, classes = 1000;
    onnx_bytes g = {0}, m = {0}, opset = {0};
    char text[200], in[16] = "x", name[32];
    double rest = mb * 1e6 / 4;
    onnx_text(&g, 2, "large");
    onnx_value(&g, 11, "x", 3, image);
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "features.%d.weight", i);
        weight(name, 4, (int64_t[]){conv[i][0], conv[i][1], 3, 3}, external);
        rest -= (double)tensors[n_tensors - 1].floats;
        snprintf(name, sizeof name, "features.%d.bias", i);
        weight(name, 1, conv[i], external);
        snprintf(text, sizeof text, "Conv:%s,features.%d.weight,features.%d.bias:c%d:kernel_shape=3/3,pads=1/1/1/1", in, i, i, i);
        onnx_node(&g, text);
        snprintf(text, sizeof text, "Relu:c%d:r%d", i, i);
        onnx_node(&g, text);
        snprintf(in, sizeof in, "r%d", i);
        if (pooled[i]) {
            snprintf(text, sizeof text, "MaxPool:r%d:p%d:kernel_shape=2/2,strides=2/2", i, i);
            onnx_node(&g, text);
            snprintf(in, sizeof in, "p%d", i);
        }
    }
    int64_t wide = (int64_t)(rest / (25088 + 1000)); /* [wide, 25088] and [1000, wide] */
    if (wide < 4)
        wide = 4;
    wide = wide / 4 * 4;
    snprintf(text, sizeof text, "Flatten:%s:flat", in);
    onnx_node(&g, text);
    weight("classifier.0.weight", 2, (int64_t[]){wide, 25088}, external);
    weight("classifier.0.bias", 1, (int64_t[]){wide}, external);
    weight("classifier.1.weight", 2, (int64_t[]){classes, wide}, external);
    weight("classifier.1.bias", 1, (int64_t[]){classes}, external);
    onnx_node(&g, "Gemm:flat,classifier.0.weight,classifier.0.bias:h:transB=1");
    onnx_node(&g, "Relu:h:hr");
    onnx_node(&g, "Gemm:hr,classifier.1.weight,classifier.1.bias:y:transB=1");
    onnx_value(&g, 12, "y", 1, &classes);
    uint64_t size = g.n;
    for (int i = 0; i < n_tensors; i++) {
        onnx_bytes length = {0};
        uint64_t bytes = tensors[i].head.n + (external ? 0 : tensors[i].floats * 4);
        onnx_varint(&length, bytes);
        size += 1 + length.n + bytes;
        free(length.p);
    }
    if (size > INT32_MAX) {
        fprintf(stderr, "more than 2 GiB: only with external data\n");
        return 2;
    }
    FILE *f = fopen(path, "wb"), *data = NULL;
    if (external) {
        char other[4096];
        const char *slash = strrchr(path, '/');
        snprintf(other, sizeof other, "%.*smodel.data", slash ? (int)(slash - path) + 1 : 0, path);
        data = fopen(other, "wb");
    }
    if (!f || (external && !data))
        die(path);
    onnx_int(&m, 1, 8);
    onnx_int(&opset, 2, 17);
    onnx_nest(&m, 8, &opset);
    onnx_varint(&m, 7 << 3 | 2);
    onnx_varint(&m, size);
    onnx_put(&m, g.p, g.n);
    if (fwrite(m.p, 1, m.n, f) != m.n)
        die(path);
    for (int i = 0; i < n_tensors; i++) {
        onnx_bytes head = {0};
        onnx_varint(&head, 5 << 3 | 2);
        onnx_varint(&head, tensors[i].head.n + (external ? 0 : tensors[i].floats * 4));
        onnx_put(&head, tensors[i].head.p, tensors[i].head.n);
        if (fwrite(head.p, 1, head.n, f) != head.n)
            die(path);
        put_random(external ? data : f, tensors[i].floats);
        free(head.p);
    }
    if (fclose(f) || (data && fclose(data)))
        die(path);
    printf("%.1f MB of weights, classifier.0.weight is [%" PRId64 ", 25088]\n", (double)data_bytes * 1e-6, wide);
    return 0;
}

/* ---- importing ---- */
static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t status_kib(const char *key)
{
    char line[200];
    long long v = -1;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            v = strtoll(line + strlen(key) + 1, NULL, 10);
    if (f)
        fclose(f);
    return v;
}

/* Both files of a model, as bytes that were touched once: what reading takes at least. `cold`: not from the system's cache. */
static void each_file(const char *path, bool cold, double *wall, double *cpu, int64_t *bytes)
{
    char other[4096];
    const char *slash = strrchr(path, '/');
    snprintf(other, sizeof other, "%.*smodel.data", slash ? (int)(slash - path) + 1 : 0, path);
    const char *files[2] = {path, other};
    static char buffer[1 << 20];
    *bytes = 0;
    for (int i = 0; i < 2; i++) {
        int fd = open(files[i], O_RDONLY);
        ssize_t n;
        if (fd < 0)
            continue;
        if (cold && (fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0))
            die(files[i]);
        const double w = now(CLOCK_MONOTONIC), c = now(CLOCK_PROCESS_CPUTIME_ID);
        while (wall && (n = read(fd, buffer, sizeof buffer)) > 0)
            *bytes += n;
        if (wall) {
            *wall += now(CLOCK_MONOTONIC) - w;
            *cpu += now(CLOCK_PROCESS_CPUTIME_ID) - c;
        }
        close(fd);
    }
}

typedef struct taken {
    double load_wall, load_cpu, wall, cpu;
    int64_t load_peak_kib, peak_kib, held_bytes;
} taken;

static _Atomic int64_t held;
static void *take(void *user, size_t size, size_t align)
{
    const mest_allocator *a = user;
    void *p = a->allocate(a->user, size, align);
    if (p)
        held += (int64_t)size;
    return p;
}
static void give(void *user, void *p, size_t size)
{
    const mest_allocator *a = user;
    held -= (int64_t)size;
    a->release(a->user, p, size);
}

/* In a process of its own: what is resident before does not count, and the peak is this import's. */
static int import_once(const char *path, const char *scheme, double sparsity, taken *t)
{
    int pipe_fd[2];
    if (pipe(pipe_fd))
        die("pipe");
    pid_t child = fork();
    if (child == 0) {
        mest_allocator base, counting = {sizeof counting, &base, take, give};
        mest_model_options o;
        mest_model *m;
        mest_error err = {0};
        mest_sparsity s;
        mest_allocator_default(&base);
        mest_model_options_init(&o);
        o.allocator = &counting;
        mest_sparsity_init(&s);
        s.scheme = scheme;
        s.sparsity = sparsity;
        s.dense_layers = "none";
        int fd = open("/proc/self/clear_refs", O_WRONLY);
        if (fd < 0 || write(fd, "5", 1) != 1)
            fprintf(stderr, "the peak cannot be reset: it is that of the process\n");
        close(fd);
        const int64_t before = status_kib("VmRSS");
        const double w = now(CLOCK_MONOTONIC), c = now(CLOCK_PROCESS_CPUTIME_ID);
        mest_status status = mest_model_load(&m, path, &o, &err);
        t->load_wall = now(CLOCK_MONOTONIC) - w;
        t->load_cpu = now(CLOCK_PROCESS_CPUTIME_ID) - c;
        t->load_peak_kib = status_kib("VmHWM") - before;
        if (status == MEST_OK && sparsity > 0)
            status = mest_model_sparsify(m, &s, &err);
        t->wall = now(CLOCK_MONOTONIC) - w;
        t->cpu = now(CLOCK_PROCESS_CPUTIME_ID) - c;
        t->peak_kib = status_kib("VmHWM") - before;
        t->held_bytes = held;
        if (status != MEST_OK)
            fprintf(stderr, "%s\n", err.msg);
        _exit(status != MEST_OK || write(pipe_fd[1], t, sizeof *t) != sizeof *t);
    }
    int status;
    close(pipe_fd[1]);
    bool got = read(pipe_fd[0], t, sizeof *t) == sizeof *t;
    close(pipe_fd[0]);
    return child < 0 || waitpid(child, &status, 0) != child || status || !got;
}

static int import(const char *path, const char *scheme, double sparsity, double extra_mib, double seconds)
{
    int failed = 0;
    for (int warm = 0; warm < 2; warm++) {
        double wall = 0, cpu = 0;
        int64_t bytes;
        taken t = {0};
        each_file(path, !warm, &wall, &cpu, &bytes); /* reading time, in the state of this round */
        if (!warm)
            each_file(path, true, NULL, NULL, &(int64_t){0});
        if (import_once(path, scheme, sparsity, &t))
            return 1;
        const double most = (double)t.held_bytes + extra_mib * 1048576, peak = (double)t.peak_kib * 1024;
        printf("%s: file %.1f MB, read in %.2f s (%.2f s of processor time); loaded in %.4f s, +%.1f MiB resident; %s %.4g in %.2f s (%.2f s of processor time), "
               "holds %.1f MiB, at most +%.1f MiB resident, %.1f MiB more than it holds\n",
               warm ? "warm" : "cold", (double)bytes * 1e-6, wall, cpu, t.load_wall, (double)t.load_peak_kib / 1024, scheme, sparsity, t.wall, t.cpu,
               (double)t.held_bytes / 1048576, peak / 1048576, (peak - (double)t.held_bytes) / 1048576);
        if (peak > most) {
            printf("FAIL: more than the sparse size and %.0f MiB\n", extra_mib);
            failed = 1;
        }
        if (seconds > 0 && t.cpu > cpu + seconds) {
            printf("FAIL: %.2f s of processor time, reading takes %.2f s\n", t.cpu, cpu);
            failed = 1;
        }
    }
    return failed;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && !strcmp(argv[1], "write"))
        return write_model(argv[2], atof(argv[3]), argc > 4 && !strcmp(argv[4], "external"));
    if (argc >= 3 && !strcmp(argv[1], "import"))
        return import(argv[2], argc > 3 ? argv[3] : "block4", argc > 4 ? atof(argv[4]) : .9, argc > 5 ? atof(argv[5]) : 64, argc > 6 ? atof(argv[6]) : 0);
    fprintf(stderr, "large write FILE.onnx MB [external] | large import FILE.onnx [SCHEME [SPARSITY [EXTRA_MIB [SECONDS]]]]\n");
    return 2;
}
