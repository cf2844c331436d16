/* SPDX-License-Identifier: Apache-2.0 */
/* The hostile models, each a few lines around one wrong thing. A builder fills the graph `g` (input x [N,4] and output y are there already
 * where `io` is set); what it puts into `model` comes after the graph. */
#include "tests/hostile/hostile.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/hostile/build.h"

#define INTS(...) (int64_t[]){ __VA_ARGS__ }
#define COUNT(...) (int)(sizeof INTS(__VA_ARGS__) / sizeof(int64_t))
#define HUGE ((int64_t)1 << 40)

typedef struct build {
    onnx_bytes g, model;
    const char *folder;
    int i;           /* for builders that serve several files */
} build;

/* x -> y by one operator whose second input is an int64 tensor */
static void by_numbers(build *b, const char *text, int n, const int64_t *v)
{
    numbers(&b->g, "k", n, v);
    onnx_node(&b->g, text);
}

static float half(uint64_t i) { return i % 2 ? .5f : -.5f; }
static void conv(build *b, const char *text, int64_t in, int64_t out)
{
    onnx_weight(&b->g, "w", 4, INTS(out, in, 1, 1), half);
    by_numbers(b, "Reshape:x,k:r", 4, INTS(0, 4, 1, 1));
    onnx_node(&b->g, text);
}

/* ---- the form of the file ---- */
static void deep_graphs(build *b)
{
    onnx_bytes inner = {0}, outer = {0};
    for (int i = 0; i < 4000; i++) { /* graph inside attribute inside node */
        onnx_nest(&outer, 6, &inner);
        inner = outer, outer = (onnx_bytes){0};
        onnx_nest(&outer, 5, &inner);
        inner = outer, outer = (onnx_bytes){0};
        onnx_nest(&outer, 1, &inner);
        inner = outer, outer = (onnx_bytes){0};
    }
    onnx_put(&b->g, inner.p, inner.n);
    free(inner.p);
}

static void deep_types(build *b)
{
    onnx_bytes inner = {0}, outer = {0}, v = {0};
    for (int i = 0; i < 4000; i++) {
        onnx_nest(&outer, i % 2 ? 4 : 1, &inner);
        inner = outer, outer = (onnx_bytes){0};
    }
    onnx_text(&v, 1, "deep");
    onnx_nest(&v, 2, &inner);
    onnx_nest(&b->g, 13, &v);
}

/* n times a field of no bytes */
static void repeat(onnx_bytes *where, int field, size_t n)
{
    unsigned char *all = calloc(n, 2);
    if (!all)
        exit(2);
    for (size_t i = 0; i < n; i++)
        all[2 * i] = (unsigned char)(field << 3 | 2);
    onnx_put(where, all, 2 * n);
    free(all);
}

static void many_empty(build *b) /* nodes, initializers, inputs, value_info, of no bytes each */
{
    static const int field[] = { 1, 5, 11, 13 };
    repeat(&b->g, field[b->i], 200000);
}

static void many_attributes(build *b)
{
    onnx_bytes n = {0};
    onnx_text(&n, 1, "x");
    onnx_text(&n, 2, "y");
    onnx_text(&n, 4, "Relu");
    repeat(&n, 5, 200000);
    onnx_nest(&b->g, 1, &n);
}

static void many_graphs(build *b)
{
    repeat(&b->model, 7, 30000);
}

static void many_packed(build *b) /* numbers of one byte become eight: dims of a million axes */
{
    onnx_bytes t = {0};
    char *ones = malloc(1 << 20);
    memset(ones, 1, 1 << 20);
    onnx_blob(&t, 1, ones, 1 << 20);
    free(ones);
    onnx_int(&t, 2, 1);
    onnx_text(&t, 8, "w");
    onnx_nest(&b->g, 5, &t);
}

static void long_name(build *b)
{
    char *name = malloc((8 << 20) + 1);
    memset(name, 'n', 8 << 20);
    name[8 << 20] = 0;
    node(&b->g, 1, "Relu", NULL, name, NULL, "y");
    free(name);
}

static void long_chain(build *b) /* nothing wrong with it but its length */
{
    char in[16] = "x", out[16];
    for (int i = 0; i < 15000; i++) {
        snprintf(out, sizeof out, "v%d", i);
        node(&b->g, 1, "Relu", NULL, in, NULL, i == 14999 ? "y" : out);
        strcpy(in, out);
    }
}

static void wide_sum(build *b)
{
    onnx_bytes n = {0};
    for (int i = 0; i < 100000; i++)
        onnx_text(&n, 1, "x");
    onnx_text(&n, 2, "y");
    onnx_text(&n, 4, "Sum");
    onnx_nest(&b->g, 1, &n);
}

static void nul_name(build *b)
{
    onnx_bytes n = {0};
    onnx_blob(&n, 1, "x\0z", 3);
    onnx_text(&n, 2, "y");
    onnx_text(&n, 4, "Relu");
    onnx_nest(&b->g, 1, &n);
}

/* ---- functions ---- */
static void function_bomb(build *b) /* 40 levels, each calls the next twice: 2^40 nodes */
{
    char name[16], next[16];
    node(&b->g, 1, "f0", "f", "x", NULL, "y");
    for (int i = 0; i < 40; i++) {
        onnx_bytes f = {0};
        snprintf(name, sizeof name, "f%d", i);
        snprintf(next, sizeof next, "f%d", i + 1);
        function_begin(&f, name);
        node(&f, 7, i == 39 ? "Relu" : next, i == 39 ? NULL : "f", "x", NULL, "m");
        node(&f, 7, i == 39 ? "Relu" : next, i == 39 ? NULL : "f", "m", NULL, "y");
        function_end(&b->model, &f);
    }
}

static void function_chain(build *b) /* 3,000 levels, each calls the next once */
{
    char name[16], next[16];
    node(&b->g, 1, "f0", "f", "x", NULL, "y");
    for (int i = 0; i < 3000; i++) {
        onnx_bytes f = {0};
        snprintf(name, sizeof name, "f%d", i);
        snprintf(next, sizeof next, "f%d", i + 1);
        function_begin(&f, name);
        node(&f, 7, i == 2999 ? "Relu" : next, i == 2999 ? NULL : "f", "x", NULL, "y");
        function_end(&b->model, &f);
    }
}

static void function_loop(build *b) /* 0: calls itself; 1: two call each other; 2: two of one name; 3: an output that nothing computes */
{
    onnx_bytes f = {0};
    node(&b->g, 1, "one", "f", "x", NULL, "y");
    function_begin(&f, "one");
    node(&f, 7, b->i == 2 ? "Relu" : b->i ? "two" : "one", b->i == 2 ? NULL : "f", "x", NULL, b->i == 3 ? "z" : "y");
    function_end(&b->model, &f);
    if (b->i) {
        function_begin(&f, b->i == 2 ? "one" : "two");
        node(&f, 7, b->i == 1 ? "one" : "Relu", b->i == 1 ? "f" : NULL, "x", NULL, "y");
        function_end(&b->model, &f);
    }
}

/* ---- loops ---- */
static void name_only(onnx_bytes *g, int field, const char *name)
{
    onnx_bytes v = {0};
    onnx_text(&v, 1, name);
    onnx_nest(g, field, &v);
}

/* y = Loop(steps, x), whose body hands x on; `inside`: another one in it. Freed with what it is nested in. */
static void loop_node(onnx_bytes *g, int inside, const char *state)
{
    onnx_bytes body = {0}, a = {0}, n = {0};
    if (inside)
        loop_node(&body, inside - 1, state);
    else
        node(&body, 1, "Relu", NULL, state, NULL, "y");
    name_only(&body, 11, "i");
    name_only(&body, 11, "go");
    name_only(&body, 11, state);
    name_only(&body, 12, "go");
    name_only(&body, 12, "y");
    onnx_text(&a, 1, "body");
    onnx_nest(&a, 6, &body);
    onnx_int(&a, 20, 5);
    onnx_text(&n, 1, "steps");
    onnx_text(&n, 1, "");
    onnx_text(&n, 1, "x");
    onnx_text(&n, 2, "y");
    onnx_text(&n, 4, "Loop");
    onnx_nest(&n, 5, &a);
    onnx_nest(g, 1, &n);
}

static void loops(build *b) /* 0: 2^40 steps; 1: 4,000 steps in 4,000; 2: below no steps; 3: the state has the counter's name; 4: 30 levels of one */
{
    static const int64_t steps[] = { (int64_t)1 << 40, 4000, -1, 3, 3 };
    onnx_bytes t = {0};
    onnx_int(&t, 2, 7);
    onnx_int(&t, 7, steps[b->i]);
    onnx_text(&t, 8, "steps");
    onnx_nest(&b->g, 5, &t);
    loop_node(&b->g, b->i == 1 ? 1 : b->i == 4 ? 30 : 0, b->i == 3 ? "i" : "x");
}

/* ---- names ---- */
static void names(build *b)
{
    switch (b->i) {
    case 0: /* an initializer twice */
        onnx_weight(&b->g, "twice", 1, INTS(4), half);
        onnx_weight(&b->g, "twice", 1, INTS(4), half);
        onnx_node(&b->g, "Add:x,twice:y");
        break;
    case 1: /* an input twice */
        onnx_value(&b->g, 11, "x", 1, INTS(4));
        onnx_node(&b->g, "Relu:x:y");
        break;
    case 2: /* two nodes compute the same value */
        onnx_node(&b->g, "Relu:x:y");
        onnx_node(&b->g, "Tanh:x:y");
        break;
    case 3: /* a node computes an input */
        onnx_node(&b->g, "Relu:x:x");
        onnx_node(&b->g, "Relu:x:y");
        break;
    case 4: onnx_node(&b->g, "Add:x,nowhere:y"); break;
    case 5: /* a circle of three */
        onnx_node(&b->g, "Add:x,c:a");
        onnx_node(&b->g, "Relu:a:b");
        onnx_node(&b->g, "Relu:b:c");
        onnx_node(&b->g, "Relu:c:y");
        break;
    case 6: onnx_node(&b->g, "Add:x,y:y"); break;
    case 7: onnx_node(&b->g, "NoSuchOperator:x:y"); break;
    case 8: /* nothing computes the output */
        onnx_node(&b->g, "Relu:x:z");
        break;
    case 9: /* the output twice */
        onnx_node(&b->g, "Relu:x:y");
        onnx_value(&b->g, 12, "y", 1, INTS(4));
        break;
    case 10: onnx_node(&b->g, "Relu:x:"); break;
    default: /* an initializer without a name */
        initializer(&b->g, NULL, 1, 1, INTS(4), NULL, 16);
        onnx_node(&b->g, "Relu:x:y");
    }
}

/* ---- tensors ---- */
static void tensors(build *b)
{
    static const struct { int type, rank; int64_t dim[6]; size_t raw; } t[] = {
        { 1, 2, { HUGE, HUGE }, 16 }, { 1, 1, { -4 }, 16 }, { 1, 1, { HUGE }, SIZE_MAX }, { 1, 1, { 4 }, 15 }, { 1, 1, { 4 }, 20 }, { 1, 1, { 4 }, SIZE_MAX },
        { 99, 1, { 4 }, 16 }, { 8, 1, { 4 }, 16 }, { 1, 2, { INT64_MAX, 2 }, 16 }, { 1, 3, { 0, HUGE, HUGE }, 0 }, { -1, 1, { 4 }, 16 },
        { 1, 6, { 1 << 16, 1 << 16, 1 << 16, 1 << 16, 1, 1 }, 16 }, { 1, 1, { INT64_MIN }, 16 }, { 16, 1, { 4 }, 16 },
    };
    initializer(&b->g, "bad", t[b->i].type, t[b->i].rank, t[b->i].dim, NULL, t[b->i].raw);
    onnx_node(&b->g, "Add:x,bad:y");
}

static void rank_of_tensor(build *b)
{
    int64_t dim[1000];
    for (int i = 0; i < 1000; i++)
        dim[i] = 1;
    initializer(&b->g, "bad", 1, 1000, dim, NULL, 4);
    onnx_node(&b->g, "Add:x,bad:y");
}

static void sparse_tensors(build *b)
{
    static const struct { int64_t dim[2], index[3]; int rank; int64_t n; } t[] = {
        { { 4, 4 }, { 0, 5, 16 }, 2, 3 }, { { 4, 4 }, { 0, 5, 5 }, 2, 3 }, { { 4, 4 }, { 5, 3, 9 }, 2, 3 }, { { HUGE, HUGE }, { 0, 1, 2 }, 2, 3 },
        { { 4, 4 }, { -1, 2, 3 }, 2, 3 }, { { -4, 4 }, { 0, 1, 2 }, 2, 3 }, { { 4, 4 }, { 0, 1, 2 }, 2, HUGE }, { { (int64_t)1 << 31, 1 << 16 }, { 0, 1, INT64_MAX }, 2, 3 },
    };
    onnx_bytes s = {0}, v = tensor("bad", 1, 1, &t[b->i].n, NULL, 12), k = tensor(NULL, 7, 1, INTS(3), t[b->i].index, 24);
    onnx_nest(&s, 1, &v);
    onnx_nest(&s, 2, &k);
    onnx_int(&s, 3, t[b->i].dim[0]);
    onnx_int(&s, 3, t[b->i].dim[1]);
    onnx_nest(&b->g, 15, &s);
    onnx_node(&b->g, "MatMul:x,bad:y");
}

/* ---- external data: beside the models lie data.bin (64 bytes), a folder, a pipe, links ---- */
static void externals(build *b)
{
    static const char *const entry[][7] = {
        { "location", "../data.bin" }, { "location", "/etc/passwd" }, { "location", "link-out" }, { "location", "inner/../../data.bin" },
        { "location", "data.bin", "offset", "64" }, { "location", "data.bin", "offset", "18446744073709551600", "length", "16" },
        { "location", "data.bin", "offset", "-1" }, { "location", "data.bin", "length", "99999999999999999999" }, { "location", "data.bin", "offset", "nan" },
        { "location", "data.bin", "length", "17" }, { "location", "missing.bin" }, { "location", "inner" }, { "location", "pipe" }, { "location", "link-device" },
        { "location", "" }, { "offset", "0" }, { "location", "link-loop" }, { "location", "data.bin/" }, { "location", "data.bin", "offset", "0x10" },
        { "location", "link-folder/passwd" }, { "location", "data.bin", "offset", "9223372036854775807" },
    };
    external(&b->g, "bad", 4, entry[b->i]);
    onnx_node(&b->g, "Add:x,bad:y");
}

/* ---- operators ---- */
static void operators(build *b)
{
    onnx_bytes *g = &b->g;
    switch (b->i) {
    case 0: by_numbers(b, "Expand:x,k:y", 3, INTS(HUGE, 1, 4)); break;
    case 1: by_numbers(b, "Tile:x,k:y", 2, INTS(HUGE, HUGE)); break;
    case 2: by_numbers(b, "Reshape:x,k:y", 2, INTS(-1, -1)); break;
    case 3: by_numbers(b, "Reshape:x,k:y", 2, INTS(7, 3)); break;
    case 4: by_numbers(b, "Pad:x,k:y", 4, INTS(0, HUGE, 0, HUGE)); break;
    case 5: by_numbers(b, "Pad:x,k:y", 4, INTS(0, INT64_MAX, 0, INT64_MAX)); break;
    case 6: by_numbers(b, "Gather:x,k:y:axis=1", 2, INTS(0, 4)); break;
    case 7: by_numbers(b, "Split:x,k:y:axis=1", 2, INTS(1, 1)); break;
    case 8: by_numbers(b, "Squeeze:x,k:y", 1, INTS(1)); break;
    case 9: by_numbers(b, "Unsqueeze:x,k:y", 1, INTS(77)); break;
    case 10: onnx_node(g, "Transpose:x:y:perm=0/0"); break;
    case 11: onnx_node(g, "Transpose:x:y:perm=0/9"); break;
    case 12: onnx_node(g, "Concat:x,x:y:axis=5"); break;
    case 13: onnx_node(g, "Softmax:x:y:axis=-9"); break;
    case 14: onnx_node(g, "Flatten:x:y:axis=9"); break;
    case 15:
        numbers(g, "n", 1, INTS(HUGE));
        onnx_node(g, "ConstantOfShape:n:z");
        onnx_node(g, "Add:x,z:y");
        break;
    case 16:
        initializer(g, "from", 7, 0, NULL, INTS(0), 8);
        initializer(g, "to", 7, 0, NULL, INTS(INT64_MAX), 8);
        initializer(g, "by", 7, 0, NULL, INTS(1), 8);
        onnx_node(g, "Range:from,to,by:z");
        onnx_node(g, "Cast:z:f:to=1");
        onnx_node(g, "Add:x,f:y");
        break;
    case 17:
        initializer(g, "from", 7, 0, NULL, INTS(INT64_MIN), 8);
        initializer(g, "to", 7, 0, NULL, INTS(INT64_MAX), 8);
        initializer(g, "by", 7, 0, NULL, INTS(0), 8);
        onnx_node(g, "Range:from,to,by:z");
        onnx_node(g, "Cast:z:f:to=1");
        onnx_node(g, "Add:x,f:y");
        break;
    case 18: conv(b, "Conv:r,w:c:group=0", 4, 4); break;
    case 19: conv(b, "Conv:r,w:c:strides=0/1", 4, 4); break;
    case 20: conv(b, "Conv:r,w:c:dilations=0/1", 4, 4); break;
    case 21: conv(b, "Conv:r,w:c:pads=-9/0/0/0", 4, 4); break;
    case 22: conv(b, "Conv:r,w:c:pads=4611686018427387904/0/4611686018427387904/0", 4, 4); break;
    case 23: conv(b, "Conv:r,w:c:kernel_shape=3/3", 4, 4); break;
    case 24: conv(b, "Conv:r,w:c:group=3", 4, 4); break;
    case 25: conv(b, "Conv:r,w:c", 5, 4); break;
    case 26: conv(b, "Conv:r,w:c:strides=1", 4, 4); break;
    case 27: conv(b, "MaxPool:r:c:kernel_shape=0/1", 4, 4); break;
    case 28: conv(b, "MaxPool:r:c:kernel_shape=3000000000/3000000000", 4, 4); break;
    case 29: conv(b, "AveragePool:r:c:kernel_shape=1/1,pads=5/5/5/5", 4, 4); break;
    case 30: conv(b, "ConvTranspose:r,w:c:strides=1073741824/1073741824,output_padding=1073741823/0", 4, 4); break;
    case 31: conv(b, "DepthToSpace:r:c:blocksize=0", 4, 4); break;
    case 32: conv(b, "DepthToSpace:r:c:blocksize=3037000500", 4, 4); break;
    case 33:
        onnx_weight(g, "w", 2, INTS(5, 3), half);
        onnx_node(g, "Gemm:x,w:y");
        break;
    case 34:
        onnx_weight(g, "w", 2, INTS(5, 4), half);
        onnx_weight(g, "c", 1, INTS(7), half);
        onnx_node(g, "Gemm:x,w,c:y:transB=1");
        break;
    case 35:
        onnx_weight(g, "s", 1, INTS(3), half);
        onnx_node(g, "BatchNormalization:x,s,s,s,s:y");
        break;
    case 36:
        numbers(g, "to", 1, INTS(INT64_MAX));
        numbers(g, "from", 1, INTS(INT64_MIN));
        numbers(g, "step", 1, INTS(INT64_MIN));
        numbers(g, "axis", 1, INTS(1));
        onnx_node(g, "Slice:x,from,to,axis,step:y");
        break;
    case 37:
        numbers(g, "one", 1, INTS(0));
        numbers(g, "axis", 1, INTS(5));
        onnx_node(g, "Slice:x,one,one,axis:y");
        break;
    case 38: onnx_node(g, "Cast:x:y:to=77"); break;
    case 39:
        onnx_weight(g, "sizes", 2, INTS(1, 2), half);
        onnx_node(g, "Resize:x,,sizes:y");
        break;
    case 40: {
        float scale[2] = { 1, 1e18f };
        initializer(g, "scales", 1, 1, INTS(2), scale, sizeof scale);
        onnx_node(g, "Resize:x,,scales:y");
        break;
    }
    case 41: by_numbers(b, "OneHot:x,k,x:y", 1, INTS(HUGE)); break;
    case 42: by_numbers(b, "TopK:x,k:y", 1, INTS(HUGE)); break;
    case 43: by_numbers(b, "ReduceSum:x,k:y", 3, INTS(1, 1, 1)); break;
    case 44: onnx_node(g, "LSTM:x,x,x:y:hidden_size=1000000000"); break;
    case 45: onnx_node(g, "Relu::y"); break;
    case 46: onnx_node(g, "Add:x:y"); break;
    case 47: onnx_node(g, "Relu:x,x,x:y"); break;
    default: { /* doubled thirty times: each step is small to say */
        char in[16] = "x", text[64];
        for (int i = 0; i < 30; i++) {
            snprintf(text, sizeof text, "Concat:%s,%s:%s%d:axis=1", in, in, i == 29 ? "y" : "c", i == 29 ? 0 : i);
            if (i == 29)
                snprintf(text, sizeof text, "Concat:%s,%s:y:axis=1", in, in);
            onnx_node(g, text);
            snprintf(in, sizeof in, "c%d", i);
        }
    }
    }
    if (b->i >= 18 && b->i <= 32)
        onnx_node(g, "Flatten:c:y");
}

static void fine(build *b)
{
    onnx_weight(&b->g, "fine.weight", 2, INTS(4, 4), half);
    onnx_node(&b->g, "Gemm:x,fine.weight:y");
}

typedef struct entry {
    hostile_file file;
    void (*make)(build *b);
    int i, ir, opset;
    int form;        /* 0 a model around the graph; 1 no graph; 2 a second graph; 3 something behind it; 4 half of it; 5 not a model */
} entry;

#define FORM(name, want, place, form, ir, op, why) { { name, HOSTILE_##want, place, why }, fine, 0, ir, op, form }
#define FILE_OF(name, want, place, make, i, why) { { name, HOSTILE_##want, place, why }, make, i, 8, 17, 0 }

static const entry list[] = {
#include "tests/hostile/files.def"
};

static void write_file(const char *path, const onnx_bytes *m, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || (n && fwrite(m->p, 1, n, f) != n) || fclose(f)) {
        perror(path);
        exit(2);
    }
}

static void surroundings(const char *folder)
{
    static const char *const links[][2] = { { "/etc/passwd", "link-out" }, { "/dev/zero", "link-device" }, { "link-loop", "link-loop" }, { "/etc", "link-folder" } };
    char path[4096];
    onnx_bytes data = {0};
    onnx_put(&data, (char[64]){ 0 }, 64);
    snprintf(path, sizeof path, "%s/data.bin", folder);
    write_file(path, &data, 64);
    free(data.p);
    snprintf(path, sizeof path, "%s/inner", folder);
    (void)!mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/pipe", folder);
    (void)!mkfifo(path, 0666);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, links[i][1]);
        (void)!symlink(links[i][0], path);
    }
}

int hostile_each(const char *folder, int (*each)(void *user, const hostile_file *file, const char *path), void *user)
{
    surroundings(folder);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const entry *e = &list[i];
        build b = { .folder = folder, .i = e->i };
        onnx_bytes m = {0}, second = {0};
        char path[4096];
        onnx_text(&b.g, 2, "hostile");
        onnx_value(&b.g, 11, "x", 1, INTS(4));
        onnx_value(&b.g, 12, "y", 1, INTS(4));
        e->make(&b);
        onnx_int(&m, 1, e->ir);
        if (e->form == 2) {
            onnx_put(&second, b.g.p, b.g.n);
            onnx_nest(&m, 7, &second);
        }
        if (e->form != 1)
            onnx_nest(&m, 7, &b.g);
        else
            free(b.g.p);
        if (e->opset)
            opset(&m, NULL, e->opset);
        opset(&m, "f", 1);
        onnx_put(&m, b.model.p, b.model.n);
        free(b.model.p);
        if (e->form == 3)
            onnx_put(&m, "garbage behind", 14);
        if (e->form == 5) {
            static const char *const texts[] = { "", "this is a text, not a model\n", "PK\3\4 a zip file", "\x89HDF\r\n\x1a\n", "\0\0\0\0\0\0\0\0" };
            m.n = 0;
            onnx_put(&m, texts[e->i], e->i == 4 ? 8 : strlen(texts[e->i]));
        }
        snprintf(path, sizeof path, "%s/%s.onnx", folder, e->file.name);
        write_file(path, &m, e->form == 4 ? m.n / 2 : m.n);
        free(m.p);
        const int code = each(user, &e->file, path);
        if (code)
            return code;
    }
    return 0;
}
