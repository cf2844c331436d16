/* SPDX-License-Identifier: Apache-2.0 */
/* --explain memory: who holds the memory of a step, block by block, the parts beside it, and what the whole process will need. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "json.h"
#include "report.h"

typedef struct part {
    const char *name, *json;
    size_t at; /* of an int64_t in mest_memory_plan */
} part;

#define PART(text, field) {text, #field, offsetof(mest_memory_plan, field)}
static const part step_parts[] = {
    PART("activations", activation_bytes), PART("recomputed", recomputed_bytes), PART("gradients", gradient_bytes),
    PART("weight gradients", weight_gradient_bytes), PART("scratch", scratch_bytes), {NULL, NULL, 0},
};
static const part lasting_parts[] = {
    PART("weights", weight_bytes), PART("patterns", index_bytes), PART("derived lists", derived_bytes), PART("optimizer", optimizer_bytes),
    PART("data pipeline", pipeline_bytes), PART("graphs, plans, all else", other_bytes), {NULL, NULL, 0},
};
static const part sums[] = {
    PART("", arena_bytes), PART("", live_bytes), PART("", heap_bytes), PART("", base_bytes), PART("", outside_bytes), PART("", process_bytes), PART("", limit_bytes),
    {NULL, NULL, 0},
};

static int64_t number(const mest_memory_plan *m, const part *p)
{
    int64_t n;
    memcpy(&n, (const char *)m + p->at, sizeof n);
    return n;
}

static void print_parts(const mest_memory_plan *m, const part *p)
{
    char text[32];
    for (; p->name; p++)
        if (number(m, p)) {
            report_bytes(text, sizeof text, number(m, p));
            printf("  %-26s%10s\n", p->name, text);
        }
}

static void print_plan(const mest_memory_plan *m)
{
    char a[32], b[32], c[32], d[32];
    report_bytes(a, sizeof a, m->live_bytes);
    report_bytes(b, sizeof b, m->arena_bytes);
    printf("a step of %" PRId64 " samples: %s alive at most, in an arena of %s (%.1f %% holes)\n", m->batch, a, b,
           m->arena_bytes ? 100 * (1 - (double)m->live_bytes / (double)m->arena_bytes) : 0);
    printf("at the peak, while %s runs (%s)\n", report_plain(m->peak_node).s, m->peak_op ? m->peak_op : "");
    print_parts(m, step_parts);
    printf("from step to step\n");
    print_parts(m, lasting_parts);
    report_bytes(a, sizeof a, m->process_bytes);
    report_bytes(b, sizeof b, m->heap_bytes);
    report_bytes(c, sizeof c, m->base_bytes);
    report_bytes(d, sizeof d, m->outside_bytes);
    printf("the process       %s predicted: %s of the allocator, %s it has beside it now (code, libraries, data source), %s to come there (stacks, code that "
           "has not run yet, copies by XNNPACK)\n", a, b, c, d);
    if (m->limit_bytes) {
        report_bytes(a, sizeof a, m->limit_bytes);
        printf("limit             %s: obeyed\n", a);
    }
    if (*m->chosen)
        printf("chosen            %s\n", m->chosen);
}

static void json_memory(tool *t, const mest_memory_plan *m)
{
    cJSON *event = json_event("memory");
    json_text(event, "program", t->s->program);
    json_number(event, "batch", (double)m->batch);
    json_text(event, "peak_node", m->peak_node);
    json_text(event, "peak_op", m->peak_op);
    const part *const lists[] = {step_parts, lasting_parts, sums};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const part *p = lists[i]; p->name; p++)
            json_number(event, p->json, (double)number(m, p));
    json_number(event, "n_again", m->n_again);
    json_number(event, "again_share", m->again_share);
    json_text(event, "chosen", m->chosen);
    (void)json_emit(t, event); /* report_finish tells of a failure */
}

static void on_value(void *user, const mest_memory_value *v)
{
    tool *t = user;
    if (!t->s->json) {
        char bytes[32];
        report_bytes(bytes, sizeof bytes, v->bytes);
        printf("%c %10s  %-15s %5d..%-5d %-24s %s: %s .. %s\n", v->at_peak ? '*' : ' ', bytes, v->kind, v->born, v->dies, v->op, report_plain(v->name).s,
               report_plain(v->born_name).s, report_plain(v->dies_name).s);
        return;
    }
    cJSON *event = json_event("memory_value");
    json_text(event, "name", v->name);
    json_text(event, "op", v->op);
    json_text(event, "kind", v->kind);
    json_number(event, "bytes", (double)v->bytes);
    json_number(event, "offset", (double)v->offset);
    json_number(event, "born", v->born);
    json_number(event, "dies", v->dies);
    json_text(event, "born_node", v->born_name);
    json_text(event, "dies_node", v->dies_name);
    json_bool(event, "at_peak", v->at_peak);
    (void)json_emit(t, event);
}

int explain_memory(tool *t, mest_program_kind kind)
{
    mest_memory_plan plan = {.struct_size = sizeof plan};
    mest_error err = {0};
    if (kind == MEST_PROGRAM_TRAIN && mest_session_plan_memory(t->session, t->s->data ? &t->data : NULL, NULL, &plan, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    if (!t->s->json)
        printf("* alive at the peak%6s kind            nodes        operator                 value: made by .. last used by\n", "");
    const int64_t batch = t->s->data && t->data_info.count < t->config.batch ? t->data_info.count : t->config.batch;
    if (mest_session_memory_values(t->session, kind, batch, on_value, t, &err) != MEST_OK)
        return tool_fail(t, STAGE_PREPARE, &err);
    if (kind == MEST_PROGRAM_TRAIN && t->s->json)
        json_memory(t, &plan);
    else if (kind == MEST_PROGRAM_TRAIN) {
        printf("\n");
        print_plan(&plan);
    }
    return report_finish(t);
}
