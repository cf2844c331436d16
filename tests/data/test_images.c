/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding, resizing, augmentation and image folders. Image files are made here with libjpeg and libpng. */
#include "tests/data/data_util.h"

#include <jpeglib.h>
#include <png.h>
#include <zlib.h>

#include "importers/image_decode.h"
#include "importers/image_ops.h"
#include "runtime/rng.h"

static mest_error err;
static mest_source source;
static mest_source_info info;
static mest_source_options options;
static uint8_t file_bytes[1 << 18];

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

/* channels interleaved; bits 8 or 16 (big-endian) */
static void write_png(const char *name, int h, int w, int color_type, int bits, int interlace, const uint8_t *pixels)
{
    FILE *f = fopen(in_temp(name), "wb");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop head = png_create_info_struct(png);
    png_init_io(png, f);
    png_set_IHDR(png, head, (png_uint_32)w, (png_uint_32)h, bits, color_type, interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (color_type == PNG_COLOR_TYPE_PALETTE) {
        png_color palette[3] = {{255, 0, 0}, {0, 255, 0}, {1, 2, 3}};
        png_set_PLTE(png, head, palette, 3);
        png_byte alpha[2] = {0, 128};
        png_set_tRNS(png, head, alpha, 2, NULL);
    }
    png_write_info(png, head);
    int passes = png_set_interlace_handling(png);
    size_t row = png_get_rowbytes(png, head);
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < h; y++)
            png_write_row(png, pixels + (size_t)y * row);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &head);
    fclose(f);
}

static void write_jpeg(const char *name, int h, int w, J_COLOR_SPACE in, J_COLOR_SPACE coded, bool progressive, const uint8_t *pixels)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr jerr;
    FILE *f = fopen(in_temp(name), "wb");
    c.err = jpeg_std_error(&jerr);
    jpeg_create_compress(&c);
    jpeg_stdio_dest(&c, f);
    c.image_width = (JDIMENSION)w;
    c.image_height = (JDIMENSION)h;
    c.input_components = in == JCS_GRAYSCALE ? 1 : in == JCS_CMYK ? 4 : 3;
    c.in_color_space = in;
    jpeg_set_defaults(&c);
    jpeg_set_colorspace(&c, coded);
    jpeg_set_quality(&c, 100, TRUE);
    if (progressive)
        jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = (JSAMPROW)(pixels + (size_t)c.next_scanline * (size_t)w * (size_t)c.input_components);
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    fclose(f);
}

static mest_status decode(mest_image *image, const char *name)
{
    size_t n = read_file(in_temp(name), file_bytes, sizeof file_bytes);
    return mest_image_decode(image, &test_heap, file_bytes, n, true, name, &err);
}

/* One pixel of a decoded file. */
static void assert_pixel(const char *name, int64_t y, int64_t x, int r, int g, int b, int tolerance)
{
    mest_image image;
    assert_ok(decode(&image, name));
    const uint8_t *p = image.rgb + (y * image.w + x) * 3;
    ck_assert_msg(abs(p[0] - r) <= tolerance && abs(p[1] - g) <= tolerance && abs(p[2] - b) <= tolerance, "%s: %d %d %d", name, p[0], p[1], p[2]);
    mest_image_free(&image);
}

START_TEST(png_kinds)
{
    const uint8_t grey[] = {0, 100, 200, 255, 50, 25}, rgb[] = {1, 2, 3, 4, 5, 6}, rgba[] = {9, 8, 7, 0, 6, 5, 4, 128}, la[] = {70, 0, 80, 255};
    const uint8_t deep[] = {0x80, 0x80, 0x01, 0x01, 0xff, 0xff}, bits[] = {0x40}, index[] = {0x18};
    write_png("g.png", 2, 3, PNG_COLOR_TYPE_GRAY, 8, 0, grey);
    assert_pixel("g.png", 0, 2, 200, 200, 200, 0);
    assert_pixel("g.png", 1, 1, 50, 50, 50, 0);
    write_png("g1.png", 1, 3, PNG_COLOR_TYPE_GRAY, 1, 0, bits);
    assert_pixel("g1.png", 0, 1, 255, 255, 255, 0);
    assert_pixel("g1.png", 0, 2, 0, 0, 0, 0);
    write_png("rgb.png", 1, 2, PNG_COLOR_TYPE_RGB, 8, 0, rgb);
    assert_pixel("rgb.png", 0, 1, 4, 5, 6, 0);
    write_png("rgba.png", 1, 2, PNG_COLOR_TYPE_RGBA, 8, 0, rgba);
    assert_pixel("rgba.png", 0, 0, 9, 8, 7, 0);
    write_png("la.png", 1, 2, PNG_COLOR_TYPE_GRAY_ALPHA, 8, 0, la);
    assert_pixel("la.png", 0, 0, 70, 70, 70, 0);
    write_png("deep.png", 1, 1, PNG_COLOR_TYPE_RGB, 16, 0, deep);
    assert_pixel("deep.png", 0, 0, 0x80, 1, 255, 0);
    write_png("pal.png", 1, 3, PNG_COLOR_TYPE_PALETTE, 2, 0, index); /* 0, 1, 2 */
    assert_pixel("pal.png", 0, 0, 255, 0, 0, 0);
    assert_pixel("pal.png", 0, 2, 1, 2, 3, 0);
    static uint8_t wave[20 * 17 * 3];
    for (int i = 0; i < 20 * 17 * 3; i++)
        wave[i] = (uint8_t)(i * 5);
    write_png("adam7.png", 20, 17, PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_ADAM7, wave);
    mest_image image;
    assert_ok(decode(&image, "adam7.png"));
    ck_assert(image.h == 20 && image.w == 17);
    ck_assert_mem_eq(image.rgb, wave, sizeof wave);
    mest_image_free(&image);
}
END_TEST

START_TEST(jpeg_kinds)
{
    static uint8_t flat[16 * 16 * 4];
    for (int i = 0; i < 16 * 16; i++)
        memcpy(flat + 3 * i, (uint8_t[]){200, 60, 20}, 3);
    write_jpeg("ycc.jpg", 16, 16, JCS_RGB, JCS_YCbCr, false, flat);
    assert_pixel("ycc.jpg", 7, 9, 200, 60, 20, 2);
    write_jpeg("prog.jpg", 16, 16, JCS_RGB, JCS_YCbCr, true, flat);
    assert_pixel("prog.jpg", 7, 9, 200, 60, 20, 2);
    write_jpeg("rgb.jpg", 16, 16, JCS_RGB, JCS_RGB, false, flat);
    assert_pixel("rgb.jpg", 7, 9, 200, 60, 20, 2);
    memset(flat, 77, sizeof flat);
    write_jpeg("grey.jpg", 16, 16, JCS_GRAYSCALE, JCS_GRAYSCALE, false, flat);
    assert_pixel("grey.jpg", 3, 3, 77, 77, 77, 1);
    for (int i = 0; i < 16 * 16; i++)
        memcpy(flat + 4 * i, (uint8_t[]){255, 128, 0, 200}, 4);
    write_jpeg("cmyk.jpg", 16, 16, JCS_CMYK, JCS_CMYK, false, flat); /* libjpeg marks it as Adobe's: inverted inks */
    assert_pixel("cmyk.jpg", 3, 3, 200, 100, 0, 2);
    write_jpeg("ycck.jpg", 16, 16, JCS_CMYK, JCS_YCCK, false, flat);
    assert_pixel("ycck.jpg", 3, 3, 200, 100, 0, 3);
}
END_TEST

/* Cut anywhere, or with a byte changed: an error or an image, never more. */
START_TEST(damaged_files)
{
    static uint8_t noise[24 * 24 * 3], whole[20000];
    mest_image image;
    for (int i = 0; i < 24 * 24 * 3; i++)
        noise[i] = (uint8_t)mest_rng(1, 2, (uint64_t)i);
    write_png("a.png", 24, 24, PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_ADAM7, noise);
    write_jpeg("a.jpg", 24, 24, JCS_RGB, JCS_YCbCr, false, noise);
    write_jpeg("b.jpg", 24, 24, JCS_RGB, JCS_YCbCr, true, noise);
    static const char *const names[] = {"a.png", "a.jpg", "b.jpg"};
    for (int k = 0; k < 3; k++) {
        size_t n = read_file(in_temp(names[k]), whole, sizeof whole);
        for (size_t cut = 0; cut < n; cut += cut < 700 ? 1 : 13) {
            memcpy(file_bytes, whole, cut);
            bool body = k > 0 && cut + 2 == n; /* only the end mark is missing: libjpeg calls that premature, too */
            mest_error_clear(&err);
            mest_status status = mest_image_decode(&image, &test_heap, file_bytes, cut, true, names[k], &err);
            ck_assert_msg(status == MEST_E_DATA || body, "%s cut at %zu", names[k], cut);
            ck_assert_ptr_nonnull(strstr(err.msg, names[k]));
            mest_image_free(&image);
        }
        for (size_t at = 0; at < n; at += at < 700 ? 1 : 7) {
            memcpy(file_bytes, whole, n);
            file_bytes[at] ^= (uint8_t)(1 + mest_rng(3, 4, at) % 255);
            mest_status status = mest_image_decode(&image, &test_heap, file_bytes, n, true, names[k], NULL);
            ck_assert(status == MEST_OK || status == MEST_E_DATA);
            mest_image_free(&image);
        }
    }
    assert_fails(mest_image_decode(&image, &test_heap, (const uint8_t *)"GIF89a..", 8, true, "x", &err), MEST_E_DATA, "neither JPEG nor PNG");
    assert_fails(mest_image_decode(&image, &test_heap, NULL, 0, true, "x", &err), MEST_E_DATA, "empty");
    /* a header that lies about its size */
    size_t n = read_file(in_temp("a.png"), whole, sizeof whole);
    whole[16 + 2] = whole[20 + 2] = 0x70;
    uint32_t crc = (uint32_t)crc32(0, whole + 12, 17);
    for (int i = 0; i < 4; i++)
        whole[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    assert_fails(mest_image_decode(&image, &test_heap, whole, n, true, "liar", &err), MEST_E_DATA, "more pixels announced");
    n = read_file(in_temp("a.jpg"), whole, sizeof whole);
    for (size_t i = 0; i + 9 < n; i++)
        if (whole[i] == 0xff && whole[i + 1] == 0xc0) {
            memset(whole + i + 5, 0xfe, 4);
            break;
        }
    assert_fails(mest_image_decode(&image, &test_heap, whole, n, true, "liar", &err), MEST_E_DATA, "larger than is read here");
}
END_TEST

/* Checksums of Pillow 13.0: resize(BILINEAR) to cover, then crop of the centre as torchvision rounds it. */
START_TEST(resize_golden)
{
    static const struct {
        int h, w, out_h, out_w;
        uint32_t crc;
    } cases[] = {{37, 53, 16, 16, 0xbbb5df42u}, {53, 37, 16, 16, 0x7c66e4e0u}, {10, 12, 25, 25, 0x9223ed7fu}, {64, 64, 32, 32, 0xb8a39ee8u},
                 {40, 30, 20, 32, 0xf9262f1au}, {33, 100, 7, 9, 0x42f1b9e2u}, {200, 3, 8, 8, 0xcb9214ffu}, {24, 24, 24, 24, 0x7ce98543u},
                 {31, 24, 24, 24, 0xfe7ae636u}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int h = cases[i].h, w = cases[i].w;
        uint8_t *from = malloc((size_t)(h * w * 3)), to[3 * 40 * 40];
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                for (int c = 0; c < 3; c++)
                    from[(y * w + x) * 3 + c] = (uint8_t)(x * 7 + y * 3 + c * 50 + x * y / 5);
        assert_ok(mest_resize_crop(&test_heap, from, h, w, to, cases[i].out_h, cases[i].out_w, &err));
        ck_assert_uint_eq(crc32(0, to, (uInt)(3 * cases[i].out_h * cases[i].out_w)), cases[i].crc);
        free(from);
    }
    uint8_t thin[3 * 70000] = {0}, to[3 * 4];
    assert_ok(mest_resize_crop(&test_heap, thin, 1, 65535, to, 2, 2, &err));
    assert_ok(mest_resize_crop(&test_heap, thin, 65535, 1, to, 2, 2, &err));
}
END_TEST

START_TEST(augmentation)
{
    enum { H = 5, W = 7, C = 2 };
    uint8_t from[C * H * W], to[C * H * W], again[C * H * W];
    for (int i = 0; i < C * H * W; i++)
        from[i] = (uint8_t)(i + 1);
    mest_augmenter a = {.c = C, .h = H, .w = W, .size = 1, .pad = 2, .flip = 0.5};
    mest_fetch how = {.struct_size = sizeof how, .seed = 3, .epoch = 4};
    int flips = 0, places[5][5] = {{0}}, same = 0;
    for (int64_t id = 0; id < 500; id++) {
        mest_augment(&a, &how, id, from, to);
        mest_augment(&a, &how, id, from, again);
        ck_assert_mem_eq(to, again, sizeof to);
        int found = 0;
        for (int dy = -2; dy <= 2; dy++)
            for (int dx = -2; dx <= 2; dx++)
                for (int flip = 0; flip < 2; flip++) {
                    bool equal = true;
                    for (int i = 0; i < C * H * W && equal; i++) {
                        int c = i / (H * W), y = i / W % H + dy, x = (flip ? W - 1 - i % W : i % W) + dx;
                        equal = to[i] == (y < 0 || y >= H || x < 0 || x >= W ? 0 : from[(c * H + y) * W + x]);
                    }
                    if (equal) {
                        found++;
                        flips += flip;
                        places[dy + 2][dx + 2]++;
                    }
                }
        ck_assert_int_eq(found, 1);
        how.epoch++;
        mest_augment(&a, &how, id, from, again);
        same += memcmp(to, again, sizeof to) == 0;
        how.epoch--;
    }
    ck_assert(flips > 200 && flips < 300 && same < 50);
    for (int i = 0; i < 25; i++)
        ck_assert_int_gt(places[i / 5][i % 5], 5);
    a.pad = 60; /* mostly padding: must stay inside the buffers */
    float big[C * H * W], big_to[C * H * W];
    memset(big, 0, sizeof big);
    a.size = sizeof(float);
    for (int64_t id = 0; id < 200; id++)
        mest_augment(&a, &how, id, big, big_to);
}
END_TEST

static void make_folder(const char *name) { ck_assert_int_eq(mkdir(in_temp(name), 0755), 0); }

static void small_png(const char *name, int h, int w, uint8_t value)
{
    uint8_t pixels[3 * 400];
    memset(pixels, value, sizeof pixels);
    write_png(name, h, w, PNG_COLOR_TYPE_RGB, 8, 0, pixels);
}

START_TEST(folders)
{
    static const char *const names[] = {"d", "d/b", "d/a", "d/a/deeper", "d/.hidden"};
    static float x[3 * 100];
    int64_t y, ids[] = {3, 0};
    float two[2][3 * 10 * 8];
    int64_t labels[2];
    char text[600];
    for (int i = 0; i < 5; i++)
        make_folder(names[i]);
    small_png("d/b/1.PNG", 10, 8, 51);
    small_png("d/a/2.png", 10, 8, 102);
    small_png("d/a/10.png", 20, 16, 153);
    small_png("d/a/deeper/x.png", 7, 9, 204);
    small_png("d/.hidden/x.png", 7, 9, 204);
    write_text("d/a/notes.txt", "not an image");
    assert_ok(open_source(&source, "images", "d", NULL, &options, &err));
    get_info();
    ck_assert(info.count == 4 && info.n_classes == 2 && info.has_targets);
    ck_assert(info.input_dim[0] == 3 && info.input_dim[1] == 20 && info.input_dim[2] == 16); /* the first image: a/10.png */
    ck_assert_str_eq(source.class_name(source.self, 1), "b");
    ck_assert_ptr_null(source.class_name(source.self, 2));
    source.sample_name(source.self, 2, text, sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "/d/a/deeper/x.png"));
    mest_source_close(&source);

    options.resize_height = 10;
    options.resize_width = 8;
    options.n_mean = options.n_std = 3;
    for (int c = 0; c < 3; c++)
        options.mean[c] = options.std[c] = 0.25 * (c + 1);
    assert_ok(open_source(&source, "images", "d", NULL, &options, &err));
    get_info();
    ck_assert(info.input_dim[1] == 10 && info.input_dim[2] == 8);
    assert_ok(source.fetch(source.self, ids, 2, &(mest_fetch){.struct_size = sizeof(mest_fetch)}, two, labels, &err));
    ck_assert(labels[0] == 1 && labels[1] == 0);
    ck_assert(two[0][80] == (51 / 255.0f - 0.5f) / 0.5f && two[1][0] == (153 / 255.0f - 0.25f) / 0.25f);
    mest_source_close(&source);

    /* damaged images: refused, or skipped and counted; a damaged body shows when it is fetched */
    mest_source_options_init(&options);
    write_text("d/b/0.jpg", "no image");
    assert_fails(open_source(&source, "images", "d", NULL, &options, &err), MEST_E_DATA, "/d/b/0.jpg: neither JPEG nor PNG");
    options.max_bad = 1;
    assert_ok(open_source(&source, "images", "d", NULL, &options, &err));
    ck_assert_ptr_null(strstr(last_log, "0.jpg")); /* the options name no logger */
    get_info();
    ck_assert_int_eq(info.count, 4);
    mest_source_close(&source);
    size_t n = read_file(in_temp("d/b/1.PNG"), file_bytes, sizeof file_bytes);
    write_file("d/b/1.PNG", file_bytes, n - 20);
    assert_fails(open_source(&source, "images", "d", NULL, &options, &err), MEST_E_DATA, "2 unreadable images, 1 are allowed");
    options.max_bad = 0;
    unlink(in_temp("d/b/0.jpg"));
    assert_ok(open_source(&source, "images", "d", NULL, &options, &err));
    y = 3;
    assert_fails(source.fetch(source.self, &y, 1, NULL, x, NULL, &err), MEST_E_DATA, "/d/b/1.PNG: damaged PNG");
    mest_source_close(&source);
    make_folder("empty");
    assert_fails(open_source(&source, "images", "empty", NULL, &options, &err), MEST_E_DATA, "no JPEG or PNG");
    assert_fails(open_source(&source, "images", "none", NULL, &options, &err), MEST_E_IO, strerror(ENOENT));
    make_folder("flat");
    small_png("flat/1.png", 4, 4, 1);
    assert_ok(open_source(&source, "images", "flat", NULL, &options, &err));
    get_info();
    ck_assert(info.count == 1 && !info.has_targets);
    mest_source_close(&source);
}
END_TEST

START_TEST(train_and_val_folders)
{
    static const char *const names[] = {"d", "d/train", "d/train/a", "d/train/b", "d/train/c", "d/test", "d/test/b", "d/test/c"};
    mest_logger logger = {.struct_size = sizeof logger, .log = keep_log};
    int64_t id = 0, y = -1;
    float x[48];
    for (int i = 0; i < 8; i++)
        make_folder(names[i]);
    small_png("d/train/a/1.png", 4, 4, 1);
    small_png("d/train/b/1.png", 4, 4, 1);
    small_png("d/train/b/2.png", 4, 4, 1);
    small_png("d/test/b/1.png", 4, 4, 1);
    options.logger = &logger;
    options.val_split = 0.5; /* has no say: the folders decide */
    assert_ok(open_source(&source, "images", "d", NULL, &options, &err));
    get_info();
    ck_assert(info.count == 3 && info.n_classes == 3);
    ck_assert_ptr_nonnull(strstr(last_log, "/d/train/c: no JPEG or PNG file"));
    mest_source_close(&source);
    options.val_part = true;
    assert_ok(open_source(&source, "images", "d", NULL, &options, &err));
    get_info();
    ck_assert(info.count == 1 && info.n_classes == 3);
    assert_ok(source.fetch(source.self, &id, 1, NULL, x, &y, &err));
    ck_assert_int_eq(y, 1); /* b: numbered as in train */
    mest_source_close(&source);
    make_folder("d/test/z");
    assert_fails(open_source(&source, "images", "d", NULL, &options, &err), MEST_E_DATA, "class folder 'z' has no counterpart");
    nftw(in_temp("d/test"), remove_one, 16, FTW_DEPTH | FTW_PHYS);
    options.val_split = 0.34; /* no folder to hold out: the split decides */
    assert_ok(open_source(&source, "images", "d", NULL, &options, &err));
    get_info();
    ck_assert(info.count == 1 && info.n_classes == 3);
    mest_source_close(&source);
}
END_TEST

START_TEST(augmented_source)
{
    static uint8_t idx[16 + 40 * 36] = {0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 6, 0, 0, 0, 6};
    static float plain[40][36], a[40][36], b[40][36];
    int64_t ids[40];
    for (int i = 0; i < 40 * 36; i++)
        idx[16 + i] = (uint8_t)(mest_rng(1, 1, (uint64_t)i) | 1);
    write_file("i", idx, sizeof idx);
    options.pad_crop = 2;
    options.flip = 0.5;
    assert_ok(open_source(&source, "idx", "i", NULL, &options, &err));
    for (int i = 0; i < 40; i++)
        ids[i] = i;
    mest_fetch how = {.struct_size = sizeof how, .seed = 7, .epoch = 2};
    assert_ok(source.fetch(source.self, ids, 40, &how, plain, NULL, &err));
    for (int i = 0; i < 36; i++)
        ck_assert(plain[1][i] == idx[16 + 36 + i] / 255.0f);
    how.augment = true;
    assert_ok(source.fetch(source.self, ids, 40, &how, a, NULL, &err));
    for (int64_t i = 39; i >= 0; i--) /* another order, other batches: the same samples */
        assert_ok(source.fetch(source.self, &i, 1, &how, b[i], NULL, &err));
    ck_assert_mem_eq(a, b, sizeof a);
    ck_assert_mem_ne(a, plain, sizeof a);
    mest_source_close(&source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("images");
    TCase *c = tcase_create("images");
    tcase_add_checked_fixture(c, setup, remove_temp);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    tcase_add_test(c, png_kinds);
    tcase_add_test(c, jpeg_kinds);
    tcase_add_test(c, damaged_files);
    tcase_add_test(c, resize_golden);
    tcase_add_test(c, augmentation);
    tcase_add_test(c, folders);
    tcase_add_test(c, train_and_val_folders);
    tcase_add_test(c, augmented_source);
    return run_suite(suite);
}
