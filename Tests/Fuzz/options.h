/* SPDX-License-Identifier: Apache-2.0
 *
 * bn_options with whatever descriptors chance gives it, and how many rows there are of what groups have of their own. */
#ifndef FUZZ_OPTIONS_H
#define FUZZ_OPTIONS_H

#include "shapes.h"

static inline size_t rows_of(int per_group) {
    return k.options.groups != NULL && (k.groups.per_group & per_group) != 0 ? k.groups.groups : 1;
}
static inline size_t statistics_rows(void) { return rows_of(BN_PER_GROUP_STATISTICS); }
static inline size_t running_rows(void) { return rows_of(BN_PER_GROUP_RUNNING); }
static inline size_t parameter_rows(void) { return rows_of(BN_PER_GROUP_PARAMETERS); }

static inline void draw_options(void) {
    k.options = (bn_options)BN_OPTIONS_INIT;
    k.options.eps = ONE_OF(double, 1e-5, 1e-5, 0, 1e-3, 1e-300, 1e300, 5e-324, 1);
    k.options.momentum = ONE_OF(double, 0.1, 0.1, 0, 1, 5e-324, 0.5, 1e-310, 0.999);
    k.options.biased_running_var = (int32_t)below(2);
    k.options.frozen = percent(25);
    k.has_options = 1;
    if (percent(20)) k.param = k.options.param_dtype = (bn_dtype)between(BN_FLOAT32, BN_BFLOAT16);
    FIELD(options.struct_size, STRUCT_SIZE), FIELD(options.eps, NUMBER), FIELD(options.momentum, NUMBER);
    FIELD(options.biased_running_var, FLAG), FIELD(options.frozen, FLAG), FIELD(options.param_dtype, DTYPE);
    FIELD(options.reserved, FLAG);
}

/* A divisor of a number up to 40, 1 at least. */
static inline size_t draw_divisor(size_t number) {
    size_t divisor = 1;
    for (int attempt = 0; attempt < 6; attempt++) {
        size_t chosen = between(1, number > 40 ? 40 : number < 6 ? 6 : number);
        if (number % chosen == 0) divisor = chosen;
    }
    return divisor;
}

static inline void draw_groups(void) {
    k.groups = (bn_groups)BN_GROUPS_INIT;
    k.groups.samples = draw_divisor(k.shape.outer);
    k.groups.per_group = ONE_OF(int32_t, 1, 1, 3, 7, 5, 4);
    k.groups.averaged = (k.groups.per_group & 3) == 1 && percent(30);
    k.options.groups = &k.groups;
    if (percent(60)) {
        k.groups.groups = between(1, 5);
        block *b = take_bytes((void **)&k.groups.index, "groups->index", sizeof(int32_t), k.groups.samples, IN);
        int is_sorted = percent(50);
        for (size_t i = 0; i < k.groups.samples; i++) {
            size_t group = is_sorted ? i * k.groups.groups / k.groups.samples : noise() % k.groups.groups;
            ((int32_t *)b->values)[i] = (int32_t)group;
        }
        add_datum(b, GROUP);
    } else {
        k.groups.groups = draw_divisor(k.groups.samples);
        k.groups.interleaved = (int32_t)below(2);
    }
    FIELD(groups.struct_size, STRUCT_SIZE), FIELD(groups.samples, GROUPS), FIELD(groups.groups, GROUPS);
    FIELD(groups.per_group, CHOICE), FIELD(groups.interleaved, FLAG), FIELD(groups.averaged, FLAG);
    FIELD(groups.reserved, FLAG);
}

static inline void draw_epilogue(void) {
    bn_epilogue *e = &k.epilogue;
    *e = (bn_epilogue)BN_EPILOGUE_INIT;
    e->activation = (bn_activation)below(6);
    e->slope = ONE_OF(double, 0.01, 0, 0.5, 1, 1e-30, 2);
    switch (below(10)) {
    case 0: e->low = -HUGE_VAL, e->high = HUGE_VAL; break;
    case 1: e->low = -1e-46, e->high = 1e-46; break;
    case 2: e->low = 1e39, e->high = 1e300; break;
    case 3: case 4: case 5: e->low = -1, e->high = 1; break;
    default: break;
    }
    int is_backward = k.function == BACKWARD, is_shared = k.options.groups != NULL && (k.groups.per_group & 5) == 4;
    if (is_backward && k.options.source == NULL && !is_shared && percent(15)) {
        e->from_output = k.may_refuse = 1; /* a gamma of 0 */
        e->activation = ONE_OF(bn_activation, BN_IDENTITY, BN_LEAKY_RELU);
        e->slope = 0.3;
    }
    e->z_stride = draw_stride(), e->dz_stride = draw_stride();
    if (!e->from_output && percent(40)) take_tensor((void **)&e->z, "epilogue->z", e->z_stride, IN);
    if (is_backward && percent(35)) take_tensor(&e->dz, "epilogue->dz", e->dz_stride, OUT);
    if (e->activation < BN_HARD_SWISH && percent(35)) {
        size_t bytes = (k.shape.outer * slice_of() + 7) / 8;
        block *b = take_bytes((void **)&e->mask, "epilogue->mask", 1, bytes, !is_backward);
        for (size_t i = 0; is_backward && i < bytes; i++) b->values[i] = (unsigned char)noise();
    }
    k.options.epilogue = e;
    FIELD(epilogue.struct_size, STRUCT_SIZE), FIELD(epilogue.activation, CHOICE), FIELD(epilogue.from_output, FLAG);
    FIELD(epilogue.slope, NUMBER), FIELD(epilogue.low, NUMBER), FIELD(epilogue.high, NUMBER);
    FIELD(epilogue.z_stride, STRIDE), FIELD(epilogue.dz_stride, STRIDE);
}

static inline void draw_source(void) {
    bn_source *s = &k.source;
    *s = (bn_source)BN_SOURCE_INIT;
    s->kind = (bn_source_kind)below(4);
    s->pseudo_count = ONE_OF(double, 0, 1, 100, 1e300, 5e-324);
    if (percent(50)) {
        s->r_min = ONE_OF(double, 0, 0.3, 1), s->r_max = ONE_OF(double, 1, 3, 1e300);
        s->d_max = ONE_OF(double, 0, 5, 1e300);
    }
    size_t length = 4 * statistics_rows() * k.shape.channels;
    take_vector((void **)&s->saved, "source->saved", BN_FLOAT64, length, k.function != BACKWARD);
    k.options.source = s;
    FIELD(source.struct_size, STRUCT_SIZE), FIELD(source.kind, CHOICE), FIELD(source.reserved, FLAG);
    FIELD(source.pseudo_count, NUMBER), FIELD(source.r_min, NUMBER), FIELD(source.r_max, NUMBER);
    FIELD(source.d_max, NUMBER);
}

static inline block *take_batches(int64_t **holder, const char *name, int is_output) {
    block *b = take_bytes((void **)holder, name, sizeof(int64_t), running_rows(), is_output);
    for (size_t i = 0; i < running_rows(); i++) {
        ((int64_t *)b->values)[i] = ONE_OF(int64_t, 0, 1, 5, 1000, (int64_t)1 << 60);
    }
    return b;
}

/* The caller has drawn whether there are running statistics: the pure form needs them. */
static inline void draw_running(int has_statistics) {
    bn_running *r = &k.running;
    *r = (bn_running)BN_RUNNING_INIT;
    r->average = has_statistics ? (bn_average)below(5) : BN_AVERAGE_EXPONENTIAL;
    r->single_value = (bn_single_value)(has_statistics ? below(3) : 2 * below(2));
    r->nonfinite = (bn_nonfinite)below(3);
    int is_pure = has_statistics && percent(40);
    if (r->average != BN_AVERAGE_EXPONENTIAL || (has_statistics && percent(30))) {
        add_datum(take_batches(&r->num_batches, "running->num_batches", !is_pure), BATCHES);
    }
    if (is_pure) {
        size_t length = running_rows() * k.shape.channels;
        take_vector(&r->new_running_mean, "running->new_running_mean", k.param, length, OUT);
        take_vector(&r->new_running_var, "running->new_running_var", k.param, length, OUT);
        if (r->num_batches != NULL) take_batches(&r->new_num_batches, "running->new_num_batches", OUT);
    }
    if (percent(50)) {
        take_bytes((void **)&r->outcome, "running->outcome", sizeof(int32_t), statistics_rows(), OUT);
    }
    k.options.running = r;
    FIELD(running.struct_size, STRUCT_SIZE), FIELD(running.average, CHOICE), FIELD(running.single_value, CHOICE);
    FIELD(running.nonfinite, CHOICE), FIELD(running.reserved, FLAG);
}

#endif
