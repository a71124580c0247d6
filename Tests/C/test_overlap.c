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
    REFUSED(merge, BN_ERROR_OVERLAP, "count", (a.stride = 3, a.count = a.counts + 3));
    REFUSED(merge, BN_ERROR_OVERLAP, "mean", (a.stride = 3, a.mean = a.means + 4));
    REFUSED(moments, BN_ERROR_OVERLAP, "mean", a.mean = a.count + 1);
    REFUSED(moments, BN_ERROR_OVERLAP, "m2", (a.stride = 2 * channels, a.m2 = a.mean + 1));
    REFUSED(reduce, BN_ERROR_OVERLAP, "sum_dy_x_hat", (a.stride = 2 * channels, a.sum_dy_x_hat = a.sum_dy + 1));
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

static void derivative_outputs(void) {
    const size_t last = outer * channels * inner - 1;
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.y_tangent = a.x);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.y_tangent = (float *)a.x + last);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.y_tangent = (float *)a.x_tangent + 1);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", (a.x_tangent = memory.y + last, a.y_tangent = memory.y));
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.gamma = a.y_tangent);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.gamma_tangent = (float *)a.y_tangent + last);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.beta_tangent = (float *)a.y_tangent + 2);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.mean = (double *)memory.y + 1);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.invstd = (double *)memory.y + 11);
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent",
            (a.y_tangent = a.x_tangent, a.shape_value.dx_stride = channels * inner + 1));
    REFUSED(jvp, BN_ERROR_OVERLAP, "y_tangent", a.y_tangent = a.x_tangent = a.x);

    void **const gradients[] = {&a.grad_dy, &a.grad_x, &a.grad_gamma};
    static const char *const names_of_gradients[] = {"grad_dy", "grad_x", "grad_gamma"};
    for (size_t i = 0; i < LENGTH(gradients); i++) {
        void **const output = gradients[i];
        const char *name = names_of_gradients[i];
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = a.x);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = memory.x + last);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = (float *)a.dy + 1);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = (float *)a.grad_dx + 2);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = a.gamma);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = (float *)a.grad_dgamma + 1);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = (float *)a.grad_dbeta + 1);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = a.mean);
        REFUSED(double_backward, BN_ERROR_OVERLAP, name, *output = a.invstd + 1);
    }
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_dy", a.grad_dy = a.dy);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_x", a.grad_x = a.grad_dx);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_gamma", a.grad_gamma = a.grad_dgamma);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_x", a.grad_x = a.grad_dy);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_x", a.grad_x = (float *)a.grad_dy + last);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_gamma", a.grad_gamma = (float *)a.grad_dy + 3);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_gamma", a.grad_gamma = (float *)a.grad_x + last);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_dy",
            (a.grad_dy = a.grad_dx, a.shape_value.y_stride = channels * inner + 1));
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_x",
            (a.grad_x = a.dy, a.shape_value.dx_stride = channels * inner + 1));
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_dy", a.grad_dy = a.grad_dx = a.dy);
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_x", (a.grad_dx = a.dy, a.grad_x = a.dy));
    REFUSED(double_backward, BN_ERROR_OVERLAP, "grad_x", a.grad_x = a.dy = a.x);
}

static void folding_outputs(void) {
    REFUSED(scale_shift, BN_ERROR_OVERLAP, "scale", a.scale = (double *)memory.gamma);
    REFUSED(scale_shift, BN_ERROR_OVERLAP, "scale", a.beta = a.scale + 1);
    REFUSED(scale_shift, BN_ERROR_OVERLAP, "scale", a.running_mean = (float *)a.scale + 3);
    REFUSED(scale_shift, BN_ERROR_OVERLAP, "shift", a.running_var = a.shift);
    REFUSED(scale_shift, BN_ERROR_OVERLAP, "shift", a.shift = a.scale);
    REFUSED(scale_shift, BN_ERROR_OVERLAP, "shift", a.shift = a.scale + channels - 1);
    static const call folds[] = {fold_into_previous, fold_into_next};
    static const size_t biases[] = {channels, outer};
    const size_t last = outer * channels * inner - 1;
    for (size_t i = 0; i < LENGTH(folds); i++) {
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight", a.folded_weight = (float *)a.weight + 1);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight", a.folded_weight = (float *)a.weight + last);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight", a.bias = (float *)a.folded_weight + last);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight", a.bias = (float *)a.folded_weight - biases[i] + 1);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight", a.scale = (double *)memory.y + 3);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight", a.shift = (double *)memory.y + 11);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight",
                (a.folded_weight = a.weight, a.shape_value.y_stride = channels * inner + 1));
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_bias", a.folded_bias = (float *)a.bias + 1);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_bias", a.folded_bias = (float *)a.bias + biases[i] - 1);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_bias", a.folded_bias = a.weight);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_bias", a.folded_bias = (float *)a.folded_weight + last);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_bias", a.folded_bias = a.scale);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_bias", a.folded_bias = a.shift + channels - 1);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_bias", a.folded_bias = a.folded_weight = a.weight);
        REFUSED(folds[i], BN_ERROR_OVERLAP, "folded_weight", a.folded_weight = a.weight = a.bias);
    }
}

/* An output may be one certain input, but not another one as well that is the same array. */
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
    IN_PLACE(jvp, a.y_tangent, a.x_tangent, tensor, (void)0);
    IN_PLACE(jvp, a.y_tangent, a.x_tangent, tensor, a.options_value.frozen = 1);
    IN_PLACE(double_backward, a.grad_dy, a.grad_dx, tensor, (void)0);
    IN_PLACE(double_backward, a.grad_dy, a.grad_dx, tensor, a.grad_x = a.dy);
    IN_PLACE(double_backward, a.grad_x, a.dy, tensor, (void)0);
    IN_PLACE(double_backward, a.grad_x, a.dy, tensor, a.options_value.frozen = 1);
    IN_PLACE(fold_into_previous, a.folded_weight, a.weight, tensor, (void)0);
    IN_PLACE(fold_into_previous, a.folded_bias, a.bias, one, a.folded_weight = a.weight);
    IN_PLACE(fold_into_next, a.folded_weight, a.weight, tensor, (void)0);
    IN_PLACE(fold_into_next, a.folded_bias, a.bias, outer * sizeof(float), a.folded_weight = a.weight);
}

int main(void) {
    start();
    RUN(training_outputs);
    RUN(strides_differ);
    RUN(inference_outputs);
    RUN(backward_outputs);
    RUN(block_outputs);
    RUN(derivative_outputs);
    RUN(folding_outputs);
    RUN(one_input_alone);
    RUN(may_be_one_input);
    return finish();
}
