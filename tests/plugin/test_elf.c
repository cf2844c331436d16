/* SPDX-License-Identifier: Apache-2.0 */
/* Shared objects that are not whole: cut at any length, of another processor, or no file at all. None may reach the dynamic loader, which
 * would end the process (SIGBUS). */
#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/elf_whole.h"
#include "tests/plugin/world.h"

static char path[64]; /* of the copy */

static unsigned char *whole(size_t *n)
{
    char name[4096];
    const char *dir = getenv("MEST_PLUGIN_DIR");
    snprintf(name, sizeof name, "%s/scheduler_honest.so", dir ? dir : ".");
    FILE *f = fopen(name, "rb");
    ck_assert_ptr_nonnull(f);
    ck_assert(fseek(f, 0, SEEK_END) == 0);
    *n = (size_t)ftell(f);
    rewind(f);
    unsigned char *image = malloc(*n);
    ck_assert_uint_eq(fread(image, 1, *n, f), *n);
    fclose(f);
    snprintf(path, sizeof path, "./elf-%d.so", (int)getpid());
    return image;
}

static void put(const unsigned char *image, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(image, 1, n, f), n);
    fclose(f);
}

static void refused(const char *says)
{
    world w;
    mest_error err = { 0 };
    world_open(&w, 1, NULL, 0, 10);
    ck_assert_int_eq(mest_schedulers_add(w.list, path, "", &err), MEST_E_PLUGIN);
    ck_assert_msg(strstr(err.msg, says) && strstr(err.msg, path), "%s", err.msg);
    ck_assert_int_eq(mest_schedulers_count(w.list), 0);
    world_close(&w);
}

START_TEST(every_cut_is_refused)
{
    size_t n;
    unsigned char *image = whole(&n);
    world w;
    world_open(&w, 1, NULL, 0, 10);
    put(image, n);
    OK(mest_elf_whole(path, err));
    OK(mest_schedulers_add(w.list, path, "", err));
    world_close(&w);
    remove(path); /* never cut what may still be mapped */
    put(image, n);
    for (size_t at = n - 1; at > 0; at -= at > 4096 ? 61 : 1) {
        mest_error err = { 0 };
        ck_assert_int_eq(truncate(path, (off_t)at), 0);
        ck_assert_msg(mest_elf_whole(path, &err) == MEST_E_PLUGIN && strstr(err.msg, path), "%zu of %zu bytes: %s", at, n, err.msg);
    }
    put(image, n / 2);
    refused("cut short");
    put(image, 0);
    refused("no ELF file");
    remove(path);
    free(image);
}
END_TEST

/* A header that promises more than there is, up to the last number. */
START_TEST(headers_are_not_believed)
{
    size_t n;
    unsigned char *image = whole(&n), *copy = malloc(n);
    struct { size_t at, size; } field[] = {
#define FIELD(f) { sizeof(void *) == 8 ? offsetof(Elf64_Ehdr, f) : offsetof(Elf32_Ehdr, f), \
                   sizeof(void *) == 8 ? sizeof((Elf64_Ehdr *)0)->f : sizeof((Elf32_Ehdr *)0)->f }
        FIELD(e_phoff), FIELD(e_shoff), FIELD(e_phnum), FIELD(e_phentsize), FIELD(e_machine), FIELD(e_type),
#undef FIELD
    };
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        memcpy(copy, image, n);
        memset(copy + field[i].at, 0xff, field[i].size);
        put(copy, n);
        refused("cannot be loaded");
    }
    for (int i = EI_CLASS; i <= EI_DATA; i++) {
        memcpy(copy, image, n);
        copy[i] ^= 3; /* 32 and 64 bit, little and big end */
        put(copy, n);
        refused("another processor");
    }
    remove(path);
    free(copy);
    free(image);
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
    size_t n;
    free(whole(&n));
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    refused("not a regular file");
    remove(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    refused("not a regular file");
    remove(path);
    put((const unsigned char *)"GROUP ( libm.so.6 )\n", 20);
    refused("no ELF file");
    remove(path);
}
END_TEST

RUN("scheduler objects", every_cut_is_refused, headers_are_not_believed, what_is_no_file_is_refused)
