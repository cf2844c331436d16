/* SPDX-License-Identifier: Apache-2.0 */
/* A model with external data: two bytes say how long the model is, the rest is the file beside it, "external.bin". Beside them stand what a
 * model must not read: a link out of the folder, a folder, a named pipe, and a link that stays inside. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

enum { CAP = 80 << 20 };

static void prepare(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    fuzz_put("m/folder/inner.bin", "12345678", 8);
    fuzz_put("outside.bin", "12345678", 8);
    FUZZ_CHECK(mkfifo(fuzz_path("m/pipe"), 0666) == 0);
    FUZZ_CHECK(symlink("../outside.bin", fuzz_path("m/out")) == 0);
    FUZZ_CHECK(symlink("external.bin", fuzz_path("m/in")) == 0);
    FUZZ_CHECK(symlink("loop", fuzz_path("m/loop")) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = { data, size };
    fuzz_meter meter;
    mest_allocator allocator = fuzz_allocator(&meter, CAP);
    mest_model_options options;
    mest_model *m;
    mest_error err;
    size_t n;
    prepare();
    const uint8_t *model = (n = fuzz_number(&in, 2), fuzz_bytes(&in, n, &n));
    fuzz_put("m/external.bin", in.at, in.left);
    const char *path = fuzz_put("m/model.onnx", model, n);
    mest_model_options_init(&options);
    options.allocator = &allocator;
    mest_status status = mest_model_load(&m, path, &options, &err);
    FUZZ_STATUS(status, err);
    FUZZ_CHECK((status == MEST_OK) == (m != NULL));
    if (m) {
        for (int i = 0; i < mest_model_parameter_count(m); i++) {
            mest_tensor_info t = { .struct_size = sizeof t };
            size_t count = 1;
            FUZZ_CHECK(mest_model_parameter(m, i, &t, &err) == MEST_OK);
            for (int k = 0; k < t.rank && count < 1 << 20; k++)
                count *= (size_t)t.dim[k];
            if (count >= 1 << 20)
                continue;
            float *values = malloc(count * sizeof *values + 1);
            FUZZ_CHECK(mest_model_read_parameter(m, i, values, count, &err) == MEST_OK);
            free(values);
        }
        size_t bytes;
        status = mest_model_export_memory(m, NULL, 0, &bytes, NULL, &err);
        FUZZ_STATUS(status, err);
    }
    mest_model_destroy(m);
    FUZZ_CHECK(meter.now == 0);
    return 0;
}
