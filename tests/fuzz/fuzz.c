/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/onnx_write.h"

static void *take(void *user, size_t size, size_t align)
{
    fuzz_meter *m = user;
    if ((int64_t)size > m->cap)
        return NULL;
    if (atomic_fetch_add(&m->now, (int64_t)size) + (int64_t)size > m->cap) {
        m->now -= (int64_t)size;
        return NULL;
    }
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (!p)
        m->now -= (int64_t)size;
    return p;
}

static void give(void *user, void *p, size_t size)
{
    ((fuzz_meter *)user)->now -= (int64_t)size;
    free(p);
}

mest_allocator fuzz_allocator(fuzz_meter *m, int64_t cap)
{
    m->now = 0;
    m->cap = cap;
    return (mest_allocator){ sizeof(mest_allocator), m, take, give };
}

uint32_t fuzz_number(fuzz_input *in, int bytes)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes && in->left; i++, in->at++, in->left--)
        v |= (uint32_t)*in->at << (8 * i);
    return v;
}

const uint8_t *fuzz_bytes(fuzz_input *in, size_t n, size_t *got)
{
    const uint8_t *p = in->at;
    *got = n < in->left ? n : in->left;
    in->at += *got;
    in->left -= *got;
    return p;
}

void fuzz_text(fuzz_input *in, char *text, size_t size)
{
    const uint8_t *end = in->left ? memchr(in->at, '\n', in->left) : NULL;
    size_t n = end ? (size_t)(end - in->at) : in->left, kept = n < size ? n : size - 1;
    if (kept)
        memcpy(text, in->at, kept);
    text[kept] = 0; /* a NUL in the middle ends it earlier: that is what a program could pass */
    in->at += n + (end != NULL);
    in->left -= n + (end != NULL);
}

const char *fuzz_file(int slot, const void *bytes, size_t n)
{
    static int fd[FUZZ_SLOTS];
    static char path[FUZZ_SLOTS][32];
    if (!fd[slot]) {
        fd[slot] = memfd_create("fuzz", 0);
        FUZZ_CHECK(fd[slot] > 0);
        snprintf(path[slot], sizeof path[slot], "/proc/self/fd/%d", fd[slot]);
    }
    FUZZ_CHECK(ftruncate(fd[slot], 0) == 0 && pwrite(fd[slot], bytes, n, 0) == (ssize_t)n);
    return path[slot];
}

static char folder[64];

static void empty(const char *path)
{
    char name[512];
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (unlink(name) != 0 && errno == EISDIR) {
            empty(name);
            rmdir(name);
        }
    }
    if (dir)
        closedir(dir);
}

static void remove_folder(void)
{
    empty(folder);
    rmdir(folder);
}

const char *fuzz_folder(void)
{
    if (!*folder) {
        snprintf(folder, sizeof folder, "%s/mest-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        FUZZ_CHECK(mkdtemp(folder));
        atexit(remove_folder);
    }
    return folder;
}

const char *fuzz_path(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    return path;
}

const char *fuzz_put(const char *name, const void *bytes, size_t n)
{
    const char *path = fuzz_path(name);
    char part[256];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        FUZZ_CHECK(mkdir(part, 0777) == 0 || errno == EEXIST);
    }
    FILE *f = fopen(path, "wb");
    FUZZ_CHECK(f && (n == 0 || fwrite(bytes, 1, n, f) == n) && fclose(f) == 0);
    return path;
}

static float weight(uint64_t i) { return (float)((i * 2654435761u % 1000) - 499.5) / 900; }

const void *fuzz_network(size_t *size)
{
    static onnx_bytes model;
    if (!model.n) {
        onnx_bytes g = {0}, opset = {0};
        onnx_value(&g, 11, "x", 3, (int64_t[]){1, 6, 6});
        onnx_weight(&g, "c1.weight", 4, (int64_t[]){8, 1, 3, 3}, weight);
        onnx_weight(&g, "c2.weight", 4, (int64_t[]){8, 8, 3, 3}, weight);
        onnx_weight(&g, "c2.bias", 1, (int64_t[]){8}, weight);
        onnx_weight(&g, "fc.weight", 2, (int64_t[]){5, 288}, weight);
        onnx_weight(&g, "fc.bias", 1, (int64_t[]){5}, weight);
        onnx_node(&g, "Conv:x,c1.weight:a:pads=1/1/1/1");
        onnx_node(&g, "Relu:a:b");
        onnx_node(&g, "Conv:b,c2.weight,c2.bias:c:pads=1/1/1/1");
        onnx_node(&g, "Relu:c:d");
        onnx_node(&g, "Flatten:d:e:axis=1");
        onnx_node(&g, "Gemm:e,fc.weight,fc.bias:y:transB=1");
        onnx_value(&g, 12, "y", 1, (int64_t[]){5});
        onnx_text(&g, 2, "fuzz");
        onnx_int(&model, 1, 8);
        onnx_nest(&model, 7, &g);
        onnx_int(&opset, 2, 17);
        onnx_nest(&model, 8, &opset);
    }
    *size = model.n;
    return model.p;
}
