/* SPDX-License-Identifier: Apache-2.0
 *
 * Activations and residuals, forward and backward: from x, from the mask and from the output. */
#include "agrees.h"

static const bn_activation activations[] = {BN_IDENTITY, BN_RELU, BN_LEAKY_RELU, BN_CLIP, BN_HARD_SWISH, BN_SILU};
enum { activation_count = sizeof activations / sizeof activations[0] };

/* Planes, short planes, rows and NC; few of the numbers of elements are multiples of 8. */
static const size_t shapes[][3] = {{5, 3, 49}, {7, 5, 3}, {61, 7, 1}, {9, 133, 1}, {2, 3, 1031}, {3, 16, 32},
                                   {2, 1, 1}};
enum { shape_count = sizeof shapes / sizeof shapes[0] };

/* In these shapes each channel is several blocks, one of them not whole. Two types run them, as they take long. */
static const size_t large_shapes[][3] = {{2, 2, 20001}, {1, 1, 40003}, {1100, 70, 1}, {5000, 3, 1}, {1500, 2, 9}};
enum { large_count = sizeof large_shapes / sizeof large_shapes[0] };

static layer epilogue_layer(int shape, bn_dtype dtype, bn_activation activation, int with) {
    layer l = layer_of(shapes[shape][0], shapes[shape][1], shapes[shape][2], dtype, with | WITH_EPILOGUE);
    l.epilogue.activation = activation;
    l.epilogue.slope = 0.25; /* exact in every type */
    l.epilogue.low = -0.75;
    l.epilogue.high = 1.5;
    return l;
}

/* Gaps of different lengths in every tensor; what is written must not reach into them. */
static void spread(layer *l) {
    size_t slice = l->shape.channels * l->shape.inner;
    l->shape.x_stride = slice + 1, l->shape.y_stride = slice + 3, l->shape.dx_stride = slice + 16;
    l->epilogue.z_stride = slice + 5, l->epilogue.dz_stride = slice + 2;
}

static void each_case(int with, void (*agrees)(layer *l)) {
    for (int s = 0; s < shape_count; s++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int a = 0; a < activation_count; a++) {
                int is_bit = activations[a] != BN_HARD_SWISH && activations[a] != BN_SILU;
                if ((with & WITH_MASK) != 0 && !is_bit) continue;
                for (int is_strided = 0; is_strided < 2; is_strided++) {
                    layer l = epilogue_layer(s, all_dtypes[d], activations[a], with);
                    if (is_strided) spread(&l);
                    make_arrays(&l);
                    agrees(&l);
                    free_arrays(&l);
                }
            }
        }
    }
}

static void activations_of_training(void) { each_case(0, training_agrees); }
static void residuals(void) { each_case(WITH_Z, training_agrees); }
static void gradients_by_mask(void) { each_case(WITH_MASK, training_agrees); }
static void gradients_by_mask_with_residual(void) { each_case(WITH_MASK | WITH_Z, training_agrees); }

static void frozen_agrees(layer *l) {
    oracle o = expected_inference(l);
    l->options.frozen = 1;
    CHECK_OK(infer_layer(l));
    check_tensor(l, Y, o.y);
    if (l->arrays[MASK] != NULL) check_bits(&o);
    expect_gradients(&o, BN_PER_GROUP_RUNNING);
    CHECK_OK(back_layer(l));
    check_gradients(&o);
    free_oracle(&o);
}

static void activations_of_inference(void) {
    each_case(WITH_Z, frozen_agrees);
    each_case(WITH_Z | WITH_MASK, frozen_agrees);
}

/* y and mask of bn_normalize are those of the layer. */
static void normalize_agrees(layer *l) {
    layer other = clone_of(l);
    CHECK_OK(infer_layer(l));
    connect(&other, 0);
    void **a = other.arrays;
    CHECK_OK(bn_normalize(&other.shape, other.dtype, a[X], a[GAMMA], a[BETA], l->arrays[SAVED_MEAN],
                          l->arrays[SAVED_INVSTD], a[Y], &other.options));
    CHECK(memcmp(l->arrays[Y], a[Y], l->bytes[Y]) == 0, "y differs");
    CHECK(l->bytes[MASK] == 0 || memcmp(l->arrays[MASK], a[MASK], l->bytes[MASK]) == 0, "mask differs");
    free_arrays(&other);
}

static void building_block(void) {
    each_case(WITH_Z, normalize_agrees);
    each_case(WITH_Z | WITH_MASK, normalize_agrees);
}

static void undo_agrees(layer *l) {
    if (l->epilogue.activation != BN_IDENTITY && l->epilogue.activation != BN_LEAKY_RELU) return;
    for (size_t c = 0; c < l->shape.channels; c += 2) {
        put(l->param, l->arrays[GAMMA], c, -parameter(l, GAMMA, c));
    }
    l->epilogue.from_output = 1;
    training_agrees(l);
    oracle o = expected_inference(l); /* and where the statistics are constants */
    l->options.frozen = 1;
    CHECK_OK(infer_layer(l));
    expect_gradients(&o, BN_PER_GROUP_RUNNING);
    CHECK_OK(back_layer(l));
    check_gradients(&o);
    free_oracle(&o);
}

static void gradients_by_output(void) { each_case(0, undo_agrees); }

/* y == x, and from_output needs no more than y: the memory of a layer is one tensor and its gradient. */
static void output_in_place(void) {
    for (int s = 0; s < shape_count; s++) {
        for (int d = 0; d < all_dtype_count; d++) {
            layer l = epilogue_layer(s, all_dtypes[d], BN_LEAKY_RELU, 0);
            make_arrays(&l);
            l.epilogue.from_output = 1;
            layer apart = clone_of(&l);
            CHECK_OK(train_layer(&apart));
            CHECK_OK(back_layer(&apart));
            void *y = l.arrays[Y], *dx = l.arrays[DX];
            l.arrays[Y] = l.arrays[X], l.arrays[DX] = l.arrays[DY];
            CHECK_OK(train_layer(&l));
            CHECK_OK(back_layer(&l));
            CHECK(memcmp(l.arrays[Y], apart.arrays[Y], l.bytes[Y]) == 0, "y differs");
            CHECK(memcmp(l.arrays[DX], apart.arrays[DX], l.bytes[DX]) == 0, "dx differs");
            CHECK(memcmp(l.arrays[DGAMMA], apart.arrays[DGAMMA], l.bytes[DGAMMA]) == 0, "dgamma differs");
            l.arrays[Y] = y, l.arrays[DX] = dx;
            free_arrays(&l), free_arrays(&apart);
        }
    }
}

/* The call with all outputs apart, and with those of the second layer in the places that they may have. */
static void places_agree(layer *l) {
    layer apart = clone_of(l);
    CHECK_OK(train_layer(&apart));
    CHECK_OK(back_layer(&apart));
    layer y_is_x = clone_of(l), dx_is_dy = clone_of(&apart), dz_is_dy = clone_of(&apart), only_dz = clone_of(&apart);

    void *own = y_is_x.arrays[Y];
    y_is_x.arrays[Y] = y_is_x.arrays[X];
    CHECK_OK(train_layer(&y_is_x));
    CHECK(memcmp(y_is_x.arrays[Y], apart.arrays[Y], l->bytes[Y]) == 0, "y differs in place of x");
    int is_same = l->bytes[MASK] == 0 || memcmp(y_is_x.arrays[MASK], apart.arrays[MASK], l->bytes[MASK]) == 0;
    CHECK(is_same, "mask differs where y is in place of x");
    y_is_x.arrays[Y] = own;

    own = dx_is_dy.arrays[DX];
    dx_is_dy.arrays[DX] = dx_is_dy.arrays[DY];
    CHECK_OK(back_layer(&dx_is_dy));
    CHECK(memcmp(dx_is_dy.arrays[DX], apart.arrays[DX], l->bytes[DX]) == 0, "dx differs in place of dy");
    CHECK(memcmp(dx_is_dy.arrays[DZ], apart.arrays[DZ], l->bytes[DZ]) == 0, "dz differs where dx is in place of dy");
    dx_is_dy.arrays[DX] = own;

    own = dz_is_dy.arrays[DZ];
    dz_is_dy.arrays[DZ] = dz_is_dy.arrays[DY];
    CHECK_OK(back_layer(&dz_is_dy));
    CHECK(memcmp(dz_is_dy.arrays[DZ], apart.arrays[DZ], l->bytes[DZ]) == 0, "dz differs in place of dy");
    CHECK(memcmp(dz_is_dy.arrays[DX], apart.arrays[DX], l->bytes[DX]) == 0, "dx differs where dz is in place of dy");
    CHECK(memcmp(dz_is_dy.arrays[DGAMMA], apart.arrays[DGAMMA], l->bytes[DGAMMA]) == 0, "dgamma differs");
    dz_is_dy.arrays[DZ] = own;

    own = only_dz.arrays[DX];
    void *dgamma = only_dz.arrays[DGAMMA], *dbeta = only_dz.arrays[DBETA];
    only_dz.arrays[DX] = only_dz.arrays[DGAMMA] = only_dz.arrays[DBETA] = NULL;
    memset(only_dz.arrays[DZ], 0, l->bytes[DZ]);
    CHECK_OK(back_layer(&only_dz));
    CHECK(memcmp(only_dz.arrays[DZ], apart.arrays[DZ], l->bytes[DZ]) == 0, "dz differs alone");
    only_dz.arrays[DX] = own, only_dz.arrays[DGAMMA] = dgamma, only_dz.arrays[DBETA] = dbeta;

    free_arrays(&apart), free_arrays(&y_is_x), free_arrays(&dx_is_dy), free_arrays(&dz_is_dy), free_arrays(&only_dz);
}

static void outputs_in_place_of_inputs(void) {
    for (int s = 0; s < shape_count; s++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int a = 0; a < activation_count; a++) {
                int is_bit = activations[a] != BN_HARD_SWISH && activations[a] != BN_SILU;
                for (int by_mask = 0; by_mask <= is_bit; by_mask++) {
                    layer l = epilogue_layer(s, all_dtypes[d], activations[a], WITH_Z | (by_mask ? WITH_MASK : 0));
                    make_arrays(&l);
                    places_agree(&l);
                    free_arrays(&l);
                }
            }
        }
    }
}

/* dx and dz may not be one, though each may be dy. */
static void only_one_output_in_place(void) {
    layer l = epilogue_layer(0, BN_FLOAT32, BN_RELU, WITH_Z);
    make_arrays(&l);
    CHECK_OK(train_layer(&l));
    layer kept = clone_of(&l);
    void *dx = l.arrays[DX], *dz = l.arrays[DZ];
    l.arrays[DX] = l.arrays[DZ] = l.arrays[DY];
    CHECK(back_layer(&l) == BN_ERROR_OVERLAP, "%s", bn_last_error());
    l.arrays[DX] = dx, l.arrays[DZ] = dz;
    CHECK(difference(&l, &kept) == NULL, "%s was written", difference(&l, &kept));
    free_arrays(&l), free_arrays(&kept);
}

/* At the kinks, and where numbers end. beta alone decides about u, as x_hat is 0: the mean is x's. */
static void values_at_the_ends(void) {
    static const struct { bn_activation activation; double u, y, derivative; int bit; } cases[] = {
        {BN_RELU, 0, 0, 0, 0}, {BN_RELU, -2, 0, 0, 0}, {BN_RELU, 2, 2, 1, 1}, {BN_RELU, HUGE_VAL, HUGE_VAL, 1, 1},
        {BN_LEAKY_RELU, 0, 0, 0.5, 0}, {BN_LEAKY_RELU, -2, -1, 0.5, 0}, {BN_LEAKY_RELU, 2, 2, 1, 1},
        {BN_CLIP, -1, -1, 0, 0}, {BN_CLIP, 4, 4, 0, 0}, {BN_CLIP, 3.5, 3.5, 1, 1}, {BN_CLIP, 1e30, 4, 0, 0},
        {BN_HARD_SWISH, -3, 0, 0, -1}, {BN_HARD_SWISH, 3, 3, 1, -1}, {BN_HARD_SWISH, 0, 0, 0.5, -1},
        {BN_HARD_SWISH, 1e30, 1e30, 1, -1}, {BN_HARD_SWISH, -1e30, 0, 0, -1},
        {BN_SILU, 0, 0, 0.5, -1}, {BN_SILU, 1e30, 1e30, 1, -1}, {BN_SILU, -1e30, 0, 0, -1}, {BN_SILU, -800, 0, 0, -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int d = 0; d < dtype_count; d++) {
            int with = WITH_EPILOGUE | WITH_Z | (cases[i].bit < 0 ? 0 : WITH_MASK);
            layer l = layer_of(3, 1, 7, dtypes[d], with);
            l.epilogue.activation = cases[i].activation;
            l.epilogue.slope = 0.5, l.epilogue.low = -1, l.epilogue.high = 4;
            make_arrays(&l);
            fill(&l, X, l.dtype, 2, 0), fill(&l, RUNNING_MEAN, l.param, 2, 0), fill(&l, Z, l.dtype, 0, 0);
            fill(&l, BETA, l.param, cases[i].u, 0), fill(&l, DY, l.dtype, 1, 0);
            l.options.frozen = 1;
            CHECK_OK(infer_layer(&l));
            CHECK_OK(back_layer(&l));
            for (size_t k = 0; k < elements_of(&l); k++) {
                double expected = cases[i].y, y = element(&l, Y, k), dz = element(&l, DZ, k);
                CHECK(y == expected || fabs(y - expected) <= 1e-6 * fabs(expected), "case %zu: y is %g", i, y);
                CHECK(fabs(dz - cases[i].derivative) <= 1e-6, "case %zu: dz is %g", i, dz);
            }
            const uint8_t *mask = l.arrays[MASK];
            uint8_t all = cases[i].bit ? 0xFF : 0;
            if (mask != NULL) CHECK(mask[0] == all && mask[1] == all && (mask[2] & 31) == (all & 31), "case %zu", i);
            free_arrays(&l);
        }
    }
}

/* Gaps in some of the tensors, and none in the others. */
static void gaps_of_any_tensor(void) {
    for (int s = 0; s < shape_count; s++) {
        for (unsigned gaps = 0; gaps < 32; gaps++) {
            for (int d = 0; d < all_dtype_count; d++) {
                layer l = epilogue_layer(s, all_dtypes[d], BN_LEAKY_RELU, WITH_Z | (d % 2 ? WITH_WEIGHTS : 0));
                size_t slice = l.shape.channels * l.shape.inner;
                l.shape.x_stride = slice + (gaps & 1), l.shape.y_stride = slice + (gaps >> 1 & 1);
                l.shape.dx_stride = slice + (gaps >> 2 & 1);
                l.epilogue.z_stride = slice + (gaps >> 3 & 1), l.epilogue.dz_stride = slice + (gaps >> 4 & 1);
                make_arrays(&l);
                training_agrees(&l);
                free_arrays(&l);
            }
        }
    }
}

/* Bounds that are no numbers of the tensors' type, and round towards each other there: y is between them then, but u is
 * beyond. */
static void bounds_that_are_rounded(void) {
    static const double highs[] = {1.3372, 1.3379 + 0x1p-13, 1 + 0x1p-25, 0.3};
    for (size_t i = 0; i < sizeof highs / sizeof highs[0]; i++) {
        for (int d = 0; d < all_dtype_count; d++) {
            layer l = epilogue_layer(0, all_dtypes[d], BN_CLIP, WITH_MASK);
            l.epilogue.low = -highs[i], l.epilogue.high = highs[i];
            make_arrays(&l);
            training_agrees(&l);
            free_arrays(&l);
        }
    }
}

static void several_blocks(void) {
    for (int s = 0; s < large_count; s++) {
        for (int a = 0; a < activation_count; a++) {
            for (int d = 0; d < all_dtype_count; d += all_dtype_count - 1) {
                int is_bit = activations[a] != BN_HARD_SWISH && activations[a] != BN_SILU;
                int with = WITH_EPILOGUE | (s % 2 ? WITH_Z : 0) | (is_bit && a % 2 ? WITH_MASK : 0);
                layer l = layer_of(large_shapes[s][0], large_shapes[s][1], large_shapes[s][2], all_dtypes[d], with);
                l.epilogue.activation = activations[a];
                if (a == 2) spread(&l);
                make_arrays(&l);
                training_agrees(&l);
                free_arrays(&l);
            }
        }
    }
}

int main(void) {
    start();
    RUN(activations_of_training);
    RUN(residuals);
    RUN(gradients_by_mask);
    RUN(gradients_by_mask_with_residual);
    RUN(activations_of_inference);
    RUN(gaps_of_any_tensor);
    RUN(bounds_that_are_rounded);
    RUN(several_blocks);
    RUN(building_block);
    RUN(gradients_by_output);
    RUN(output_in_place);
    RUN(outputs_in_place_of_inputs);
    RUN(only_one_output_in_place);
    RUN(values_at_the_ends);
    return finish();
}
