/* SPDX-License-Identifier: Apache-2.0
 *
 * One bn_options serves the calls of a layer: backward finds in it what the forward call did with a batch, or a group,
 * of one value; and after inference with a source it finds constants. A member that a call has no use for changes
 * nothing: layer.h gives every call every descriptor, in all tests that include it. */
#include "layer.h"

static void expect_same_gradients(const layer *a, const layer *b, const char *what) {
    static const enum array gradients[] = {DX, DZ, DGAMMA, DBETA};
    for (int i = 0; i < 4; i++) {
        int array = gradients[i];
        if (a->bytes[array] == 0) continue;
        CHECK(memcmp(a->arrays[array], b->arrays[array], a->bytes[array]) == 0, "%s (%s): %s differs", what,
              name_of(a->dtype), array_names[array]);
    }
}

/* Backward with frozen, which the caller had to set before, is what backward finds out by itself. */
static void single_value_is_frozen(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int is_weighted = 0; is_weighted < 2; is_weighted++) {
            for (int activation = BN_IDENTITY; activation <= BN_SILU; activation++) {
                int with = WITH_RUNNING | WITH_EPILOGUE | WITH_Z | (is_weighted ? WITH_WEIGHTS : 0);
                layer l = layer_of(is_weighted ? 6 : 1, 5, 1, all_dtypes[d], with);
                l.running.single_value = BN_SINGLE_VALUE_RUNNING;
                l.epilogue.activation = (bn_activation)activation;
                make_arrays(&l);
                if (is_weighted) {
                    memset(l.arrays[WEIGHTS], 0, l.bytes[WEIGHTS]);
                    put(l.dtype == BN_FLOAT64 ? BN_FLOAT64 : BN_FLOAT32, l.arrays[WEIGHTS], 2, 1);
                }
                CHECK_OK(train_layer(&l));
                CHECK(*(int32_t *)l.arrays[OUTCOME] == BN_OUTCOME_RUNNING, "outcome %d", *(int32_t *)l.arrays[OUTCOME]);
                layer told = clone_of(&l);
                told.options.frozen = 1;
                CHECK_OK(back_layer(&l));
                CHECK_OK(back_layer(&told));
                expect_same_gradients(&l, &told, "one value");
                free_arrays(&l), free_arrays(&told);
            }
        }
    }
}

/* Groups of which one has a single value: a source of kind BATCH saves for each channel what it is to backward. */
static void single_groups_are_frozen(void) {
    static const int32_t index[] = {0, 2, 0, 1, 2, 2, 0, 4};
    for (int d = 0; d < all_dtype_count; d++) {
        for (int per_group = 1; per_group <= 7; per_group += 2) {
            for (int activation = BN_IDENTITY; activation <= BN_SILU; activation++) {
                int with = WITH_RUNNING | WITH_EPILOGUE | WITH_GROUPS | WITH_INDEX;
                layer l = layer_of(8, 5, 1, all_dtypes[d], with);
                l.running.single_value = BN_SINGLE_VALUE_RUNNING;
                l.epilogue.activation = (bn_activation)activation;
                l.groups.samples = 8, l.groups.groups = 5, l.groups.per_group = per_group;
                make_arrays(&l);
                memcpy(l.arrays[INDEX], index, sizeof index);
                layer saving = clone_of(&l);
                saving.with |= WITH_SOURCE;
                saving.bytes[SAVED] = 4 * 5 * 5 * sizeof(double);
                free(saving.arrays[SAVED]);
                saving.arrays[SAVED] = allocate(4 * 5 * 5, sizeof(double));
                layer *all[] = {&l, &saving};
                for (int i = 0; i < 2; i++) {
                    CHECK_OK(train_layer(all[i]));
                    CHECK(((int32_t *)all[i]->arrays[OUTCOME])[1] == BN_OUTCOME_RUNNING, "another outcome");
                    CHECK_OK(back_layer(all[i]));
                }
                for (size_t k = 0; k < elements_of(&l); k++) {
                    double found = element(&l, DX, k), expected = element(&saving, DX, k);
                    double tolerance = (l.dtype == BN_FLOAT64 ? 1e-13 : 2e-2) * (1 + fabs(expected));
                    CHECK(fabs(found - expected) <= tolerance, "dx[%zu] is %g, expected %g", k, found, expected);
                }
                free_arrays(&l), free_arrays(&saving);
            }
        }
    }
}

/* With a source, backward after inference needs no frozen; without, frozen says it. */
static void inference_saves_constants(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int kind = BN_SOURCE_BATCH; kind <= BN_SOURCE_UPDATED; kind++) {
            for (int is_grouped = 0; is_grouped < 2; is_grouped++) {
                int with = WITH_RUNNING | WITH_EPILOGUE | WITH_SOURCE | (is_grouped ? WITH_GROUPS : 0);
                layer l = layer_of(6, 5, 7, all_dtypes[d], with);
                l.source.kind = (bn_source_kind)kind;
                l.source.pseudo_count = 3;
                l.epilogue.activation = BN_LEAKY_RELU;
                l.groups.samples = 6, l.groups.groups = 2, l.groups.per_group = 7;
                make_arrays(&l);
                memset(l.arrays[SAVED], 0x7F, l.bytes[SAVED]);
                layer before = clone_of(&l);
                CHECK_OK(infer_layer(&l));
                static const enum array kept[] = {RUNNING_MEAN, RUNNING_VAR, NUM_BATCHES, OUTCOME};
                for (int i = 0; i < 4; i++) {
                    CHECK(memcmp(l.arrays[kept[i]], before.arrays[kept[i]], l.bytes[kept[i]]) == 0, "%s was written",
                          array_names[kept[i]]);
                }
                layer told = clone_of(&l);
                told.with &= ~WITH_SOURCE;
                told.options.frozen = 1;
                CHECK_OK(back_layer(&l));
                CHECK_OK(back_layer(&told));
                for (size_t k = 0; k < elements_of(&l); k++) {
                    CHECK(element(&l, DX, k) == element(&told, DX, k), "dx[%zu] is %g, expected %g", k,
                          element(&l, DX, k), element(&told, DX, k));
                }
                CHECK(memcmp(l.arrays[DGAMMA], told.arrays[DGAMMA], l.bytes[DGAMMA]) == 0, "dgamma differs");
                free_arrays(&l), free_arrays(&before), free_arrays(&told);
            }
        }
    }
}

/* (pseudo_count * running + batch) / (pseudo_count + 1), with a variance of 0: the running statistics stay. */
static void single_value_is_blended(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        layer l = layer_of(1, 4, 1, all_dtypes[d], WITH_RUNNING | WITH_SOURCE);
        l.source.kind = BN_SOURCE_BLEND;
        l.source.pseudo_count = 3;
        make_arrays(&l);
        layer before = clone_of(&l), none = clone_of(&l);
        CHECK_OK(train_layer(&l));
        CHECK(*(int32_t *)l.arrays[OUTCOME] == BN_OUTCOME_BLENDED, "outcome %d", *(int32_t *)l.arrays[OUTCOME]);
        for (size_t c = 0; c < 4; c++) {
            double x = element(&l, X, c), mean = parameter(&l, RUNNING_MEAN, c), var = parameter(&l, RUNNING_VAR, c);
            double u = (x - (3 * mean + x) / 4) / sqrt(3 * var / 4 + l.options.eps);
            double y = parameter(&l, GAMMA, c) * u + parameter(&l, BETA, c), found = element(&l, Y, c);
            double tolerance = l.dtype == BN_FLOAT64 ? 1e-14 : l.dtype == BN_FLOAT32 ? 1e-6 : 1e-2;
            CHECK(fabs(found - y) <= tolerance * (1 + fabs(y)), "y[%zu] is %.17g, expected %.17g", c, found, y);
        }
        static const enum array kept[] = {RUNNING_MEAN, RUNNING_VAR, NUM_BATCHES};
        for (int i = 0; i < 3; i++) {
            CHECK(memcmp(l.arrays[kept[i]], before.arrays[kept[i]], l.bytes[kept[i]]) == 0, "%s was written",
                  array_names[kept[i]]);
        }
        none.source.pseudo_count = 0; /* nothing to blend with */
        CHECK(train_layer(&none) == BN_ERROR_SINGLE_VALUE, "%s", bn_last_error());
        free_arrays(&l), free_arrays(&before), free_arrays(&none);
    }
}

int main(void) {
    start();
    random_state = seed;
    RUN(single_value_is_frozen);
    RUN(single_groups_are_frozen);
    RUN(inference_saves_constants);
    RUN(single_value_is_blended);
    return finish();
}
