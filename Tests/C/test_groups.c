/* SPDX-License-Identifier: Apache-2.0
 *
 * Groups of samples: how they lie, what has a row per group, groups without samples, and everything else in groups. */
#include "grouped.h"

static void training(void) { each_case(0, 0, NULL, training_agrees); }
static void absent_groups(void) { each_case(0, 1, NULL, training_agrees); }

static void use_leaky(layer *l) {
    l->epilogue.activation = BN_LEAKY_RELU;
    l->epilogue.slope = 0.25;
}

static void use_silu(layer *l) { l->epilogue.activation = BN_SILU; }

static void epilogues(void) {
    each_case(WITH_EPILOGUE | WITH_Z, 0, use_silu, training_agrees);
    each_case(WITH_EPILOGUE | WITH_MASK, 0, use_leaky, training_agrees);
    each_case(WITH_EPILOGUE | WITH_Z | WITH_MASK, 1, use_leaky, training_agrees);
}

static void use_output(layer *l) {
    use_leaky(l);
    l->epilogue.from_output = 1;
}

static void undo_agrees(layer *l) {
    if (rows_of(l, BN_PER_GROUP_STATISTICS) > 1) training_agrees(l);
}

static void gradients_by_output(void) { each_case(WITH_EPILOGUE, 0, use_output, undo_agrees); }

static void mask_zero(layer *l) { l->weights.masked = BN_MASKED_ZERO; }
static void mask_keep(layer *l) { l->weights.masked = BN_MASKED_KEEP; }

static void weights(void) {
    each_case(WITH_WEIGHTS, 0, NULL, training_agrees);
    each_case(WITH_WEIGHTS, 0, mask_zero, training_agrees);
    each_case(WITH_WEIGHTS, 1, mask_keep, training_agrees);
}

/* Groups of samples whose weights are all 0 are empty batches among others that are not. */
static void empty_agrees(layer *l) {
    size_t length = l->bytes[WEIGHTS] / l->groups.samples;
    for (size_t s = 0; s < l->groups.samples; s++) {
        size_t first = s * elements_of(l) / l->groups.samples;
        if (group_of(l, first) == 0) memset((char *)l->arrays[WEIGHTS] + s * length, 0, length);
    }
    training_agrees(l);
}

static void groups_without_weight(void) {
    each_case(WITH_WEIGHTS, 0, NULL, empty_agrees);
    each_case(WITH_WEIGHTS | WITH_RUNNING, 0, mask_zero, empty_agrees);
}

/* A sample without any weight in a group that has others. */
static void light_agrees(layer *l) {
    size_t length = l->bytes[WEIGHTS] / l->groups.samples;
    memset((char *)l->arrays[WEIGHTS] + length, 0, length);
    training_agrees(l);
}

static void samples_without_weight(void) { each_case(WITH_WEIGHTS, 0, mask_zero, light_agrees); }

static void use_windowed(layer *l) { l->running.average = BN_AVERAGE_WINDOWED; }

static void running(void) {
    each_case(WITH_RUNNING, 0, use_windowed, training_agrees);
    each_case(WITH_RUNNING | WITH_NEW, 1, use_windowed, training_agrees);
}

static void average_agrees(layer *l) {
    if (rows_of(l, BN_PER_GROUP_STATISTICS) == 1 || rows_of(l, BN_PER_GROUP_RUNNING) > 1) return;
    l->groups.averaged = 1;
    training_agrees(l);
}

static void averaged(void) {
    each_case(0, 0, NULL, average_agrees);
    each_case(WITH_RUNNING, 0, use_windowed, average_agrees);
    each_case(WITH_RUNNING | WITH_NEW, 1, use_windowed, average_agrees);
    each_case(WITH_WEIGHTS, 0, mask_zero, average_agrees);
}

/* float64 parameters, in rows, beside tensors of every type. */
static void use_float64(layer *l) {
    l->param = l->options.param_dtype = BN_FLOAT64;
    use_silu(l);
}

static void parameters_of_another_type(void) {
    each_case(WITH_EPILOGUE | WITH_Z, 0, use_float64, training_agrees);
    each_case(WITH_EPILOGUE | WITH_RUNNING | WITH_NEW, 1, use_float64, training_agrees);
}

static void use_blend(layer *l) {
    l->source.kind = BN_SOURCE_BLEND;
    l->source.pseudo_count = 10;
}

static void use_renorm(layer *l) {
    l->source.kind = BN_SOURCE_RENORM;
    l->source.r_min = 0.9, l->source.d_max = 0.1;
}

static void use_updated(layer *l) { l->source.kind = BN_SOURCE_UPDATED; }

/* Shared running statistics are not settled before the last of several groups. */
static void updated_agrees(layer *l) {
    int is_shared = rows_of(l, BN_PER_GROUP_STATISTICS) > 1 && rows_of(l, BN_PER_GROUP_RUNNING) == 1;
    if (!is_shared) training_agrees(l);
}

static void sources(void) {
    each_case(WITH_SOURCE, 0, use_blend, training_agrees);
    each_case(WITH_SOURCE, 0, use_renorm, training_agrees);
    each_case(WITH_SOURCE, 0, use_updated, updated_agrees);
}

static void frozen_agrees(layer *l) {
    oracle o = expected_inference(l);
    l->options.frozen = 1;
    CHECK_OK(infer_layer(l));
    check_tensor(l, Y, o.y);
    if (l->arrays[MASK] != NULL) check_bits(&o);
    for (size_t i = 0; i < rows_of(l, BN_PER_GROUP_RUNNING) * l->shape.channels; i++) {
        double mean = saved(l, SAVED_MEAN, i), invstd = saved(l, SAVED_INVSTD, i);
        CHECK(mean == o.normalizers[i].a, "saved_mean %.17g", mean);
        CHECK(fabs(invstd - o.normalizers[i].b) <= 1e-12 * invstd, "saved_invstd %.17g", invstd);
    }
    free_oracle(&o);
    /* bn_backward has a row of what is saved for each row of statistics: the rows of running statistics, if they are
     * so many. */
    if (rows_of(l, BN_PER_GROUP_STATISTICS) != rows_of(l, BN_PER_GROUP_RUNNING)) return;
    o = expected_inference(l);
    expect_gradients(&o, BN_PER_GROUP_RUNNING);
    CHECK_OK(back_layer(l));
    check_gradients(&o);
    free_oracle(&o);
}

static void inference(void) {
    each_case(0, 0, NULL, frozen_agrees);
    each_case(0, 1, NULL, frozen_agrees);
    each_case(WITH_EPILOGUE | WITH_Z | WITH_MASK, 0, use_leaky, frozen_agrees);
    each_case(WITH_WEIGHTS, 1, mask_zero, frozen_agrees);
}

/* A group without samples saves the statistics of an empty batch; in the oracle's numbers, mean 0 and variance 0. */
static void every_group_absent_but_one(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        layer l = grouped(0, indexed, 7, 4, all_dtypes[d], WITH_RUNNING);
        make_arrays(&l);
        for (size_t s = 0; s < l.groups.samples; s++) ((int32_t *)l.arrays[INDEX])[s] = 2;
        training_agrees(&l);
        for (size_t i = 0; i < 4 * l.shape.channels; i++) {
            if (i / l.shape.channels == 2) continue;
            CHECK(parameter(&l, DGAMMA, i) == 0 && parameter(&l, DBETA, i) == 0, "a gradient of no samples");
        }
        free_arrays(&l);
    }
}

/* A group of one sample with one value is one value, whatever the other groups are. */
static void groups_of_one_value(void) {
    for (int policy = 0; policy <= BN_SINGLE_VALUE_BETA; policy++) {
        layer l = layer_of(6, 5, 1, BN_FLOAT64, WITH_GROUPS | WITH_INDEX | WITH_RUNNING);
        l.groups.samples = 6, l.groups.groups = 2, l.groups.per_group = BN_PER_GROUP_STATISTICS;
        l.running.single_value = (bn_single_value)policy;
        make_arrays(&l);
        for (int s = 0; s < 6; s++) ((int32_t *)l.arrays[INDEX])[s] = s == 3;
        layer before = clone_of(&l);
        if (policy == BN_SINGLE_VALUE_ERROR) {
            CHECK(train_layer(&l) == BN_ERROR_SINGLE_VALUE, "%s", bn_last_error());
            CHECK(difference(&l, &before) == NULL, "%s was written", difference(&l, &before));
        } else {
            oracle o = expected_training(&l);
            CHECK_OK(train_layer(&l));
            check_training(&o);
            CHECK(((int32_t *)l.arrays[OUTCOME])[1] != BN_OUTCOME_USED, "used");
            free_oracle(&o);
        }
        free_arrays(&l), free_arrays(&before);
    }
}

/* One batch that is not finite among several: only that one is skipped. */
static void nonfinite_group(void) {
    for (int policy = 0; policy <= BN_NONFINITE_ERROR; policy++) {
        for (int layout = 0; layout < layouts; layout++) {
            for (int32_t per_group = 1; per_group <= 3; per_group += 2) {
                layer l = grouped(0, layout, per_group, 3, BN_FLOAT32, WITH_RUNNING);
                l.running.nonfinite = (bn_nonfinite)policy;
                make_arrays(&l);
                choose_index(&l, 0);
                put(l.dtype, l.arrays[X], place_of(&l, X, 4 * 3 * 49 + 60), HUGE_VAL);
                layer before = clone_of(&l);
                oracle o = expected_training(&l);
                bn_status status = train_layer(&l);
                if (policy != BN_NONFINITE_ERROR) {
                    CHECK(status == BN_OK, "%s", bn_last_error());
                    check_training(&o);
                } else {
                    CHECK(status == BN_ERROR_NONFINITE, "status %d: %s", (int)status, bn_last_error());
                    CHECK(difference(&l, &before) == NULL, "%s was written", difference(&l, &before));
                }
                free_arrays(&l), free_arrays(&before), free_oracle(&o);
            }
        }
    }
}

/* Outputs in the places of inputs. */
static void in_place(void) {
    for (int layout = 0; layout < layouts; layout++) {
        for (int p = 0; p < per_group_count; p++) {
            for (int s = 0; s < shape_count; s++) {
                layer l = grouped(s, layout, per_groups[p], 3, BN_FLOAT32, WITH_EPILOGUE | WITH_Z);
                l.epilogue.activation = BN_RELU;
                make_arrays(&l);
                choose_index(&l, 0);
                layer apart = clone_of(&l);
                CHECK_OK(train_layer(&apart));
                CHECK_OK(back_layer(&apart));
                layer gradients = clone_of(&apart), shared = clone_of(&apart);
                void *y = l.arrays[Y], *dx = gradients.arrays[DX], *dz = shared.arrays[DZ];
                l.arrays[Y] = l.arrays[X];
                gradients.arrays[DX] = gradients.arrays[DY];
                shared.arrays[DZ] = shared.arrays[DY];
                CHECK_OK(train_layer(&l));
                CHECK_OK(back_layer(&gradients));
                CHECK_OK(back_layer(&shared));
                CHECK(memcmp(l.arrays[Y], apart.arrays[Y], l.bytes[Y]) == 0, "y differs");
                CHECK(memcmp(gradients.arrays[DX], apart.arrays[DX], l.bytes[DX]) == 0, "dx differs");
                CHECK(memcmp(gradients.arrays[DZ], apart.arrays[DZ], l.bytes[DZ]) == 0, "dz differs");
                CHECK(memcmp(shared.arrays[DX], apart.arrays[DX], l.bytes[DX]) == 0, "dx differs where dz is dy");
                CHECK(memcmp(shared.arrays[DZ], apart.arrays[DZ], l.bytes[DZ]) == 0, "dz differs where it is dy");
                CHECK(memcmp(shared.arrays[DGAMMA], apart.arrays[DGAMMA], l.bytes[DGAMMA]) == 0, "dgamma differs");
                l.arrays[Y] = y, gradients.arrays[DX] = dx, shared.arrays[DZ] = dz;
                free_arrays(&l), free_arrays(&apart), free_arrays(&gradients), free_arrays(&shared);
            }
        }
    }
}

int main(void) {
    start();
    RUN(training);
    RUN(absent_groups);
    RUN(epilogues);
    RUN(gradients_by_output);
    RUN(weights);
    RUN(groups_without_weight);
    RUN(samples_without_weight);
    RUN(running);
    RUN(averaged);
    RUN(parameters_of_another_type);
    RUN(sources);
    RUN(inference);
    RUN(every_group_absent_but_one);
    RUN(groups_of_one_value);
    RUN(nonfinite_group);
    RUN(in_place);
    return finish();
}
