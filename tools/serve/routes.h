/* SPDX-License-Identifier: Apache-2.0 */
/* routes.h - which function answers which path. */
#ifndef TOOLS_SERVE_ROUTES_H
#define TOOLS_SERVE_ROUTES_H

#include "serve/http.h"

/* Answers the request, now or later. */
void route(exchange *x);

/* The protocol's requests. `version` 0: the path names none. */
void answer_live(exchange *x, served *model, int64_t version);
void answer_ready(exchange *x, served *model, int64_t version);
void answer_server(exchange *x, served *model, int64_t version);
void answer_models(exchange *x, served *model, int64_t version);
void answer_model(exchange *x, served *model, int64_t version);
void answer_model_ready(exchange *x, served *model, int64_t version);
void answer_versions(exchange *x, served *model, int64_t version);
void answer_infer(exchange *x, served *model, int64_t version);
void answer_train(exchange *x, served *model, int64_t version);
void answer_train_status(exchange *x, served *model, int64_t version);
void answer_page(exchange *x, served *model, int64_t version);
void answer_metrics(exchange *x, served *model, int64_t version);

#endif
