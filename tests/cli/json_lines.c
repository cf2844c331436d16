/* SPDX-License-Identifier: Apache-2.0 */
/* Reads JSON lines from stdin; fails if a line is not one object. With arguments EVENT KEY prints that value of each such event. */
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

int main(int argc, char **argv)
{
    static char line[1 << 20];
    int number = 0;
    while (fgets(line, sizeof line, stdin)) {
        const char *end = NULL;
        cJSON *object = cJSON_ParseWithOpts(line, &end, 0);
        number++;
        const cJSON *event = cJSON_GetObjectItemCaseSensitive(object, "event");
        if (!cJSON_IsObject(object) || !cJSON_IsString(event) || !end || *end != '\n' || end[1]) {
            fprintf(stderr, "line %d is not one JSON object with an event: %s", number, line);
            cJSON_Delete(object);
            return 1;
        }
        if (argc > 2 && strcmp(event->valuestring, argv[1]) == 0) {
            const cJSON *value = object;
            for (int i = 2; i < argc; i++)
                value = cJSON_GetObjectItemCaseSensitive(value, argv[i]);
            char *text = value ? cJSON_PrintUnformatted(value) : NULL;
            printf("%s\n", text ? text : "");
            cJSON_free(text);
        }
        cJSON_Delete(object);
    }
    return number == 0;
}
