/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps and the derivatives of groups of samples: against the oracle of the layer and the chain rule, and against calls
 * for each group, to the bit where it lies in one piece. */
#include "chain_rule.h"
#include "grouped.h"

/* The rows of statistics as the steps give them, a stride apart, with something between them that has to stay. */
typedef struct rows {
    size_t count, channels, stride;
    double *values;
} rows;

static rows make_rows(size_t count, size_t arrays, size_t channels, size_t gap) {
    rows r = {count, channels, arrays * channels + gap, NULL};
    r.values = allocate(count * r.stride, sizeof(double));
    for (size_t i = 0; i < count * r.stride; i++) r.values[i] = -7.25;
    return r;
}

static double *array_in(const rows *r, size_t array) { return r->values + array * r->channels; }

static void check_gaps(const rows *r, size_t arrays) {
    for (size_t row = 0; row < r->count; row++) {
        for (size_t i = arrays * r->channels; i < r->stride; i++) {
            CHECK(r->values[row * r->stride + i] == -7.25, "row %zu: written at %zu, beyond its arrays", row, i);
        }
    }
}

/* bn_moments and bn_inverse_std, into saved_mean and saved_invstd. Returns the counts, and 1 for empty groups. */
static double *find_moments(layer *l, size_t count) {
    size_t channels = l->shape.channels;
    rows r = make_rows(count, 3, channels, l->dtype % 2 ? 2 : 0);
    double *counts = allocate(count * channels, sizeof(double)), *m2s = allocate(count * channels, sizeof(double));
    CHECK_OK(bn_moments(&l->shape, l->dtype, l->arrays[X], array_in(&r, 0), array_in(&r, 1), array_in(&r, 2), r.stride,
                        &l->options));
    check_gaps(&r, 3);
    CHECK_OK(bn_moments(&l->shape, l->dtype, l->arrays[X], counts, l->arrays[SAVED_MEAN], m2s, 0, &l->options));
    for (size_t row = 0; row < count; row++) {
        const double *dense[] = {counts, l->arrays[SAVED_MEAN], m2s};
        for (size_t a = 0; a < 3; a++) {
            const double *apart = array_in(&r, a) + row * r.stride;
            CHECK(memcmp(dense[a] + row * channels, apart, channels * sizeof(double)) == 0, "array %zu differs", a);
        }
    }
    bn_options plain = BN_OPTIONS_INIT;
    plain.eps = l->options.eps;
    CHECK_OK(bn_inverse_std(count * channels, counts, m2s, l->arrays[SAVED_INVSTD], &plain));
    for (size_t i = 0; i < count * channels; i++) counts[i] = counts[i] == 0 ? 1 : counts[i];
    free(r.values), free(m2s);
    return counts;
}

/* Adds up the sums of groups, for their statistics (of gamma * dy, where that matters) and for their parameters. */
static void add_sums(layer *l, const rows *r, double *of_statistics, int array, enum array gradient) {
    size_t channels = l->shape.channels, statistics = rows_of(l, BN_PER_GROUP_STATISTICS);
    size_t parameters = rows_of(l, BN_PER_GROUP_PARAMETERS);
    int gains = parameters > 1 && statistics == 1;
    for (size_t i = 0; i < parameters * channels; i++) {
        double total = 0;
        for (size_t g = 0; g < r->count; g++) {
            double sum = array_in(r, (size_t)array)[g * r->stride + i % channels];
            if (parameters == 1 || g == i / channels) total += sum;
        }
        put(l->param, l->arrays[gradient], i, total);
    }
    for (size_t i = 0; i < statistics * channels; i++) {
        of_statistics[i] = 0;
        for (size_t g = 0; g < r->count; g++) {
            double sum = array_in(r, (size_t)array)[g * r->stride + i % channels];
            double gain = gains ? parameter(l, GAMMA, g * channels + i % channels) : 1;
            if (statistics == 1 || g == i / channels) of_statistics[i] += gain * sum;
        }
    }
}

static void steps_agree(layer *l) {
    void **a = l->arrays;
    size_t channels = l->shape.channels, count = rows_of(l, BN_PER_GROUP_STATISTICS);
    oracle o = expected_training(l);
    connect(l, 0);
    double *counts = find_moments(l, count), *sums = allocate(2 * count * channels, sizeof(double));
    for (size_t i = 0; i < count * channels; i++) {
        double mean = saved(l, SAVED_MEAN, i);
        CHECK(fabs(mean - o.normalizers[i].a) <= 1e-12, "mean[%zu] is %g", i, mean);
        CHECK(fabs(saved(l, SAVED_INVSTD, i) - o.normalizers[i].b) <= 1e-10 * o.normalizers[i].b, "invstd[%zu]", i);
    }
    CHECK_OK(bn_normalize(&l->shape, l->dtype, a[X], a[GAMMA], a[BETA], a[SAVED_MEAN], a[SAVED_INVSTD], a[Y],
                          &l->options));
    check_tensor(l, Y, o.y);
    expect_gradients(&o, BN_PER_GROUP_STATISTICS);
    rows r = make_rows(l->groups.groups, 2, channels, l->dtype % 2 ? 0 : 1);
    CHECK_OK(bn_backward_reduce(&l->shape, l->dtype, a[DY], a[X], a[SAVED_MEAN], a[SAVED_INVSTD], array_in(&r, 0),
                                array_in(&r, 1), r.stride, &l->options));
    check_gaps(&r, 2);
    add_sums(l, &r, sums, 0, DBETA), add_sums(l, &r, sums + count * channels, 1, DGAMMA);
    CHECK_OK(bn_backward_apply(&l->shape, l->dtype, a[DY], a[X], a[GAMMA], a[SAVED_MEAN], a[SAVED_INVSTD], counts, sums,
                               sums + count * channels, a[DX], &l->options));
    check_gradients(&o);
    free(counts), free(sums), free(r.values), free_oracle(&o);
}

static void mask_zero(layer *l) { l->weights.masked = BN_MASKED_ZERO; }
static void mask_keep(layer *l) { l->weights.masked = BN_MASKED_KEEP; }

static void steps(void) { each_case(0, 0, NULL, steps_agree); }
static void steps_of_absent_groups(void) { each_case(0, 1, NULL, steps_agree); }
static void steps_with_weights(void) {
    each_case(WITH_WEIGHTS, 0, NULL, steps_agree);
    each_case(WITH_WEIGHTS, 0, mask_zero, steps_agree);
    each_case(WITH_WEIGHTS, 1, mask_keep, steps_agree);
}

static void use_leaky(layer *l) {
    l->epilogue.activation = BN_LEAKY_RELU;
    l->epilogue.slope = 0.25;
}

static void normalize_agrees(layer *l) {
    void **a = l->arrays;
    oracle o = expected_training(l);
    connect(l, 0);
    l->options.epilogue = NULL; /* which moments do not take */
    free(find_moments(l, rows_of(l, BN_PER_GROUP_STATISTICS)));
    connect(l, 0);
    CHECK_OK(bn_normalize(&l->shape, l->dtype, a[X], a[GAMMA], a[BETA], a[SAVED_MEAN], a[SAVED_INVSTD], a[Y],
                          &l->options));
    check_tensor(l, Y, o.y);
    check_bits(&o);
    free_oracle(&o);
}

static void normalize_with_an_epilogue(void) {
    each_case(WITH_EPILOGUE | WITH_Z | WITH_MASK, 0, use_leaky, normalize_agrees);
}

/* The samples of a group as a dense layer of their own, with copies of what the whole layer has of them. */
static size_t outers_of(const layer *l, size_t group) {
    size_t slice = l->shape.channels * l->shape.inner, count = 0;
    for (size_t n = 0; n < l->shape.outer; n++) count += group_of(l, n * slice) == group;
    return count;
}

static void copy_samples(layer *part, const layer *l, size_t group, int array) {
    size_t slice = l->shape.channels * l->shape.inner, size = size_of(l->dtype), next = 0;
    for (size_t n = 0; n < l->shape.outer && part->arrays[array] != NULL; n++) {
        if (group_of(l, n * slice) != group) continue;
        memcpy((char *)part->arrays[array] + next++ * slice * size,
               (const char *)l->arrays[array] + n * stride_of(l, (enum array)array) * size, slice * size);
    }
}

static void copy_row(layer *part, const layer *l, size_t group, int array, int per_group) {
    size_t bytes = part->bytes[array], row = rows_of(l, per_group) == 1 ? 0 : group;
    if (bytes != 0) memcpy(part->arrays[array], (const char *)l->arrays[array] + row * bytes, bytes);
}

static layer part_of(const layer *l, size_t group, const int *left_out, int left_out_count) {
    static const int samples[] = {X, DY, GRAD_DX};
    static const int parameters[] = {GAMMA, GRAD_DGAMMA, GRAD_DBETA};
    layer part = derivative_of(outers_of(l, group), l->shape.channels, l->shape.inner, l->dtype, l->options.frozen);
    make_arrays(&part);
    for (int i = 0; i < left_out_count; i++) leave_out(&part, left_out[i]);
    for (int i = 0; i < 3; i++) copy_samples(&part, l, group, samples[i]);
    for (int i = 0; i < 3; i++) copy_row(&part, l, group, parameters[i], BN_PER_GROUP_PARAMETERS);
    copy_row(&part, l, group, RUNNING_MEAN, BN_PER_GROUP_RUNNING);
    copy_row(&part, l, group, RUNNING_VAR, BN_PER_GROUP_RUNNING);
    find_statistics(&part);
    return part;
}

static int is_frozen, is_without; /* for the cases that follow: constants for statistics, and what is left out */

static void prepare_derivative(layer *l) {
    l->options.frozen = is_frozen;
    l->epilogue.z_stride = l->shape.y_stride, l->epilogue.dz_stride = l->shape.dx_stride;
}

/* Groups whose statistics are their own, or constants, are as many batches; they may share a grad_gamma. */
static void derivatives_agree(layer *l) {
    static const int sets[][2] = {{GRAD_DX, GRAD_DGAMMA}, {GRAD_DX, GAMMA}, {GAMMA, GRAD_DGAMMA}};
    size_t channels = l->shape.channels, groups = l->groups.groups;
    int shares_gamma = rows_of(l, BN_PER_GROUP_PARAMETERS) == 1;
    if (!is_frozen && rows_of(l, BN_PER_GROUP_STATISTICS) == 1) return;
    if (is_frozen && rows_of(l, BN_PER_GROUP_STATISTICS) > 1 && rows_of(l, BN_PER_GROUP_RUNNING) == 1) return;
    int left_out = is_without == 0 ? 0 : 2;
    const int *set = sets[is_without == 0 ? 0 : is_without - 1];
    fill_directions(l);
    for (int i = 0; i < left_out; i++) leave_out(l, set[i]);
    layer parts[8];
    for (size_t g = 0; g < groups; g++) {
        parts[g] = part_of(l, g, set, left_out);
        size_t row = rows_of(l, BN_PER_GROUP_STATISTICS) == 1 ? 0 : g, bytes = channels * sizeof(double);
        memcpy((double *)l->arrays[SAVED_MEAN] + row * channels, parts[g].arrays[SAVED_MEAN], bytes);
        memcpy((double *)l->arrays[SAVED_INVSTD] + row * channels, parts[g].arrays[SAVED_INVSTD], bytes);
    }
    connect(l, 0);
    CHECK_OK(run_jvp(l));
    CHECK_OK(run_double_backward(l));
    double expected[64] = {0}, error[64] = {0};
    for (size_t g = 0; g < groups; g++) {
        copy_samples(&parts[g], l, g, Y_TANGENT), copy_samples(&parts[g], l, g, GRAD_DY);
        copy_samples(&parts[g], l, g, GRAD_X), copy_row(&parts[g], l, g, GRAD_GAMMA, BN_PER_GROUP_PARAMETERS);
        for (size_t c = 0; c < channels && parts[g].shape.outer > 0; c++) {
            if (!shares_gamma) check_channel(&parts[g], c);
            else error[c] += check_tensors(&parts[g], c), expected[c] += (double)k.grad_gamma;
        }
        free_arrays(&parts[g]);
    }
    for (size_t c = 0; c < channels && shares_gamma; c++) {
        double allowed = error[c] + error_of_type(l->param, expected[c]) + 1e-14;
        check_value(l, parameter(l, GRAD_GAMMA, c), expected[c], allowed, "shared grad_gamma", c, 0);
    }
}

static void derivatives(void) {
    for (is_frozen = 0; is_frozen < 2; is_frozen++) {
        for (is_without = 0; is_without < 4; is_without++) {
            each_case(WITH_Z, 0, prepare_derivative, derivatives_agree);
            each_case(WITH_Z, 1, prepare_derivative, derivatives_agree);
        }
    }
    is_frozen = is_without = 0;
}

/* Of groups that share their statistics, each has the tangent that the whole batch has with the group's parameters. */
static void shared_tangents_agree(layer *l) {
    if (rows_of(l, BN_PER_GROUP_STATISTICS) > 1) return;
    fill_directions(l);
    find_statistics(l);
    connect(l, 0);
    CHECK_OK(run_jvp(l));
    CHECK(run_double_backward(l) == BN_ERROR_OPTION, "ran");
    for (size_t g = 0; g < l->groups.groups; g++) {
        layer whole = clone_of(l);
        size_t row = g * l->shape.channels * size_of(l->param);
        whole.options.groups = NULL;
        CHECK_OK(bn_jvp(&l->shape, l->dtype, l->arrays[X], l->arrays[GRAD_DX], (char *)l->arrays[GAMMA] + row,
                        (char *)l->arrays[GRAD_DGAMMA] + row, (char *)l->arrays[GRAD_DBETA] + row, l->arrays[SAVED_MEAN],
                        l->arrays[SAVED_INVSTD], whole.arrays[Y_TANGENT], &whole.options));
        for (size_t i = 0; i < elements_of(l); i++) {
            if (group_of(l, i) != g) continue;
            check_close(l, element(l, Y_TANGENT, i), element(&whole, Y_TANGENT, i), 4, "y_tangent", i);
        }
        free_arrays(&whole);
    }
}

static void tangents_with_shared_statistics(void) { each_case(WITH_Z, 0, prepare_derivative, shared_tangents_agree); }

/* One group in one piece has the bits of a call without groups. */
static void bits_agree(layer *l) {
    static const enum array tensors[] = {Y_TANGENT, GRAD_DY, GRAD_X};
    size_t channels = l->shape.channels, slice = channels * l->shape.inner, outer = l->shape.outer / l->groups.groups;
    if (l->groups.interleaved || l->arrays[INDEX] != NULL || rows_of(l, BN_PER_GROUP_STATISTICS) == 1) return;
    fill_directions(l);
    connect(l, 0);
    double *counts = find_moments(l, l->groups.groups), *sums = allocate(4 * channels * l->groups.groups, sizeof(double));
    CHECK_OK(bn_backward_reduce(&l->shape, l->dtype, l->arrays[DY], l->arrays[X], l->arrays[SAVED_MEAN],
                                l->arrays[SAVED_INVSTD], sums, sums + channels, 2 * channels, &l->options));
    CHECK_OK(run_jvp(l));
    CHECK_OK(run_double_backward(l));
    for (size_t g = 0; g < l->groups.groups; g++) {
        layer part = part_of(l, g, NULL, 0);
        double count[64], mean[64], m2[64], sum[128];
        CHECK_OK(bn_moments(&part.shape, l->dtype, part.arrays[X], count, mean, m2, 0, NULL));
        CHECK(memcmp(mean, (double *)l->arrays[SAVED_MEAN] + g * channels, channels * 8) == 0, "mean of group %zu", g);
        memcpy(part.arrays[SAVED_MEAN], (double *)l->arrays[SAVED_MEAN] + g * channels, channels * 8);
        memcpy(part.arrays[SAVED_INVSTD], (double *)l->arrays[SAVED_INVSTD] + g * channels, channels * 8);
        CHECK_OK(bn_backward_reduce(&part.shape, l->dtype, part.arrays[DY], part.arrays[X], part.arrays[SAVED_MEAN],
                                    part.arrays[SAVED_INVSTD], sum, sum + channels, 0, NULL));
        CHECK(memcmp(sum, sums + 2 * g * channels, 2 * channels * 8) == 0, "sums of group %zu", g);
        CHECK_OK(run_jvp(&part));
        CHECK_OK(run_double_backward(&part));
        for (size_t n = 0; n < outer; n++) {
            for (int t = 0; t < 3; t++) {
                const char *own = (char *)part.arrays[tensors[t]] + n * slice * size_of(l->dtype);
                size_t first = (g * outer + n) * stride_of(l, tensors[t]) * size_of(l->dtype);
                CHECK(memcmp(own, (char *)l->arrays[tensors[t]] + first, slice * size_of(l->dtype)) == 0,
                      "%s of group %zu differs", array_names[tensors[t]], g);
            }
        }
        free_arrays(&part);
    }
    free(counts), free(sums);
}

/* Dense tensors: of some shapes with gaps the blocks are others. */
static void lie_densely(layer *l) {
    l->shape.x_stride = l->shape.y_stride = l->shape.dx_stride = 0;
    prepare_derivative(l);
}

static void bits_of_one_piece(void) { each_case(WITH_Z, 0, lie_densely, bits_agree); }

/* However a batch is parted, the rows of its samples are the same, and so is what they are merged to. */
static void rows_of_samples_in_parts(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (size_t length = 1; length <= 67; length++) {
            layer l = layer_of(6, 3, length, all_dtypes[d], 0);
            make_arrays(&l);
            bn_groups samples = BN_GROUPS_INIT;
            bn_options options = BN_OPTIONS_INIT;
            options.groups = &samples;
            size_t width = 9, slice = 3 * length * size_of(l.dtype);
            double whole[6 * 9], parts[6 * 9], merged[9];
            samples.samples = samples.groups = 6;
            CHECK_OK(bn_moments(&l.shape, l.dtype, l.arrays[X], whole, whole + 3, whole + 6, width, &options));
            for (size_t first = 0; first < 6; first += samples.samples) {
                bn_shape part = l.shape;
                samples.samples = samples.groups = part.outer = first == 0 ? 1 : first == 1 ? 3 : 2;
                CHECK_OK(bn_moments(&part, l.dtype, (char *)l.arrays[X] + first * slice, parts + first * width,
                                    parts + first * width + 3, parts + first * width + 6, width, &options));
            }
            CHECK(memcmp(whole, parts, sizeof whole) == 0, "rows differ (%s, length %zu)", name_of(l.dtype), length);
            CHECK_OK(bn_merge_moments(6, 3, parts, parts + 3, parts + 6, width, merged, merged + 3, merged + 6));
            double counts[18], means[18], m2s[18], dense[9];
            for (size_t i = 0; i < 18; i++) {
                const double *row = whole + i / 3 * width + i % 3;
                counts[i] = row[0], means[i] = row[3], m2s[i] = row[6];
            }
            CHECK_OK(bn_merge_moments(6, 3, counts, means, m2s, 0, dense, dense + 3, dense + 6));
            CHECK(memcmp(merged, dense, sizeof merged) == 0, "merged, %s, length %zu", name_of(l.dtype), length);
            CHECK_OK(bn_merge_moments(6, 3, parts, parts + 3, parts + 6, width, parts, parts + 3, parts + 6));
            CHECK(memcmp(merged, parts, sizeof merged) == 0, "in place, %s, length %zu", name_of(l.dtype), length);
            CHECK(memcmp(parts + width, whole + width, sizeof whole - sizeof merged) == 0, "other rows");
            free_arrays(&l);
        }
    }
}

int main(void) {
    start();
    RUN(steps);
    RUN(steps_of_absent_groups);
    RUN(steps_with_weights);
    RUN(normalize_with_an_epilogue);
    RUN(derivatives);
    RUN(tangents_with_shared_statistics);
    RUN(bits_of_one_piece);
    RUN(rows_of_samples_in_parts);
    return finish();
}
