/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/replay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { HEADER = 4096, RECORD_HEAD = 16, TEST = 1 };
static const char magic[8] = {'M', 'E', 'S', 'T', 'R', 'E', 'P', 'L'};

typedef struct header {
    char magic[8];
    uint32_t version, crc;
    uint64_t record_bytes, slots, input_bytes, target_bytes, shape_key;
} header;

typedef struct record_head {
    uint32_t crc, zero;
    uint64_t sequence;
} record_head;

struct replay {
    replay_options o;
    int fd;
    size_t record;              /* bytes */
    int64_t slots, damaged;
    uint64_t ever;              /* largest sequence number */
    pthread_mutex_t lock;       /* of what follows; not held while the disk is written */
    pthread_mutex_t writing;
    unsigned char *buffer;      /* one record, of the writer */
    int64_t *list[2], count[2]; /* slots in use by part, in no order */
    int64_t *place;             /* [slots]: where a slot stands in its list, -1: empty */
    unsigned char *part;        /* [slots] */
};

uint64_t replay_mix(uint64_t seed, uint64_t counter)
{
    uint64_t z = seed * 0xD1342543DE82EF95u + (counter + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint32_t crc32_of(const void *data, size_t size) { return (uint32_t)crc32_z(crc32_z(0, NULL, 0), data, size); }

/* ---- which slots are in use; the lock is held ---- */
static int part_of(const replay *r, uint64_t sequence)
{
    double u = (double)(replay_mix(0x7465737473, sequence) >> 11) * 0x1p-53;
    return u < r->o.hold_out ? TEST : 0;
}

static void forget(replay *r, int64_t slot)
{
    if (r->place[slot] < 0)
        return;
    int p = r->part[slot];
    int64_t last = r->list[p][--r->count[p]];
    r->list[p][r->place[slot]] = last;
    r->place[last] = r->place[slot];
    r->place[slot] = -1;
}

static void enter(replay *r, int64_t slot, uint64_t sequence)
{
    forget(r, slot);
    int p = part_of(r, sequence);
    r->part[slot] = (unsigned char)p;
    r->place[slot] = r->count[p];
    r->list[p][r->count[p]++] = slot;
}

/* Where sample `sequence` goes, -1: nowhere. */
static int64_t slot_for(const replay *r, uint64_t sequence)
{
    uint64_t slots = (uint64_t)r->slots;
    if (!r->o.sample || sequence <= slots)
        return (int64_t)((sequence - 1) % slots);
    uint64_t draw = replay_mix(r->o.seed, sequence) % sequence; /* algorithm R, Vitter 1985 */
    return draw < slots ? (int64_t)draw : -1;
}

/* ---- the file ---- */
static bool read_all(int fd, void *to, size_t size, off_t at)
{
    for (char *p = to; size;) {
        ssize_t n = pread(fd, p, size, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n, at += n, size -= (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const void *from, size_t size, off_t at)
{
    for (const char *p = from; size;) {
        ssize_t n = pwrite(fd, p, size, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n, at += n, size -= (size_t)n;
    }
    return true;
}

static off_t place_of(const replay *r, int64_t slot) { return (off_t)HEADER + (off_t)slot * (off_t)r->record; }

static uint32_t header_crc(const header *h) { return crc32_of(&h->record_bytes, sizeof *h - offsetof(header, record_bytes)); }

static bool sound(const replay *r, const unsigned char *record, uint64_t *sequence)
{
    record_head h;
    memcpy(&h, record, sizeof h);
    *sequence = h.sequence;
    return h.zero == 0 && h.crc == crc32_of(record + 4, r->record - 4);
}

/* The file was made and then the power failed before its header was on disk: nothing was ever promised of it. */
static bool is_blank(const replay *r, off_t size)
{
    unsigned char page[HEADER];
    if (size > HEADER || !read_all(r->fd, page, (size_t)size, 0))
        return false;
    for (off_t i = 0; i < size; i++)
        if (page[i])
            return false;
    return true;
}

static bool make(replay *r, const char *path, fault *f)
{
    int64_t slots = (r->o.max_bytes - HEADER) / (int64_t)r->record;
    if (slots < 8)
        return refuse(f, 500, "%s: replay_bytes %" PRId64 " have no room for eight samples of %zu bytes", path, r->o.max_bytes, r->record);
    header h = {.version = 1, .record_bytes = r->record, .slots = (uint64_t)slots, .input_bytes = r->o.input_bytes, .target_bytes = r->o.target_bytes,
                .shape_key = r->o.shape_key};
    memcpy(h.magic, magic, sizeof magic);
    h.crc = header_crc(&h);
    unsigned char page[HEADER] = {0};
    memcpy(page, &h, sizeof h);
    r->slots = slots;
    if (write_all(r->fd, page, sizeof page, 0) && fsync(r->fd) == 0)
        return true;
    refuse(f, 500, "%s: %s", path, strerror(errno));
    if (ftruncate(r->fd, 0) != 0) {
        /* half a header stays; the next start says that it is no store */
    }
    return false;
}

static bool check(replay *r, const char *path, off_t size, fault *f)
{
    header h;
    if (size < HEADER || !read_all(r->fd, &h, sizeof h, 0) || memcmp(h.magic, magic, sizeof magic) != 0)
        return refuse(f, 500, "%s is no store of samples; it is left as it is", path);
    if (h.version != 1 || h.crc != header_crc(&h))
        return refuse(f, 500, "%s: the header is damaged, or of a newer version (%u)", path, h.version);
    if (h.record_bytes != r->record || h.input_bytes != r->o.input_bytes || h.target_bytes != r->o.target_bytes || h.shape_key != r->o.shape_key)
        return refuse(f, 500, "%s holds samples of another model", path);
    if (h.slots < 8 || h.slots > (uint64_t)(r->o.max_bytes - HEADER) / r->record)
        return refuse(f, 500, "%s was made for %" PRIu64 " samples of %zu bytes, replay_bytes is %" PRId64 ": raise it, or move the file away", path, h.slots, r->record,
                      r->o.max_bytes);
    if (size > (off_t)HEADER + (off_t)(h.slots * r->record))
        return refuse(f, 500, "%s is larger than its header says", path);
    r->slots = (int64_t)h.slots;
    return true;
}

static bool make_lists(replay *r, fault *f)
{
    size_t n = (size_t)r->slots;
    for (int p = 0; p < 2; p++)
        r->list[p] = malloc(n * sizeof *r->list[p]);
    r->place = malloc(n * sizeof *r->place);
    r->part = calloc(n, 1);
    if (!r->list[0] || !r->list[1] || !r->place || !r->part)
        return refuse(f, 503, "out of memory");
    for (size_t i = 0; i < n; i++)
        r->place[i] = -1;
    return true;
}

/* Every record is read and its checksum compared: what is drawn later was whole at least once. */
static bool survey(replay *r, const char *path, off_t size, fault *f)
{
    int64_t used = (int64_t)((size - HEADER) / (off_t)r->record);
    if ((size - HEADER) % (off_t)r->record)
        r->damaged++; /* the last one is torn */
    for (int64_t slot = 0; slot < used; slot++) {
        uint64_t sequence;
        if (!read_all(r->fd, r->buffer, r->record, place_of(r, slot)))
            return refuse(f, 500, "%s: %s", path, strerror(errno));
        bool whole = sound(r, r->buffer, &sequence);
        if (whole && sequence > 0 && sequence < (uint64_t)1 << 62) {
            enter(r, slot, sequence);
            r->ever = sequence > r->ever ? sequence : r->ever;
        } else if (!whole || sequence) {
            static const unsigned char none[RECORD_HEAD];
            r->damaged += memcmp(r->buffer, none, sizeof none) != 0; /* a hole in the file is no damage */
        }
    }
    return true;
}

/* A service that was killed may not be gone when the next one begins: it is waited for a little. */
static bool lock_store(int fd)
{
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (tries == 20)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    return true;
}

replay *replay_open(const char *path, const replay_options *options, fault *f)
{
    replay *r = calloc(1, sizeof *r);
    if (!r) {
        refuse(f, 503, "out of memory");
        return NULL;
    }
    r->o = *options;
    r->record = (RECORD_HEAD + options->input_bytes + options->target_bytes + 7) / 8 * 8;
    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->writing, NULL);
    r->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    r->buffer = malloc(r->record);
    struct stat st;
    bool good = r->buffer ? true : refuse(f, 503, "out of memory");
    if (good && (r->fd < 0 || fstat(r->fd, &st) != 0 || !S_ISREG(st.st_mode)))
        good = refuse(f, 500, "%s: %s", path, r->fd < 0 ? strerror(errno) : "no file");
    if (good && (!lock_store(r->fd) || fstat(r->fd, &st) != 0))
        good = refuse(f, 500, "%s is used by another process", path);
    bool blank = good && is_blank(r, st.st_size);
    good = good && (blank ? make(r, path, f) : check(r, path, st.st_size, f)) && make_lists(r, f) && (blank || survey(r, path, st.st_size, f));
    if (!good) {
        replay_close(r);
        return NULL;
    }
    return r;
}

void replay_close(replay *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    pthread_mutex_destroy(&r->lock);
    pthread_mutex_destroy(&r->writing);
    free(r->list[0]);
    free(r->list[1]);
    free(r->place);
    free(r->part);
    free(r->buffer);
    free(r);
}

/* ---- adding and reading ---- */
static bool add_one(replay *r, const void *input, const void *target)
{
    uint64_t sequence = r->ever + 1;
    int64_t slot = slot_for(r, sequence);
    if (slot < 0) { /* not kept; the number is used up all the same, or a later start would draw it again: nothing depends on it */
        pthread_mutex_lock(&r->lock);
        r->ever = sequence;
        pthread_mutex_unlock(&r->lock);
        return true;
    }
    memset(r->buffer, 0, r->record);
    record_head h = {.sequence = sequence};
    memcpy(r->buffer, &h, sizeof h);
    memcpy(r->buffer + RECORD_HEAD, input, r->o.input_bytes);
    memcpy(r->buffer + RECORD_HEAD + r->o.input_bytes, target, r->o.target_bytes);
    h.crc = crc32_of(r->buffer + 4, r->record - 4);
    memcpy(r->buffer, &h.crc, sizeof h.crc);
    pthread_mutex_lock(&r->lock);
    forget(r, slot); /* nobody reads a slot that is being written */
    pthread_mutex_unlock(&r->lock);
    if (!write_all(r->fd, r->buffer, r->record, place_of(r, slot)))
        return false;
    pthread_mutex_lock(&r->lock);
    enter(r, slot, sequence);
    r->ever = sequence;
    pthread_mutex_unlock(&r->lock);
    return true;
}

/* Room on the disk for n samples more, before the first is written: of a request that finds the disk full nothing is kept. A file that has all its slots needs none. */
static int reserve(replay *r, int64_t n)
{
    int64_t first = (int64_t)r->ever, last = n < r->slots - first ? first + n : r->slots;
    int why = last > first ? posix_fallocate(r->fd, place_of(r, first), (off_t)(last - first) * (off_t)r->record) : 0;
    return why == ENOSPC || why == EDQUOT || why == EFBIG ? why : 0; /* where it cannot be done the writes themselves will tell */
}

bool replay_add(replay *r, int64_t n, const void *inputs, const void *targets, fault *f)
{
    pthread_mutex_lock(&r->writing);
    int full = reserve(r, n);
    bool good = !full;
    for (int64_t i = 0; good && i < n; i++)
        good = add_one(r, (const char *)inputs + (size_t)i * r->o.input_bytes, (const char *)targets + (size_t)i * r->o.target_bytes);
    good = good && fdatasync(r->fd) == 0;
    int why = full ? full : errno;
    pthread_mutex_unlock(&r->writing);
    return good || refuse(f, why == ENOSPC || why == EDQUOT ? 507 : 500, "the store of samples cannot be written: %s", strerror(why));
}

int64_t replay_count(replay *r, bool testing)
{
    pthread_mutex_lock(&r->lock);
    int64_t n = r->count[testing];
    pthread_mutex_unlock(&r->lock);
    return n;
}

bool replay_read(replay *r, bool testing, uint64_t rank, void *input, void *target)
{
    unsigned char *record = malloc(r->record);
    if (!record)
        return false;
    pthread_mutex_lock(&r->lock);
    int64_t n = r->count[testing], slot = n ? r->list[testing][rank % (uint64_t)n] : -1;
    pthread_mutex_unlock(&r->lock);
    uint64_t sequence = 0;
    bool good = slot >= 0 && read_all(r->fd, record, r->record, place_of(r, slot)) && sound(r, record, &sequence) && part_of(r, sequence) == (int)testing;
    if (good) {
        memcpy(input, record + RECORD_HEAD, r->o.input_bytes);
        memcpy(target, record + RECORD_HEAD + r->o.input_bytes, r->o.target_bytes);
    }
    free(record);
    return good;
}

void replay_look(replay *r, replay_state *s)
{
    pthread_mutex_lock(&r->lock);
    *s = (replay_state){.held = r->count[0] + r->count[1], .training = r->count[0], .testing = r->count[1], .ever = (int64_t)r->ever, .damaged = r->damaged,
                        .slots = r->slots, .file_bytes = HEADER + r->slots * (int64_t)r->record};
    pthread_mutex_unlock(&r->lock);
}
