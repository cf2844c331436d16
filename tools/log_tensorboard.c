/* SPDX-License-Identifier: Apache-2.0 */
/* Event files as TensorBoard reads them: records of TensorFlow's TFRecord form (length, its checksum, bytes, their checksum; CRC-32C,
 * masked) that hold Event messages of tensorflow/core/util/event.proto: wall_time = 1, step = 2, file_version = 3, summary = 5; a Summary is
 * repeated Value = 1 with tag = 1 and simple_value = 2. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "logs.h"

enum { TAG_SIZE = 400 }; /* below 128 * 128: its length takes at most two bytes */

typedef struct bytes {
    unsigned char at[65536];
    size_t n;
    bool full;
} bytes;

static void clear(bytes *b)
{
    b->n = 0;
    b->full = false;
}

static void put(bytes *b, const void *from, size_t n)
{
    b->full = b->full || n > sizeof b->at - b->n;
    if (b->full)
        return;
    memcpy(b->at + b->n, from, n);
    b->n += n;
}

static void put_little(bytes *b, uint64_t value, int n)
{
    unsigned char text[8];
    for (int i = 0; i < n; i++)
        text[i] = (unsigned char)(value >> (8 * i));
    put(b, text, (size_t)n);
}

static void put_varint(bytes *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        put_little(b, (value & 0x7f) | 0x80, 1);
    put_little(b, value, 1);
}

static void put_double(bytes *b, int field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_varint(b, (uint64_t)field << 3 | 1);
    put_little(b, bits, 8);
}

static void put_float(bytes *b, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_varint(b, (uint64_t)field << 3 | 5);
    put_little(b, bits, 4);
}

static void put_text(bytes *b, int field, const void *text, size_t n)
{
    put_varint(b, (uint64_t)field << 3 | 2);
    put_varint(b, n);
    put(b, text, n);
}

/* CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, rotated and shifted as TFRecord wants it. */
static uint32_t masked_crc(const unsigned char *at, size_t n)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= at[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static bool write_record(log_file *file, const bytes *message)
{
    static bytes record;
    clear(&record);
    put_little(&record, message->n, 8);
    put_little(&record, masked_crc(record.at, 8), 4);
    put(&record, message->at, message->n);
    put_little(&record, masked_crc(message->at, message->n), 4);
    return message->full || record.full || log_write(file, record.at, record.n); /* one that is too long is left out */
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void file_name(char *text, size_t size)
{
    char host[64] = "localhost";
    gethostname(host, sizeof host - 1);
    snprintf(text, size, "events.out.tfevents.%010lld.%s.%ld", (long long)now(), host, (long)getpid());
}

static bool begin(log_file *file)
{
    static const char version[] = "brain.Event:2";
    static bytes message;
    clear(&message);
    put_double(&message, 1, now());
    put_text(&message, 3, version, sizeof version - 1);
    return write_record(file, &message);
}

/* Field 1 of a Summary: a Value of its two fields, whose lengths are known before they are written. */
static void put_value(bytes *summary, const char *tag, double value)
{
    size_t n = strlen(tag);
    n = n < TAG_SIZE ? n : TAG_SIZE - 1;
    put_varint(summary, 1 << 3 | 2);
    put_varint(summary, 1 + (n < 0x80 ? 1 : 2) + n + 1 + 4);
    put_text(summary, 1, tag, n);
    put_float(summary, 2, (float)value);
}

static void put_layers(bytes *summary, const cJSON *event)
{
    static const char *const keys[] = {"density", "distance", "removed", "grown"};
    const cJSON *layer;
    cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(event, "layers"))
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(layer, "name"));
        for (size_t i = 0; name && i < sizeof keys / sizeof *keys; i++) {
            char tag[TAG_SIZE];
            double value;
            snprintf(tag, sizeof tag, "%s/%s", keys[i], name);
            if (log_number(layer, NULL, keys[i], &value))
                put_value(summary, tag, value);
        }
    }
}

static bool event(log_file *file, const cJSON *object, const char *line)
{
    (void)line;
    static const struct {
        const char *tag, *object, *key;
    } scalars[] = {
        {"loss/train", "train", "loss"}, {"accuracy/train", "train", "accuracy"}, {"loss/validation", "validation", "loss"},
        {"accuracy/validation", "validation", "accuracy"}, {"lr", NULL, "lr"}, {"sparsity", NULL, "sparsity"}, {"peak_bytes", NULL, "peak_bytes"},
        {"active_samples", NULL, "active_samples"}, {"mutation/removed", NULL, "removed"}, {"mutation/grown", NULL, "grown"},
        {"mutation/survivors", NULL, "survivors"}, {"mutation/distance", NULL, "distance"}, {"scheduler_seconds", NULL, "scheduler_seconds"},
    };
    static bytes summary, message;
    double value, step = 0;
    clear(&summary);
    clear(&message);
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (log_number(object, scalars[i].object, scalars[i].key, &value))
            put_value(&summary, scalars[i].tag, value);
    if (log_rate(object, &value))
        put_value(&summary, "images_per_second", value);
    put_layers(&summary, object);
    if (!log_number(object, NULL, "step", &step) || summary.n == 0)
        return true;
    put_double(&message, 1, now());
    put_varint(&message, 2 << 3);
    put_varint(&message, (uint64_t)step);
    put_text(&message, 5, summary.at, summary.n);
    message.full = message.full || summary.full;
    return write_record(file, &message);
}

const log_form log_tensorboard = {.name = "tensorboard", .file_name = file_name, .keep = true, .begin = begin, .event = event};
