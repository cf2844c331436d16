/* SPDX-License-Identifier: Apache-2.0 */
/* The scan of the wire format on bytes made by hand: what is kept, what is dropped, what is refused and at which offset; the map from
 * text to numbers. */
#include "importers/prescan.h"
#include "importers/wire.h"
#include "runtime/strmap.h"
#include "tests/import/import_fixture.h"

typedef struct bytes {
    uint8_t data[65536];
    size_t n;
} bytes;

static void add(bytes *b, const void *data, size_t n)
{
    ck_assert(b->n + n <= sizeof b->data);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void add_varint(bytes *b, uint64_t v)
{
    uint8_t buf[10];
    add(b, buf, mest_wire_put(buf, v));
}

static void add_number(bytes *b, uint32_t field, uint64_t v)
{
    add_varint(b, (uint64_t)field << 3);
    add_varint(b, v);
}

static void add_bytes(bytes *b, uint32_t field, const void *data, size_t n)
{
    add_varint(b, (uint64_t)field << 3 | 2);
    add_varint(b, n);
    add(b, data, n);
}

static void add_message(bytes *b, uint32_t field, const bytes *inner) { add_bytes(b, field, inner->data, inner->n); }

static mest_heap heap;

static mest_status scan(const bytes *b, size_t max, mest_prescan *s, mest_error *err)
{
    *err = (mest_error){ 0 };
    return mest_prescan_run(s, &heap, "test", b->data, b->n, max, err);
}

static void refused_at(const bytes *b, size_t at)
{
    mest_prescan s;
    mest_error e;
    char text[40];
    ck_assert_int_eq(scan(b, 1 << 20, &s, &e), MEST_E_FORMAT);
    snprintf(text, sizeof text, "byte %zu:", at);
    ck_assert_msg(strstr(e.msg, text) != NULL, "%s is not in: %s", text, e.msg);
    mest_prescan_free(&s);
}

START_TEST(payloads_stay_in_the_file)
{
    static bytes tensor, graph, model;
    tensor.n = graph.n = model.n = 0;
    uint8_t raw[300] = { 1, 2, 3 };
    add_number(&tensor, 1, 75);
    add_bytes(&tensor, 9, raw, sizeof raw);
    add_bytes(&tensor, 12, "documentation is dropped", 24);
    add_number(&tensor, MEST_PRESCAN_RAW, 7); /* a file cannot pretend */
    add_message(&graph, 5, &tensor);
    tensor.n = 0;
    add_bytes(&tensor, 4, raw, 8);
    add_message(&graph, 5, &tensor);
    add_number(&model, 1, 8);
    add_message(&model, 7, &graph);
    mest_prescan s;
    mest_error e;
    ck_assert_int_eq(scan(&model, 1 << 20, &s, &e), MEST_OK);
    ck_assert_uint_eq(s.n_payloads, 2);
    ck_assert_uint_eq(s.payloads[0].size, 300);
    ck_assert(!memcmp(model.data + s.payloads[0].offset, raw, 300));
    ck_assert_uint_eq(s.payloads[1].size, 8);
    ck_assert(s.size < 80 && !memmem(s.bytes, s.size, "documentation", 13));
    mest_prescan_free(&s);
    ck_assert_int_eq(scan(&model, 40, &s, &e), MEST_E_LIMIT);
    mest_prescan_free(&s);
    for (size_t n = 1; n < model.n; n++) { /* cut anywhere: an error, or (between fields of the model) less */
        size_t whole = model.n;
        model.n = n;
        mest_status status = scan(&model, 1 << 20, &s, &e);
        ck_assert(status == MEST_E_FORMAT || (n == 2 && status == MEST_OK));
        mest_prescan_free(&s);
        model.n = whole;
    }
}
END_TEST

START_TEST(damage_is_named_by_its_offset)
{
    static bytes b, inner;
    b.n = 0;
    add_number(&b, 1, 8);
    add_number(&b, 0, 1); /* field 0 */
    refused_at(&b, 2);
    b.n = 0;
    add_number(&b, 1, 8);
    add(&b, "\x3f", 1); /* wire type 7 */
    refused_at(&b, 2);
    b.n = 0;
    add(&b, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11); /* 70 bits of length */
    refused_at(&b, 0);
    b.n = 0;
    add_number(&b, 7, 5); /* a graph that is a number */
    refused_at(&b, 0);
    b.n = inner.n = 0;
    add_bytes(&inner, 2, "a\0b", 3); /* graph name with a NUL */
    add_message(&b, 7, &inner);
    refused_at(&b, 4);
    b.n = inner.n = 0;
    add_message(&b, 7, &inner);
    add_message(&b, 7, &inner);
    refused_at(&b, 2);
}
END_TEST

START_TEST(nesting_ends)
{
    /* types of types, and graphs of attributes of nodes: deeper than any model, shallower than the stack */
    static bytes b, inner;
    for (int kind = 0; kind < 2; kind++) {
        for (int levels = 1; levels < 60; levels += 6) {
            inner.n = 0;
            for (int i = 0; i < levels; i++) {
                static const uint32_t type[] = { 4, 1 }, graph[] = { 1, 6, 5 }; /* the last one is outermost */
                b = inner;
                inner.n = 0;
                add_message(&inner, kind ? type[i % 2] : graph[i % 3], &b);
            }
            if (kind) { /* value_info.type */
                b = inner;
                inner.n = 0;
                add_message(&inner, 2, &b);
                b = inner;
                inner.n = 0;
                add_message(&inner, 11, &b);
            }
            b.n = 0;
            add_message(&b, 7, &inner);
            mest_prescan s;
            mest_error e;
            mest_status status = scan(&b, 1 << 20, &s, &e);
            ck_assert(status == MEST_OK || (levels > 30 && strstr(e.msg, "nested")));
            ck_assert(levels < 50 || status == MEST_E_FORMAT);
            mest_prescan_free(&s);
        }
    }
}
END_TEST

START_TEST(wire_numbers)
{
    static const uint64_t numbers[] = { 0, 1, 127, 128, 300, UINT32_MAX, (uint64_t)1 << 63, UINT64_MAX };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint8_t buf[10];
        uint64_t v;
        mest_wire w = { buf, 0, mest_wire_put(buf, numbers[i]) };
        size_t n = w.end;
        ck_assert(mest_wire_varint(&w, &v) && v == numbers[i] && w.at == n);
        w = (mest_wire){ buf, 0, n - 1 };
        ck_assert(!mest_wire_varint(&w, &v));
    }
    static const uint8_t long_one[] = { 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02 };
    uint64_t v;
    mest_wire w = { long_one, 0, 10 };
    ck_assert(!mest_wire_varint(&w, &v)); /* 65 bits */
}
END_TEST

START_TEST(text_map)
{
    mest_region region;
    mest_strmap map;
    mest_region_init(&region, &heap);
    mest_strmap_init(&map, &region);
    ck_assert_int_eq(mest_strmap_get(&map, "a"), -1);
    static char names[2000][24];
    for (int i = 0; i < 2000; i++) {
        snprintf(names[i], sizeof names[i], "layer%d.weight", i);
        ck_assert(mest_strmap_put(&map, names[i], i));
    }
    ck_assert(mest_strmap_put(&map, "", 5) && mest_strmap_put(&map, "layer7.weight", 70));
    for (int i = 0; i < 2000; i++)
        ck_assert_int_eq(mest_strmap_get(&map, names[i]), i == 7 ? 70 : i);
    ck_assert_int_eq(mest_strmap_get(&map, ""), 5);
    ck_assert_int_eq(mest_strmap_get(&map, "layer2000.weight"), -1);
    mest_region_free(&region);
}
END_TEST

int main(void)
{
    mest_error e = { 0 };
    if (mest_heap_init(&heap, NULL, NULL, &e) != MEST_OK)
        return 1;
    Suite *s = suite_create("import prescan");
    TCase *t = tcase_create("prescan");
    tcase_add_test(t, payloads_stay_in_the_file);
    tcase_add_test(t, damage_is_named_by_its_offset);
    tcase_add_test(t, nesting_ends);
    tcase_add_test(t, wire_numbers);
    tcase_add_test(t, text_map);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0 || heap.current_bytes != 0;
}
