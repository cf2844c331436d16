/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/guard.h"

#include <microhttpd.h>
#include <string.h>
#include <strings.h>

/* Time does not depend on where the two differ. */
static bool equal(const char *given, const char *wanted)
{
    size_t n = strlen(given), m = strlen(wanted);
    unsigned differ = n != m;
    for (size_t i = 0; i < n; i++)
        differ |= (unsigned)(given[i] ^ wanted[m ? i % m : 0]);
    return differ == 0;
}

static bool is_open(const exchange *x)
{
    return !strcmp(x->path, "/") || !strcmp(x->path, "/v2/health/live") || !strcmp(x->path, "/v2/health/ready");
}

static bool host_is(const char *host, const char *name)
{
    size_t n = strlen(name);
    return !strncasecmp(host, name, n) && (host[n] == 0 || host[n] == ':');
}

static bool host_is_ours(const server *s, const char *host)
{
    if (!host)
        return true; /* HTTP/1.0, no browser */
    return host_is(host, "localhost") || host_is(host, "127.0.0.1") || host_is(host, "[::1]") || host_is(host, s->o.address)
           || (s->o.allow_host && host_is(host, s->o.allow_host));
}

bool guard_admits(exchange *x, fault *f)
{
    const server *s = x->server;
    const char *authorization = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Authorization");
    const char *origin = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Origin");
    const char *host = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Host");
    if (*s->o.token) {
        x->has_token = authorization && !strncasecmp(authorization, "Bearer ", 7) && equal(authorization + 7, s->o.token);
        return x->has_token || is_open(x) || refuse(f, 401, "a bearer token is needed");
    }
    if (!host_is_ours(s, host))
        return refuse(f, 403, "the Host header is not of this server; --allow-host NAME or --token-file");
    if (origin && !(host && !strncasecmp(origin, "http://", 7) && !strcasecmp(origin + 7, host)))
        return refuse(f, 403, "requests from pages of another origin are not answered");
    return true;
}
