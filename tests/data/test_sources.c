/* SPDX-License-Identifier: Apache-2.0 */
/* idx, CIFAR-10, npy and csv sources on small files, whole and damaged; split, limit and normalisation, which all kinds share. */
#include "tests/data/data_util.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <zlib.h>

static mest_error err;
static mest_source source;
static mest_source_info info;
static mest_source_options options;

static void setup(void)
{
    make_temp();
    mest_source_options_init(&options);
    mest_error_clear(&err);
    memset(&source, 0, sizeof source);
}

static void get_info(void)
{
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    assert_ok(source.info(source.self, &info, &err));
}

static void fetch(int64_t id, void *input, void *target)
{
    mest_fetch how = {.struct_size = sizeof how};
    assert_ok(source.fetch(source.self, &id, 1, &how, input, target, &err));
}

/* An idx file: dims, then bytes 0, 1, 2, ... (mod `mod`). */
static size_t make_idx(uint8_t *out, int rank, const uint32_t *dim, int mod)
{
    size_t n = 1, at = 4;
    out[0] = out[1] = 0;
    out[2] = 8;
    out[3] = (uint8_t)rank;
    for (int i = 0; i < rank; i++) {
        n *= dim[i];
        for (int s = 24; s >= 0; s -= 8)
            out[at++] = (uint8_t)(dim[i] >> s);
    }
    for (size_t i = 0; i < n; i++)
        out[at++] = (uint8_t)(i % (size_t)mod);
    return at;
}

static void write_gzip(const char *name, const void *bytes, size_t n)
{
    gzFile gz = gzopen(in_temp(name), "wb");
    ck_assert_int_eq(gzwrite(gz, bytes, (unsigned)n), (int)n);
    gzclose(gz);
}

START_TEST(idx_files)
{
    uint8_t images[1000], labels[100];
    float x[6];
    int64_t y;
    char name[200];
    size_t ni = make_idx(images, 3, (uint32_t[]){20, 2, 3}, 256), nl = make_idx(labels, 1, (uint32_t[]){20}, 7);
    for (int gz = 0; gz < 2; gz++) {
        if (gz) {
            write_gzip("train-images-idx3-ubyte.gz", images, ni);
            write_gzip("train-labels-idx1-ubyte.gz", labels, nl);
            assert_ok(open_source(&source, "idx", ".", NULL, &options, &err));
        } else {
            write_file("i", images, ni);
            write_file("l", labels, nl);
            assert_ok(open_source(&source, "idx", "i", "l", &options, &err));
        }
        get_info();
        ck_assert_int_eq(info.count, 20);
        ck_assert_int_eq(info.input_rank, 3);
        ck_assert(info.input_dim[0] == 1 && info.input_dim[1] == 2 && info.input_dim[2] == 3);
        ck_assert(info.has_targets && info.target_type == MEST_SAMPLE_I64 && info.target_rank == 0);
        ck_assert_int_eq(info.n_classes, 7);
        fetch(9, x, &y);
        ck_assert_int_eq(y, 2);
        for (int i = 0; i < 6; i++)
            ck_assert(x[i] == (float)(54 + i) / 255.0f);
        source.sample_name(source.self, 9, name, sizeof name);
        ck_assert_ptr_nonnull(strstr(name, "image 9"));
        mest_source_close(&source);
        mest_source_close(&source); /* zeroed by then */
    }
    assert_ok(open_source(&source, "idx", "i", NULL, &options, &err));
    get_info();
    ck_assert(!info.has_targets);
    assert_fails(source.fetch(source.self, &(int64_t){0}, 1, NULL, x, &y, &err), MEST_E_ARGUMENT, "no targets");
    assert_fails(source.fetch(source.self, &(int64_t){20}, 1, NULL, x, NULL, &err), MEST_E_ARGUMENT, "sample 20 of 20");
    mest_source_close(&source);
}
END_TEST

START_TEST(idx_damaged)
{
    uint8_t images[1000], labels[100], bad[1000];
    size_t ni = make_idx(images, 3, (uint32_t[]){20, 2, 3}, 256), nl = make_idx(labels, 1, (uint32_t[]){20}, 7);
    write_file("i", images, ni);
    write_file("l", labels, nl);
    assert_fails(open_source(&source, "idx", "l", "i", &options, &err), MEST_E_DATA, "swapped");
    ck_assert_ptr_null(source.self);
    assert_fails(open_source(&source, "idx", "i", "none", &options, &err), MEST_E_IO, strerror(ENOENT));
    assert_fails(open_source(&source, "idx", ".", NULL, &options, &err), MEST_E_IO, "train-images-idx3-ubyte");
    for (size_t cut = 0; cut < ni; cut++) {
        write_file("bad", images, cut);
        assert_fails(open_source(&source, "idx", "bad", "l", &options, &err), MEST_E_DATA, "bad: ");
    }
    memcpy(bad, images, ni);
    bad[ni] = 0;
    write_file("bad", bad, ni + 1);
    assert_fails(open_source(&source, "idx", "bad", "l", &options, &err), MEST_E_DATA, "120 bytes announced, the file has 121");
    static const struct {
        int at, value;
        const char *says;
    } changes[] = {{0, 1, "not an idx"}, {2, 0x0d, "0x0d"}, {3, 0, "dimensions"}, {3, 9, "dimensions"}, {4, 0xff, "announced"}, {7, 0, "dimension 0"}, {7, 19, "announced"}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        memcpy(bad, images, ni);
        bad[changes[i].at] = (uint8_t)changes[i].value;
        write_file("bad", bad, ni);
        assert_fails(open_source(&source, "idx", "bad", "l", &options, &err), MEST_E_DATA, changes[i].says);
    }
    memset(bad + 4, 0xff, 12); /* 2^96 bytes */
    write_file("bad", bad, ni);
    assert_fails(open_source(&source, "idx", "bad", "l", &options, &err), MEST_E_DATA, "bad: header");
    write_gzip("bad.gz", bad, ni);
    assert_fails(open_source(&source, "idx", "bad.gz", "l", &options, &err), MEST_E_DATA, "bad.gz: header");
    make_idx(bad, 3, (uint32_t[]){20, 2, 3}, 256);
    bad[6] = 0xff; /* 65,300 images announced: too many for the file even when compressed as well as can be */
    bad[5] = 0xff;
    write_gzip("bad.gz", bad, ni);
    assert_fails(open_source(&source, "idx", "bad.gz", "l", &options, &err), MEST_E_DATA, "cannot hold");
    write_gzip("bad.gz", images, ni);
    size_t n = read_file(in_temp("bad.gz"), bad, sizeof bad);
    for (size_t cut = 3; cut < n; cut++) {
        write_file("cut.gz", bad, cut);
        assert_fails(open_source(&source, "idx", "cut.gz", "l", &options, &err), MEST_E_DATA, "cut.gz");
    }
    make_idx(labels, 1, (uint32_t[]){19}, 7);
    write_file("l", labels, nl - 1);
    assert_fails(open_source(&source, "idx", "i", "l", &options, &err), MEST_E_DATA, "19 labels for the 20 images");
}
END_TEST

START_TEST(cifar_files)
{
    static uint8_t records[3 * 3073];
    static float x[3072];
    int64_t y;
    char name[300];
    for (int i = 0; i < 3; i++) {
        records[i * 3073] = (uint8_t)(i + 7);
        for (int k = 0; k < 3072; k++)
            records[i * 3073 + 1 + k] = (uint8_t)(i + k / 7);
    }
    write_file("data_batch_1.bin", records, 2 * 3073);
    write_file("data_batch_2.bin", records + 2 * 3073, 3073);
    write_file("test_batch.bin", records + 3073, 3073);
    write_file("other.bin", records, 100);
    assert_ok(open_source(&source, "cifar10", ".", NULL, &options, &err));
    get_info();
    ck_assert(info.count == 3 && info.input_dim[0] == 3 && info.input_dim[1] == 32 && info.input_dim[2] == 32 && info.n_classes == 10);
    fetch(2, x, &y);
    ck_assert_int_eq(y, 9);
    for (int k = 0; k < 3072; k++)
        ck_assert(x[k] == (float)(uint8_t)(2 + k / 7) / 255.0f);
    source.sample_name(source.self, 2, name, sizeof name);
    ck_assert_ptr_nonnull(strstr(name, "data_batch_2.bin, record 0"));
    ck_assert_str_eq(source.class_name(source.self, 9), "truck");
    ck_assert_ptr_null(source.class_name(source.self, 10));
    mest_source_close(&source);
    assert_ok(open_source(&source, "cifar10-test", ".", NULL, &options, &err));
    get_info();
    ck_assert_int_eq(info.count, 1);
    mest_source_close(&source);
    assert_ok(open_source(&source, "cifar10", "data_batch_1.bin", NULL, &options, &err));
    mest_source_close(&source);
    assert_fails(open_source(&source, "cifar10", "other.bin", NULL, &options, &err), MEST_E_DATA, "whole number");
    records[3073] = 10;
    write_file("other.bin", records, 3 * 3073);
    assert_fails(open_source(&source, "cifar10", "other.bin", NULL, &options, &err), MEST_E_DATA, "record 1: label 10");
    write_file("other.bin", records, 0);
    assert_fails(open_source(&source, "cifar10", "other.bin", NULL, &options, &err), MEST_E_DATA, "0 bytes");
}
END_TEST

START_TEST(npy_files)
{
    float x[6], f4[] = {1, -2, 3.5f, 4, 5, 6}, z;
    double f8[] = {1, -2, 0.1};
    uint16_t f2[] = {0x3c00, 0xc000, 0x0001, 0x7bff};
    uint8_t u1[] = {0, 200, 255}, big[] = {0x3f, 0x80, 0, 0, 0xff, 0xfe};
    int8_t i1[] = {-1, 127, -128};
    int32_t i4[] = {3, -1, 2};
    int64_t i8[] = {4, 0, 2}, y, ids[2];
    NPY("f4", "<f4", "(3, 2)", f4);
    NPY("i8", "<i8", "(3,)", i8);
    for (int version = 1; version <= 3; version++) {
        write_npy("f4", version, "{\"shape\":(3,2),'fortran_order':False,'descr':'<f4'}\n", f4, sizeof f4);
        assert_ok(open_source(&source, "npy", "f4", "i8", &options, &err));
        get_info();
        ck_assert(info.count == 3 && info.input_rank == 1 && info.input_dim[0] == 2 && info.input_type == MEST_SAMPLE_F32);
        ck_assert(info.target_type == MEST_SAMPLE_I64 && info.target_rank == 0 && info.n_classes == 5);
        fetch(1, x, &y);
        ck_assert(x[0] == 3.5f && x[1] == 4 && y == 0);
        mest_source_close(&source);
    }
    /* every type as input and as target */
#define CONVERTS(type, array, index, as_float, as_int, in_type, target_type_) \
    NPY("a", type, "(3,)", array);                                            \
    assert_ok(open_source(&source, "npy", "a", "a", &options, &err));         \
    get_info();                                                               \
    ck_assert_int_eq(info.input_type, in_type);                               \
    ck_assert_int_eq(info.target_type, target_type_);                         \
    fetch(index, in_type == MEST_SAMPLE_F32 ? (void *)&z : (void *)&ids[0], target_type_ == MEST_SAMPLE_F32 ? (void *)&x[0] : (void *)&y); \
    ck_assert(in_type == MEST_SAMPLE_F32 ? z == (as_float) : ids[0] == (as_int));       \
    ck_assert(target_type_ == MEST_SAMPLE_F32 ? x[0] == (as_float) : y == (as_int));    \
    mest_source_close(&source)
    CONVERTS("<f8", f8, 2, 0.1f, 0, MEST_SAMPLE_F32, MEST_SAMPLE_F32);
    CONVERTS("|u1", u1, 1, 200, 200, MEST_SAMPLE_F32, MEST_SAMPLE_I64);
    CONVERTS("|i1", i1, 2, -128, -128, MEST_SAMPLE_F32, MEST_SAMPLE_I64);
    CONVERTS("|b1", u1, 2, 1, 1, MEST_SAMPLE_F32, MEST_SAMPLE_F32);
    CONVERTS("<i4", i4, 1, -1, -1, MEST_SAMPLE_I64, MEST_SAMPLE_I64);
    CONVERTS("<i8", i8, 0, 4, 4, MEST_SAMPLE_I64, MEST_SAMPLE_I64);
    CONVERTS(">u2", big, 2, 65534, 65534, MEST_SAMPLE_F32, MEST_SAMPLE_I64);
    NPY("a", "<f2", "(4, 1)", f2);
    assert_ok(open_source(&source, "npy", "a", NULL, &options, &err));
    const float halves[] = {1, -2, 0x1p-24f, 65504};
    for (int64_t i = 0; i < 4; i++) {
        fetch(i, &z, NULL);
        ck_assert(z == halves[i]);
    }
    mest_source_close(&source);
    options.scale = 2; /* asked for: applied; integers: refused */
    assert_ok(open_source(&source, "npy", "f4", NULL, &options, &err));
    fetch(0, x, NULL);
    ck_assert(x[0] == 0.5f && x[1] == -1);
    mest_source_close(&source);
    assert_fails(open_source(&source, "npy", "i8", NULL, &options, &err), MEST_E_ARGUMENT, "integers");
}
END_TEST

START_TEST(npy_damaged)
{
    float f4[] = {1, 2, 3, 4, 5, 6};
    static const struct {
        const char *dict, *says;
    } bad[] = {
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }", "Fortran order"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2), }", "needs 32 bytes, the file has 24"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1), }", "needs 12 bytes, the file has 24"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2), }", "dimension 0 is 0"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "first axis"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4), }", "larger than any file"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "not the dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }", "not the dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6), }", "not the dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,)", "not the dict"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'more': 1}", "not the dict"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,)}", "not the dict"},
        {"{'descr': '<f4', 'shape': (6,)}", "not the dict"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (6,)}", "'|O'"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (3,)}", "'<c8'"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "structured"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,6)}", "9 dimensions"},
        {"", "not the dict"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_npy("a", 1, bad[i].dict, f4, sizeof f4);
        assert_fails(open_source(&source, "npy", "a", NULL, &options, &err), MEST_E_DATA, bad[i].says);
        ck_assert_ptr_nonnull(strstr(err.msg, "/a: "));
    }
    write_npy("a", 4, "{}", f4, sizeof f4);
    assert_fails(open_source(&source, "npy", "a", NULL, &options, &err), MEST_E_DATA, "version 4.0");
    write_text("a", "no numpy here");
    assert_fails(open_source(&source, "npy", "a", NULL, &options, &err), MEST_E_DATA, "not a .npy file");
    char whole[256];
    NPY("a", "<f4", "(3, 2)", f4);
    size_t n = read_file(in_temp("a"), whole, sizeof whole);
    for (size_t cut = 0; cut < n; cut++) {
        write_file("cut", whole, cut);
        assert_fails(open_source(&source, "npy", "cut", NULL, &options, &err), MEST_E_DATA, "cut: ");
    }
    NPY("b", "<f4", "(6,)", f4);
    assert_fails(open_source(&source, "npy", "a", "b", &options, &err), MEST_E_DATA, "6 targets for the 3 samples");
    assert_fails(open_source(&source, "npy", "a", "", &options, &err), MEST_E_IO, "directory");
}
END_TEST

START_TEST(csv_files)
{
    float x[4], t;
    int64_t y;
    static const char *const same[] = {"1,2.5,0\n-3e2,4,2\n", "a,b,label\n1,2.5,0\n-3e2,4,2", "\357\273\2771,2.5,0\r\n\r\n-300.0,4,2\r\n",
                                       " 1 ,\"2.5\",0\n\n   \n\"-300\", +4.0 ,2\n"};
    for (size_t i = 0; i < 4; i++) {
        write_text("a.csv", same[i]);
        if (i == 1)
            write_gzip("a.csv", same[i], strlen(same[i]));
        assert_ok(open_source(&source, "csv", "a.csv", NULL, &options, &err));
        get_info();
        ck_assert(info.count == 2 && info.input_rank == 1 && info.input_dim[0] == 2 && info.n_classes == 3 && info.target_rank == 0);
        fetch(0, x, &y);
        ck_assert(x[0] == 1 && x[1] == 2.5f && y == 0);
        fetch(1, x, &y);
        ck_assert(x[0] == -300 && x[1] == 4 && y == 2);
        mest_source_close(&source);
    }
    assert_ok(open_source(&source, "csv", "a.csv?label=none", NULL, &options, &err));
    get_info();
    ck_assert(!info.has_targets && info.input_dim[0] == 3);
    mest_source_close(&source);
    assert_ok(open_source(&source, "csv", "a.csv?label=last,target=float", NULL, &options, &err));
    get_info();
    ck_assert(info.target_type == MEST_SAMPLE_F32 && info.target_rank == 1 && info.target_dim[0] == 1);
    fetch(1, x, &t);
    ck_assert(t == 2);
    mest_source_close(&source);
    write_text("b.csv", "5,1,2,3,4\n6,5,6,7,8\n");
    options.input_rank = 3;
    options.input_dim[0] = 1;
    options.input_dim[1] = options.input_dim[2] = 2;
    options.scale = 16;
    options.n_mean = options.n_std = 1;
    options.mean[0] = 0.25;
    options.std[0] = 0.5;
    assert_ok(open_source(&source, "csv", "b.csv?label=first&header=no", NULL, &options, &err));
    get_info();
    ck_assert(info.input_rank == 3 && info.input_dim[1] == 2 && info.n_classes == 7);
    fetch(0, x, &y);
    ck_assert(y == 5 && x[3] == (4.0f / 16.0f - 0.25f) / 0.5f);
    mest_source_close(&source);
    options.input_dim[0] = 3;
    assert_fails(open_source(&source, "csv", "b.csv", NULL, &options, &err), MEST_E_ARGUMENT, "4 columns");
}
END_TEST

START_TEST(csv_damaged)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"1,2,0\n1,2\n", "line 2: 2 fields, the lines before have 3"},
        {"1,2,0\n\n1,2,3,4\n", "line 3: 4 fields"},
        {"1,2,0\n1,x,0\n", "line 2, field 2: 'x' is not a number"},
        {"1,,0\n1,2,0\n", "line 1, field 2"},
        {"1,2,0\n1,nan,0\n", "line 2, field 2: nan is not finite"},
        {"1,2,0\n-inf,1,0\n", "line 2, field 1"},
        {"1,2,0\n1e39,1,0\n", "line 2, field 1"},
        {"1,2,0\n0x10,1,0\n", "line 2, field 1"},
        {"1,2,0\n1 2,1,0\n", "line 2, field 1"},
        {"1,2,0\n\"1,1,0\n", "line 2, field 1"},
        {"1,2,0\n1,2,-1\n", "line 2: label -1"},
        {"1,2,0\n1,2,0.5\n", "line 2: label 0.5"},
        {"1,2,0\n1,2,1e10\n", "line 2: label 10000000000"},
        {"1\n2\n", "nothing is left"},
        {"", "no data"},
        {"a,b,c\n", "no data"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("a.csv", bad[i].text);
        assert_fails(open_source(&source, "csv", "a.csv", NULL, &options, &err), MEST_E_DATA, bad[i].says);
        ck_assert_ptr_nonnull(strstr(err.msg, "a.csv"));
    }
    write_file("a.csv", "1,2,0\n1,\0,0\n", 12);
    assert_fails(open_source(&source, "csv", "a.csv", NULL, &options, &err), MEST_E_DATA, "line 2: a zero byte");
    assert_fails(open_source(&source, "csv", "a.csv?label=middle", NULL, &options, &err), MEST_E_ARGUMENT, "label=middle");
    assert_fails(open_source(&source, "csv", "none.csv", NULL, &options, &err), MEST_E_IO, strerror(ENOENT));
    char text[4000] = "";
    for (int i = 0; i < 300; i++)
        sprintf(text + strlen(text), "%d,%d,%d\n", i * 7 % 31, i, i % 3);
    write_gzip("a.gz", text, strlen(text));
    uint8_t whole[4000];
    size_t n = read_file(in_temp("a.gz"), whole, sizeof whole);
    write_file("cut.gz", whole, n / 2);
    assert_fails(open_source(&source, "csv", "cut.gz", NULL, &options, &err), MEST_E_DATA, "cut.gz");
    whole[n / 2] ^= 0x10;
    write_file("cut.gz", whole, n);
    assert_fails(open_source(&source, "csv", "cut.gz", NULL, &options, &err), MEST_E_DATA, "cut.gz");
}
END_TEST

/* Numbers are read as strtod reads them in the C locale, whatever the program's locale is. */
START_TEST(csv_numbers)
{
    static const char *const texts[] = {"0", "-0", "123456789012345", "1234567890123456", "0.1", "3.14159265358979", "3.141592653589793238462643",
                                        "1e-3", "2.5E+4", ".5", "5.", "-.25e1", "0.000000000000001", "16777217", "9007199254740993", "1e-46", "007"};
    char text[1000] = "";
    float x;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        sprintf(text + strlen(text), "%s\n", texts[i]);
    write_text("n.csv", text);
    setlocale(LC_NUMERIC, "de_DE.UTF-8"); /* where it is installed */
    assert_ok(open_source(&source, "csv", "n.csv?label=none,header=no", NULL, &options, &err));
    setlocale(LC_NUMERIC, "C");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fetch((int64_t)i, &x, NULL);
        ck_assert_msg(x == (float)strtod(texts[i], NULL), "%s", texts[i]);
    }
    mest_source_close(&source);
}
END_TEST

START_TEST(split_and_limit)
{
    char text[4000] = "";
    float x;
    int64_t n_train, n_val;
    bool seen[100] = {false};
    for (int i = 0; i < 100; i++)
        sprintf(text + strlen(text), "%d,%d\n", i, i % 10);
    write_text("a.csv", text);
    options.val_split = 0.25;
    options.split_seed = 9;
    for (int part = 0; part < 2; part++) {
        float before = -1;
        options.val_part = part == 1;
        assert_ok(open_source(&source, "csv", "a.csv", NULL, &options, &err));
        get_info();
        ck_assert_int_eq(info.count, part ? 25 : 75);
        ck_assert_int_eq(info.n_classes, 10);
        for (int64_t i = 0; i < info.count; i++) {
            fetch(i, &x, NULL);
            ck_assert(x > before && !seen[(int)x]); /* the set's order, each sample in one part */
            seen[(int)x] = true;
            before = x;
        }
        mest_source_close(&source);
    }
    options.val_part = false;
    options.limit = 10;
    assert_ok(open_source(&source, "csv", "a.csv", NULL, &options, &err));
    get_info();
    n_train = info.count;
    mest_source_close(&source);
    options.limit = 1000;
    options.val_part = true;
    assert_ok(open_source(&source, "csv", "a.csv", NULL, &options, &err));
    get_info();
    n_val = info.count;
    mest_source_close(&source);
    ck_assert(n_train == 10 && n_val == 25);
    options.val_split = 0.001;
    assert_fails(open_source(&source, "csv", "a.csv", NULL, &options, &err), MEST_E_ARGUMENT, "one part empty");
    options.val_split = 0;
    assert_fails(open_source(&source, "csv", "a.csv", NULL, &options, &err), MEST_E_ARGUMENT, "no held-out part");
    options.val_split = 1.5;
    assert_fails(open_source(&source, "csv", "a.csv", NULL, &options, &err), MEST_E_ARGUMENT, "not in 0..1");
}
END_TEST

START_TEST(normalisation)
{
    uint8_t images[64];
    float x[4], csv[2];
    double scale, mean[16], std[16], m = 0, v = 0;
    int n;
    size_t size = make_idx(images, 4, (uint32_t[]){3, 2, 1, 2}, 256);
    write_file("i", images, size); /* channel 0: 0 1 4 5 8 9, channel 1: 2 3 6 7 10 11 */
    options.n_mean = options.n_std = 2;
    options.mean[0] = 0.5;
    options.mean[1] = 0.25;
    options.std[0] = 0.125;
    options.std[1] = 0.3;
    assert_ok(open_source(&source, "idx", "i", NULL, &options, &err));
    fetch(2, x, NULL);
    ck_assert(x[1] == (9 / 255.0f - 0.5f) / 0.125f && x[2] == (10 / 255.0f - 0.25f) / 0.3f);
    mest_source_normalisation(&source, &scale, &n, mean, std);
    ck_assert(scale == 255 && n == 2 && mean[1] == 0.25 && std[0] == 0.125);
    mest_source_close(&source);
    options.n_std = 3;
    assert_fails(open_source(&source, "idx", "i", NULL, &options, &err), MEST_E_ARGUMENT, "3 deviations given, the samples have 2 channels");
    options.n_std = 1;
    options.std[0] = 0;
    assert_fails(open_source(&source, "idx", "i", NULL, &options, &err), MEST_E_ARGUMENT, "not positive");
    mest_source_options_init(&options);
    options.measure = true;
    assert_ok(open_source(&source, "idx", "i", NULL, &options, &err));
    mest_source_normalisation(&source, &scale, &n, mean, std);
    const double values[] = {2, 3, 6, 7, 10, 11};
    for (int i = 0; i < 6; i++)
        m += values[i] / 255 / 6;
    for (int i = 0; i < 6; i++)
        v += (values[i] / 255 - m) * (values[i] / 255 - m) / 6;
    ck_assert(n == 2 && fabs(mean[1] - m) < 1e-15 && fabs(std[1] - sqrt(v)) < 1e-15);
    mest_source_close(&source);
    write_text("a.csv", "1,5,0\n3,5,0\n"); /* the second column is constant */
    assert_ok(open_source(&source, "csv", "a.csv", NULL, &options, &err));
    mest_source_normalisation(&source, &scale, &n, mean, std);
    ck_assert(scale == 1 && n == 2 && mean[0] == 2 && std[0] == 1 && mean[1] == 5 && std[1] == 1);
    fetch(1, csv, NULL);
    ck_assert(csv[0] == 1 && csv[1] == 0);
    mest_source_close(&source);
    options.measure = false;
    assert_ok(open_source(&source, "csv", "a.csv", NULL, &options, &err));
    mest_source_normalisation(&source, &scale, &n, mean, std);
    ck_assert_int_eq(n, 0);
    mest_source_close(&source);
}
END_TEST

START_TEST(specs)
{
    const char *help;
    int n = 0;
    for (const char *name; (name = mest_source_kind_at(n, &help)) != NULL; n++)
        ck_assert(*name && *help);
    ck_assert_int_eq(n, 7);
    ck_assert_ptr_null(mest_source_kind_at(-1, NULL));
    assert_fails(mest_source_open(&source, "parquet:x", &options, &err), MEST_E_ARGUMENT, "unknown kind 'parquet', known are: idx, idx-test, cifar10");
    assert_fails(mest_source_open(&source, "csv:", NULL, &err), MEST_E_ARGUMENT, "missing after 'csv:'");
    assert_fails(mest_source_open(&source, "csv", NULL, &err), MEST_E_ARGUMENT, "missing after 'csv:'");
    assert_fails(mest_source_open(&source, "", NULL, &err), MEST_E_ARGUMENT, "unknown kind ''");
    options.struct_size = 0;
    assert_fails(mest_source_open(&source, "csv:x", &options, &err), MEST_E_ARGUMENT, "struct_size");
    mest_source_options_init(&options);
    options.flip = 0.5;
    write_text("a.csv", "1,5,0\n3,5,0\n");
    assert_fails(open_source(&source, "csv", "a.csv", NULL, &options, &err), MEST_E_ARGUMENT, "not images");
}
END_TEST

/* The n-th allocation fails, for all n: MEST_E_NOMEM and nothing leaked. */
static int until_failure, live;
static void *failing_allocate(void *user, size_t size, size_t align)
{
    (void)user;
    if (until_failure-- == 0)
        return NULL;
    live++;
    return aligned_alloc(align, (size + align - 1) / align * align);
}
static void failing_release(void *user, void *memory, size_t size)
{
    (void)user;
    (void)size;
    live--;
    free(memory);
}

START_TEST(out_of_memory)
{
    mest_allocator allocator = {.struct_size = sizeof allocator, .allocate = failing_allocate, .release = failing_release};
    uint8_t images[200], labels[50];
    static const uint8_t record[3073];
    float f4[] = {1, 2, 3, 4};
    write_gzip("i", images, make_idx(images, 3, (uint32_t[]){10, 2, 3}, 256));
    write_file("l", labels, make_idx(labels, 1, (uint32_t[]){10}, 10));
    write_file("c", record, sizeof record);
    NPY("n", "<f4", "(4,)", f4);
    write_text("t", "1,2,0\n3,4,1\n1,1,1\n");
    static const char *const sets[][3] = {{"idx", "i", "l"}, {"cifar10", "c", NULL}, {"npy", "n", "n"}, {"csv", "t", NULL}};
    options.allocator = &allocator;
    options.measure = true;
    for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
        mest_status status = MEST_E_NOMEM;
        options.val_split = k == 1 ? 0 : 0.3;
        for (int n = 0; status != MEST_OK; n++) {
            ck_assert_int_lt(n, 60);
            until_failure = n;
            status = open_source(&source, sets[k][0], sets[k][1], sets[k][2], &options, &err);
            ck_assert_msg(status == MEST_OK || status == MEST_E_NOMEM, "%s: %s", sets[k][0], err.msg);
            mest_source_close(&source);
            ck_assert_int_eq(live, 0);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sources");
    TCase *c = tcase_create("sources");
    tcase_add_checked_fixture(c, setup, remove_temp);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    tcase_add_test(c, idx_files);
    tcase_add_test(c, idx_damaged);
    tcase_add_test(c, cifar_files);
    tcase_add_test(c, npy_files);
    tcase_add_test(c, npy_damaged);
    tcase_add_test(c, csv_files);
    tcase_add_test(c, csv_damaged);
    tcase_add_test(c, csv_numbers);
    tcase_add_test(c, split_and_limit);
    tcase_add_test(c, normalisation);
    tcase_add_test(c, specs);
    tcase_add_test(c, out_of_memory);
    return run_suite(suite);
}
