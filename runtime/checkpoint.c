/* SPDX-License-Identifier: Apache-2.0 */
/* Reading side and the file's layout; the writing side is checkpoint_write.c. */
#include "runtime/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "runtime/checkpoint_layout.h"
#include "runtime/mapfile.h"

struct mest_checkpoint {
    mest_heap *heap;
    mest_mapfile map;
    const mest_checkpoint_entry *entries; /* in the map */
    uint32_t n_entries;
    size_t path_size;
    char path[]; /* path_size bytes */
};

static bool all_zero(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static uint32_t checksum(const void *bytes, size_t n) { return (uint32_t)crc32_z(crc32_z(0, NULL, 0), bytes, n); }

/* Header and trailer: is this a checkpoint, and is its end there? */
static mest_status check_frame(mest_checkpoint *f, mest_checkpoint_trailer *trailer, mest_error *err)
{
    mest_checkpoint_header header;
    MEST_CHECK(f->map.size >= sizeof header && memcmp(f->map.bytes, MEST_CHECKPOINT_MAGIC, 8) == 0, err, MEST_E_FORMAT,
               "%s: not a checkpoint", f->path);
    memcpy(&header, f->map.bytes, sizeof header);
    MEST_CHECK(header.byte_order == MEST_CHECKPOINT_BYTE_ORDER, err, MEST_E_FORMAT, "%s: header: written with another byte order", f->path);
    MEST_CHECK(header.version == MEST_CHECKPOINT_VERSION, err, MEST_E_FORMAT, "%s: header: checkpoint version %" PRIu32 ", this library reads %u",
               f->path, header.version, MEST_CHECKPOINT_VERSION);
    MEST_CHECK(all_zero(header.zero, sizeof header.zero), err, MEST_E_FORMAT, "%s: header: damaged", f->path);
    MEST_CHECK(f->map.size >= sizeof header + sizeof *trailer, err, MEST_E_FORMAT, "%s: cut short after %zu bytes", f->path, f->map.size);
    memcpy(trailer, f->map.bytes + f->map.size - sizeof *trailer, sizeof *trailer);
    MEST_CHECK(memcmp(trailer->magic, MEST_CHECKPOINT_END, 8) == 0, err, MEST_E_FORMAT, "%s: cut short or damaged: no trailer in the last %zu of %zu bytes",
               f->path, sizeof *trailer, f->map.size);
    MEST_CHECK(trailer->crc == checksum(trailer, offsetof(mest_checkpoint_trailer, crc)), err, MEST_E_FORMAT, "%s: trailer: wrong checksum",
               f->path);
    MEST_CHECK(trailer->file_bytes == f->map.size, err, MEST_E_FORMAT, "%s: %zu bytes, but the trailer speaks of %" PRIu64, f->path,
               f->map.size, trailer->file_bytes);
    uint64_t room = f->map.size - sizeof *trailer;
    MEST_CHECK(trailer->directory >= sizeof header && trailer->directory <= room && trailer->directory % MEST_CHECKPOINT_ALIGN == 0 &&
                   (room - trailer->directory) / sizeof(mest_checkpoint_entry) == trailer->n_sections &&
                   (room - trailer->directory) % sizeof(mest_checkpoint_entry) == 0,
               err, MEST_E_FORMAT, "%s: trailer: impossible directory", f->path);
    return MEST_OK;
}

static mest_status verify(mest_checkpoint *f, mest_error *err)
{
    mest_checkpoint_trailer t;
    MEST_TRY(check_frame(f, &t, err));
    f->entries = (const mest_checkpoint_entry *)(const void *)(f->map.bytes + t.directory);
    f->n_entries = t.n_sections;
    MEST_CHECK(checksum(f->entries, t.n_sections * sizeof *f->entries) == t.directory_crc, err, MEST_E_FORMAT,
               "%s: directory: wrong checksum", f->path);
    uint64_t at = sizeof(mest_checkpoint_header);
    for (uint32_t i = 0; i < f->n_entries; i++) {
        const mest_checkpoint_entry *e = &f->entries[i];
        MEST_CHECK(e->name[0] && memchr(e->name, 0, sizeof e->name), err, MEST_E_FORMAT, "%s: directory entry %" PRIu32 ": bad name",
                   f->path, i);
        uint64_t room = t.directory - at;
        MEST_CHECK(e->offset == at && e->bytes <= room, err, MEST_E_FORMAT, "%s: section '%s': out of place", f->path, e->name);
        const uint8_t *payload = f->map.bytes + at;
        uint64_t padded = mest_checkpoint_padded(e->bytes);
        MEST_CHECK(padded <= room && checksum(payload, (size_t)e->bytes) == e->crc &&
                       all_zero(payload + e->bytes, (size_t)(padded - e->bytes)),
                   err, MEST_E_FORMAT, "%s: section '%s': wrong checksum, the file is damaged", f->path, e->name);
        at += padded;
    }
    MEST_CHECK(at == t.directory, err, MEST_E_FORMAT, "%s: bytes that belong to no section", f->path);
    return MEST_OK;
}

mest_status mest_checkpoint_open(mest_checkpoint **file, mest_heap *heap, const char *path, mest_error *err)
{
    *file = NULL;
    size_t n = strlen(path) + 1;
    mest_checkpoint *f = mest_calloc(heap, 1, sizeof *f + n);
    MEST_CHECK(f, err, MEST_E_NOMEM, "%s: no memory", path);
    f->heap = heap;
    f->path_size = n;
    memcpy(f->path, path, n);
    mest_status status = mest_mapfile_open(&f->map, path, err);
    if (status == MEST_OK)
        status = verify(f, err);
    if (status == MEST_OK)
        *file = f;
    else
        mest_checkpoint_close(f);
    return status;
}

mest_status mest_checkpoint_open_latest(mest_checkpoint **file, mest_heap *heap, const char *path, mest_error *err)
{
    mest_error first = {MEST_OK, ""}, second = {MEST_OK, ""};
    mest_status status = mest_checkpoint_open(file, heap, path, &first);
    if (status != MEST_E_IO && status != MEST_E_FORMAT)
        return status == MEST_OK ? status : mest_fail(err, status, "%s", first.msg);
    size_t n = strlen(path) + sizeof MEST_CHECKPOINT_PREV;
    char *prev;
    MEST_NEW(heap, prev, n, err, "checkpoint");
    snprintf(prev, n, "%s" MEST_CHECKPOINT_PREV, path);
    mest_status status_prev = mest_checkpoint_open(file, heap, prev, &second);
    mest_free(heap, prev, n, 1);
    if (status_prev == MEST_OK) {
        mest_logf(heap, MEST_LOG_WARNING, "%s; using the checkpoint before it, %s", first.msg, (*file)->path);
        return MEST_OK;
    }
    /* A damaged predecessor is worth a word; a missing one is not. */
    if (status_prev == MEST_E_FORMAT)
        return mest_fail(err, status, "%.240s; and %.240s", first.msg, second.msg);
    return mest_fail(err, status, "%s", first.msg);
}

void mest_checkpoint_close(mest_checkpoint *f)
{
    if (!f)
        return;
    mest_mapfile_close(&f->map);
    mest_free(f->heap, f, 1, sizeof *f + f->path_size);
}

const char *mest_checkpoint_path(const mest_checkpoint *f) { return f->path; }
int mest_checkpoint_count(const mest_checkpoint *f) { return (int)f->n_entries; }

const char *mest_checkpoint_section(const mest_checkpoint *f, int index, uint64_t *bytes)
{
    if (index < 0 || (uint32_t)index >= f->n_entries)
        return NULL;
    if (bytes)
        *bytes = f->entries[index].bytes;
    return f->entries[index].name;
}

static const mest_checkpoint_entry *find(const mest_checkpoint *f, const char *name)
{
    for (uint32_t i = 0; i < f->n_entries; i++)
        if (strcmp(f->entries[i].name, name) == 0)
            return &f->entries[i];
    return NULL;
}

bool mest_section_exists(const mest_checkpoint *f, const char *name) { return find(f, name) != NULL; }

mest_status mest_section_find(mest_section *s, const mest_checkpoint *f, const char *name, mest_error *err)
{
    memset(s, 0, sizeof *s);
    const mest_checkpoint_entry *e = find(f, name);
    MEST_CHECK(e, err, MEST_E_FORMAT, "%s: no section '%s'", f->path, name);
    s->file = f;
    s->name = e->name;
    s->bytes = f->map.bytes + e->offset;
    s->size = (size_t)e->bytes;
    return MEST_OK;
}

mest_status mest_section_lend(mest_section *s, const void **bytes, size_t n, mest_error *err)
{
    MEST_CHECK(n <= s->size - s->at, err, MEST_E_FORMAT, "%s: section '%s': %zu bytes wanted at %zu, it has %zu", s->file->path, s->name, n,
               s->at, s->size);
    *bytes = s->bytes + s->at;
    s->at += n;
    return MEST_OK;
}

mest_status mest_section_read(mest_section *s, void *bytes, size_t n, mest_error *err)
{
    const void *from = NULL;
    MEST_TRY(mest_section_lend(s, &from, n, err));
    if (n)
        memcpy(bytes, from, n);
    return MEST_OK;
}

mest_status mest_section_finish(const mest_section *s, mest_error *err)
{
    MEST_CHECK(s->at == s->size, err, MEST_E_FORMAT, "%s: section '%s': %zu bytes left over", s->file->path, s->name, s->size - s->at);
    return MEST_OK;
}
