/* SPDX-License-Identifier: Apache-2.0
 *
 * Statistics that are constants give dx = gamma * invstd * dy, element by element, whoever says that they are:
 * options->frozen, bn_running of a single value, or the bn_source of an inference call. A value that is not finite
 * stays in its place. */
#include "layer.h"

/* x_hat or dy is infinite at one place. */
static const double infinite[] = {HUGE_VAL, -HUGE_VAL};

static int is_same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static void check_dx(const layer *found, const layer *expected, const char *what) {
    for (size_t i = 0; i < elements_of(found); i++) {
        double dx = element(found, DX, i), wanted = element(expected, DX, i);
        double allowed = found->dtype == BN_FLOAT64 ? 1e-15 : found->dtype == BN_FLOAT32 ? 1e-6 : 1e-2;
        CHECK(is_same(dx, wanted) || fabs(dx - wanted) <= allowed * fabs(wanted),
              "%s: dx[%zu] is %g, with frozen %g (%s, activation %d)", what, i, dx, wanted, name_of(found->dtype),
              (int)found->epilogue.activation);
    }
}

/* One value per channel, of which one is infinite. */
static void single_values(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int activation = BN_IDENTITY; activation <= BN_SILU; activation++) {
            for (int i = 0; i < 4; i++) {
                int with = WITH_RUNNING | WITH_EPILOGUE | (i / 2 ? WITH_GROUPS : 0);
                layer l = layer_of(1, 5, 1, all_dtypes[d], with);
                l.groups.samples = l.groups.groups = 1;
                l.running.single_value = BN_SINGLE_VALUE_RUNNING;
                l.epilogue.activation = (bn_activation)activation;
                l.epilogue.high = HUGE_VAL;
                make_arrays(&l);
                put(l.dtype, l.arrays[X], 3, infinite[i % 2]);
                CHECK_OK(train_layer(&l));
                layer told = clone_of(&l);
                told.options.frozen = 1;
                CHECK_OK(back_layer(&l));
                CHECK_OK(back_layer(&told));
                check_dx(&l, &told, "one value");
                free_arrays(&l), free_arrays(&told);
            }
        }
    }
}

/* An infinite value of x, or of dy, in one of its places. */
static void inference_with_a_source(void) {
    for (int d = 0; d < all_dtype_count; d++) {
        for (int activation = BN_IDENTITY; activation <= BN_SILU; activation++) {
            for (int i = 0; i < 4; i++) {
                layer l = layer_of(4, 3, 7, all_dtypes[d], WITH_SOURCE | WITH_EPILOGUE);
                l.epilogue.activation = (bn_activation)activation;
                l.epilogue.high = HUGE_VAL;
                make_arrays(&l);
                put(l.dtype, l.arrays[i / 2 ? DY : X], 30, infinite[i % 2]);
                CHECK_OK(infer_layer(&l));
                layer told = clone_of(&l);
                told.with &= ~WITH_SOURCE;
                told.options.frozen = 1;
                CHECK_OK(back_layer(&l));
                CHECK_OK(back_layer(&told));
                check_dx(&l, &told, i / 2 ? "infinite dy" : "infinite x");
                free_arrays(&l), free_arrays(&told);
            }
        }
    }
}

/* A variance that overflows makes invstd 0 but no constants of the statistics: an infinite dy spoils its whole channel,
 * with the batch's own source as with none. The variance is infinite, not NaN, where the values' sum is finite, and the
 * first, the middle and the last of them are 0. */
static void infinite_variances(void) {
    for (int groups = 0; groups < 2; groups++) {
        layer l = layer_of(1, 3, 41, BN_FLOAT64, WITH_SOURCE | (groups ? WITH_GROUPS : 0));
        l.groups.samples = l.groups.groups = 1;
        make_arrays(&l);
        for (size_t i = 0; i < elements_of(&l); i++) {
            put(l.dtype, l.arrays[X], i, i % 41 % 20 == 0 ? 0 : i % 41 < 20 ? 0x1p700 : -0x1p700);
        }
        put(l.dtype, l.arrays[DY], 2, HUGE_VAL);
        layer told = clone_of(&l);
        told.with &= ~WITH_SOURCE;
        CHECK_OK(train_layer(&l));
        CHECK_OK(back_layer(&l));
        CHECK_OK(train_layer(&told));
        CHECK_OK(back_layer(&told));
        check_dx(&l, &told, "infinite variance");
        for (size_t i = 0; i < 41; i++) CHECK(isnan(element(&l, DX, i)), "dx[%zu] is %g", i, element(&l, DX, i));
        free_arrays(&l), free_arrays(&told);
    }
}

/* Channels whose values are all alike have an x_hat of 0: so is dgamma, whatever eps hides of the deviations. */
static void channels_of_one_value(void) {
    static const size_t shapes[][3] = {{6, 5, 37}, {300, 7, 1}};
    static const double epses[] = {1e-5, 1, 1e6};
    for (int i = 0; i < 2 * 2 * 3; i++) {
        const size_t *shape = shapes[i % 2];
        layer l = layer_of(shape[0], shape[1], shape[2], i / 2 % 2 ? BN_FLOAT64 : BN_FLOAT32, 0);
        l.options.eps = epses[i / 4];
        make_arrays(&l);
        for (size_t k = 0; k < elements_of(&l); k++) put(l.dtype, l.arrays[X], k, 0.1 + (double)channel_of(&l, k));
        CHECK_OK(train_layer(&l));
        CHECK_OK(back_layer(&l));
        for (size_t c = 0; c < l.shape.channels; c++) {
            CHECK(parameter(&l, DGAMMA, c) == 0, "dgamma[%zu] is %g, eps %g (%s)", c, parameter(&l, DGAMMA, c),
                  l.options.eps, name_of(l.dtype));
        }
        free_arrays(&l);
    }
}

int main(void) {
    start();
    RUN(single_values);
    RUN(inference_with_a_source);
    RUN(infinite_variances);
    RUN(channels_of_one_value);
    return finish();
}
