/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "runtime/checkpoint_layout.h"
#include "runtime/outfile.h"

struct mest_checkpoint_writer {
    mest_heap *heap;
    mest_outfile *out;
    mest_checkpoint_entry *entries;
    size_t n_entries, cap_entries;
    bool open; /* the last entry is being written */
    size_t path_size;
    char path[]; /* path_size bytes */
};

mest_status mest_checkpoint_create(mest_checkpoint_writer **writer, mest_heap *heap, const char *path, mest_error *err)
{
    *writer = NULL;
    size_t n = strlen(path) + 1;
    mest_checkpoint_writer *w = mest_calloc(heap, 1, sizeof *w + n);
    MEST_CHECK(w, err, MEST_E_NOMEM, "%s: no memory", path);
    w->heap = heap;
    w->path_size = n;
    memcpy(w->path, path, n);
    mest_checkpoint_header header = {.version = MEST_CHECKPOINT_VERSION, .byte_order = MEST_CHECKPOINT_BYTE_ORDER};
    memcpy(header.magic, MEST_CHECKPOINT_MAGIC, sizeof header.magic);
    mest_status status = mest_outfile_open(&w->out, heap, path, err);
    if (status == MEST_OK)
        status = mest_outfile_write(w->out, &header, sizeof header, err);
    if (status == MEST_OK)
        *writer = w;
    else
        mest_checkpoint_abort(w);
    return status;
}

static mest_status grow(mest_checkpoint_writer *w, mest_error *err)
{
    if (w->n_entries < w->cap_entries)
        return MEST_OK;
    size_t cap = w->cap_entries ? w->cap_entries * 2 : 32;
    mest_checkpoint_entry *more;
    MEST_NEW(w->heap, more, cap, err, "checkpoint directory");
    if (w->n_entries)
        memcpy(more, w->entries, w->n_entries * sizeof *more);
    mest_free(w->heap, w->entries, w->cap_entries, sizeof *more);
    w->entries = more;
    w->cap_entries = cap;
    return MEST_OK;
}

mest_status mest_checkpoint_begin(mest_checkpoint_writer *w, const char *name, mest_error *err)
{
    MEST_CHECK(!w->open, err, MEST_E_STATE, "%s: section '%s' begun inside '%s'", w->path, name, w->entries[w->n_entries - 1].name);
    MEST_CHECK(*name && strlen(name) <= MEST_SECTION_NAME_MAX, err, MEST_E_ARGUMENT, "%s: section name '%s' has not 1 to %d bytes", w->path,
               name, MEST_SECTION_NAME_MAX);
    for (size_t i = 0; i < w->n_entries; i++)
        MEST_CHECK(strcmp(w->entries[i].name, name) != 0, err, MEST_E_STATE, "%s: section '%s' written twice", w->path, name);
    MEST_CHECK(w->n_entries < INT32_MAX, err, MEST_E_LIMIT, "%s: too many sections", w->path);
    MEST_TRY(grow(w, err));
    mest_checkpoint_entry *e = &w->entries[w->n_entries++];
    memset(e, 0, sizeof *e);
    memcpy(e->name, name, strlen(name));
    e->offset = mest_outfile_size(w->out);
    e->crc = (uint32_t)crc32_z(0, NULL, 0);
    w->open = true;
    return MEST_OK;
}

mest_status mest_checkpoint_append(mest_checkpoint_writer *w, const void *bytes, size_t n, mest_error *err)
{
    MEST_CHECK(w->open, err, MEST_E_STATE, "%s: bytes outside a section", w->path);
    if (!n)
        return MEST_OK;
    mest_checkpoint_entry *e = &w->entries[w->n_entries - 1];
    e->crc = (uint32_t)crc32_z(e->crc, bytes, n);
    e->bytes += n;
    return mest_outfile_write(w->out, bytes, n, err);
}

mest_status mest_checkpoint_end(mest_checkpoint_writer *w, mest_error *err)
{
    static const uint8_t zeros[MEST_CHECKPOINT_ALIGN];
    MEST_CHECK(w->open, err, MEST_E_STATE, "%s: end without a section", w->path);
    w->open = false;
    uint64_t bytes = w->entries[w->n_entries - 1].bytes;
    return mest_outfile_write(w->out, zeros, (size_t)(mest_checkpoint_padded(bytes) - bytes), err);
}

mest_status mest_checkpoint_put(mest_checkpoint_writer *w, const char *name, const void *bytes, size_t n, mest_error *err)
{
    MEST_TRY(mest_checkpoint_begin(w, name, err));
    MEST_TRY(mest_checkpoint_append(w, bytes, n, err));
    return mest_checkpoint_end(w, err);
}

static mest_status write_end(mest_checkpoint_writer *w, mest_error *err)
{
    MEST_CHECK(!w->open, err, MEST_E_STATE, "%s: section '%s' was not ended", w->path, w->entries[w->n_entries - 1].name);
    size_t n = w->n_entries * sizeof *w->entries;
    mest_checkpoint_trailer t;
    memset(&t, 0, sizeof t);
    t.directory = mest_outfile_size(w->out);
    t.file_bytes = t.directory + n + sizeof t;
    t.n_sections = (uint32_t)w->n_entries;
    t.directory_crc = (uint32_t)crc32_z(crc32_z(0, NULL, 0), (const void *)w->entries, n);
    t.crc = (uint32_t)crc32_z(crc32_z(0, NULL, 0), (const void *)&t, offsetof(mest_checkpoint_trailer, crc));
    memcpy(t.magic, MEST_CHECKPOINT_END, sizeof t.magic);
    MEST_TRY(mest_outfile_write(w->out, w->entries, n, err));
    MEST_TRY(mest_outfile_write(w->out, &t, sizeof t, err));
    return mest_outfile_sync(w->out, err);
}

/* Makes PATH.prev the file that stands at PATH, if that is a whole checkpoint. A second name (hard link) is put in place by rename, so PATH
 * never disappears; where links do not exist the file itself is renamed: then PATH is missing until commit, but PATH.prev is there. */
static mest_status keep_previous(mest_checkpoint_writer *w, mest_error *err)
{
    mest_checkpoint *old;
    if (mest_checkpoint_open(&old, w->heap, w->path, NULL) != MEST_OK)
        return MEST_OK;
    mest_checkpoint_close(old);
    size_t n = w->path_size + 16;
    char *prev, *link_name;
    MEST_NEW(w->heap, prev, 2 * n, err, "checkpoint");
    link_name = prev + n;
    snprintf(prev, n, "%s" MEST_CHECKPOINT_PREV, w->path);
    snprintf(link_name, n, "%s" MEST_CHECKPOINT_PREV "~", w->path);
    mest_status status = MEST_OK;
    unlink(link_name); /* left by a process that was killed here */
    bool linked = linkat(AT_FDCWD, w->path, AT_FDCWD, link_name, AT_SYMLINK_FOLLOW) == 0;
    if (rename(linked ? link_name : w->path, prev) != 0)
        status = mest_fail(err, MEST_E_IO, "%s: cannot keep the previous checkpoint: %s", prev, strerror(errno));
    if (linked)
        unlink(link_name); /* rename does nothing when both names already are the same file */
    mest_free(w->heap, prev, 2 * n, 1);
    return status;
}

mest_status mest_checkpoint_commit(mest_checkpoint_writer *w, mest_error *err)
{
    mest_status status = write_end(w, err);
    if (status == MEST_OK)
        status = keep_previous(w, err);
    if (status == MEST_OK) {
        status = mest_outfile_commit(w->out, err);
        w->out = NULL;
    }
    mest_checkpoint_abort(w);
    return status;
}

void mest_checkpoint_abort(mest_checkpoint_writer *w)
{
    if (!w)
        return;
    mest_outfile_abort(w->out);
    mest_free(w->heap, w->entries, w->cap_entries, sizeof *w->entries);
    mest_free(w->heap, w, 1, sizeof *w + w->path_size);
}
