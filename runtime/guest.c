/* SPDX-License-Identifier: Apache-2.0 */
/* A good guest: share of the time, time limit, pauses. Readings: power_supply and thermal classes of the Linux sysfs
 * (Documentation/ABI/testing/sysfs-class-power, sysfs-class-thermal). */
#include "runtime/guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/alloc.h"
#include "runtime/process.h"
#include "runtime/status.h"

enum { MOST_READINGS = 32, NAME_BYTES = 64, PATH_BYTES = 1024, REASON_BYTES = PATH_BYTES + 80 };
#define SLICE_SECONDS 0.1
#define BATTERY_STEP 2.0 /* percent, and degrees: how far a reading must be on the good side before work goes on */
#define HEAT_STEP 3.0
#define WORTH_SECONDS 0.002 /* shorter rests are added up: sleeping is not that exact */

typedef struct readings {
    int n;
    char name[MOST_READINGS][NAME_BYTES];
} readings;

struct mest_guest {
    mest_heap heap;
    mest_guest_options o;
    char pause_file[PATH_BYTES], sys_root[PATH_BYTES / 2];
    readings batteries, zones;
    double began, worked_since, owed; /* owed: rest for the share that is still to come; negative: overslept */
    double looked;                    /* when file and readings were looked at */
    bool low, hot;
    double for_share, paused;
    _Atomic bool woken;
    const _Atomic bool *stop;
    char reason[REASON_BYTES];
};

/* ---- readings ---- */

static bool read_text(const mest_guest *g, const char *class, const char *name, const char *what, char *text, size_t size)
{
    char path[PATH_BYTES];
    const int length = snprintf(path, sizeof path, "%s/class/%s/%s/%s", g->sys_root, class, name, what);
    const int fd = length > 0 && length < PATH_BYTES ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1; /* sys_root may be anything */
    if (fd < 0)
        return false;
    const ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    return n > 0;
}

static bool read_number(const mest_guest *g, const char *class, const char *name, const char *what, double *number)
{
    char text[64], *end;
    if (!read_text(g, class, name, what, text, sizeof text))
        return false;
    *number = strtod(text, &end);
    return end != text && isfinite(*number);
}

/* A battery of the machine: those of mice and headsets say "Device" as their scope. */
static bool is_battery(const mest_guest *g, const char *name)
{
    char text[64];
    double capacity;
    return read_text(g, "power_supply", name, "type", text, sizeof text) && !strcmp(text, "Battery") &&
           !(read_text(g, "power_supply", name, "scope", text, sizeof text) && !strcmp(text, "Device")) &&
           read_number(g, "power_supply", name, "capacity", &capacity);
}

static bool is_zone(const mest_guest *g, const char *name)
{
    double temperature;
    return !strncmp(name, "thermal_zone", 12) && read_number(g, "thermal", name, "temp", &temperature);
}

static void find(const mest_guest *g, const char *class, bool (*fits)(const mest_guest *g, const char *name), readings *r)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/class/%s", g->sys_root, class);
    DIR *folder = opendir(path);
    for (const struct dirent *e; folder && r->n < MOST_READINGS && (e = readdir(folder)) != NULL;)
        if (e->d_name[0] != '.' && strlen(e->d_name) < NAME_BYTES && fits(g, e->d_name))
            memcpy(r->name[r->n++], e->d_name, strlen(e->d_name) + 1);
    if (folder)
        closedir(folder);
}

static void look_at_batteries(mest_guest *g)
{
    double sum = 0;
    int n = 0;
    bool discharging = false;
    for (int i = 0; i < g->batteries.n; i++) {
        char status[64];
        double capacity;
        if (!read_number(g, "power_supply", g->batteries.name[i], "capacity", &capacity))
            continue; /* taken out */
        sum += capacity;
        n++;
        discharging |= read_text(g, "power_supply", g->batteries.name[i], "status", status, sizeof status) && !strcmp(status, "Discharging");
    }
    const double level = n ? sum / n : 100;
    g->low = discharging && level < g->o.min_battery + (g->low ? BATTERY_STEP : 0);
    if (g->low)
        snprintf(g->reason, sizeof g->reason, "the battery is at %.0f %%, the limit is %.0f %%", level, g->o.min_battery);
}

static void look_at_zones(mest_guest *g)
{
    double most = -INFINITY;
    int hottest = 0;
    for (int i = 0; i < g->zones.n; i++) {
        double t;
        if (read_number(g, "thermal", g->zones.name[i], "temp", &t) && t / 1000 > most) {
            most = t / 1000;
            hottest = i;
        }
    }
    g->hot = most > g->o.max_temperature - (g->hot ? HEAT_STEP : 0);
    if (g->hot)
        snprintf(g->reason, sizeof g->reason, "%s has %.1f degrees, the limit is %.1f", g->zones.name[hottest], most, g->o.max_temperature);
}

/* Is there a reason to pause? In g->reason. */
static bool look(mest_guest *g)
{
    if (g->o.max_temperature > 0)
        look_at_zones(g);
    if (g->o.min_battery > 0)
        look_at_batteries(g);
    const bool file = g->pause_file[0] && access(g->pause_file, F_OK) == 0;
    if (file)
        snprintf(g->reason, sizeof g->reason, "'%s' exists", g->pause_file);
    g->looked = mest_seconds();
    return file || g->low || g->hot;
}

/* ---- the guest ---- */

void mest_guest_options_init(mest_guest_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    o->cpu_share = 1;
    o->poll_seconds = 1;
}

mest_status mest_guest_create(mest_guest **guest, const mest_guest_options *options, mest_error *err)
{
    mest_error_clear(err);
    MEST_CHECK(guest, err, MEST_E_ARGUMENT, "guest: nowhere to put it");
    *guest = NULL;
    mest_guest_options o;
    mest_guest_options_init(&o);
    MEST_CHECK(!options || mest_take_options(&o, sizeof o, options), err, MEST_E_ARGUMENT, "guest: struct_size is not set");
    MEST_CHECK(o.time_limit >= 0 && isfinite(o.time_limit), err, MEST_E_ARGUMENT, "guest: a time limit of %g seconds", o.time_limit);
    MEST_CHECK(o.cpu_share > 0 && o.cpu_share <= 1, err, MEST_E_ARGUMENT, "guest: a share of %g is not above 0 and at most 1", o.cpu_share);
    MEST_CHECK(o.min_battery >= 0 && o.min_battery <= 100, err, MEST_E_ARGUMENT, "guest: %g is no percentage of a battery", o.min_battery);
    MEST_CHECK(o.max_temperature >= 0 && isfinite(o.max_temperature), err, MEST_E_ARGUMENT, "guest: a temperature limit of %g degrees", o.max_temperature);
    MEST_CHECK(o.poll_seconds > 0 && o.poll_seconds <= 3600, err, MEST_E_ARGUMENT, "guest: readings every %g seconds", o.poll_seconds);
    const char *root = o.sys_root ? o.sys_root : "/sys";
    MEST_CHECK(strlen(root) < sizeof((mest_guest *)0)->sys_root && (!o.pause_file || strlen(o.pause_file) < PATH_BYTES), err, MEST_E_ARGUMENT,
               "guest: the name of a file is too long");
    mest_heap heap;
    MEST_TRY(mest_heap_init(&heap, o.allocator, NULL, err));
    mest_guest *g = mest_calloc(&heap, 1, sizeof *g);
    MEST_CHECK(g, err, MEST_E_NOMEM, "guest: out of memory");
    g->heap = heap;
    g->o = o;
    if (o.pause_file)
        memcpy(g->pause_file, o.pause_file, strlen(o.pause_file) + 1);
    memcpy(g->sys_root, root, strlen(root) + 1);
    if (o.min_battery > 0)
        find(g, "power_supply", is_battery, &g->batteries);
    if (o.max_temperature > 0)
        find(g, "thermal", is_zone, &g->zones);
    if (o.max_temperature > 0 && !g->zones.n) {
        mest_guest_destroy(g);
        return mest_fail(err, MEST_E_UNSUPPORTED, "a limit on the temperature is given, but %s/class/thermal has no thermal zone that can be read", root);
    }
    g->began = g->worked_since = mest_seconds();
    g->looked = -INFINITY;
    *guest = g;
    return MEST_OK;
}

void mest_guest_destroy(mest_guest *g)
{
    if (!g)
        return;
    mest_heap heap = g->heap;
    mest_free(&heap, g, 1, sizeof *g);
}

bool mest_guest_time_over(const mest_guest *g) { return g && g->o.time_limit > 0 && mest_seconds() - g->began >= g->o.time_limit; }

void mest_guest_wake(mest_guest *g) { atomic_store(&g->woken, true); }

const _Atomic bool *mest_guest_work(mest_guest *g, const _Atomic bool *stop)
{
    const _Atomic bool *before = g->stop;
    g->stop = stop;
    g->worked_since = mest_seconds();
    return before;
}

static bool disturbed(const mest_guest *g) { return atomic_load(&g->woken) || (g->stop && atomic_load(g->stop)); }

void mest_guest_rested(const mest_guest *g, double *for_share, double *paused)
{
    if (for_share)
        *for_share = g->for_share;
    if (paused)
        *paused = g->paused;
}

/* Sleeps, but not past the time limit, and until it is woken. Seconds it took. */
static double rest(mest_guest *g, double seconds)
{
    const double from = mest_seconds();
    double end = from + seconds, t = from;
    if (g->o.time_limit > 0 && end > g->began + g->o.time_limit)
        end = g->began + g->o.time_limit;
    while (t < end && !disturbed(g)) {
        const double part = end - t < SLICE_SECONDS ? end - t : SLICE_SECONDS;
        nanosleep(&(struct timespec){.tv_nsec = (long)(part * 1e9)}, NULL); /* of the monotonic clock; a signal ends it early */
        t = mest_seconds();
    }
    return t - from;
}

/* What a caller stops for comes first. */
static bool ends(mest_guest *g, mest_guest_answer *answer)
{
    if (disturbed(g)) {
        atomic_store(&g->woken, false);
        *answer = MEST_GUEST_WOKEN;
    } else if (mest_guest_time_over(g)) {
        *answer = MEST_GUEST_TIME;
    } else {
        return false;
    }
    g->worked_since = mest_seconds();
    return true;
}

mest_guest_answer mest_guest_rest(mest_guest *g, mest_guest_told told, void *user)
{
    mest_guest_answer answer = MEST_GUEST_GO;
    g->owed += (mest_seconds() - g->worked_since) * (1 / g->o.cpu_share - 1);
    if (g->owed > WORTH_SECONDS) {
        const double took = rest(g, g->owed);
        g->owed -= took;
        g->for_share += took;
    }
    if (g->owed < -1)
        g->owed = -1; /* a machine that was busy for long gives no right to a long turn */
    bool paused = false;
    const double from = mest_seconds();
    while (!ends(g, &answer)) {
        const bool polls = g->pause_file[0] || g->batteries.n || g->zones.n;
        if (!polls || (!paused && mest_seconds() - g->looked < g->o.poll_seconds) || !look(g))
            break;
        if (!paused && told)
            told(user, g->reason);
        paused = true;
        rest(g, g->o.poll_seconds);
    }
    if (paused) {
        g->paused += mest_seconds() - from;
        if (told)
            told(user, NULL);
    }
    g->worked_since = mest_seconds();
    return answer;
}
