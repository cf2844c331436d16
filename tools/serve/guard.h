/* SPDX-License-Identifier: Apache-2.0 */
/* guard.h - who may ask: a bearer token, or loopback without one. */
#ifndef TOOLS_SERVE_GUARD_H
#define TOOLS_SERVE_GUARD_H

#include "serve/http.h"

/* Looks at the headers of a request. Health and the page are for everybody. Without a token, requests that a web page of another origin makes a
 * browser send are refused: their Origin is not ours, or their Host is a name that was made to point here. */
bool guard_admits(exchange *x, fault *f);

#endif
