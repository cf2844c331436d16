/* SPDX-License-Identifier: Apache-2.0 */
/* Health, server and model metadata of the Open Inference Protocol, and the list of versions. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "serve/routes.h"

void answer_live(exchange *x, served *model, int64_t version)
{
    (void)model, (void)version;
    text_printf(&x->answer, "{\"live\":true}\n");
    http_done(x);
}

void answer_ready(exchange *x, served *model, int64_t version)
{
    (void)model, (void)version;
    bool ready = !atomic_load(&x->server->stopping);
    for (int i = 0; i < x->server->models.count; i++)
        ready = ready && !x->server->models.list[i]->broken.status;
    x->status = ready ? 200 : 503;
    text_printf(&x->answer, "{\"ready\":%s}\n", ready ? "true" : "false");
    http_done(x);
}

void answer_server(exchange *x, served *model, int64_t version)
{
    (void)model, (void)version;
    int v = mest_version();
    text_printf(&x->answer, "{\"name\":\"mest-serve\",\"version\":\"%d.%d.%d\",\"extensions\":[\"binary_tensor_data\",\"mest_train\"]}\n", v / 10000, v / 100 % 100, v % 100);
    http_done(x);
}

void answer_models(exchange *x, served *model, int64_t version)
{
    (void)model, (void)version;
    text_printf(&x->answer, "{\"models\":[");
    for (int i = 0; i < x->server->models.count; i++) {
        served *s = x->server->models.list[i];
        text_printf(&x->answer, "%s{\"name\":\"%s\",\"ready\":%s", i ? "," : "", s->name, s->broken.status ? "false" : "true");
        if (s->broken.status) {
            text_printf(&x->answer, ",\"error\":");
            text_quote(&x->answer, s->broken.text);
        } else {
            text_printf(&x->answer, ",\"version\":\"%" PRId64 "\"", served_version(s));
        }
        text_printf(&x->answer, "}");
    }
    text_printf(&x->answer, "]}\n");
    http_done(x);
}

static bool usable(exchange *x, const served *s)
{
    if (!s->broken.status)
        return true;
    fault f = {0};
    refuse(&f, 503, "model '%s' cannot be served: %.400s", s->name, s->broken.text);
    http_refuse(x, &f);
    http_done(x);
    return false;
}

static bool in_memory(served *s, int64_t version)
{
    engine *e = served_engine(s);
    mest_snapshot *v = mest_model_acquire_id(e->model, version);
    mest_snapshot_release(v);
    engine_release(e);
    return v != NULL;
}

static void put_tensors(text *out, const tensor_spec *list, int n)
{
    for (int i = 0; i < n; i++) {
        text_printf(out, "%s{\"name\":", i ? "," : "");
        text_quote(out, list[i].name);
        text_printf(out, ",\"datatype\":\"%s\",\"shape\":", list[i].datatype);
        tensor_shape(out, list[i].rank, list[i].dim, -1);
        text_printf(out, "}");
    }
}

void answer_model(exchange *x, served *s, int64_t version)
{
    if (!usable(x, s))
        return;
    if (version && !in_memory(s, version)) {
        fault f = {0};
        refuse(&f, 404, "version %" PRId64 " is not in memory", version);
        http_refuse(x, &f);
        http_done(x);
        return;
    }
    text *out = &x->answer;
    text_printf(out, "{\"name\":\"%s\",\"versions\":[", s->name);
    engine *e = served_engine(s);
    mest_version_info info = {.struct_size = sizeof info};
    for (int64_t after = 0, n = 0; mest_model_next_version(e->model, after, &info, NULL) == MEST_OK && info.id; after = info.id)
        text_printf(out, "%s\"%" PRId64 "\"", n++ ? "," : "", info.id);
    engine_release(e);
    text_printf(out, "],\"platform\":\"onnx_mest\",\"inputs\":[");
    put_tensors(out, s->in, s->n_inputs);
    text_printf(out, "],\"outputs\":[");
    put_tensors(out, s->out, s->n_outputs);
    text_printf(out, "]}\n");
    http_done(x);
}

void answer_model_ready(exchange *x, served *s, int64_t version)
{
    bool ready = !s->broken.status && (!version || in_memory(s, version));
    x->status = ready ? 200 : version && !s->broken.status ? 404 : 503;
    text_printf(&x->answer, "{\"name\":\"%s\",\"ready\":%s}\n", s->name, ready ? "true" : "false");
    http_done(x);
}

void answer_versions(exchange *x, served *s, int64_t version)
{
    (void)version;
    if (!usable(x, s))
        return;
    int64_t *ids = malloc(MAX_DIRS * sizeof *ids), current = served_version(s);
    if (!ids) {
        fault f = {0};
        refuse(&f, 503, "out of memory");
        http_refuse(x, &f);
        http_done(x);
        return;
    }
    int n = version_dirs_list(s->folder, ids);
    text *out = &x->answer;
    text_printf(out, "{\"current\":\"%" PRId64 "\",\"versions\":[", current);
    for (int i = 0; i < n; i++) {
        char *facts = version_dirs_facts(s->folder, ids[i]);
        fault f = {0};
        cJSON *json = facts ? json_read((const unsigned char *)facts, strlen(facts), &f) : NULL;
        char *again = json ? cJSON_PrintUnformatted(json) : NULL;
        text_printf(out, "%s{\"version\":\"%" PRId64 "\",\"current\":%s,\"in_memory\":%s,\"facts\":%s}", i ? "," : "", ids[i], ids[i] == current ? "true" : "false",
                    in_memory(s, ids[i]) ? "true" : "false", again ? again : "null");
        cJSON_free(again);
        cJSON_Delete(json);
        free(facts);
    }
    text_printf(out, "]}\n");
    free(ids);
    http_done(x);
}
