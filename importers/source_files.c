/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the files that a spec speaks of. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "importers/source.h"

bool mest_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* FOLDER/NAME in region memory (names may be longer than a printf buffer); NULL when out of memory. */
static char *join(mest_region *region, const char *folder, const char *name)
{
    size_t a = strlen(folder), b = strlen(name);
    char *path = mest_region_alloc(region, a + b + 2, 1);
    if (!path)
        return NULL;
    memcpy(path, folder, a);
    path[a] = '/';
    memcpy(path + a + 1, name, b);
    return path;
}

mest_status mest_split_pair(mest_region *region, const char *text, char **first, char **second, mest_error *err)
{
    *second = NULL;
    *first = mest_region_strdup(region, text);
    MEST_CHECK(*first, err, MEST_E_NOMEM, "%s: no memory", text);
    if (access(text, F_OK) == 0)
        return MEST_OK;
    char *comma = strrchr(*first, ',');
    if (comma) {
        *comma = 0;
        *second = comma + 1;
        MEST_CHECK(**first && **second, err, MEST_E_ARGUMENT, "data '%s': a file name is missing beside the comma", text);
    }
    return MEST_OK;
}

char *mest_find_in_folder(mest_region *region, const char *folder, const char *const *names)
{
    for (; *names; names++) {
        char *path = join(region, folder, *names);
        if (!path || access(path, F_OK) == 0)
            return path;
    }
    return NULL;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

mest_status mest_list_folder(mest_region *region, const char *folder, bool (*wanted)(const char *folder, const char *name),
                             mest_name_list *list, mest_error *err)
{
    mest_status status = MEST_OK;
    struct dirent *entry;
    memset(list, 0, sizeof *list);
    DIR *dir = opendir(folder);
    MEST_CHECK(dir, err, MEST_E_IO, "%s: cannot open: %s", folder, strerror(errno));
    for (errno = 0; (entry = readdir(dir)) != NULL; errno = 0) {
        if (entry->d_name[0] == '.' || !wanted(folder, entry->d_name))
            continue;
        char *name = mest_region_strdup(region, entry->d_name);
        if (!name || list->n == INT32_MAX / 4 || !MEST_REGION_GROW(region, list->names, list->n, list->cap)) {
            status = mest_fail(err, MEST_E_NOMEM, "%s: no memory for its list of files", folder);
            break;
        }
        list->names[list->n++] = name;
    }
    if (status == MEST_OK && errno)
        status = mest_fail(err, MEST_E_IO, "%s: cannot read: %s", folder, strerror(errno));
    closedir(dir);
    if (list->n)
        qsort(list->names, (size_t)list->n, sizeof *list->names, by_bytes);
    return status;
}
