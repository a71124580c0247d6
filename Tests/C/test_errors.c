/* SPDX-License-Identifier: Apache-2.0
 *
 * Every status by every cause that the caller's arguments can have. */
#include "arguments.h"

#include <math.h>

static const call shape_calls[] = {training, inference, backward, moments, normalize, reduce, apply, jvp,
                                   double_backward, fold_into_previous, fold_into_next};
static const call dtype_calls[] = {training, inference, backward, moments, normalize, reduce, apply, update_running,
                                   jvp, double_backward, scale_shift, fold_into_previous, fold_into_next};
static const call channel_calls[] = {merge, inverse_std, update_running, scale_shift};

/* The arguments of which each other test changes one. */
static void valid_arguments(void) {
    for (size_t i = 0; i < LENGTH(every_call); i++) {
        reset();
        bn_status status = every_call[i]();
        CHECK(status == BN_OK, "call %zu: %s", i, bn_last_error());
    }
}

static void null(void) {
    for (size_t i = 0; i < LENGTH(shape_calls); i++) REFUSED(shape_calls[i], BN_ERROR_NULL, "shape", a.shape = NULL);

    REFUSED(training, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(inference, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(inference, BN_ERROR_NULL, "running_mean", a.running_mean = NULL);
    REFUSED(inference, BN_ERROR_NULL, "running_var", a.running_var = NULL);
    REFUSED(backward, BN_ERROR_NULL, "dy", a.dy = NULL);
    REFUSED(backward, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(backward, BN_ERROR_NULL, "x", (a.x = NULL, a.options_value.frozen = 1));
    REFUSED(backward, BN_ERROR_NULL, "saved_mean", a.mean = NULL);
    REFUSED(backward, BN_ERROR_NULL, "saved_invstd", a.invstd = NULL);
    REFUSED(moments, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(moments, BN_ERROR_NULL, "count", a.count = NULL);
    REFUSED(moments, BN_ERROR_NULL, "mean", a.mean = NULL);
    REFUSED(moments, BN_ERROR_NULL, "m2", a.m2 = NULL);
    REFUSED(merge, BN_ERROR_NULL, "counts", a.counts = NULL);
    REFUSED(merge, BN_ERROR_NULL, "means", a.means = NULL);
    REFUSED(merge, BN_ERROR_NULL, "m2s", a.m2s = NULL);
    REFUSED(merge, BN_ERROR_NULL, "count", a.count = NULL);
    REFUSED(merge, BN_ERROR_NULL, "mean", a.mean = NULL);
    REFUSED(merge, BN_ERROR_NULL, "m2", a.m2 = NULL);
    REFUSED(inverse_std, BN_ERROR_NULL, "count", a.count = NULL);
    REFUSED(inverse_std, BN_ERROR_NULL, "m2", a.m2 = NULL);
    REFUSED(inverse_std, BN_ERROR_NULL, "invstd", a.invstd = NULL);
    REFUSED(normalize, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(normalize, BN_ERROR_NULL, "mean", a.mean = NULL);
    REFUSED(normalize, BN_ERROR_NULL, "invstd", a.invstd = NULL);
    REFUSED(normalize, BN_ERROR_NULL, "y", a.y = NULL);
    REFUSED(reduce, BN_ERROR_NULL, "dy", a.dy = NULL);
    REFUSED(reduce, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(reduce, BN_ERROR_NULL, "mean", a.mean = NULL);
    REFUSED(reduce, BN_ERROR_NULL, "invstd", a.invstd = NULL);
    REFUSED(reduce, BN_ERROR_NULL, "sum_dy", a.sum_dy = NULL);
    REFUSED(reduce, BN_ERROR_NULL, "sum_dy_x_hat", a.sum_dy_x_hat = NULL);
    REFUSED(apply, BN_ERROR_NULL, "dy", a.dy = NULL);
    REFUSED(apply, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(apply, BN_ERROR_NULL, "mean", a.mean = NULL);
    REFUSED(apply, BN_ERROR_NULL, "invstd", a.invstd = NULL);
    REFUSED(apply, BN_ERROR_NULL, "count", a.count = NULL);
    REFUSED(apply, BN_ERROR_NULL, "sum_dy", a.sum_dy = NULL);
    REFUSED(apply, BN_ERROR_NULL, "sum_dy_x_hat", a.sum_dy_x_hat = NULL);
    REFUSED(apply, BN_ERROR_NULL, "dx", a.dx = NULL);
    REFUSED(update_running, BN_ERROR_NULL, "count", a.count = NULL);
    REFUSED(update_running, BN_ERROR_NULL, "mean", a.mean = NULL);
    REFUSED(update_running, BN_ERROR_NULL, "m2", a.m2 = NULL);
    REFUSED(update_running, BN_ERROR_NULL, "running_mean", a.running_mean = NULL);
    REFUSED(update_running, BN_ERROR_NULL, "running_var", a.running_var = NULL);
    REFUSED(jvp, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(jvp, BN_ERROR_NULL, "x", (a.x = NULL, a.options_value.frozen = 1));
    REFUSED(jvp, BN_ERROR_NULL, "saved_mean", a.mean = NULL);
    REFUSED(jvp, BN_ERROR_NULL, "saved_invstd", a.invstd = NULL);
    REFUSED(jvp, BN_ERROR_NULL, "y_tangent", a.y_tangent = NULL);
    REFUSED(double_backward, BN_ERROR_NULL, "dy", a.dy = NULL);
    REFUSED(double_backward, BN_ERROR_NULL, "x", a.x = NULL);
    REFUSED(double_backward, BN_ERROR_NULL, "x", (a.x = NULL, a.options_value.frozen = 1));
    REFUSED(double_backward, BN_ERROR_NULL, "saved_mean", a.mean = NULL);
    REFUSED(double_backward, BN_ERROR_NULL, "saved_invstd", a.invstd = NULL);
    REFUSED(scale_shift, BN_ERROR_NULL, "running_mean", a.running_mean = NULL);
    REFUSED(scale_shift, BN_ERROR_NULL, "running_var", a.running_var = NULL);
    REFUSED(scale_shift, BN_ERROR_NULL, "scale", a.scale = NULL);
    REFUSED(scale_shift, BN_ERROR_NULL, "shift", a.shift = NULL);
    static const call folds[] = {fold_into_previous, fold_into_next};
    for (size_t i = 0; i < LENGTH(folds); i++) {
        REFUSED(folds[i], BN_ERROR_NULL, "weight", a.weight = NULL);
        REFUSED(folds[i], BN_ERROR_NULL, "scale", a.scale = NULL);
        REFUSED(folds[i], BN_ERROR_NULL, "shift", a.shift = NULL);
        REFUSED(folds[i], BN_ERROR_NULL, "folded_weight", a.folded_weight = NULL);
        REFUSED(folds[i], BN_ERROR_NULL, "folded_bias", a.folded_bias = NULL);
    }
}

static void pair(void) {
    REFUSED(training, BN_ERROR_PAIR, "running_mean", a.running_mean = NULL);
    REFUSED(training, BN_ERROR_PAIR, "running_var", a.running_var = NULL);
}

static void shape(void) {
    const size_t slice_bytes = channels * inner * sizeof(float);
    for (size_t i = 0; i < LENGTH(shape_calls); i++) {
        call each = shape_calls[i];
        REFUSED(each, BN_ERROR_SHAPE, "channels", a.shape_value.channels = 0);
        REFUSED(each, BN_ERROR_SHAPE, "channels", a.shape_value.channels = SIZE_MAX);
        REFUSED(each, BN_ERROR_SHAPE, "inner", a.shape_value.inner = SIZE_MAX / 2 + 1); /* the product wraps to 0 */
        REFUSED(each, BN_ERROR_SHAPE, "outer", a.shape_value.outer = SIZE_MAX);
        REFUSED(each, BN_ERROR_SHAPE, "outer", a.shape_value.outer = PTRDIFF_MAX / slice_bytes + 1);
    }
    for (size_t i = 0; i < LENGTH(channel_calls); i++) {
        REFUSED(channel_calls[i], BN_ERROR_SHAPE, "channels", a.channels = 0);
        REFUSED(channel_calls[i], BN_ERROR_SHAPE, "channels", a.channels = SIZE_MAX);
    }
    REFUSED(merge, BN_ERROR_SHAPE, "parts", a.parts = SIZE_MAX / 2 + 1);
    static const call row_calls[] = {moments, merge, reduce};
    for (size_t i = 0; i < LENGTH(row_calls); i++) {
        call each = row_calls[i];
        REFUSED(each, BN_ERROR_SHAPE, "stride", a.stride = channels - 1);
        REFUSED(each, BN_ERROR_SHAPE, "stride", a.stride = SIZE_MAX);
        REFUSED(each, BN_ERROR_SHAPE, "stride", a.stride = PTRDIFF_MAX);
        REFUSED(each, BN_ERROR_SHAPE, "stride", a.stride = PTRDIFF_MAX / 8 + 1);
    }
    REFUSED(merge, BN_ERROR_SHAPE, "stride", a.stride = PTRDIFF_MAX / (8 * parts) + 1);
    REFUSED(training, BN_ERROR_SHAPE, "x_stride", a.shape_value.x_stride = channels * inner - 1);
    REFUSED(training, BN_ERROR_SHAPE, "x_stride", a.shape_value.x_stride = SIZE_MAX);
    REFUSED(training, BN_ERROR_SHAPE, "y_stride", a.shape_value.y_stride = 1);
    REFUSED(backward, BN_ERROR_SHAPE, "y_stride", a.shape_value.y_stride = channels * inner - 1);
    REFUSED(backward, BN_ERROR_SHAPE, "dx_stride", a.shape_value.dx_stride = channels * inner - 1);
    REFUSED(jvp, BN_ERROR_SHAPE, "dx_stride", a.shape_value.dx_stride = channels * inner - 1);
    REFUSED(double_backward, BN_ERROR_SHAPE, "dx_stride", a.shape_value.dx_stride = SIZE_MAX);
    REFUSED(fold_into_previous, BN_ERROR_SHAPE, "y_stride", a.shape_value.y_stride = channels * inner - 1);
    REFUSED(fold_into_next, BN_ERROR_SHAPE, "x_stride", a.shape_value.x_stride = channels * inner - 1);
}

static void dtype(void) {
    static const int unknown[] = {0, 5, 99, -1};
    for (size_t i = 0; i < LENGTH(dtype_calls); i++) {
        for (size_t d = 0; d < LENGTH(unknown); d++) {
            REFUSED(dtype_calls[i], BN_ERROR_DTYPE, "dtype", a.dtype = (bn_dtype)unknown[d]);
        }
    }
}

static void struct_size(void) {
    static const size_t shapes[] = {0, 1, sizeof(bn_shape) - 1, sizeof(bn_shape) + 8, SIZE_MAX};
    static const size_t options[] = {0, 1, sizeof(bn_options) - 1, sizeof(bn_options) + 8, SIZE_MAX};
    for (size_t s = 0; s < LENGTH(shapes); s++) {
        for (size_t i = 0; i < LENGTH(shape_calls); i++) {
            REFUSED(shape_calls[i], BN_ERROR_STRUCT_SIZE, "shape", a.shape_value.struct_size = shapes[s]);
        }
    }
    for (size_t s = 0; s < LENGTH(options); s++) {
        for (size_t i = 0; i < LENGTH(option_calls); i++) {
            REFUSED(option_calls[i], BN_ERROR_STRUCT_SIZE, "options", a.options_value.struct_size = options[s]);
        }
    }
}

static void option(void) {
    for (size_t i = 0; i < LENGTH(option_calls); i++) {
        call each = option_calls[i];
        REFUSED(each, BN_ERROR_OPTION, "eps", a.options_value.eps = -1e-5);
        REFUSED(each, BN_ERROR_OPTION, "eps", a.options_value.eps = NAN);
        REFUSED(each, BN_ERROR_OPTION, "eps", a.options_value.eps = INFINITY);
        REFUSED(each, BN_ERROR_OPTION, "momentum", a.options_value.momentum = -0.1);
        REFUSED(each, BN_ERROR_OPTION, "momentum", a.options_value.momentum = 1.1);
        REFUSED(each, BN_ERROR_OPTION, "momentum", a.options_value.momentum = NAN);
        REFUSED(each, BN_ERROR_OPTION, "biased_running_var", a.options_value.biased_running_var = 2);
        REFUSED(each, BN_ERROR_OPTION, "frozen", a.options_value.frozen = -1);
        REFUSED(each, BN_ERROR_DTYPE, "param_dtype", a.options_value.param_dtype = (bn_dtype)5);
        REFUSED(each, BN_ERROR_DTYPE, "param_dtype", a.options_value.param_dtype = (bn_dtype)-1);
        REFUSED(each, BN_ERROR_OPTION, "reserved", a.options_value.reserved = 1);
    }
    REFUSED(merge, BN_ERROR_OPTION, "counts", memory.counts[3] = -1);
    REFUSED(merge, BN_ERROR_OPTION, "counts", memory.counts[5] = NAN);
    REFUSED(merge, BN_ERROR_OPTION, "counts", memory.counts[0] = INFINITY);
    REFUSED(apply, BN_ERROR_OPTION, "count", memory.count[1] = 0);
    REFUSED(apply, BN_ERROR_OPTION, "count", memory.count[1] = -4);
    REFUSED(apply, BN_ERROR_OPTION, "count", memory.count[0] = NAN);
    REFUSED(apply, BN_ERROR_OPTION, "count", memory.count[0] = INFINITY);
    REFUSED(scale_shift, BN_ERROR_OPTION, "running_var", memory.running_var[1] = -0.5f);
    REFUSED(scale_shift, BN_ERROR_OPTION, "running_var", memory.running_var[1] = -INFINITY);
    REFUSED(scale_shift, BN_ERROR_OPTION, "running_var", memory.running_var[0] = NAN);
    REFUSED(scale_shift, BN_ERROR_OPTION, "running_var",
            (memory.running_var[1] = nextafterf(-0.25f, -1), a.options_value.eps = 0.25));
}

/* Functions that know no weights refuse them. */
static void weights(void) {
    static const call others[] = {jvp, double_backward, fold_into_previous, fold_into_next};
    for (size_t i = 0; i < LENGTH(others); i++) {
        REFUSED(others[i], BN_ERROR_OPTION, "weights",
                (a.shape_value.weights = &a.weights_value, a.weights_value.values = memory.weights));
    }
}

static void alignment(void) {
    REFUSED(training, BN_ERROR_ALIGNMENT, "x", a.x = (char *)a.x + 2);
    REFUSED(training, BN_ERROR_ALIGNMENT, "x", (a.dtype = BN_FLOAT16, a.x = (char *)a.x + 1));
    REFUSED(training, BN_ERROR_ALIGNMENT, "gamma", a.gamma = (char *)a.gamma + 1);
    REFUSED(training, BN_ERROR_ALIGNMENT, "beta", a.beta = (char *)a.beta + 3);
    REFUSED(training, BN_ERROR_ALIGNMENT, "y", a.y = (char *)a.y + 1);
    REFUSED(training, BN_ERROR_ALIGNMENT, "running_mean", a.running_mean = (char *)a.running_mean + 2);
    REFUSED(training, BN_ERROR_ALIGNMENT, "saved_mean", a.mean = (double *)((char *)a.mean + 4));
    REFUSED(inference, BN_ERROR_ALIGNMENT, "running_var", a.running_var = (char *)a.running_var + 2);
    REFUSED(backward, BN_ERROR_ALIGNMENT, "dy", a.dy = (char *)a.dy + 1);
    REFUSED(backward, BN_ERROR_ALIGNMENT, "dx", a.dx = (char *)a.dx + 2);
    REFUSED(backward, BN_ERROR_ALIGNMENT, "dgamma", a.dgamma = (char *)a.dgamma + 2);
    REFUSED(backward, BN_ERROR_ALIGNMENT, "saved_invstd", a.invstd = (double *)((char *)a.invstd + 4));
    REFUSED(moments, BN_ERROR_ALIGNMENT, "count", a.count = (double *)((char *)a.count + 4));
    REFUSED(merge, BN_ERROR_ALIGNMENT, "m2s", a.m2s = (double *)((char *)a.m2s + 4));
    REFUSED(inverse_std, BN_ERROR_ALIGNMENT, "invstd", a.invstd = (double *)((char *)a.invstd + 1));
    REFUSED(reduce, BN_ERROR_ALIGNMENT, "sum_dy", a.sum_dy = (double *)((char *)a.sum_dy + 4));
    REFUSED(apply, BN_ERROR_ALIGNMENT, "sum_dy_x_hat", a.sum_dy_x_hat = (double *)((char *)a.sum_dy_x_hat + 4));
    REFUSED(update_running, BN_ERROR_ALIGNMENT, "running_mean", a.running_mean = (char *)a.running_mean + 1);
    REFUSED(jvp, BN_ERROR_ALIGNMENT, "x", a.x = (char *)a.x + 1);
    REFUSED(jvp, BN_ERROR_ALIGNMENT, "x_tangent", a.x_tangent = (char *)a.x_tangent + 2);
    REFUSED(jvp, BN_ERROR_ALIGNMENT, "gamma_tangent", a.gamma_tangent = (char *)a.gamma_tangent + 3);
    REFUSED(jvp, BN_ERROR_ALIGNMENT, "beta_tangent", a.beta_tangent = (char *)a.beta_tangent + 2);
    REFUSED(jvp, BN_ERROR_ALIGNMENT, "saved_mean", a.mean = (double *)((char *)a.mean + 4));
    REFUSED(jvp, BN_ERROR_ALIGNMENT, "y_tangent", a.y_tangent = (char *)a.y_tangent + 1);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "grad_dx", a.grad_dx = (char *)a.grad_dx + 2);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "grad_dgamma", a.grad_dgamma = (char *)a.grad_dgamma + 1);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "grad_dbeta", a.grad_dbeta = (char *)a.grad_dbeta + 1);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "dy", a.dy = (char *)a.dy + 2);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "gamma", a.gamma = (char *)a.gamma + 2);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "saved_invstd", a.invstd = (double *)((char *)a.invstd + 4));
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "grad_dy", a.grad_dy = (char *)a.grad_dy + 2);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "grad_x", a.grad_x = (char *)a.grad_x + 3);
    REFUSED(double_backward, BN_ERROR_ALIGNMENT, "grad_gamma", a.grad_gamma = (char *)a.grad_gamma + 2);
    REFUSED(scale_shift, BN_ERROR_ALIGNMENT, "gamma", a.gamma = (char *)a.gamma + 2);
    REFUSED(scale_shift, BN_ERROR_ALIGNMENT, "beta", a.beta = (char *)a.beta + 2);
    REFUSED(scale_shift, BN_ERROR_ALIGNMENT, "running_mean", a.running_mean = (char *)a.running_mean + 1);
    REFUSED(scale_shift, BN_ERROR_ALIGNMENT, "running_var", a.running_var = (char *)a.running_var + 1);
    REFUSED(scale_shift, BN_ERROR_ALIGNMENT, "scale", a.scale = (double *)((char *)a.scale + 4));
    REFUSED(scale_shift, BN_ERROR_ALIGNMENT, "shift", a.shift = (double *)((char *)a.shift + 4));
    static const call folds[] = {fold_into_previous, fold_into_next};
    for (size_t i = 0; i < LENGTH(folds); i++) {
        REFUSED(folds[i], BN_ERROR_ALIGNMENT, "weight", a.weight = (char *)a.weight + 1);
        REFUSED(folds[i], BN_ERROR_ALIGNMENT, "bias", a.bias = (char *)a.bias + 2);
        REFUSED(folds[i], BN_ERROR_ALIGNMENT, "scale", a.scale = (double *)((char *)a.scale + 4));
        REFUSED(folds[i], BN_ERROR_ALIGNMENT, "shift", a.shift = (double *)((char *)a.shift + 2));
        REFUSED(folds[i], BN_ERROR_ALIGNMENT, "folded_weight", a.folded_weight = (char *)a.folded_weight + 2);
        REFUSED(folds[i], BN_ERROR_ALIGNMENT, "folded_bias", a.folded_bias = (char *)a.folded_bias + 1);
    }
}

static void single_value(void) {
    REFUSED(training, BN_ERROR_SINGLE_VALUE, "outer", a.shape_value.outer = a.shape_value.inner = 1);
    REFUSED(update_running, BN_ERROR_SINGLE_VALUE, "count", memory.count[1] = 1);
}

int main(void) {
    start();
    RUN(valid_arguments);
    RUN(null);
    RUN(pair);
    RUN(shape);
    RUN(dtype);
    RUN(struct_size);
    RUN(option);
    RUN(weights);
    RUN(alignment);
    RUN(single_value);
    return finish();
}
