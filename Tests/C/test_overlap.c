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

int main(void) {
    start();
    RUN(training_outputs);
    RUN(strides_differ);
    RUN(inference_outputs);
    RUN(backward_outputs);
    RUN(block_outputs);
    return finish();
}
