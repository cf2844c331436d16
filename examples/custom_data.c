/* SPDX-License-Identifier: Apache-2.0 */
/* A data source of one's own: a text file of digits, read here, moved about by a pixel in training.
 *
 *   gzip -dc digits/digits.csv.gz > digits.csv
 *   custom_data digits/digits_cnn.onnx digits.csv out.onnx
 *
 * What is asked of a source: ids 0..count-1 that always mean the same sample, and the same bits for the same (seed, epoch, id), whichever
 * batch or thread asks. So chance comes from these three numbers and not from a generator that runs on. */
#include <mest/train.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 8, PIXELS = SIDE * SIDE, CLASSES = 10, HELD_OUT = 5 /* every fifth */ };

typedef struct digits {
    const char *path;
    unsigned char (*image)[PIXELS];
    unsigned char *label;
    int64_t n;
} digits;

/* One of two sources on the same digits: those that are trained on, or every fifth. */
typedef struct part {
    const digits *all;
    bool held_out;
} part;

static int64_t index_of(const part *p, int64_t id) { return p->held_out ? id * HELD_OUT : id + id / (HELD_OUT - 1) + 1; }

static mest_status describe(void *self, mest_source_info *info, mest_error *err)
{
    const part *p = self;
    (void)err;
    int64_t held_out = (p->all->n + HELD_OUT - 1) / HELD_OUT;
    *info = (mest_source_info){
        .struct_size = sizeof *info, .count = p->held_out ? held_out : p->all->n - held_out,
        .input_type = MEST_SAMPLE_F32, .input_rank = 3, .input_dim = {1, SIDE, SIDE}, /* channels, rows, columns */
        .target_type = MEST_SAMPLE_I64, .target_rank = 0, .n_classes = CLASSES, .has_targets = true};
    return MEST_OK;
}

static uint64_t mix(uint64_t z) /* the finaliser of MurmurHash3 */
{
    z = (z ^ (z >> 33)) * 0xFF51AFD7ED558CCDu;
    z = (z ^ (z >> 33)) * 0xC4CEB9FE1A85EC53u;
    return z ^ (z >> 33);
}

static mest_status fetch(void *self, const int64_t *ids, int64_t n, const mest_fetch *how, void *inputs, void *targets, mest_error *err)
{
    const part *p = self;
    float *x = inputs;
    int64_t *y = targets;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = index_of(p, ids[i]);
        int dx = 0, dy = 0;
        if (how->augment) {
            uint64_t chance = mix(how->seed ^ mix((uint64_t)how->epoch * 2654435761u + mix((uint64_t)ids[i])));
            dx = (int)(chance % 3) - 1;
            dy = (int)(chance / 3 % 3) - 1;
        }
        for (int r = 0; r < SIDE; r++)
            for (int c = 0; c < SIDE; c++) {
                int row = r - dy, column = c - dx;
                bool inside = row >= 0 && row < SIDE && column >= 0 && column < SIDE;
                x[i * PIXELS + r * SIDE + c] = inside ? (float)p->all->image[at][row * SIDE + column] / 16 : 0;
            }
        if (y)
            y[i] = p->all->label[at];
    }
    return MEST_OK;
}

static const char *class_name(void *self, int64_t index)
{
    static const char *const names[CLASSES] = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"};
    (void)self;
    return index >= 0 && index < CLASSES ? names[index] : NULL;
}

static void sample_name(void *self, int64_t id, char *text, size_t size)
{
    const part *p = self;
    snprintf(text, size, "%s, line %lld", p->all->path, (long long)index_of(p, id) + 1);
}

/* Lines of 64 pixels of 0..16 and the digit, separated by commas. */
static bool read_digits(digits *d, const char *path)
{
    FILE *f = fopen(path, "r");
    int64_t room = 0;
    d->path = path;
    for (int value; f && fscanf(f, "%d", &value) == 1;) {
        if (d->n == room) {
            room = room ? 2 * room : 256;
            void *image = realloc(d->image, (size_t)room * sizeof *d->image);
            d->image = image ? image : d->image;
            void *label = realloc(d->label, (size_t)room);
            d->label = label ? label : d->label;
            if (!image || !label)
                break;
        }
        bool good = true;
        for (int k = 0; k < PIXELS && good; k++) {
            good = value >= 0 && value <= 16;
            d->image[d->n][k] = (unsigned char)value;
            good = good && fscanf(f, " ,%d", &value) == 1;
        }
        if (!good || value < 0 || value >= CLASSES) {
            fprintf(stderr, "%s, line %lld: not 64 pixels of 0..16 and a digit\n", path, (long long)d->n + 1);
            fclose(f);
            return false;
        }
        d->label[d->n++] = (unsigned char)value;
    }
    bool good = f && feof(f) && d->n > HELD_OUT;
    if (!good)
        fprintf(stderr, "%s: cannot be read\n", path);
    if (f)
        fclose(f);
    return good;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: custom_data MODEL.onnx DIGITS.csv OUT.onnx\n");
        return 2;
    }
    digits all = {0};
    if (!read_digits(&all, argv[2])) {
        free(all.image);
        free(all.label);
        return 1;
    }
    part for_training = {&all, false}, for_testing = {&all, true};
    /* Nothing is to be freed by the library: no destroy. */
    mest_source train = {.struct_size = sizeof train, .self = &for_training, .info = describe, .fetch = fetch, .class_name = class_name,
                         .sample_name = sample_name};
    mest_source test = train;
    test.self = &for_testing;
    mest_error err = {0};
    mest_model *model = NULL;
    mest_session *session = NULL;
    mest_sparsity sparse;
    mest_sparsity_init(&sparse);
    sparse.scheme = "block4";
    sparse.sparsity = 0.9;
    mest_train_config recipe;
    mest_train_config_init(&recipe);
    recipe.lr = 0.05;
    recipe.epochs = 10;
    recipe.schedule = "cosine";
    mest_metrics m = {.struct_size = sizeof m};
    if (mest_model_load(&model, argv[1], NULL, &err) == MEST_OK && mest_model_sparsify(model, &sparse, &err) == MEST_OK
        && mest_session_create(&session, model, &recipe, &err) == MEST_OK
        && mest_session_add_scheduler(session, "mest", "mode=em,freq=2", &err) == MEST_OK
        && mest_session_train(session, &train, NULL, &err) == MEST_OK && mest_session_evaluate(session, &test, NULL, &m, &err) == MEST_OK
        && mest_model_export(model, argv[3], NULL, &err) == MEST_OK)
        printf("%.2f %% of %lld held-out digits\n", 100 * m.accuracy, (long long)m.samples);
    else
        fprintf(stderr, "%s: %s\n", mest_status_text(err.code), err.msg);
    mest_session_destroy(session);
    mest_model_destroy(model);
    free(all.image);
    free(all.label);
    return (int)err.code;
}
