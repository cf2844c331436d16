/* SPDX-License-Identifier: Apache-2.0 */
/* Both libraries report errors by longjmp. Everything that must survive the jump lives in a struct of the caller, and no function that
 * calls setjmp changes a local variable afterwards. */
#include "importers/image_decode.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

enum { MAX_SIDE = 65535, MAX_SCANS = 1000, MAX_INFLATE = 1032 };
static const int64_t max_pixels = (int64_t)64 << 20;

typedef struct job {
    mest_image *image;
    const uint8_t *bytes;
    size_t size, at;
    bool pixels;
    const char *path;
    mest_error *err;
    mest_status status;
    uint8_t *row; /* one row of CMYK */
    size_t row_bytes;
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
} job;

/* Takes memory for the pixels once the size is known and believed. */
static mest_status begin_image(job *j, int64_t h, int64_t w)
{
    MEST_CHECK(h > 0 && w > 0 && h <= MAX_SIDE && w <= MAX_SIDE && h * w <= max_pixels, j->err, MEST_E_DATA,
               "%s: an image of %" PRId64 "x%" PRId64 " pixels is larger than is read here", j->path, w, h);
    j->image->h = h;
    j->image->w = w;
    if (j->pixels)
        MEST_NEW(j->image->heap, j->image->rgb, h * w * 3, j->err, j->path);
    return MEST_OK;
}

/* ---- JPEG ---- */

typedef struct jpeg_job {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    job *j;
} jpeg_job;

static void jpeg_failed(j_common_ptr cinfo)
{
    jpeg_job *s = cinfo->client_data;
    cinfo->err->format_message(cinfo, s->j->message);
    longjmp(s->j->jump, 1);
}

/* Level -1 is a warning. Data that ends early or cannot be decoded is filled with grey by libjpeg: for training data that is an error;
 * harmless oddities (stray bytes between markers) are not. */
static void jpeg_message(j_common_ptr cinfo, int level)
{
    int code = cinfo->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE))
        jpeg_failed(cinfo);
}

/* A small progressive file can ask for thousands of passes over a large image. */
static void jpeg_progress(j_common_ptr cinfo)
{
    jpeg_job *s = cinfo->client_data;
    if (s->cinfo.input_scan_number > MAX_SCANS) {
        snprintf(s->j->message, sizeof s->j->message, "more than %d scans", MAX_SCANS);
        longjmp(s->j->jump, 1);
    }
}

static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, int64_t w, bool inverted)
{
    for (int64_t x = 0; x < w; x++, cmyk += 4, rgb += 3)
        for (int c = 0; c < 3; c++) {
            int ink = inverted ? cmyk[c] : 255 - cmyk[c], key = inverted ? cmyk[3] : 255 - cmyk[3];
            rgb[c] = (uint8_t)((ink * key + 127) / 255);
        }
}

static void jpeg_rows(jpeg_job *s)
{
    struct jpeg_decompress_struct *c = &s->cinfo;
    job *j = s->j;
    bool cmyk = c->jpeg_color_space == JCS_CMYK || c->jpeg_color_space == JCS_YCCK;
    c->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    if (cmyk) {
        j->row_bytes = (size_t)c->image_width * 4;
        j->row = mest_alloc(j->image->heap, j->row_bytes, 1);
        if (!j->row) {
            j->status = mest_fail(j->err, MEST_E_NOMEM, "%s: no memory", j->path);
            return;
        }
    }
    jpeg_start_decompress(c);
    while (c->output_scanline < c->output_height) {
        uint8_t *rgb = j->image->rgb + (size_t)c->output_scanline * c->output_width * 3;
        JSAMPROW row = cmyk ? j->row : rgb;
        if (jpeg_read_scanlines(c, &row, 1) == 1 && cmyk)
            cmyk_to_rgb(j->row, rgb, c->output_width, c->saw_Adobe_marker);
    }
    jpeg_finish_decompress(c);
}

static void jpeg_body(jpeg_job *s)
{
    job *j = s->j;
    if (setjmp(j->jump)) {
        j->status = mest_fail(j->err, MEST_E_DATA, "%s: damaged JPEG: %s", j->path, j->message);
        return;
    }
    jpeg_create_decompress(&s->cinfo);
    s->cinfo.client_data = s;
    s->cinfo.progress = &s->progress;
    s->progress.progress_monitor = jpeg_progress;
    jpeg_mem_src(&s->cinfo, j->bytes, j->size);
    jpeg_read_header(&s->cinfo, TRUE);
    j->status = begin_image(j, s->cinfo.image_height, s->cinfo.image_width);
    if (j->status == MEST_OK && j->pixels)
        jpeg_rows(s);
}

static void decode_jpeg(job *j)
{
    jpeg_job s;
    memset(&s, 0, sizeof s);
    s.j = j;
    s.cinfo.err = jpeg_std_error(&s.errors);
    s.cinfo.client_data = &s; /* an error inside jpeg_create_decompress needs it already */
    s.errors.error_exit = jpeg_failed;
    s.errors.emit_message = jpeg_message;
    jpeg_body(&s);
    jpeg_destroy_decompress(&s.cinfo);
}

/* ---- PNG ---- */

static void png_failed(png_structp png, png_const_charp text)
{
    job *j = png_get_error_ptr(png);
    snprintf(j->message, sizeof j->message, "%s", text);
    longjmp(j->jump, 1);
}

static void png_warned(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void png_bytes(png_structp png, png_bytep out, png_size_t n)
{
    job *j = png_get_io_ptr(png);
    if (n > j->size - j->at)
        png_error(png, "the file ends early");
    memcpy(out, j->bytes + j->at, n);
    j->at += n;
}

static void png_rows(job *j, png_structp png, png_infop info)
{
    int64_t h = png_get_image_height(png, info), w = png_get_image_width(png, info);
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != (size_t)w * 3)
        png_error(png, "unexpected pixel format");
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < h; y++)
            png_read_row(png, j->image->rgb + y * w * 3, NULL);
    png_read_end(png, NULL);
}

static void png_body(job *j, png_structp png, png_infop info)
{
    if (setjmp(j->jump)) {
        j->status = mest_fail(j->err, MEST_E_DATA, "%s: damaged PNG: %s", j->path, j->message);
        return;
    }
    png_set_read_fn(png, j, png_bytes);
    png_set_user_limits(png, MAX_SIDE, MAX_SIDE);
    png_read_info(png, info);
    if (png_get_image_height(png, info) * (uint64_t)png_get_rowbytes(png, info) / MAX_INFLATE > j->size)
        png_error(png, "more pixels announced than a file of this size can hold");
    j->status = begin_image(j, png_get_image_height(png, info), png_get_image_width(png, info));
    if (j->status == MEST_OK && j->pixels)
        png_rows(j, png, info);
}

static void decode_png(job *j)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, j, png_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (info)
        png_body(j, png, info);
    else
        j->status = mest_fail(j->err, MEST_E_NOMEM, "%s: no memory", j->path);
    if (png)
        png_destroy_read_struct(&png, &info, NULL);
}

mest_status mest_image_decode(mest_image *image, mest_heap *heap, const uint8_t *bytes, size_t size, bool pixels, const char *path,
                              mest_error *err)
{
    static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    job j = {.image = image, .bytes = bytes, .size = size, .pixels = pixels, .path = path, .err = err, .status = MEST_OK};
    *image = (mest_image){.heap = heap};
    if (size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff)
        decode_jpeg(&j);
    else if (size >= 8 && memcmp(bytes, png_magic, 8) == 0)
        decode_png(&j);
    else
        j.status = mest_fail(err, MEST_E_DATA, "%s: %s", path, size ? "neither JPEG nor PNG" : "the file is empty");
    mest_free(heap, j.row, j.row_bytes, 1);
    if (j.status != MEST_OK)
        mest_image_free(image);
    return j.status;
}

void mest_image_free(mest_image *image)
{
    mest_free(image->heap, image->rgb, (size_t)(image->h * image->w * 3), 1);
    image->rgb = NULL;
}
