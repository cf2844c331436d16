/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: bytes as a model file. Loads, infers with a small batch, reads its parameters. Without libFuzzer (no
 * MEST_LIBFUZZER) main replays the files named on the command line. Memory is capped: what the importer may use is bounded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/infer.h"
#include "runtime/model.h"

enum { CAP = 80 << 20 };

static void *capped_allocate(void *user, size_t size, size_t align)
{
    size_t *now = user;
    if (size > CAP - *now)
        return NULL;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p)
        *now += size;
    return p;
}

static void capped_release(void *user, void *p, size_t size)
{
    *(size_t *)user -= size;
    free(p);
}

static mest_status infer(mest_model *m, mest_error *err)
{
    mest_graph g;
    mest_status status = mest_graph_copy(&g, &m->graph, err);
    if (status != MEST_OK)
        return status;
    for (int i = 0; i < g.n_inputs; i++)
        for (int k = 0; k < g.values[g.inputs[i]].type.shape.rank; k++)
            if (g.values[g.inputs[i]].type.shape.dim[k] < 0)
                g.values[g.inputs[i]].type.shape.dim[k] = 2;
    status = mest_infer_graph(&g, true, (size_t)1 << 20, err);
    mest_graph_free(&g);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    size_t now = 0;
    mest_allocator allocator = { sizeof allocator, &now, capped_allocate, capped_release };
    mest_model_options options;
    mest_model_options_init(&options);
    options.allocator = &allocator;
    mest_model *m;
    mest_error err;
    mest_status status = mest_model_load(&m, path, &options, &err);
    if ((status == MEST_OK) != (m != NULL) || (status != MEST_OK && (err.code != status || !err.msg[0])))
        abort(); /* a failure without a text, or half a model */
    if (m) {
        err = (mest_error){ 0 };
        status = infer(m, &err);
        if (status != MEST_OK && !err.msg[0])
            abort();
        for (int i = 0; i < m->n_params; i++) {
            float x[4];
            int64_t n = m->params[i].count < 4 ? m->params[i].count : 4;
            if (mest_param_read(&m->params[i], m->params[i].count - n, n, x, &err) != MEST_OK)
                abort();
        }
    }
    mest_model_destroy(m);
    if (now)
        abort(); /* a leak */
    close(fd);
    return 0;
}

#ifndef MEST_LIBFUZZER
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) {
            perror(argv[i]);
            return 1;
        }
        size_t cap = 1 << 20, n = 0, got;
        uint8_t *data = malloc(cap);
        while (data && (got = fread(data + n, 1, cap - n, f)) > 0) {
            n += got;
            if (n == cap)
                data = realloc(data, cap *= 2);
        }
        fclose(f);
        if (!data)
            return 1;
        LLVMFuzzerTestOneInput(data, n);
        free(data);
    }
    printf("%d files replayed\n", argc - 1);
    return 0;
}
#endif
