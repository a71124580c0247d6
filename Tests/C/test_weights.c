/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights of positions: moments, the layer and its building blocks, and what becomes of positions of weight 0. */
#include "agrees.h"

static const bn_masked modes[] = {BN_MASKED_NORMALIZE, BN_MASKED_ZERO, BN_MASKED_KEEP};
enum { mode_count = 3 };

/* Planes, short and long, rows, few channels and many; enough of each that a sweep has several blocks. */
static const size_t shapes[][3] = {{5, 3, 49}, {7, 5, 3}, {61, 7, 1}, {9, 133, 1}, {2, 3, 1031}, {3, 16, 32},
                                   {2500, 3, 1}};
enum { shape_count = sizeof shapes / sizeof shapes[0] };

/* In these shapes each channel is several blocks, one of them not whole. Two types run them, as they take long. */
static const size_t large_shapes[][3] = {{2, 2, 20001}, {1, 1, 40003}, {1100, 70, 1}, {5000, 3, 1}, {1500, 2, 9}};
enum { large_count = sizeof large_shapes / sizeof large_shapes[0] };

/* The ends of the tensor have no weight either: nothing may be asked of its first value, nor of its last. */
static void hide_nans(layer *l) {
    bn_dtype number = l->dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
    size_t positions = l->shape.outer * l->shape.inner, ends[] = {0, 1, positions - 2, positions - 1};
    for (int i = 0; i < 4; i++) {
        put(number, l->arrays[WEIGHTS], ends[i], 0);
        put(number, l->arrays[WEIGHTS], positions / 2 + (size_t)i % 2, 1); /* so that there is never just one */
    }
    for (size_t i = 0; i < elements_of(l); i++) {
        if (weight_of(l, i) == 0) put(l->dtype, l->arrays[X], place_of(l, X, i), NAN);
    }
}

static void each_case(int with, int has_nans, void (*agrees)(layer *l)) {
    for (int s = 0; s < shape_count; s++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int m = 0; m < mode_count; m++) {
                layer l = layer_of(shapes[s][0], shapes[s][1], shapes[s][2], all_dtypes[d], with | WITH_WEIGHTS);
                l.weights.masked = modes[m];
                if (with & WITH_EPILOGUE) l.epilogue.activation = BN_LEAKY_RELU;
                l.epilogue.slope = 0.5;
                size_t slice = l.shape.channels * l.shape.inner;
                if (s % 2) l.shape.x_stride = slice + 3, l.shape.y_stride = slice + 1, l.shape.dx_stride = slice + 5;
                make_arrays(&l);
                if (has_nans) hide_nans(&l);
                agrees(&l);
                free_arrays(&l);
            }
        }
    }
}

/* A value without weight is no measure of the others, however large it is: no sum may be taken about it. */
static void hidden_values_are_no_pivots(void) {
    for (int s = 0; s < shape_count; s++) {
        for (int d = 0; d < all_dtype_count; d++) {
            layer l = layer_of(shapes[s][0], shapes[s][1], shapes[s][2], all_dtypes[d], WITH_WEIGHTS);
            bn_dtype number = l.dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
            size_t positions = l.shape.outer * l.shape.inner;
            double huge = l.dtype == BN_FLOAT64 ? 1e300 : l.dtype == BN_FLOAT16 ? 6e4 : 1e38;
            make_arrays(&l);
            for (size_t i = 0; i < positions; i++) {
                int is_hidden = i < positions / 3 || i > positions - positions / 4 || i == positions / 2;
                put(number, l.arrays[WEIGHTS], i, is_hidden ? 0 : 0.5 + (double)(i % 3));
            }
            for (size_t i = 0; i < elements_of(&l); i++) {
                if (weight_of(&l, i) == 0) put(l.dtype, l.arrays[X], place_of(&l, X, i), huge);
            }
            CHECK_OK(train_layer(&l));
            for (size_t c = 0; c < l.shape.channels; c++) {
                long double weight = 0, mean = 0, var = 0;
                for (size_t i = 0; i < elements_of(&l); i++) {
                    if (channel_of(&l, i) != c || weight_of(&l, i) == 0) continue;
                    weight += weight_of(&l, i), mean += weight_of(&l, i) * element(&l, X, i);
                }
                mean /= weight;
                for (size_t i = 0; i < elements_of(&l); i++) {
                    if (channel_of(&l, i) != c || weight_of(&l, i) == 0) continue;
                    var += weight_of(&l, i) * (element(&l, X, i) - mean) * (element(&l, X, i) - mean) / weight;
                }
                /* The bound of invstd is 2^-31 for float32. */
                double of_mean = saved(&l, SAVED_MEAN, c), invstd = (double)(1 / sqrtl(var + l.options.eps));
                double of_invstd = saved(&l, SAVED_INVSTD, c);
                CHECK(fabs(of_mean - (double)mean) <= 1e-9, "mean %g instead of %g", of_mean, (double)mean);
                CHECK(fabs(of_invstd - invstd) <= 1e-9 * invstd, "invstd %g instead of %g", of_invstd, invstd);
            }
            free_arrays(&l);
        }
    }
}

/* Nor does any other value that has no weight change a bit. */
static void hidden_values_change_no_bit(void) {
    for (int s = 0; s < shape_count; s++) {
        for (int d = 0; d < all_dtype_count; d++) {
            layer l = layer_of(shapes[s][0], shapes[s][1], shapes[s][2], all_dtypes[d], WITH_WEIGHTS);
            make_arrays(&l);
            put(l.dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32, l.arrays[WEIGHTS], 0, 0);
            layer other = clone_of(&l);
            for (size_t i = 0; i < elements_of(&l); i++) {
                if (weight_of(&l, i) == 0) put(l.dtype, other.arrays[X], place_of(&l, X, i), 1 + random_value());
            }
            CHECK_OK(train_layer(&l));
            CHECK_OK(train_layer(&other));
            CHECK(memcmp(l.arrays[SAVED_MEAN], other.arrays[SAVED_MEAN], l.bytes[SAVED_MEAN]) == 0,
                  "shape %d: mean", s);
            CHECK(memcmp(l.arrays[SAVED_INVSTD], other.arrays[SAVED_INVSTD], l.bytes[SAVED_INVSTD]) == 0,
                  "shape %d: invstd", s);
            free_arrays(&l), free_arrays(&other);
        }
    }
}

/* Where NaN takes part in y, it takes part in the sums over dy: nothing is asked of gradients then. */
static void forward_agrees(layer *l) {
    oracle o = expected_training(l);
    CHECK_OK(train_layer(l));
    check_training(&o);
    free_oracle(&o);
}

static void hidden_agrees(layer *l) {
    if (l->weights.masked == BN_MASKED_NORMALIZE) forward_agrees(l);
    else training_agrees(l);
}

static void training(void) { each_case(0, 0, training_agrees); }
static void training_with_epilogue(void) { each_case(WITH_EPILOGUE | WITH_Z, 0, training_agrees); }
static void training_by_mask(void) { each_case(WITH_EPILOGUE | WITH_MASK, 0, training_agrees); }
static void hidden_nans(void) { each_case(0, 1, hidden_agrees); }
static void hidden_nans_with_epilogue(void) { each_case(WITH_EPILOGUE | WITH_Z, 1, hidden_agrees); }

static void frozen_agrees(layer *l) {
    oracle o = expected_inference(l);
    l->options.frozen = 1;
    CHECK_OK(infer_layer(l));
    check_tensor(l, Y, o.y);
    expect_gradients(&o, BN_PER_GROUP_RUNNING);
    CHECK_OK(back_layer(l));
    check_gradients(&o);
    free_oracle(&o);
}

static void inference(void) {
    each_case(0, 0, frozen_agrees);
    each_case(WITH_EPILOGUE | WITH_Z, 0, frozen_agrees);
}

/* The layer from its blocks: the sums that bn_backward_apply is given are of the whole batch, and so is the count. */
static void blocks_agree(layer *l) {
    size_t channels = l->shape.channels;
    double *memory = allocate(5 * channels, sizeof(double));
    double *count = memory, *mean = count + channels, *m2 = mean + channels;
    double *sum_dy = m2 + channels, *product = sum_dy + channels, *invstd;
    void **a = l->arrays;
    oracle o = expected_training(l);
    connect(l, 0);
    CHECK_OK(bn_moments(&l->shape, l->dtype, a[X], count, mean, m2, 0, NULL));
    for (size_t c = 0; c < channels; c++) {
        const normalizer *n = &o.normalizers[c];
        CHECK(fabs(count[c] - n->count) <= 1e-12 * n->count, "count %.17g, expected %.17g", count[c], n->count);
        CHECK(fabs(mean[c] - n->mean) <= 1e-12, "mean %.17g, expected %.17g", mean[c], n->mean);
        CHECK(fabs(m2[c] - n->variance * n->count) <= 1e-11 * m2[c], "m2 %.17g", m2[c]);
    }
    invstd = l->arrays[SAVED_INVSTD];
    CHECK_OK(bn_inverse_std(channels, count, m2, invstd, &l->options));
    CHECK_OK(bn_normalize(&l->shape, l->dtype, a[X], a[GAMMA], a[BETA], mean, invstd, a[Y], NULL));
    check_tensor(l, Y, o.y);
    expect_gradients(&o, BN_PER_GROUP_STATISTICS);
    CHECK_OK(bn_backward_reduce(&l->shape, l->dtype, a[DY], a[X], mean, invstd, sum_dy, product, 0, NULL));
    CHECK_OK(bn_backward_apply(&l->shape, l->dtype, a[DY], a[X], a[GAMMA], mean, invstd, count, sum_dy, product,
                               a[DX], NULL));
    for (size_t c = 0; c < channels; c++) {
        check_close(l, sum_dy[c], o.dbeta[c], o.magnitude[c], "sum_dy", c);
        check_close(l, product[c], o.dgamma[c], o.magnitude[c], "sum_dy_x_hat", c);
    }
    check_tensor(l, DX, o.dx);
    free(memory), free_oracle(&o);
}

static void hidden_blocks_agree(layer *l) {
    if (l->weights.masked != BN_MASKED_NORMALIZE) blocks_agree(l);
}

static void building_blocks(void) { each_case(0, 0, blocks_agree); }
static void building_blocks_of_hidden_nans(void) { each_case(0, 1, hidden_blocks_agree); }

/* Ones are no weights at all, but for the order of the sums. */
static void ones(void) {
    for (int s = 0; s < shape_count; s++) {
        layer l = layer_of(shapes[s][0], shapes[s][1], shapes[s][2], BN_FLOAT64, WITH_WEIGHTS);
        make_arrays(&l);
        fill(&l, WEIGHTS, BN_FLOAT64, 1, 0);
        layer plain = clone_of(&l);
        plain.with = 0;
        CHECK_OK(train_layer(&l));
        CHECK_OK(back_layer(&l));
        CHECK_OK(train_layer(&plain));
        CHECK_OK(back_layer(&plain));
        static const enum array outputs[] = {Y, DX, DGAMMA, DBETA, RUNNING_MEAN, RUNNING_VAR, SAVED_MEAN, SAVED_INVSTD};
        for (size_t o = 0; o < sizeof outputs / sizeof outputs[0]; o++) {
            const double *one = l.arrays[outputs[o]], *other = plain.arrays[outputs[o]];
            for (size_t i = 0; i < l.bytes[outputs[o]] / sizeof(double); i++) {
                CHECK(fabs(one[i] - other[i]) <= 1e-11 * (1 + fabs(other[i])), "%s: %.17g and %.17g",
                      array_names[outputs[o]], one[i], other[i]);
            }
        }
        free_arrays(&l), free_arrays(&plain);
    }
}

/* An empty batch: no running statistics move, saved_invstd is that of variance 0. */
static void nothing_but_zeros(void) {
    for (int m = 0; m < mode_count; m++) {
        for (int d = 0; d < all_dtype_count; d++) {
            layer l = layer_of(4, 3, 9, all_dtypes[d], WITH_WEIGHTS);
            l.weights.masked = modes[m];
            make_arrays(&l);
            memset(l.arrays[WEIGHTS], 0, l.bytes[WEIGHTS]);
            layer before = clone_of(&l);
            CHECK_OK(train_layer(&l));
            for (size_t c = 0; c < l.shape.channels; c++) {
                double invstd = saved(&l, SAVED_INVSTD, c);
                CHECK(saved(&l, SAVED_MEAN, c) == 0, "saved_mean %g", saved(&l, SAVED_MEAN, c));
                CHECK(fabs(invstd - 1 / sqrt(l.options.eps)) < 1e-14, "saved_invstd %.17g", invstd);
            }
            CHECK(memcmp(l.arrays[RUNNING_MEAN], before.arrays[RUNNING_MEAN], l.bytes[RUNNING_MEAN]) == 0, "moved");
            CHECK(memcmp(l.arrays[RUNNING_VAR], before.arrays[RUNNING_VAR], l.bytes[RUNNING_VAR]) == 0, "moved");
            CHECK_OK(back_layer(&l));
            for (size_t i = 0; i < elements_of(&l); i++) {
                double y = element(&l, Y, i), dx = element(&l, DX, i), x = element(&l, X, i), dy = element(&l, DY, i);
                if (modes[m] == BN_MASKED_ZERO) CHECK(y == 0 && dx == 0, "y %g, dx %g", y, dx);
                if (modes[m] == BN_MASKED_KEEP) CHECK(y == x && dx == dy, "y %g, dx %g", y, dx);
                if (modes[m] != BN_MASKED_NORMALIZE) continue;
                /* The sums are divided by no weight at all; what is left is that of constants. */
                double scale = parameter(&l, GAMMA, channel_of(&l, i)) / sqrt(l.options.eps);
                check_close(&l, dx, scale * dy, fabs(scale * dy), "dx", i);
            }
            for (size_t c = 0; c < l.shape.channels && modes[m] != BN_MASKED_NORMALIZE; c++) {
                CHECK(parameter(&l, DGAMMA, c) == 0 && parameter(&l, DBETA, c) == 0, "gradients of nothing");
            }
            double count[3], mean[3], m2[3];
            CHECK_OK(bn_moments(&l.shape, l.dtype, l.arrays[X], count, mean, m2, 0, NULL));
            for (int c = 0; c < 3; c++) {
                CHECK(count[c] == 0 && mean[c] == 0 && m2[c] == 0, "%g %g %g", count[c], mean[c], m2[c]);
            }
            free_arrays(&l), free_arrays(&before);
        }
    }
}

/* The same where the call keeps moments to choose what becomes of a single value. */
static void single_value_beside_a_policy(void) {
    layer l = layer_of(4, 3, 9, BN_FLOAT32, WITH_WEIGHTS | WITH_RUNNING);
    l.running.nonfinite = BN_NONFINITE_SKIP;
    make_arrays(&l);
    memset(l.arrays[WEIGHTS], 0, l.bytes[WEIGHTS]);
    ((float *)l.arrays[WEIGHTS])[20] = 5;
    layer before = clone_of(&l);
    CHECK(train_layer(&l) == BN_ERROR_SINGLE_VALUE, "%s", bn_last_error());
    CHECK(strstr(bn_last_error(), "weight") != NULL, "%s", bn_last_error());
    CHECK(difference(&l, &before) == NULL, "%s was written", difference(&l, &before));
    free_arrays(&l), free_arrays(&before);
}

/* One position with a weight is one value, whatever it weighs; and a total of 1 has no unbiased variance. */
static void single_values(void) {
    layer l = layer_of(4, 3, 9, BN_FLOAT32, WITH_WEIGHTS);
    make_arrays(&l);
    float *weights = l.arrays[WEIGHTS];
    memset(weights, 0, l.bytes[WEIGHTS]);
    weights[20] = 5;
    layer before = clone_of(&l);
    CHECK(train_layer(&l) == BN_ERROR_SINGLE_VALUE, "%s", bn_last_error());
    weights[20] = 0.5f, weights[3] = 0.25f;
    CHECK(train_layer(&l) == BN_ERROR_SINGLE_VALUE, "%s", bn_last_error());
    weights[3] = 0.5f;
    CHECK(train_layer(&l) == BN_ERROR_SINGLE_VALUE, "%s", bn_last_error());
    memcpy(weights, before.arrays[WEIGHTS], l.bytes[WEIGHTS]);
    CHECK(difference(&l, &before) == NULL, "%s was written", difference(&l, &before));
    weights[20] = 0.5f, weights[3] = 0.25f;
    l.options.biased_running_var = 1;
    training_agrees(&l);
    free_arrays(&l), free_arrays(&before);
}

static void lengths(void) {
    static const size_t given[] = {0, 7, 3, 5, 1};
    enum { samples = 5, positions = 7 };
    for (int d = 0; d < all_dtype_count; d++) {
        bn_dtype number = all_dtypes[d] == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32;
        double memory[samples * positions + 1];
        memset(memory, 0xA5, sizeof memory);
        CHECK_OK(bn_length_weights(samples, positions, given, all_dtypes[d], memory));
        for (size_t i = 0; i < samples * positions; i++) {
            double weight = get(number, memory, i), expected = i % positions < given[i / positions];
            CHECK(weight == expected, "weights[%zu] is %g (%s)", i, weight, name_of(all_dtypes[d]));
        }
        unsigned char *after = (unsigned char *)memory + samples * positions * size_of(number);
        CHECK(*after == 0xA5, "one too many (%s)", name_of(all_dtypes[d]));
    }
    CHECK_OK(bn_length_weights(0, positions, NULL, BN_FLOAT32, NULL));
    size_t none = 0;
    CHECK_OK(bn_length_weights(1, 0, &none, BN_FLOAT32, NULL));
}

static void several_blocks(void) {
    for (int s = 0; s < large_count; s++) {
        for (int m = 0; m < mode_count; m++) {
            for (int d = 0; d < all_dtype_count; d += all_dtype_count - 1) {
                int with = WITH_WEIGHTS | (m == 1 ? WITH_EPILOGUE | WITH_Z : 0);
                layer l = layer_of(large_shapes[s][0], large_shapes[s][1], large_shapes[s][2], all_dtypes[d], with);
                l.weights.masked = modes[m];
                if (m == 1) l.epilogue.activation = BN_SILU;
                make_arrays(&l);
                training_agrees(&l);
                free_arrays(&l);
            }
        }
    }
}

int main(void) {
    start();
    RUN(training);
    RUN(training_with_epilogue);
    RUN(training_by_mask);
    RUN(hidden_nans);
    RUN(hidden_nans_with_epilogue);
    RUN(hidden_values_are_no_pivots);
    RUN(hidden_values_change_no_bit);
    RUN(inference);
    RUN(building_blocks);
    RUN(building_blocks_of_hidden_nans);
    RUN(several_blocks);
    RUN(ones);
    RUN(nothing_but_zeros);
    RUN(single_values);
    RUN(single_value_beside_a_policy);
    RUN(lengths);
    return finish();
}
