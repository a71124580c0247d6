/* SPDX-License-Identifier: Apache-2.0
 *
 * Digests of what calls read and write, one for each of some thousand layers and derivatives, so that instruction sets
 * and machines can be compared bit by bit. Inputs come from integers through operations that have one result everywhere.
 * The sign and the payload of a NaN are the processor's, and left out. */
#ifndef DIGESTS_H
#define DIGESTS_H

#include "cases.h"
#include "derivatives.h"

static uint64_t digest_so_far;
static unsigned long digests_made;

/* Called with each digest. */
static void (*on_digest)(const char *name, uint64_t digest);

/* FNV-1a by element, mixed downwards, as a product carries upwards alone. */
static void add_element(uint64_t bits) {
    digest_so_far = (digest_so_far ^ bits) * 1099511628211u;
    digest_so_far ^= digest_so_far >> 32;
}

static void add_bytes(const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) add_element(((const unsigned char *)bytes)[i]);
}

static uint64_t infinity_of(bn_dtype dtype) {
    switch (dtype) {
    case BN_FLOAT32: return 0x7F800000;
    case BN_FLOAT64: return UINT64_C(0x7FF) << 52;
    case BN_FLOAT16: return 0x7C00;
    default: return 0x7F80;
    }
}

static void add_numbers(bn_dtype dtype, const void *numbers, size_t bytes) {
    size_t size = size_of(dtype);
    uint64_t sign = UINT64_C(1) << (8 * size - 1), infinity = infinity_of(dtype);
    for (size_t i = 0; i < bytes / size; i++) {
        uint64_t wide;
        uint32_t single;
        uint16_t half;
        const char *place = (const char *)numbers + i * size;
        if (size == 8) memcpy(&wide, place, 8);
        else if (size == 4) memcpy(&single, place, 4), wide = single;
        else memcpy(&half, place, 2), wide = half;
        add_element((wide & ~sign) > infinity ? infinity + 1 : wide);
    }
}

static void add_array(const layer *l, enum array array) {
    if (l->arrays[array] == NULL) return;
    switch (array) {
    case X: case Y: case DY: case DX: case Z: case DZ: add_numbers(l->dtype, l->arrays[array], l->bytes[array]); break;
    case WEIGHTS:
        add_numbers(l->dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32, l->arrays[array], l->bytes[array]);
        break;
    case GAMMA: case BETA: case RUNNING_MEAN: case RUNNING_VAR: case DGAMMA: case DBETA: case NEW_MEAN: case NEW_VAR:
        add_numbers(l->param, l->arrays[array], l->bytes[array]);
        break;
    case SAVED_MEAN: case SAVED_INVSTD: case SAVED: add_numbers(BN_FLOAT64, l->arrays[array], l->bytes[array]); break;
    default: add_bytes(l->arrays[array], l->bytes[array]); break;
    }
}

static void end_digest(const char *what, int number, const layer *l) {
    char name[100];
    snprintf(name, sizeof name, "%s %d, %s, %zu x %zu x %zu", what, number, name_of(l->dtype), l->shape.outer,
             l->shape.channels, l->shape.inner);
    on_digest(name, digest_so_far);
    digest_so_far = 0;
    digests_made += 1;
}

/* Training, backward, and inference with what training made of the running statistics. */
static void digest_layer(const char *what, int number, layer *l) {
    CHECK_OK(train_layer(l));
    CHECK_OK(back_layer(l));
    for (int i = 0; i < array_count; i++) add_array(l, (enum array)i);
    CHECK_OK(infer_layer(l));
    for (int i = 0; i < array_count; i++) add_array(l, (enum array)i);
    end_digest(what, number, l);
    free_arrays(l);
}

static void digest_plain(const size_t extent[3], bn_dtype dtype, const char *what, int number, const double input[2]) {
    layer l = layer_of(extent[0], extent[1], extent[2], dtype, 0);
    make_arrays(&l);
    fill(&l, X, dtype, input[0], input[1]);
    digest_layer(what, number, &l);
}

static void digest_case(int number, const size_t extent[3], bn_dtype dtype) {
    layer l = layer_of_case(number, extent[0], extent[1], extent[2], dtype);
    make_arrays(&l);
    digest_layer("case", number, &l);
}

/* Statistics by the library: those that derivatives.h finds are rounded as long double is on this machine. */
static void digest_derivative(const size_t extent[3], bn_dtype dtype, int number) {
    int frozen = number % 2;
    layer l = derivative_of(extent[0], extent[1], extent[2], dtype, frozen);
    make_derivative(&l);
    CHECK_OK(frozen ? infer_layer(&l) : train_layer(&l));
    fill(&l, GRAD_DX, dtype, 0.125, 1);
    if (number % 3 == 0) put(l.param, l.arrays[GAMMA], 0, 1e-40); /* a coefficient that float32 does not have */
    CHECK_OK(run_jvp(&l));
    add_array(&l, Y_TANGENT);
    CHECK_OK(run_double_backward(&l));
    for (int i = 0; i < array_count; i++) add_array(&l, (enum array)i);
    end_digest("derivative", number, &l);
    free_arrays(&l);
}

/* Any bits as elements: all exponents, infinities, NaN. */
static void digest_any_bits(const size_t extent[3], bn_dtype dtype, int number) {
    static const enum array random[] = {X, DY, GAMMA, BETA, RUNNING_MEAN};
    layer l = layer_of(extent[0], extent[1], extent[2], dtype, 0);
    if (number % 2) l.options.eps = 0;
    make_arrays(&l);
    for (int a = 0; a < 5; a++) {
        unsigned char *bytes = l.arrays[random[a]];
        for (size_t i = 0; i < l.bytes[random[a]]; i++) bytes[i] = (unsigned char)random_bits();
    }
    digest_layer("any bits", number, &l);
}

/* A layer with gaps between its slices, and one whose statistics are constants. */
static void digest_strided(int number, const size_t extent[3], bn_dtype dtype) {
    layer l = layer_of_case(number, extent[0], extent[1], extent[2], dtype);
    size_t slice = extent[1] * extent[2];
    l.shape.x_stride = slice + 3;
    l.shape.y_stride = slice + 1;
    l.shape.dx_stride = slice + 2;
    l.epilogue.z_stride = slice + 5;
    l.epilogue.dz_stride = slice + 4;
    make_arrays(&l);
    digest_layer("strided", number, &l);
}

static void digest_frozen(int number, const size_t extent[3], bn_dtype dtype) {
    layer l = layer_of_case(number, extent[0], extent[1], extent[2], dtype);
    if (l.groups.per_group & BN_PER_GROUP_STATISTICS) l.groups.per_group |= BN_PER_GROUP_RUNNING, l.groups.averaged = 0;
    l.options.frozen = 1;
    make_arrays(&l);
    CHECK_OK(infer_layer(&l));
    CHECK_OK(back_layer(&l));
    for (int i = 0; i < array_count; i++) add_array(&l, (enum array)i);
    end_digest("frozen", number, &l);
    free_arrays(&l);
}

/* Every average, with what is done about a batch that is not finite, and about one of a single value. */
static void digest_running(int number, const size_t extent[3], bn_dtype dtype) {
    layer l = layer_of(extent[0], extent[1], extent[2], dtype, WITH_RUNNING | (number % 2 ? WITH_NEW : 0));
    l.running.average = (bn_average)(number % 5);
    l.running.nonfinite = (bn_nonfinite)(number / 5 % 2);
    l.running.single_value = (bn_single_value)(1 + number / 5 % 2);
    l.options.biased_running_var = number % 3 == 0;
    make_arrays(&l);
    if (number / 5 % 2) put(dtype, l.arrays[X], 0, HUGE_VAL);
    digest_layer("running", number, &l);
}

/* The steps of a layer, of which the batch comes in two parts, and what it is folded into. */
static void digest_steps(int number, const size_t extent[3], bn_dtype dtype) {
    layer l = layer_of_case(number, extent[0], extent[1], extent[2], dtype);
    l.with &= WITH_WEIGHTS | WITH_EPILOGUE | WITH_Z | WITH_MASK;
    if (number % 2) l.options.param_dtype = l.param = dtype == BN_FLOAT64 ? BN_FLOAT32 : dtype;
    make_arrays(&l);
    connect(&l, 0);
    bn_options plain = l.options; /* most steps take no epilogue, folding no weights */
    bn_shape folded = l.shape;
    plain.epilogue = NULL;
    folded.weights = NULL;
    void **a = l.arrays;
    size_t channels = extent[1], bytes = channels * sizeof(double);
    double *moments = allocate(6 * channels, sizeof(double)), *sums = allocate(4 * channels, sizeof(double));
    double *counts = moments, *means = moments + 2 * channels, *m2s = moments + 4 * channels;
    CHECK_OK(bn_moments(&l.shape, dtype, a[X], counts, means, m2s, 0, NULL));
    CHECK_OK(bn_moments(&l.shape, dtype, a[DY], counts + channels, means + channels, m2s + channels, 0, NULL));
    CHECK_OK(bn_merge_moments(2, channels, counts, means, m2s, 0, counts, means, m2s));
    CHECK_OK(bn_update_running(channels, l.param, counts, means, m2s, a[RUNNING_MEAN], a[RUNNING_VAR], &plain));
    CHECK_OK(bn_inverse_std(channels, counts, m2s, m2s, &plain));
    CHECK_OK(bn_normalize(&l.shape, dtype, a[X], a[GAMMA], a[BETA], means, m2s, a[Y], &l.options));
    CHECK_OK(bn_backward_reduce(&l.shape, dtype, a[DY], a[X], means, m2s, sums, sums + channels, 0, NULL));
    CHECK_OK(bn_backward_apply(&l.shape, dtype, a[DY], a[X], a[GAMMA], means, m2s, counts, sums, sums + channels, a[DX],
                               &plain));
    CHECK_OK(bn_scale_shift(channels, l.param, a[GAMMA], a[BETA], a[RUNNING_MEAN], a[RUNNING_VAR], sums + 2 * channels,
                            sums + 3 * channels, &plain));
    for (int i = 0; i < array_count; i++) add_array(&l, (enum array)i);
    add_numbers(BN_FLOAT64, moments, 6 * bytes);
    add_numbers(BN_FLOAT64, sums, 4 * bytes);
    void *bias = allocate(larger(channels, extent[0]), size_of(dtype));
    CHECK_OK(bn_fold_into_previous(&folded, dtype, a[X], NULL, sums + 2 * channels, sums + 3 * channels, a[Y], bias));
    add_array(&l, Y);
    add_numbers(dtype, bias, channels * size_of(dtype));
    CHECK_OK(bn_fold_into_next(&folded, dtype, a[X], NULL, sums + 2 * channels, sums + 3 * channels, a[Y], bias));
    add_array(&l, Y);
    add_numbers(dtype, bias, extent[0] * size_of(dtype));
    end_digest("steps", number, &l);
    free(moments), free(sums), free(bias), free_arrays(&l);
}

/* The steps and the derivatives of samples in groups, their rows as an all-gather has them. */
static void digest_group_steps(int number, const size_t extent[3], bn_dtype dtype) {
    layer l = layer_of_case(number, extent[0], extent[1], extent[2], dtype);
    l.with = (l.with & (WITH_WEIGHTS | WITH_GROUPS | WITH_INDEX)) | WITH_Z;
    l.groups.averaged = 0;
    l.options.frozen = number % 2 == 0 && rows_of(&l, BN_PER_GROUP_STATISTICS) == 1;
    make_arrays(&l);
    fill_directions(&l);
    connect(&l, 0);
    void **a = l.arrays;
    double *mean = a[SAVED_MEAN], *invstd = a[SAVED_INVSTD];
    size_t c = extent[1], rows = rows_of(&l, BN_PER_GROUP_STATISTICS), groups = l.groups.groups;
    double *moments = allocate(3 * (rows + 1) * c, sizeof(double)), *merged = moments + 3 * rows * c;
    double *sums = allocate(2 * groups * c, sizeof(double)), *counts = allocate(rows * c, sizeof(double));
    CHECK_OK(bn_moments(&l.shape, dtype, a[X], moments, moments + c, moments + 2 * c, 3 * c, &l.options));
    CHECK_OK(bn_merge_moments(rows, c, moments, moments + c, moments + 2 * c, 3 * c, merged, merged + c, merged + 2 * c));
    for (size_t row = 0; row < rows; row++) {
        const double *own = moments + 3 * row * c;
        CHECK_OK(bn_inverse_std(c, own, own + 2 * c, invstd + row * c, NULL));
        for (size_t i = 0; i < c; i++) counts[row * c + i] = own[i] == 0 ? 1 : own[i], mean[row * c + i] = own[c + i];
    }
    CHECK_OK(bn_normalize(&l.shape, dtype, a[X], a[GAMMA], a[BETA], mean, invstd, a[Y], &l.options));
    add_array(&l, Y);
    CHECK_OK(bn_backward_reduce(&l.shape, dtype, a[DY], a[X], mean, invstd, sums, sums + c, 2 * c, &l.options));
    CHECK_OK(bn_backward_apply(&l.shape, dtype, a[DY], a[X], a[GAMMA], mean, invstd, counts, sums, sums + rows * c, a[DZ],
                               &l.options));
    add_array(&l, DZ);
    l.shape.weights = NULL;
    CHECK_OK(run_jvp(&l));
    add_array(&l, Y_TANGENT);
    CHECK_OK(run_double_backward(&l));
    for (int i = 0; i < array_count; i++) add_array(&l, (enum array)i);
    add_numbers(BN_FLOAT64, moments, 3 * (rows + 1) * c * sizeof(double));
    add_numbers(BN_FLOAT64, sums, 2 * groups * c * sizeof(double));
    end_digest("group steps", number, &l);
    free(moments), free(sums), free(counts), free_arrays(&l);
}

static void digest_lengths(bn_dtype dtype) {
    layer l = layer_of(4, 1, 7, dtype, WITH_WEIGHTS);
    static const size_t lengths[] = {3, 0, 7, 1};
    make_arrays(&l);
    CHECK_OK(bn_length_weights(4, 7, lengths, dtype, l.arrays[WEIGHTS]));
    digest_layer("lengths", 0, &l);
}

/* All of them, in order, of one element type. The steps take the first cases, of weights and epilogues. */
static void digest_all(bn_dtype dtype) {
    static const size_t shapes[][3] = {{6, 3, 49}, {9, 37, 1}, {6, 2, 5003}, {1200, 5, 1}, {300, 64, 1}, {6, 5, 7}};
    enum { step_cases = 8 };
    static const size_t large[3] = {4, 3, 400000}, single[3] = {1, 7, 1};
    static const size_t wild[][3] = {{3, 90, 17}, {6, 60, 5}, {7, 300, 1}};
    for (size_t e = 0; e < sizeof extents / sizeof extents[0]; e++) {
        for (int i = 0; i < 3; i++) digest_plain(extents[e], dtype, "input", i, inputs[i]);
    }
    for (int e = 0; e < 6; e++) {
        for (int c = 0; c < case_count; c++) digest_case(c, shapes[e], dtype);
        for (int i = 0; i < 6; i++) digest_derivative(shapes[e], dtype, i);
        for (int c = 0; c <= step_cases; c++) digest_steps(c < step_cases ? c : case_count - 1, shapes[e], dtype);
        for (int c = 0; c < case_count; c++) digest_strided(c, shapes[e], dtype), digest_frozen(c, shapes[e], dtype);
        for (int i = 0; i < 20; i++) digest_running(i, i % 4 == 3 ? single : shapes[e], dtype);
    }
    digest_lengths(dtype);
    /* Every tail of planes, of planes that are taken for rows, and of rows. */
    for (size_t length = 1; length <= 67; length++) {
        const size_t tails[][3] = {{3, 2, length}, {6, 2, length}, {6, length, 1}};
        for (int i = 0; i < 3; i++) {
            digest_plain(tails[i], dtype, "tail", i, inputs[0]);
            digest_case((int)length % case_count, tails[i], dtype);
            digest_derivative(tails[i], dtype, (int)length);
        }
    }
    for (int i = 0; i < 6; i++) digest_any_bits(wild[i / 2], dtype, i);
    digest_plain(large, dtype, "large", 0, inputs[0]); /* past the caches, where they are not larger than most */
    uint64_t state = random_state; /* the next element type goes on as it would without groups */
    for (int c = first_of_groups; c < case_count; c++) {
        for (int e = 0; e < 6; e++) digest_group_steps(c, shapes[e], dtype);
        for (size_t length = 1; length <= 67; length++) {
            const size_t planes[3] = {6, 2, length}, rows[3] = {6, length, 1};
            digest_group_steps(c, planes, dtype), digest_group_steps(c, rows, dtype);
        }
    }
    random_state = state;
}

#endif
