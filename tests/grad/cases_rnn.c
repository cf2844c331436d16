/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient cases of the recurrent layers. Output 0 is the workspace. */
#include "ops/recurrent.h"
#include "tests/grad/cases.h"

#define VAR(...) { .shape = GRAD_SHAPE(__VA_ARGS__) }
#define ABSENT { .shape = { .rank = 0 }, .role = GRAD_ABSENT }
#define LENGTHS(...) { .shape = { .rank = 1, .dim = { GRAD_DIMS(__VA_ARGS__) } }, .role = GRAD_FIXED, .fill = GRAD_NUMBERS, .dtype = MEST_I32, .ints = (const int64_t[]){ __VA_ARGS__ } }
#define LAYER(op_, name_, params_, n_out_, ...) { name_, op_, .params = &params_, .n_out = n_out_, .skip_out = 1, .n_in = sizeof((grad_input[]){ __VA_ARGS__ }) / sizeof(grad_input), .in = { __VA_ARGS__ } }
#define LSTM(name, params, ...) LAYER("mest.LSTM", name, params, 4, __VA_ARGS__)
#define GRU(name, params, ...) LAYER("mest.GRU", name, params, 3, __VA_ARGS__)
#define RNN(name, params, ...) LAYER("mest.RNN", name, params, 3, __VA_ARGS__)

static const mest_rnn_params plain = { .direction = "forward" }, reverse = { .direction = "reverse" }, both = { .direction = "bidirectional" };
static const mest_rnn_params rows = { .direction = "bidirectional", .layout = 1 };
static const mest_rnn_params linear = { .direction = "forward", .linear_before_reset = 1 }, linear_both = { .direction = "bidirectional", .linear_before_reset = 1 };
static const mest_rnn_params linear_rows = { .direction = "bidirectional", .linear_before_reset = 1, .layout = 1 };
static const mest_rnn_params relu = { .direction = "bidirectional", .activations = { 2, (const char *const[]){ "Relu", "Relu" } } };

static const mest_recurrent_params lstm_torch = { .kind = MEST_LSTM, .order = { 0, 3, 1, 2 } }, lstm_back = { .kind = MEST_LSTM, .order = { 2, 0, 1, 3 }, .reverse = true, .first = 8 };
static const mest_recurrent_params gru_torch = { .kind = MEST_GRU, .order = { 1, 0, 2 }, .linear_before_reset = true }, gru_first = { .kind = MEST_GRU, .order = { 2, 0, 1 }, .reverse = true };
static const mest_recurrent_params rnn_tanh = { .kind = MEST_RNN }, rnn_relu = { .kind = MEST_RNN, .relu = true, .reverse = true };
#define RECURRENT(name, params, n_out, ...) LAYER("mest.Recurrent", name, params, n_out, __VA_ARGS__)

const grad_case grad_cases_rnn[] = {
    RECURRENT("LSTM", lstm_torch, 4, VAR(3, 2, 8), VAR(8, 2)),
    RECURRENT("LSTM, states, lengths", lstm_torch, 4, VAR(3, 3, 8), VAR(8, 2), VAR(1, 16), LENGTHS(2, 0, 3), VAR(1, 3, 2), VAR(1, 3, 2)),
    RECURRENT("LSTM, reverse, second direction", lstm_back, 4, VAR(3, 2, 8), VAR(16, 2), VAR(1, 16), ABSENT, VAR(1, 2, 2), VAR(1, 2, 2)),
    RECURRENT("LSTM, more than a tile", lstm_torch, 4, VAR(2, 18, 4), VAR(4, 1)),
    RECURRENT("GRU", gru_torch, 3, VAR(3, 2, 6), VAR(6, 2), VAR(1, 12), ABSENT, VAR(1, 2, 2)),
    RECURRENT("GRU, reset first, lengths", gru_first, 3, VAR(3, 2, 6), VAR(6, 2), VAR(1, 12), LENGTHS(3, 1)),
    RECURRENT("RNN", rnn_tanh, 3, VAR(3, 2, 2), VAR(2, 2), VAR(1, 4), ABSENT, VAR(1, 2, 2)),
    RECURRENT("RNN, relu, reverse", rnn_relu, 3, VAR(3, 2, 2), VAR(2, 2)),
    LSTM("no bias, no state", plain, VAR(3, 2, 3), VAR(1, 8, 3), VAR(1, 8, 2)),
    LSTM("states", plain, VAR(3, 2, 3), VAR(1, 12, 3), VAR(1, 12, 3), VAR(1, 24), ABSENT, VAR(1, 2, 3), VAR(1, 2, 3)),
    LSTM("reverse", reverse, VAR(3, 2, 2), VAR(1, 12, 2), VAR(1, 12, 3), VAR(1, 24), ABSENT, VAR(1, 2, 3), VAR(1, 2, 3)),
    LSTM("both, lengths, peepholes", both, VAR(4, 3, 2), VAR(2, 8, 2), VAR(2, 8, 2), VAR(2, 16), LENGTHS(4, 2, 0), VAR(2, 3, 2), VAR(2, 3, 2), VAR(2, 6)),
    LSTM("batch first", rows, VAR(2, 3, 3), VAR(2, 8, 3), VAR(2, 8, 2), VAR(2, 16), LENGTHS(2, 3), VAR(2, 2, 2), VAR(2, 2, 2)),
    LSTM("more than a tile", plain, VAR(2, 18, 1), VAR(1, 4, 1), VAR(1, 4, 1), VAR(1, 8)),
    LSTM("more than a panel", plain, VAR(2, 1, 1), VAR(1, 40, 1), VAR(1, 40, 10), VAR(1, 80)),
    GRU("no bias, no state", plain, VAR(3, 2, 3), VAR(1, 6, 3), VAR(1, 6, 2)),
    GRU("reset first, both, lengths", both, VAR(4, 3, 2), VAR(2, 9, 2), VAR(2, 9, 3), VAR(2, 18), LENGTHS(3, 4, 1), VAR(2, 3, 3)),
    GRU("reset last", linear, VAR(3, 2, 2), VAR(1, 9, 2), VAR(1, 9, 3), VAR(1, 18), ABSENT, VAR(1, 2, 3)),
    GRU("reset last, no bias", linear, VAR(3, 2, 2), VAR(1, 6, 2), VAR(1, 6, 2)),
    GRU("reset last, both, lengths", linear_both, VAR(3, 2, 2), VAR(2, 6, 2), VAR(2, 6, 2), VAR(2, 12), LENGTHS(3, 1), VAR(2, 2, 2)),
    GRU("batch first", linear_rows, VAR(2, 3, 2), VAR(2, 6, 2), VAR(2, 6, 2), VAR(2, 12), ABSENT, VAR(2, 2, 2)),
    GRU("reset first, more than a panel", plain, VAR(2, 1, 1), VAR(1, 30, 1), VAR(1, 30, 10), VAR(1, 60)),
    RNN("tanh, both, lengths", both, VAR(4, 3, 2), VAR(2, 3, 2), VAR(2, 3, 3), VAR(2, 6), LENGTHS(2, 4, 3), VAR(2, 3, 3)),
    RNN("relu", relu, VAR(3, 2, 2), VAR(2, 3, 2), VAR(2, 3, 3), VAR(2, 6), ABSENT, VAR(2, 2, 3)),
    RNN("batch first", rows, VAR(2, 3, 2), VAR(2, 2, 2), VAR(2, 2, 2)),
    { .name = NULL },
};

const grad_exempt grad_exempt_rnn[] = { { .op = NULL } };
