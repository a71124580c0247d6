/* SPDX-License-Identifier: Apache-2.0
 *
 * Draws a call, makes it, and looks at everything that it may and may not have changed. */
#ifndef FUZZ_PERFORM_H
#define FUZZ_PERFORM_H

#include "environment.h"
#include "wrongs.h"

static unsigned long long call_seed, call_number;
static int threads_asked; /* 0: as drawn */
static unsigned long statuses[64], of_function[function_count], succeeded[function_count];

static inline void describe(const char *why, const char *of) {
    fprintf(stderr, "%s %s: %s, seed %llu, call %llu, wrong: %s, type %d of %d, %zu x %zu x %zu, strides %zu %zu %zu\n", of,
            why, function_names[k.function], call_seed, call_number, what_is_wrong.name, (int)k.dtype, (int)k.param,
            k.shape.outer, k.shape.channels, k.shape.inner, k.shape.x_stride, k.shape.y_stride, k.shape.dx_stride);
    fprintf(stderr, "  frozen %d, weights %d, activation %d, source %d, %zu groups of %zu samples, per_group %d, running %d\n",
            k.options.frozen, k.shape.weights != NULL, k.options.epilogue != NULL ? (int)k.epilogue.activation : -1,
            k.options.source != NULL ? (int)k.source.kind : -1, k.options.groups != NULL ? k.groups.groups : 0,
            k.groups.samples, k.groups.per_group, k.options.running != NULL);
    for (const block *b = blocks; b < blocks + block_count; b++) {
        fprintf(stderr, "  %s %p, %zu runs of %zu bytes\n", b->name, *b->holder, b->runs, b->width);
    }
}

static inline void fault(const char *why, const char *of) {
    describe(why, of);
    abort();
}

/* The structures, each in memory of exactly its size. */
static inline const void *settle(const void *structure, size_t bytes, const char *name) {
    static void *holders[8];
    static int next;
    void **holder = &holders[next++ % 8];
    block *b = take(holder, name, 8, 1, bytes, bytes);
    return memcpy(b->values, structure, bytes);
}

static inline void settle_structures(void) {
    if (k.shape.weights != NULL) k.shape.weights = settle(&k.weights, sizeof k.weights, "*weights");
    if (k.options.epilogue != NULL) k.options.epilogue = settle(&k.epilogue, sizeof k.epilogue, "*epilogue");
    if (k.options.running != NULL) k.options.running = settle(&k.running, sizeof k.running, "*running");
    if (k.options.source != NULL) k.options.source = settle(&k.source, sizeof k.source, "*source");
    if (k.options.groups != NULL) k.options.groups = settle(&k.groups, sizeof k.groups, "*groups");
    k.shape_at = (void *)settle(&k.shape, sizeof k.shape, "*shape");
    if (k.has_options) k.options_at = (void *)settle(&k.options, sizeof k.options, "*options");
}

static inline bn_status ask_library(void) {
    if (bn_version() != BN_VERSION) fault("is not the header's", "bn_version()");
    for (int i = 0; i < 20; i++) {
        const char *text = bn_status_string((bn_status)(int)noise());
        if (text == NULL || *text == '\0') fault("is empty", "bn_status_string()");
    }
    if (bn_isa_name() == NULL) fault("is NULL", "bn_isa_name()");
    int threads = bn_get_num_threads(), wrong_number = (int)noise();
    if (threads < 1 || threads > 1024) fault("is out of range", "bn_get_num_threads()");
    if (wrong_number >= 0 && wrong_number <= 1024) wrong_number = -1 - wrong_number;
    if (bn_set_num_threads(wrong_number) != BN_ERROR_OPTION) fault("took a wrong number", "bn_set_num_threads()");
    return bn_set_num_threads(threads_asked > 0 ? threads_asked : (int)below(5));
}

static inline bn_status make_call(void) {
    const bn_shape *s = k.shape_at;
    const bn_options *o = k.options_at;
    bn_dtype t = k.dtype;
    switch (k.function) {
    case TRAINING: return bn_forward_training(s, t, k.x, k.gamma, k.beta, k.running_mean, k.running_var, k.y, k.mean, k.invstd, o);
    case INFERENCE: return bn_forward_inference(s, t, k.x, k.gamma, k.beta, k.running_mean, k.running_var, k.y, k.mean, k.invstd, o);
    case BACKWARD: return bn_backward(s, t, k.dy, k.x, k.gamma, k.beta, k.mean, k.invstd, k.dx, k.dgamma, k.dbeta, o);
    case MOMENTS: return bn_moments(s, t, k.x, k.count, k.mean, k.m2, k.stride, o);
    case MERGE: return bn_merge_moments(k.parts, k.channels, k.counts, k.means, k.m2s, k.stride, k.count, k.mean, k.m2);
    case INVERSE_STD: return bn_inverse_std(k.channels, k.count, k.m2, k.invstd, o);
    case NORMALIZE: return bn_normalize(s, t, k.x, k.gamma, k.beta, k.mean, k.invstd, k.y, o);
    case REDUCE: return bn_backward_reduce(s, t, k.dy, k.x, k.mean, k.invstd, k.sum_dy, k.sum_dy_x_hat, k.stride, o);
    case APPLY: return bn_backward_apply(s, t, k.dy, k.x, k.gamma, k.mean, k.invstd, k.count, k.sum_dy, k.sum_dy_x_hat, k.dx, o);
    case UPDATE: return bn_update_running(k.channels, t, k.count, k.mean, k.m2, k.running_mean, k.running_var, o);
    case LENGTHS: return bn_length_weights(k.shape.outer, k.shape.inner, k.lengths, t, k.length_weights);
    case JVP: return bn_jvp(s, t, k.x, k.x_tangent, k.gamma, k.gamma_tangent, k.beta_tangent, k.mean, k.invstd, k.y_tangent, o);
    case DOUBLE_BACKWARD:
        return bn_double_backward(s, t, k.grad_dx, k.grad_dgamma, k.grad_dbeta, k.dy, k.x, k.gamma, k.mean, k.invstd,
                                  k.grad_dy, k.grad_x, k.grad_gamma, o);
    case SCALE_SHIFT: return bn_scale_shift(k.channels, t, k.gamma, k.beta, k.running_mean, k.running_var, k.scale, k.shift, o);
    case FOLD_PREVIOUS: return bn_fold_into_previous(s, t, k.weight, k.bias, k.scale, k.shift, k.folded_weight, k.folded_bias);
    case FOLD_NEXT: return bn_fold_into_next(s, t, k.weight, k.bias, k.scale, k.shift, k.folded_weight, k.folded_bias);
    case STRIDES:
        return bn_shape_from_strides(k.rank, k.sizes, k.axis, k.axes, k.tensors, k.strides, k.samples_outermost, k.found,
                                     k.outer_strides);
    default: return ask_library();
    }
}

/* The share of each function, of a hundred calls. */
static const struct {
    int share;
    void (*draw)(void);
} drawn[function_count] = {
    [TRAINING] = {24, draw_training}, [INFERENCE] = {10, draw_inference}, [BACKWARD] = {20, draw_backward},
    [MOMENTS] = {4, draw_moments}, [MERGE] = {4, draw_merge}, [INVERSE_STD] = {3, draw_inverse_std},
    [NORMALIZE] = {5, draw_normalize}, [REDUCE] = {3, draw_reduce}, [APPLY] = {4, draw_apply},
    [UPDATE] = {3, draw_update}, [LENGTHS] = {3, draw_length_weights}, [JVP] = {4, draw_jvp},
    [DOUBLE_BACKWARD] = {4, draw_double_backward}, [SCALE_SHIFT] = {2, draw_scale_shift},
    [FOLD_PREVIOUS] = {2, draw_fold}, [FOLD_NEXT] = {2, draw_fold}, [STRIDES] = {2, draw_shape_from_strides},
    [LIBRARY] = {1, NULL},
};

/* The first choices, by which one may tell whether a call is wanted. */
static inline void draw_outline(void) {
    memset(&k, 0, sizeof k);
    size_t chosen = below(100);
    while (chosen >= (size_t)drawn[k.function].share) chosen -= (size_t)drawn[k.function++].share;
    draw_extents();
    draw_dtypes();
}

static inline void draw_call(void) {
    block_count = 0;
    draw_outline();
    add_fields_of_shape();
    if (drawn[k.function].draw != NULL) drawn[k.function].draw();
    int defaults = k.has_options && k.options.epilogue == NULL && k.options.running == NULL &&
                   k.options.source == NULL && k.options.groups == NULL && k.options.param_dtype == 0 &&
                   k.options.frozen == 0 && percent(20);
    what_is_wrong = spoil();
    if (defaults && what_is_wrong.kind != A_FIELD) k.has_options = 0;
    settle_structures();
}

/* The library has to take what is right, and to refuse what must fail. */
static inline void examine_status(bn_status status) {
    if (strcmp(bn_status_string(status), "unknown status") == 0) fault("is not a status", "the result");
    const char *message = bn_last_error();
    if (status != BN_OK && (strlen(message) < 10 || strlen(message) > 255 || strchr(message, '\n') != NULL)) {
        fault("is no message", message);
    }
    int is_of_values = status == BN_ERROR_SINGLE_VALUE || status == BN_ERROR_NONFINITE || (k.may_refuse && (status == BN_ERROR_OPTION || k.function == STRIDES));
    if (what_is_wrong.kind == NOTHING && status != BN_OK && !is_of_values) fault("refuses what is right", message);
    if (what_is_wrong.must_fail && status == BN_OK) fault("was taken", what_is_wrong.name);
}

/* Two blocks that overlap by permission are left out: neither keeps what it held. */
static inline void examine_memory(bn_status status) {
    int overlaps = what_is_wrong.kind == AN_OVERLAP && status == BN_OK;
    if (overlaps && !is_allowed(&what_is_wrong)) fault("was taken on top of another argument", what_is_wrong.name);
    for (block *b = blocks; b < blocks + block_count; b++) {
        if (overlaps && (b == what_is_wrong.moved || b == what_is_wrong.base)) continue;
        const char *why = trespass(b, status != BN_OK);
        if (why != NULL) fault(why, b->name);
    }
}

/* A shape that was found has all elements of the tensor. */
static inline void examine_shape(bn_status status) {
    if (k.function != STRIDES || status != BN_OK || what_is_wrong.kind != NOTHING) return;
    const bn_shape *found = k.found;
    size_t elements = 1;
    for (size_t i = 0; i < k.rank; i++) elements *= (size_t)((const int64_t *)k.sizes)[i];
    if (found->outer * found->channels * found->inner != elements) fault("has other elements than the tensor", "shape");
}

static inline bn_status perform(void) {
    take_snapshots();
    unsigned before = enter_environment();
    bn_status status = make_call();
    if (!environment_is_kept(before)) fault("was changed", "the floating-point environment");
    leave_environment();
    examine_status(status);
    examine_memory(status);
    examine_shape(status);
    statuses[status] += 1, of_function[k.function] += 1, succeeded[k.function] += status == BN_OK;
    return status;
}

#endif
