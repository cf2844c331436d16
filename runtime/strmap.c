/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/strmap.h"

#include <string.h>

#include "runtime/rng.h"

struct mest_strmap_slot {
    const char *key; /* NULL: free */
    uint32_t hash;
    int32_t value;
};

static uint32_t hash_text(const char *key)
{
    uint64_t h = 0x6d657374; /* any odd start will do; words are mixed so that names differing in one digit spread */
    size_t n = strlen(key);
    for (; n >= 8; n -= 8, key += 8) {
        uint64_t word;
        memcpy(&word, key, 8);
        h = mest_mix64(h ^ word);
    }
    uint64_t word = n;
    memcpy((char *)&word + 1, key, n);
    return (uint32_t)mest_mix64(h ^ word);
}

static struct mest_strmap_slot *find(const mest_strmap *map, const char *key, uint32_t hash)
{
    uint32_t i = hash & (map->cap - 1);
    while (map->slots[i].key && (map->slots[i].hash != hash || strcmp(map->slots[i].key, key)))
        i = (i + 1) & (map->cap - 1);
    return &map->slots[i];
}

int32_t mest_strmap_get(const mest_strmap *map, const char *key)
{
    if (!map->n)
        return -1;
    const struct mest_strmap_slot *slot = find(map, key, hash_text(key));
    return slot->key ? slot->value : -1;
}

static bool grow(mest_strmap *map)
{
    mest_strmap bigger = { .region = map->region, .n = map->n, .cap = map->cap ? map->cap * 2 : 8 };
    bigger.slots = mest_region_alloc(map->region, bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (uint32_t i = 0; i < map->cap; i++)
        if (map->slots[i].key)
            *find(&bigger, map->slots[i].key, map->slots[i].hash) = map->slots[i];
    *map = bigger;
    return true;
}

bool mest_strmap_put(mest_strmap *map, const char *key, int32_t value)
{
    if (map->n * 2 >= map->cap && !grow(map))
        return false;
    uint32_t hash = hash_text(key);
    struct mest_strmap_slot *slot = find(map, key, hash);
    if (!slot->key)
        map->n++;
    *slot = (struct mest_strmap_slot){ key, hash, value };
    return true;
}
