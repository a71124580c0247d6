/* SPDX-License-Identifier: Apache-2.0
 *
 * The layer's three calls. */
#ifndef FUZZ_LAYERS_H
#define FUZZ_LAYERS_H

#include "options.h"

/* Draws x and y for bn_forward_training, bn_forward_inference and bn_normalize; x may be NULL without elements. */
static inline void draw_x_and_y(int needs_y) {
    k.shape.x_stride = draw_stride(), k.shape.y_stride = draw_stride();
    int has_y = needs_y || percent(90), is_in_place = has_y && percent(25);
    if (is_in_place) k.shape.y_stride = k.shape.x_stride;
    block *x = TENSOR(x, k.shape.x_stride, IN);
    if (is_in_place) k.y = in_place(x);
    else if (has_y) TENSOR(y, k.shape.y_stride, OUT);
    if (positions() == 0 && !is_in_place && percent(30)) k.x = NULL;
    if (percent(75)) PARAMETER(gamma, parameter_rows(), IN);
    if (percent(75)) PARAMETER(beta, parameter_rows(), IN);
}

static inline void draw_running_statistics(int is_output) {
    PARAMETER(running_mean, running_rows(), IN)->is_output = is_output;
    block *var = PARAMETER(running_var, running_rows(), IN);
    make_positive(var);
    var->is_output = is_output;
}

static inline void draw_saved_outputs(void) {
    if (percent(75)) DOUBLES(mean, statistics_rows(), OUT);
    if (percent(75)) DOUBLES(invstd, statistics_rows(), OUT);
}

/* Draws the descriptors of a layer. Forward inference and backward look at less of running. */
static inline void draw_descriptors(int has_statistics) {
    draw_options();
    if (percent(18)) draw_weights();
    if (percent(25)) draw_groups();
    if (percent(20)) draw_source();
    if (percent(35)) draw_epilogue();
    if (k.function == TRAINING ? percent(30) : percent(5)) draw_running(has_statistics);
}

static inline void draw_training(void) {
    int has_statistics = percent(70);
    draw_descriptors(has_statistics);
    if (k.options.source != NULL && k.source.kind != BN_SOURCE_BATCH && !has_statistics) {
        k.source.kind = BN_SOURCE_BATCH; /* the others need them */
    }
    draw_x_and_y(k.options.epilogue != NULL && k.epilogue.mask != NULL);
    if (has_statistics) draw_running_statistics(k.running.new_running_mean == NULL);
    draw_saved_outputs();
}

/* bn_running is told here as training is told it, and nothing that it points to may be written. */
static inline void make_inputs_of_running(void) {
    for (block *b = blocks; b < blocks + block_count; b++) {
        if (strncmp(b->name, "running->", 9) == 0) b->is_output = 0;
    }
}

static inline void draw_inference(void) {
    draw_descriptors(1);
    make_inputs_of_running();
    draw_x_and_y(1);
    draw_running_statistics(IN);
    draw_saved_outputs();
}

/* dx may be in the place of dy. */
static inline void draw_dy_x_and_dx(int has_dx) {
    k.shape.x_stride = draw_stride(), k.shape.y_stride = draw_stride(), k.shape.dx_stride = draw_stride();
    int is_in_place = percent(25);
    if (is_in_place) k.shape.dx_stride = k.shape.y_stride;
    block *dy = TENSOR(dy, k.shape.y_stride, IN);
    TENSOR(x, k.shape.x_stride, IN);
    if (is_in_place) k.dx = in_place(dy);
    else if (has_dx) TENSOR(dx, k.shape.dx_stride, OUT);
}

static inline void draw_backward(void) {
    draw_descriptors(percent(70));
    make_inputs_of_running();
    draw_dy_x_and_dx(percent(80));
    if (percent(75)) PARAMETER(gamma, parameter_rows(), IN);
    if (percent(75)) PARAMETER(beta, parameter_rows(), IN);
    DOUBLES(mean, statistics_rows(), IN);
    make_positive(DOUBLES(invstd, statistics_rows(), IN));
    if (percent(70)) PARAMETER(dgamma, parameter_rows(), OUT);
    if (percent(70)) PARAMETER(dbeta, parameter_rows(), OUT);
    int needs_x = k.dgamma != NULL || k.options.epilogue != NULL || k.options.frozen == 0;
    if (!needs_x && percent(50)) k.x = NULL;
}

#endif
