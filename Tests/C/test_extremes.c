/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers of chance whose coefficients float32 cannot hold, so that they are computed in double, against the oracle: x is
 * next to the smallest numbers that there are, gamma * invstd beyond the largest. dy is as small as x, so that dx is not
 * infinite. */
#include "chance.h"
#include "agrees.h"

#include <float.h>

enum { layers = 300, x_power = -121, gamma_power = 7 };

static void scale(layer *l, enum array array, bn_dtype dtype, int power) {
    if (l->arrays[array] == NULL) return;
    for (size_t i = 0; i < l->bytes[array] / size_of(dtype); i++) {
        put(dtype, l->arrays[array], i, ldexp(get(dtype, l->arrays[array], i), power));
    }
}

/* A channel whose coefficients stay what they are, if there are several: both kinds side by side. */
static layer extreme_layer(bn_dtype dtype) {
    layer l = choose_layer();
    l.dtype = dtype;
    l.param = l.options.param_dtype = BN_FLOAT64;
    l.with &= ~WITH_SOURCE;
    l.options.eps = ldexp(l.options.eps, 2 * x_power);
    l.epilogue.from_output = 0;
    make_arrays(&l);
    scale(&l, X, dtype, x_power), scale(&l, DY, dtype, x_power - gamma_power);
    scale(&l, GAMMA, l.param, gamma_power);
    scale(&l, RUNNING_MEAN, l.param, x_power), scale(&l, RUNNING_VAR, l.param, 2 * x_power);
    for (size_t row = 0; row < rows_of(&l, BN_PER_GROUP_PARAMETERS); row++) {
        size_t plain = row * l.shape.channels + l.shape.channels / 2;
        if (l.shape.channels > 1) put(l.param, l.arrays[GAMMA], plain, ldexp(parameter(&l, GAMMA, plain), -3 * gamma_power));
    }
    return l;
}

static void agrees(bn_dtype dtype) {
    unsigned long extremes = 0, channels = 0;
    for (int i = 0; i < layers; i++) {
        layer l = extreme_layer(dtype);
        if (!has_single_value(&l)) {
            unsigned long failed = checks_failed;
            training_agrees(&l);
            if (checks_failed > failed && failed < failures_shown) show(&l);
            for (size_t c = 0; c < l.shape.channels; c++) {
                extremes += fabs(parameter(&l, GAMMA, c) * saved(&l, SAVED_INVSTD, c)) > FLT_MAX;
                channels += 1;
            }
        }
        free_arrays(&l);
    }
    CHECK(extremes * 2 > channels && extremes < channels, "%lu of %lu channels are extreme", extremes, channels);
}

static void float32(void) { agrees(BN_FLOAT32); }
static void bfloat16(void) { agrees(BN_BFLOAT16); }

/* A layer has the same bits before and after one whose coefficients float32 cannot hold, on the same thread. */
static void leave_no_trace(void) {
    for (int activation = BN_RELU; activation <= BN_SILU; activation++) {
        layer plain = layer_of(40, 24, 7, BN_FLOAT32, WITH_EPILOGUE | WITH_Z);
        plain.epilogue.activation = (bn_activation)activation;
        make_arrays(&plain);
        layer before = clone_of(&plain), after = clone_of(&plain), extreme = clone_of(&plain);
        scale(&extreme, X, BN_FLOAT32, x_power), scale(&extreme, DY, BN_FLOAT32, x_power - gamma_power);
        scale(&extreme, GAMMA, BN_FLOAT32, gamma_power);
        extreme.options.eps = ldexp(extreme.options.eps, 2 * x_power);
        layer *order[] = {&before, &extreme, &after};
        for (int i = 0; i < 3; i++) {
            CHECK_OK(train_layer(order[i]));
            CHECK_OK(back_layer(order[i]));
        }
        const char *name = difference(&before, &after);
        CHECK(name == NULL, "%s has other bits, activation %d", name, activation);
        free_arrays(&plain), free_arrays(&before), free_arrays(&after), free_arrays(&extreme);
    }
}

int main(void) {
    start();
    RUN(float32);
    RUN(bfloat16);
    RUN(leave_no_trace);
    return finish();
}
