/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer: its arguments, with every descriptor that a test wants, in arrays of exactly the size that the header
 * gives. */
#ifndef LAYER_H
#define LAYER_H

#include "problem.h"

static const bn_dtype all_dtypes[] = {BN_FLOAT32, BN_FLOAT64, BN_FLOAT16, BN_BFLOAT16};
enum { all_dtype_count = 4 };

enum array {
    X, Y, DY, DX, Z, DZ, MASK, WEIGHTS, GAMMA, BETA, RUNNING_MEAN, RUNNING_VAR, DGAMMA, DBETA, SAVED_MEAN, SAVED_INVSTD,
    SAVED, NUM_BATCHES, NEW_MEAN, NEW_VAR, NEW_NUM_BATCHES, OUTCOME, INDEX, array_count,

    /* in bn_double_backward and, the first four, as tangents in bn_jvp */
    GRAD_DX = DX, GRAD_DGAMMA = DGAMMA, GRAD_DBETA = DBETA, Y_TANGENT = Y, GRAD_DY = Z, GRAD_X = DZ, GRAD_GAMMA = BETA
};

static const char *const array_names[array_count] = {
    "x", "y", "dy", "dx", "z", "dz", "mask", "weights", "gamma", "beta", "running_mean", "running_var", "dgamma",
    "dbeta", "saved_mean", "saved_invstd", "saved", "num_batches", "new_running_mean", "new_running_var",
    "new_num_batches", "outcome", "index",
};

/* A layer has x, y, dy, dx and its parameters; these are its other parts. */
enum {
    WITH_WEIGHTS = 1,
    WITH_EPILOGUE = 2,
    WITH_Z = 4,     /* and dz */
    WITH_MASK = 8,  /* written, and used by the backward call */
    WITH_RUNNING = 16,
    WITH_NEW = 32,  /* the pure form */
    WITH_SOURCE = 64,
    WITH_GROUPS = 128,
    WITH_INDEX = 256,
};

typedef struct layer {
    bn_shape shape;
    bn_dtype dtype, param;
    int with;
    bn_options options;
    bn_weights weights;
    bn_epilogue epilogue; /* of which pointers are set by the calls below */
    bn_running running;
    bn_source source;
    bn_groups groups;
    void *arrays[array_count]; /* NULL where the layer has none */
    size_t bytes[array_count];
} layer;

static inline layer layer_of(size_t outer, size_t channels, size_t inner, bn_dtype dtype, int with) {
    layer l;
    memset(&l, 0, sizeof l);
    l.shape = dense(outer, channels, inner);
    l.dtype = dtype;
    l.param = dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
    l.with = with;
    l.options = (bn_options)BN_OPTIONS_INIT;
    l.options.eps = 0.125; /* so that few values that are close do not magnify roundings */
    l.weights = (bn_weights)BN_WEIGHTS_INIT;
    l.epilogue = (bn_epilogue)BN_EPILOGUE_INIT;
    l.running = (bn_running)BN_RUNNING_INIT;
    l.source = (bn_source)BN_SOURCE_INIT;
    l.groups = (bn_groups)BN_GROUPS_INIT;
    return l;
}

/* Rows of what has one per group. */
static inline size_t rows_of(const layer *l, int per_group) {
    return (l->with & WITH_GROUPS) != 0 && (l->groups.per_group & per_group) != 0 ? l->groups.groups : 1;
}

static inline size_t stride_of(const layer *l, enum array tensor) {
    const bn_shape *s = &l->shape;
    size_t given = tensor == X ? s->x_stride : tensor == Y || tensor == DY ? s->y_stride : s->dx_stride;
    if (tensor == Z) given = l->epilogue.z_stride;
    if (tensor == DZ) given = l->epilogue.dz_stride;
    return given == 0 ? s->channels * s->inner : given;
}

static inline size_t elements_of(const layer *l) {
    return l->shape.outer * l->shape.channels * l->shape.inner;
}

static inline size_t channel_of(const layer *l, size_t i) {
    return i / l->shape.inner % l->shape.channels;
}

/* The index in this tensor of element i of the dense one. */
static inline size_t place_of(const layer *l, enum array tensor, size_t i) {
    size_t slice = l->shape.channels * l->shape.inner;
    return i / slice * stride_of(l, tensor) + i % slice;
}

static inline double element(const layer *l, enum array tensor, size_t i) {
    return get(l->dtype, l->arrays[tensor], place_of(l, tensor, i));
}

static inline double parameter(const layer *l, enum array vector, size_t i) {
    return get(l->param, l->arrays[vector], i);
}

static inline double saved(const layer *l, enum array vector, size_t i) {
    return ((const double *)l->arrays[vector])[i];
}

/* The bytes that the header asks for. */
static inline size_t bytes_of(const layer *l, enum array array) {
    size_t channels = l->shape.channels, size = size_of(l->dtype), parameter = channels * size_of(l->param);
    size_t statistics = rows_of(l, BN_PER_GROUP_STATISTICS), running = rows_of(l, BN_PER_GROUP_RUNNING);
    int with = l->with;
    switch (array) {
    case X: case Y: case DY: case DX: return l->shape.outer * stride_of(l, array) * size;
    case Z: case DZ: return with & WITH_Z ? l->shape.outer * stride_of(l, array) * size : 0;
    case MASK: return with & WITH_MASK ? (elements_of(l) + 7) / 8 : 0;
    case WEIGHTS: return with & WITH_WEIGHTS ? l->shape.outer * l->shape.inner * (l->dtype == BN_FLOAT64 ? 8 : 4) : 0;
    case GAMMA: case BETA: case DGAMMA: case DBETA: return rows_of(l, BN_PER_GROUP_PARAMETERS) * parameter;
    case RUNNING_MEAN: case RUNNING_VAR: return running * parameter;
    case NEW_MEAN: case NEW_VAR: return with & WITH_NEW ? running * parameter : 0;
    case SAVED_MEAN: case SAVED_INVSTD: return larger(statistics, running) * channels * sizeof(double);
    case SAVED: return with & WITH_SOURCE ? 4 * statistics * channels * sizeof(double) : 0;
    case NUM_BATCHES: return with & WITH_RUNNING ? running * sizeof(int64_t) : 0;
    case NEW_NUM_BATCHES: return with & WITH_NEW ? running * sizeof(int64_t) : 0;
    case OUTCOME: return with & WITH_RUNNING ? statistics * sizeof(int32_t) : 0;
    case INDEX: return with & WITH_INDEX ? l->groups.samples * sizeof(int32_t) : 0;
    default: return 0;
    }
}

static inline void fill(layer *l, enum array array, bn_dtype dtype, double center, double spread) {
    size_t count = l->bytes[array] / size_of(dtype);
    for (size_t i = 0; i < count; i++) put(dtype, l->arrays[array], i, center + spread * random_value());
}

/* Every array, with random values. A third of the weights are 0, and about a third 1; so are the first and the last,
 * so that there is never just one. */
static inline void make_arrays(layer *l) {
    for (int i = 0; i < array_count; i++) {
        l->bytes[i] = bytes_of(l, (enum array)i);
        l->arrays[i] = l->bytes[i] != 0 ? allocate(l->bytes[i], 1) : NULL;
        if (l->arrays[i] != NULL) memset(l->arrays[i], 0xA5, l->bytes[i]);
    }
    fill(l, X, l->dtype, 0.5, 2);
    fill(l, DY, l->dtype, 0.25, 1);
    fill(l, Z, l->dtype, 0.125, 1);
    fill(l, GAMMA, l->param, 1.5, 0.75);
    fill(l, BETA, l->param, 0.25, 1);
    fill(l, RUNNING_MEAN, l->param, 0.5, 0.5);
    fill(l, RUNNING_VAR, l->param, 1.5, 0.5);
    bn_dtype number = l->dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
    size_t positions = l->bytes[WEIGHTS] / size_of(number);
    for (size_t i = 0; i < positions; i++) {
        double weight = 1.5 * random_value();
        put(number, l->arrays[WEIGHTS], i, weight < -0.5 ? 0 : weight < 0.5 ? 1 : weight);
        if (i == 0 || i == positions - 1) put(number, l->arrays[WEIGHTS], i, 1);
    }
    for (size_t i = 0; i < l->bytes[NUM_BATCHES] / sizeof(int64_t); i++) {
        ((int64_t *)l->arrays[NUM_BATCHES])[i] = (int64_t)(random_bits() % 20);
    }
    for (size_t i = 0; i < l->bytes[INDEX] / sizeof(int32_t); i++) {
        ((int32_t *)l->arrays[INDEX])[i] = (int32_t)(random_bits() % l->groups.groups);
    }
}

static inline layer clone_of(const layer *l) {
    layer clone = *l;
    for (int i = 0; i < array_count; i++) {
        if (l->arrays[i] != NULL) clone.arrays[i] = copy_of(l->arrays[i], l->bytes[i]);
    }
    return clone;
}

static inline void free_arrays(layer *l) {
    for (int i = 0; i < array_count; i++) free(l->arrays[i]);
}

/* The descriptors know where the layer's arrays are: afresh for each call, as a layer may be moved. All calls are given all
 * of them; a backward call with a mask does without z and beta. */
static inline void connect(layer *l, int is_backward) {
    int with = l->with;
    l->weights.values = l->arrays[WEIGHTS];
    l->shape.weights = with & WITH_WEIGHTS ? &l->weights : NULL;
    l->epilogue.z = l->epilogue.from_output || (is_backward && (with & WITH_MASK) != 0) ? NULL : l->arrays[Z];
    l->epilogue.dz = l->arrays[DZ];
    l->epilogue.mask = l->arrays[MASK];
    l->running.num_batches = l->arrays[NUM_BATCHES];
    l->running.new_running_mean = l->arrays[NEW_MEAN];
    l->running.new_running_var = l->arrays[NEW_VAR];
    l->running.new_num_batches = l->arrays[NEW_NUM_BATCHES];
    l->running.outcome = l->arrays[OUTCOME];
    l->source.saved = l->arrays[SAVED];
    l->groups.index = l->arrays[INDEX];
    l->options.epilogue = with & WITH_EPILOGUE ? &l->epilogue : NULL;
    l->options.running = with & WITH_RUNNING ? &l->running : NULL;
    l->options.source = with & WITH_SOURCE ? &l->source : NULL;
    l->options.groups = with & WITH_GROUPS ? &l->groups : NULL;
}

static inline bn_status train_layer(layer *l) {
    void **a = l->arrays;
    connect(l, 0);
    return bn_forward_training(&l->shape, l->dtype, a[X], a[GAMMA], a[BETA], a[RUNNING_MEAN], a[RUNNING_VAR], a[Y],
                               a[SAVED_MEAN], a[SAVED_INVSTD], &l->options);
}

static inline bn_status infer_layer(layer *l) {
    void **a = l->arrays;
    connect(l, 0);
    return bn_forward_inference(&l->shape, l->dtype, a[X], a[GAMMA], a[BETA], a[RUNNING_MEAN], a[RUNNING_VAR], a[Y],
                                a[SAVED_MEAN], a[SAVED_INVSTD], &l->options);
}

/* With from_output, of y in the place of x. */
static inline bn_status back_layer(layer *l) {
    void **a = l->arrays;
    bn_shape shape = l->shape;
    connect(l, 1);
    shape.weights = l->shape.weights;
    if (l->epilogue.from_output) shape.x_stride = shape.y_stride;
    return bn_backward(&shape, l->dtype, a[DY], l->epilogue.from_output ? a[Y] : a[X], a[GAMMA],
                       l->with & WITH_MASK ? NULL : a[BETA], a[SAVED_MEAN], a[SAVED_INVSTD], a[DX], a[DGAMMA], a[DBETA],
                       &l->options);
}

/* Compares all arrays of two layers bit for bit: the name of the first that differs, or NULL. */
static inline const char *difference(const layer *a, const layer *b) {
    for (int i = 0; i < array_count; i++) {
        if (a->bytes[i] != 0 && memcmp(a->arrays[i], b->arrays[i], a->bytes[i]) != 0) return array_names[i];
    }
    return NULL;
}

#endif
