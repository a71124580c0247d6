/* SPDX-License-Identifier: Apache-2.0
 *
 * Which outputs a caller wants does not change a bit of the others, in any kind of layer; and batches of nothing. */
#include "cases.h"
#include "agrees.h"

enum { subsets_tried = 24 };

/* Planes, rows, and something of which sums are split. */
static const size_t shapes[][3] = {{6, 3, 49}, {9, 37, 1}, {6, 2, 3}, {1200, 5, 1}};
enum { shape_count = sizeof shapes / sizeof shapes[0] };

static void each_layer(void (*use)(layer *l)) {
    for (int s = 0; s < shape_count; s++) {
        for (int c = 0; c < case_count; c++) {
            for (int d = 0; d < all_dtype_count; d++) {
                layer l = layer_of_case(c, shapes[s][0], shapes[s][1], shapes[s][2], all_dtypes[d]);
                make_arrays(&l);
                use(&l);
                free_arrays(&l);
            }
        }
    }
}

/* The call without some of its outputs, against one that had them all. */
static void without(layer *l, const layer *all, const enum array *wanted, int count, bn_status (*call)(layer *l)) {
    layer some = clone_of(l);
    void *arrays[array_count];
    memcpy(arrays, some.arrays, sizeof arrays);
    uint64_t subset = random_bits();
    for (int i = 0; i < count; i++) {
        if (subset >> i & 1) some.arrays[wanted[i]] = NULL;
    }
    CHECK_OK(call(&some));
    for (int i = 0; i < array_count; i++) {
        int is_left_out = some.arrays[i] == NULL;
        some.arrays[i] = arrays[i];
        const layer *expected = is_left_out ? l : all;
        int is_same = arrays[i] == NULL || memcmp(arrays[i], expected->arrays[i], l->bytes[i]) == 0;
        CHECK(is_same, "%s differs %s (subset %x)", array_names[i], is_left_out ? "left out" : "",
              (unsigned)subset & 31);
    }
    free_arrays(&some);
}

/* y has to be there where there is a mask; what follows it has to be, for bn_backward. */
static void forward_subsets(layer *l) {
    static const enum array wanted[] = {SAVED_MEAN, SAVED_INVSTD, OUTCOME, Y};
    layer trained = clone_of(l), inferred = clone_of(l);
    CHECK_OK(train_layer(&trained));
    CHECK_OK(infer_layer(&inferred));
    for (int i = 0; i < subsets_tried; i++) {
        int count = l->arrays[MASK] != NULL ? 3 : 4;
        without(l, &trained, wanted, count, train_layer);
        without(l, &inferred, wanted, count, infer_layer);
    }
    free_arrays(&trained), free_arrays(&inferred);
}

static void backward_subsets(layer *l) {
    static const enum array wanted[] = {DGAMMA, DBETA, DX, DZ};
    for (int is_frozen = 0; is_frozen < 2; is_frozen++) {
        CHECK_OK(train_layer(l));
        l->options.frozen = is_frozen;
        layer all = clone_of(l);
        CHECK_OK(back_layer(&all));
        for (int i = 0; i < subsets_tried; i++) without(l, &all, wanted, 4, back_layer);
        free_arrays(&all);
    }
}

static void forward_outputs(void) { each_layer(forward_subsets); }
static void backward_outputs(void) { each_layer(backward_subsets); }

/* No running statistics at all: the outputs are those that there are with them, where they have no say. */
static void without_running_statistics(layer *l) {
    if ((l->with & (WITH_SOURCE | WITH_RUNNING)) != 0) return;
    layer with = clone_of(l), bare = clone_of(l);
    void *mean = bare.arrays[RUNNING_MEAN], *variance = bare.arrays[RUNNING_VAR];
    bare.arrays[RUNNING_MEAN] = bare.arrays[RUNNING_VAR] = NULL;
    CHECK_OK(train_layer(&with));
    CHECK_OK(train_layer(&bare));
    bare.arrays[RUNNING_MEAN] = mean, bare.arrays[RUNNING_VAR] = variance;
    static const enum array same[] = {Y, MASK, SAVED_MEAN, SAVED_INVSTD};
    for (int i = 0; i < 4; i++) {
        int is_same = l->bytes[same[i]] == 0 || memcmp(with.arrays[same[i]], bare.arrays[same[i]],
                                                       l->bytes[same[i]]) == 0;
        CHECK(is_same, "%s differs", array_names[same[i]]);
    }
    CHECK(memcmp(mean, l->arrays[RUNNING_MEAN], l->bytes[RUNNING_MEAN]) == 0, "running_mean was written");
    free_arrays(&with), free_arrays(&bare);
}

static void no_running_statistics(void) { each_layer(without_running_statistics); }

/* gamma and beta that are not there are ones and zeros. */
static void without_parameters(layer *l) {
    fill(l, GAMMA, l->param, 1, 0), fill(l, BETA, l->param, 0, 0);
    layer with = clone_of(l), bare = clone_of(l);
    void *gamma = bare.arrays[GAMMA], *beta = bare.arrays[BETA];
    bare.arrays[GAMMA] = bare.arrays[BETA] = NULL;
    CHECK_OK(train_layer(&with));
    CHECK_OK(back_layer(&with));
    CHECK_OK(train_layer(&bare));
    CHECK_OK(back_layer(&bare));
    bare.arrays[GAMMA] = gamma, bare.arrays[BETA] = beta;
    CHECK(difference(&with, &bare) == NULL, "%s differs", difference(&with, &bare));
    free_arrays(&with), free_arrays(&bare);
}

static void no_parameters(void) { each_layer(without_parameters); }

/* An empty batch has nothing to normalize: statistics stay, gradients of parameters are 0, and tensors may be NULL. */
static void empty_batches(void) {
    for (int c = 0; c < case_count; c++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int is_inner = 0; is_inner < 2; is_inner++) {
                layer l = layer_of_case(c, is_inner ? 6 : 0, 3, is_inner ? 0 : 5, all_dtypes[d]);
                l.groups.samples = 6;
                make_arrays(&l);
                layer before = clone_of(&l);
                CHECK_OK(train_layer(&l));
                CHECK(memcmp(l.arrays[RUNNING_MEAN], before.arrays[RUNNING_MEAN], l.bytes[RUNNING_MEAN]) == 0, "moved");
                CHECK(memcmp(l.arrays[RUNNING_VAR], before.arrays[RUNNING_VAR], l.bytes[RUNNING_VAR]) == 0, "moved");
                size_t rows = rows_of(&l, BN_PER_GROUP_STATISTICS);
                for (size_t i = 0; l.arrays[OUTCOME] != NULL && i < rows; i++) {
                    int outcome = ((int32_t *)l.arrays[OUTCOME])[i];
                    CHECK(outcome == BN_OUTCOME_EMPTY, "outcome %d", outcome);
                }
                for (size_t i = 0; (l.with & WITH_SOURCE) == 0 && i < 3 * rows; i++) {
                    double mean = saved(&l, SAVED_MEAN, i), invstd = saved(&l, SAVED_INVSTD, i);
                    CHECK(mean == 0 && fabs(invstd * sqrt(l.options.eps) - 1) < 1e-14, "saved: %g %g", mean, invstd);
                }
                CHECK_OK(back_layer(&l));
                for (size_t i = 0; i < 3 * rows_of(&l, BN_PER_GROUP_PARAMETERS); i++) {
                    CHECK(parameter(&l, DGAMMA, i) == 0 && parameter(&l, DBETA, i) == 0, "gradients of nothing");
                }
                CHECK_OK(infer_layer(&l));
                free_arrays(&l), free_arrays(&before);
            }
        }
    }
}

int main(void) {
    start();
    RUN(forward_outputs);
    RUN(backward_outputs);
    RUN(no_running_statistics);
    RUN(no_parameters);
    RUN(empty_batches);
    return finish();
}
