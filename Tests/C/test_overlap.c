/* SPDX-License-Identifier: Apache-2.0
 *
 * An output that shares memory with another argument is refused, whatever the two are. */
#include "arguments.h"

static void training_outputs(void) {
    REFUSED(training, BN_ERROR_OVERLAP, "y", a.y = (float *)a.x + 1);
    REFUSED(training, BN_ERROR_OVERLAP, "y", (a.x = memory.y + 7, a.y = memory.y));
    REFUSED(training, BN_ERROR_OVERLAP, "y", a.y = (float *)a.x + outer * channels * inner - 1);
    REFUSED(training, BN_ERROR_OVERLAP, "y", a.gamma = (float *)a.y + 3);
    REFUSED(training, BN_ERROR_OVERLAP, "y", a.beta = a.y);
    REFUSED(training, BN_ERROR_OVERLAP, "running_mean", a.running_mean = a.x);
    REFUSED(training, BN_ERROR_OVERLAP, "running_mean", a.running_mean = a.running_var);
    REFUSED(training, BN_ERROR_OVERLAP, "running_var", a.running_var = (float *)a.gamma + 1);
    REFUSED(training, BN_ERROR_OVERLAP, "saved_mean", a.mean = a.invstd + 1);
    REFUSED(training, BN_ERROR_OVERLAP, "saved_invstd", a.invstd = (double *)memory.x);
}

/* The pointers are equal, but the strides are not. */
static void strides_differ(void) {
    REFUSED(training, BN_ERROR_OVERLAP, "y", (a.y = a.x, a.shape_value.x_stride = channels * inner + 1));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (a.dx = a.dy, a.shape_value.dx_stride = channels * inner + 1));
}

static void inference_outputs(void) {
    REFUSED(inference, BN_ERROR_OVERLAP, "y", a.y = (float *)a.x + 1);
    REFUSED(inference, BN_ERROR_OVERLAP, "y", a.running_var = (float *)a.y + 1);
    REFUSED(inference, BN_ERROR_OVERLAP, "saved_mean", a.mean = a.invstd);
}

static void backward_outputs(void) {
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", a.dx = a.x);
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", a.dx = (float *)a.dy + 1);
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", a.gamma = (float *)a.dx + 2);
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", a.mean = (double *)memory.dx);
    REFUSED(backward, BN_ERROR_OVERLAP, "dgamma", a.dgamma = a.dbeta);
    REFUSED(backward, BN_ERROR_OVERLAP, "dgamma", a.dgamma = a.gamma);
    REFUSED(backward, BN_ERROR_OVERLAP, "dbeta", a.dbeta = a.dy);
}

static void block_outputs(void) {
    REFUSED(moments, BN_ERROR_OVERLAP, "count", a.count = a.mean);
    REFUSED(moments, BN_ERROR_OVERLAP, "m2", a.m2 = (double *)memory.x);
    REFUSED(merge, BN_ERROR_OVERLAP, "count", a.count = a.counts + channels);
    REFUSED(merge, BN_ERROR_OVERLAP, "count", a.count = a.counts + 1);
    REFUSED(merge, BN_ERROR_OVERLAP, "mean", a.mean = a.m2s);
    REFUSED(merge, BN_ERROR_OVERLAP, "mean", a.mean = a.m2);
    REFUSED(merge, BN_ERROR_OVERLAP, "mean", a.mean = a.count);
    REFUSED(merge, BN_ERROR_OVERLAP, "m2", a.m2 = a.count);
    REFUSED(inverse_std, BN_ERROR_OVERLAP, "invstd", a.invstd = a.count);
    REFUSED(inverse_std, BN_ERROR_OVERLAP, "invstd", a.invstd = a.m2 + 1);
    REFUSED(normalize, BN_ERROR_OVERLAP, "y", a.y = (float *)a.x + 1);
    REFUSED(normalize, BN_ERROR_OVERLAP, "y", a.mean = (double *)memory.y);
    REFUSED(reduce, BN_ERROR_OVERLAP, "sum_dy", a.sum_dy = a.sum_dy_x_hat);
    REFUSED(reduce, BN_ERROR_OVERLAP, "sum_dy", a.sum_dy = a.mean);
    REFUSED(apply, BN_ERROR_OVERLAP, "dx", a.dx = a.x);
    REFUSED(apply, BN_ERROR_OVERLAP, "dx", a.dx = (float *)a.dy + 1);
    REFUSED(apply, BN_ERROR_OVERLAP, "dx", a.sum_dy = (double *)memory.dx);
    REFUSED(update_running, BN_ERROR_OVERLAP, "running_mean", a.running_mean = a.mean);
    REFUSED(update_running, BN_ERROR_OVERLAP, "running_var", a.running_var = (float *)a.running_mean + 1);
}

/* That an output may be one input does not let it be another as well, which is the same array. */
static void one_input_alone(void) {
    REFUSED(merge, BN_ERROR_OVERLAP, "mean", a.mean = a.count = a.counts);
    REFUSED(merge, BN_ERROR_OVERLAP, "count", a.count = a.mean = a.counts = a.means);
    REFUSED(merge, BN_ERROR_OVERLAP, "count", a.count = a.mean = a.m2 = a.counts = a.means = a.m2s);
    REFUSED(merge, BN_ERROR_OVERLAP, "count", a.count = a.counts = a.means);
    REFUSED(merge, BN_ERROR_OVERLAP, "mean", a.mean = a.means = a.m2s);
    REFUSED(merge, BN_ERROR_OVERLAP, "m2", a.m2 = a.m2s = a.means);
    REFUSED(merge, BN_ERROR_OVERLAP, "m2", (a.parts = 1, a.m2 = a.m2s = a.counts));
    REFUSED(inverse_std, BN_ERROR_OVERLAP, "invstd", a.invstd = a.m2 = a.count);
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", a.dx = a.dy = a.x);
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (a.dx = a.dy = a.x, a.options_value.frozen = 1));
    REFUSED(apply, BN_ERROR_OVERLAP, "dx", a.dx = a.dy = a.x);
    size_t *inner_extent = &a.shape_value.inner, *outer_extent = &a.shape_value.outer;
    REFUSED(inference, BN_ERROR_OVERLAP, "y", (*outer_extent = *inner_extent = 1, a.y = a.x = a.gamma));
    REFUSED(inference, BN_ERROR_OVERLAP, "y", (*outer_extent = *inner_extent = 1, a.y = a.x = a.beta));
    REFUSED(inference, BN_ERROR_OVERLAP, "y", (*outer_extent = *inner_extent = 1, a.y = a.x = a.running_var));
    REFUSED(normalize, BN_ERROR_OVERLAP, "y", (*outer_extent = *inner_extent = 1, a.y = a.x = a.gamma));
    REFUSED(training, BN_ERROR_OVERLAP, "y", (*inner_extent = 1, a.y = a.x = a.gamma));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (*outer_extent = *inner_extent = 1, a.dx = a.dy = a.gamma));
    REFUSED(apply, BN_ERROR_OVERLAP, "dx", (*outer_extent = *inner_extent = 1, a.dx = a.dy = a.gamma));
}

/* The call with its output apart, and with the output in the place of the input, from the same values. */
#define IN_PLACE(function, output, input, bytes, change)                                                    \
    do {                                                                                                    \
        char apart[sizeof memory];                                                                          \
        for (int place = 0; place < 2; place++) {                                                           \
            random_state = seed;                                                                            \
            reset();                                                                                        \
            change;                                                                                         \
            if (place) output = input;                                                                      \
            bn_status status = function();                                                                  \
            CHECK(status == BN_OK, #function ": " #output " = " #input ": %s", bn_last_error());           \
            if (!place) memcpy(apart, output, bytes);                                                       \
            else CHECK(memcmp(apart, output, bytes) == 0, #function ": " #output " = " #input " differs"); \
        }                                                                                                   \
    } while (0)

static void may_be_one_input(void) {
    static const size_t tensor = outer * channels * inner * sizeof(float), row = channels * sizeof(double);
    static const size_t one = channels * sizeof(float);
    IN_PLACE(training, a.y, a.x, tensor, (void)0);
    IN_PLACE(inference, a.y, a.x, tensor, (void)0);
    IN_PLACE(normalize, a.y, a.x, tensor, (void)0);
    IN_PLACE(normalize, a.y, a.x, one, a.shape_value.outer = a.shape_value.inner = 1);
    IN_PLACE(backward, a.dx, a.dy, tensor, (void)0);
    IN_PLACE(backward, a.dx, a.dy, tensor, a.options_value.frozen = 1);
    IN_PLACE(apply, a.dx, a.dy, tensor, (void)0);
    IN_PLACE(apply, a.dx, a.dy, one, a.shape_value.outer = a.shape_value.inner = 1);
    IN_PLACE(merge, a.count, a.counts, row, (void)0);
    IN_PLACE(merge, a.mean, a.means, row, (void)0);
    IN_PLACE(merge, a.m2, a.m2s, row, (void)0);
    IN_PLACE(merge, a.m2, a.m2s, row, (a.count = a.counts, a.mean = a.means));
    IN_PLACE(merge, a.m2, a.m2s, row, a.parts = 1);
    IN_PLACE(inverse_std, a.invstd, a.m2, row, (void)0);
}

int main(void) {
    start();
    RUN(training_outputs);
    RUN(strides_differ);
    RUN(inference_outputs);
    RUN(backward_outputs);
    RUN(block_outputs);
    RUN(one_input_alone);
    RUN(may_be_one_input);
    return finish();
}
