/* SPDX-License-Identifier: Apache-2.0
 *
 * Valid arguments for every call, of which a test changes one to see it refused:
 *
 *     REFUSED(training, BN_ERROR_NULL, "x", a.x = NULL);
 *
 * The message must name the argument, and nothing that the call can reach may have changed. */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include "batchnorm.h"
#include "check.h"

#include <ctype.h>
#include <string.h>

enum { outer = 3, channels = 2, inner = 4, parts = 3, elements = 32, group_count = 3, mask_bytes = 3 };

/* All that the calls read and write, so that one comparison covers it. Each array has room to be moved a little. */
enum { vector = channels + 2, rows = parts * channels + 2 };
static struct memory {
    float x[elements], y[elements], dy[elements], dx[elements];
    float gamma[vector], beta[vector], running_mean[vector], running_var[vector], dgamma[vector], dbeta[vector];
    double mean[vector], invstd[vector], count[vector], m2[vector], sum_dy[vector], sum_dy_x_hat[vector];
    double counts[rows], means[rows], m2s[rows];

    /* For the descriptors. Every array has a row for each of some groups. */
    float z[elements], dz[elements], weights[elements];
    float new_mean[rows], new_var[rows];
    double saved[4 * rows];
    int64_t num_batches[rows], new_num_batches[rows];
    int32_t outcome[rows], index[rows];
    uint8_t mask[elements];
    float group_gamma[rows], group_beta[rows], group_mean[rows], group_var[rows], group_dgamma[rows], group_dbeta[rows];
    double group_saved_mean[rows], group_saved_invstd[rows];
    size_t lengths[rows];
} memory, before;

static struct arguments {
    bn_shape shape_value;
    bn_options options_value;
    bn_weights weights_value;
    bn_epilogue epilogue_value;
    bn_running running_value;
    bn_source source_value;
    bn_groups groups_value;
    const bn_shape *shape;
    const bn_options *options;
    bn_dtype dtype;
    size_t parts, channels, stride, samples, positions;
    const size_t *lengths;
    void *length_weights;
    void *x_tangent, *gamma_tangent, *beta_tangent, *y_tangent;
    void *grad_dx, *grad_dgamma, *grad_dbeta, *grad_dy, *grad_x, *grad_gamma;
    void *weight, *bias, *folded_weight, *folded_bias;
    double *scale, *shift;
    void *x, *y, *dy, *dx, *gamma, *beta, *running_mean, *running_var, *dgamma, *dbeta;
    double *mean, *invstd, *count, *m2, *sum_dy, *sum_dy_x_hat, *counts, *means, *m2s;
} a;

typedef bn_status (*call)(void);

static inline void reset(void) {
    memset(&memory, 0x3F, sizeof memory); /* 0.75 in every float, 0.0005 in every double */
    for (size_t i = 0; i < elements; i++) {
        memory.x[i] = (float)random_value();
        memory.y[i] = (float)random_value();
        memory.dy[i] = (float)random_value();
        memory.dx[i] = (float)random_value();
    }
    for (size_t c = 0; c < channels; c++) memory.count[c] = 12;
    for (size_t i = 0; i < parts * channels; i++) memory.counts[i] = 4;
    for (size_t i = 0; i < elements; i++) memory.weights[i] = 1;
    for (size_t i = 0; i < rows; i++) {
        memory.num_batches[i] = memory.index[i] = (int)i % group_count;
        memory.lengths[i] = i % 4;
    }
    a = (struct arguments){
        .shape_value = BN_SHAPE(outer, channels, inner),
        .options_value = BN_OPTIONS_INIT,
        .weights_value = BN_WEIGHTS_INIT,
        .epilogue_value = BN_EPILOGUE_INIT,
        .running_value = BN_RUNNING_INIT,
        .source_value = BN_SOURCE_INIT,
        .groups_value = BN_GROUPS_INIT,
        .shape = &a.shape_value,
        .options = &a.options_value,
        .dtype = BN_FLOAT32,
        .parts = parts,
        .channels = channels,
        .samples = outer,
        .positions = inner,
        .lengths = memory.lengths,
        .length_weights = memory.weights,
        .x_tangent = memory.dx, .gamma_tangent = memory.dgamma, .beta_tangent = memory.dbeta, .y_tangent = memory.y,
        .grad_dx = memory.dx, .grad_dgamma = memory.dgamma, .grad_dbeta = memory.dbeta, .grad_dy = memory.y,
        .grad_x = memory.z, .grad_gamma = memory.new_mean,
        .weight = memory.x, .bias = memory.gamma, .folded_weight = memory.y, .folded_bias = memory.beta,
        .scale = memory.mean, .shift = memory.invstd,
        .x = memory.x, .y = memory.y, .dy = memory.dy, .dx = memory.dx, .gamma = memory.gamma,
        .beta = memory.beta, .running_mean = memory.running_mean, .running_var = memory.running_var,
        .dgamma = memory.dgamma, .dbeta = memory.dbeta, .mean = memory.mean, .invstd = memory.invstd,
        .count = memory.count, .m2 = memory.m2, .sum_dy = memory.sum_dy, .sum_dy_x_hat = memory.sum_dy_x_hat,
        .counts = memory.counts, .means = memory.means, .m2s = memory.m2s,
    };
}

static inline bn_status training(void) {
    return bn_forward_training(a.shape, a.dtype, a.x, a.gamma, a.beta, a.running_mean, a.running_var, a.y, a.mean,
                               a.invstd, a.options);
}

static inline bn_status inference(void) {
    return bn_forward_inference(a.shape, a.dtype, a.x, a.gamma, a.beta, a.running_mean, a.running_var, a.y, a.mean,
                                a.invstd, a.options);
}

static inline bn_status backward(void) {
    return bn_backward(a.shape, a.dtype, a.dy, a.x, a.gamma, a.beta, a.mean, a.invstd, a.dx, a.dgamma, a.dbeta,
                       a.options);
}

static inline bn_status moments(void) {
    return bn_moments(a.shape, a.dtype, a.x, a.count, a.mean, a.m2, a.stride, a.options);
}

static inline bn_status merge(void) {
    return bn_merge_moments(a.parts, a.channels, a.counts, a.means, a.m2s, a.stride, a.count, a.mean, a.m2);
}

static inline bn_status inverse_std(void) {
    return bn_inverse_std(a.channels, a.count, a.m2, a.invstd, a.options);
}

static inline bn_status normalize(void) {
    return bn_normalize(a.shape, a.dtype, a.x, a.gamma, a.beta, a.mean, a.invstd, a.y, a.options);
}

static inline bn_status reduce(void) {
    return bn_backward_reduce(a.shape, a.dtype, a.dy, a.x, a.mean, a.invstd, a.sum_dy, a.sum_dy_x_hat, a.stride, a.options);
}

static inline bn_status apply(void) {
    return bn_backward_apply(a.shape, a.dtype, a.dy, a.x, a.gamma, a.mean, a.invstd, a.count, a.sum_dy, a.sum_dy_x_hat,
                             a.dx, a.options);
}

static inline bn_status update_running(void) {
    return bn_update_running(a.channels, a.dtype, a.count, a.mean, a.m2, a.running_mean, a.running_var, a.options);
}

static inline bn_status length_weights(void) {
    return bn_length_weights(a.samples, a.positions, a.lengths, a.dtype, a.length_weights);
}

static inline bn_status jvp(void) {
    return bn_jvp(a.shape, a.dtype, a.x, a.x_tangent, a.gamma, a.gamma_tangent, a.beta_tangent, a.mean, a.invstd,
                  a.y_tangent, a.options);
}

static inline bn_status double_backward(void) {
    return bn_double_backward(a.shape, a.dtype, a.grad_dx, a.grad_dgamma, a.grad_dbeta, a.dy, a.x, a.gamma, a.mean,
                              a.invstd, a.grad_dy, a.grad_x, a.grad_gamma, a.options);
}

static inline bn_status scale_shift(void) {
    return bn_scale_shift(a.channels, a.dtype, a.gamma, a.beta, a.running_mean, a.running_var, a.scale, a.shift,
                          a.options);
}

static inline bn_status fold_into_previous(void) {
    return bn_fold_into_previous(a.shape, a.dtype, a.weight, a.bias, a.scale, a.shift, a.folded_weight, a.folded_bias);
}

/* The biases are as many as the outer indices. */
static inline bn_status fold_into_next(void) {
    return bn_fold_into_next(a.shape, a.dtype, a.weight, a.bias, a.scale, a.shift, a.folded_weight, a.folded_bias);
}

static const call every_call[] = {
    training, inference, backward, moments, merge, inverse_std, normalize, reduce, apply, update_running, jvp,
    double_backward, scale_shift, fold_into_previous, fold_into_next,
};

static const call option_calls[] = {
    training, inference, backward, moments, inverse_std, normalize, reduce, apply, update_running, jvp, double_backward,
    scale_shift,
};

#define LENGTH(array) (sizeof array / sizeof array[0])

/* True if text has the word, and not just as a part of a longer name. */
static inline int names(const char *text, const char *word) {
    size_t length = strlen(word);
    for (const char *p = strstr(text, word); p != NULL; p = strstr(p + 1, word)) {
        int starts = p == text || !(isalnum((unsigned char)p[-1]) || p[-1] == '_');
        int ends = !(isalnum((unsigned char)p[length]) || p[length] == '_');
        if (starts && ends) return 1;
    }
    return 0;
}

#define REFUSED(function, status, word, change)                                             \
    do {                                                                                    \
        reset();                                                                            \
        change;                                                                             \
        expect_refusal(function, status, word, __FILE__, __LINE__, #function ": " #change); \
    } while (0)

static inline void expect_refusal(call function, bn_status status, const char *word, const char *file, int line,
                                  const char *text) {
    memcpy(&before, &memory, sizeof memory);
    bn_status result = function();
    const char *message = bn_last_error();
    check(result == status, file, line, text, "status %d, expected %d (%s)", (int)result, (int)status, message);
    check(names(message, word), file, line, text, "\"%s\" does not name %s", message, word);
    check(message[0] != '\0' && strchr(message, '\n') == NULL, file, line, text, "\"%s\" is not one line", message);
    check(memcmp(&before, &memory, sizeof memory) == 0, file, line, text, "something was written");
}

#endif
