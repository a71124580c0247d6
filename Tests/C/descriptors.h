/* SPDX-License-Identifier: Apache-2.0
 *
 * Valid descriptors for the calls of arguments.h, of which a test changes one field:
 *
 *     REFUSED(training, BN_ERROR_OPTION, "masked", (weigh(), a.weights_value.masked = 3));
 *
 * and calls that are accepted. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include "arguments.h"

static inline void weigh(void) {
    a.shape_value.weights = &a.weights_value;
    a.weights_value.values = memory.weights;
}

static inline void activate(void) {
    a.options_value.epilogue = &a.epilogue_value;
    a.epilogue_value.activation = BN_RELU;
}

static inline void add_residual(void) {
    activate();
    a.epilogue_value.z = memory.z;
}

/* For bn_backward. */
static inline void split(void) {
    add_residual();
    a.epilogue_value.dz = memory.dz;
}

static inline void keep_mask(void) {
    activate();
    a.epilogue_value.mask = memory.mask;
}

static inline void undo(void) {
    a.options_value.epilogue = &a.epilogue_value;
    a.epilogue_value.activation = BN_LEAKY_RELU;
    a.epilogue_value.from_output = 1;
}

static inline void keep(void) {
    a.options_value.running = &a.running_value;
    a.running_value.num_batches = memory.num_batches;
    a.running_value.outcome = memory.outcome;
}

static inline void keep_apart(void) {
    keep();
    a.running_value.new_running_mean = memory.new_mean;
    a.running_value.new_running_var = memory.new_var;
    a.running_value.new_num_batches = memory.new_num_batches;
}

static inline void blend(void) {
    a.options_value.source = &a.source_value;
    a.source_value.kind = BN_SOURCE_BLEND;
    a.source_value.pseudo_count = 4;
    a.source_value.saved = memory.saved;
}

static inline void divide(void) {
    a.options_value.groups = &a.groups_value;
    a.groups_value.samples = outer;
    a.groups_value.groups = group_count;
    a.gamma = memory.group_gamma, a.beta = memory.group_beta;
    a.dgamma = memory.group_dgamma, a.dbeta = memory.group_dbeta;
    a.running_mean = memory.group_mean, a.running_var = memory.group_var;
    a.mean = memory.group_saved_mean, a.invstd = memory.group_saved_invstd;
    a.count = memory.counts, a.m2 = memory.m2s, a.sum_dy = memory.means, a.sum_dy_x_hat = memory.m2s;
    a.gamma_tangent = a.grad_dgamma = memory.group_dgamma, a.beta_tangent = a.grad_dbeta = memory.group_dbeta;
}

static inline void divide_all(void) {
    divide();
    a.groups_value.per_group = BN_PER_GROUP_STATISTICS | BN_PER_GROUP_RUNNING | BN_PER_GROUP_PARAMETERS;
}

static inline void divide_by_index(void) {
    divide();
    a.groups_value.index = memory.index;
}

/* Parameters of groups that share their statistics. */
static inline void condition(void) {
    divide_by_index();
    a.groups_value.per_group = BN_PER_GROUP_PARAMETERS;
}

/* Makes y zeros, so that it may be taken for indices, or numbers of batches. */
static inline void clear_y(void) { memset(memory.y, 0, sizeof memory.y); }

#define ACCEPTED(function, change)                                                              \
    do {                                                                                        \
        reset();                                                                                \
        change;                                                                                 \
        bn_status status = function();                                                          \
        CHECK(status == BN_OK, #function ": " #change ": status %d: %s", status, bn_last_error()); \
    } while (0)

#endif
