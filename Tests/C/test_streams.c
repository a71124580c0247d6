/* SPDX-License-Identifier: Apache-2.0
 *
 * Outputs that are larger than what processors share as a cache are written past it. Such a call has the bits of
 * several calls on a part each, whose outputs are not. */
#include "problem.h"

/* Tensors have as many elements as make 40 MB: the caches that desktops share are rarely more than twice that. */
enum { drawn = 4099, parts = 40, bytes = 40 << 20 };

typedef struct tensors {
    bn_shape shape;
    bn_dtype dtype;
    char *x, *z, *dy, *out;
} tensors;

/* The same values over and over, which is fast. */
static char *filled(bn_dtype dtype) {
    size_t size = size_of(dtype), block = drawn * size;
    char *values = allocate(bytes, 1), *some = random_values(dtype, drawn, 0.25, 1);
    for (size_t i = 0; i < bytes; i += block) memcpy(values + i, some, bytes - i < block ? bytes - i : block);
    free(some);
    return values;
}

/* Computes `outer` slices from index `from` on, with an epilogue unless the activation is none. Gradients of constants are
 * a sum and a product per element, too. */
static void compute(const tensors *t, size_t from, size_t outer, int is_backward, bn_activation activation) {
    enum { channels = 64 };
    float gamma[channels], beta[channels], mean[channels], variance[channels];
    double saved_mean[channels], saved_invstd[channels];
    for (int c = 0; c < channels; c++) {
        gamma[c] = 1 + (float)c / 64, beta[c] = (float)c / 128, mean[c] = 0.25f, variance[c] = 1 + (float)c / 32;
        saved_mean[c] = 0.25, saved_invstd[c] = 1 / (1 + c / 32.0);
    }
    bn_shape shape = t->shape;
    bn_epilogue epilogue = BN_EPILOGUE_INIT;
    bn_options options = BN_OPTIONS_INIT;
    size_t place = from * shape.channels * shape.inner * size_of(t->dtype);
    shape.outer = outer;
    epilogue.activation = activation;
    epilogue.z = t->z + place;
    if (activation != BN_IDENTITY) options.epilogue = &epilogue;
    options.frozen = is_backward;
    if (is_backward) {
        CHECK_OK(bn_backward(&shape, t->dtype, t->dy + place, t->x + place, gamma, beta, saved_mean, saved_invstd,
                             t->out + place, NULL, NULL, &options));
    } else {
        CHECK_OK(bn_forward_inference(&shape, t->dtype, t->x + place, gamma, beta, mean, variance, t->out + place, NULL,
                                      NULL, &options));
    }
}

static void expect_same_bits(bn_dtype dtype, size_t inner) {
    enum { kinds = 3 };
    static const bn_activation activations[kinds] = {BN_IDENTITY, BN_RELU, BN_SILU};
    size_t slice = 64 * inner, outer = bytes / size_of(dtype) / slice;
    tensors t = {BN_SHAPE(outer, 64, inner), dtype, filled(dtype), filled(dtype), filled(dtype), allocate(bytes, 1)};
    char *at_once = allocate(bytes, 1);
    for (int i = 0; i < 2 * kinds; i++) {
        tensors whole = t;
        whole.out = at_once;
        compute(&whole, 0, outer, i / kinds, activations[i % kinds]);
        for (size_t from = 0; from < outer; from += outer / parts) {
            compute(&t, from, outer - from < outer / parts ? outer - from : outer / parts, i / kinds,
                    activations[i % kinds]);
        }
        int is_same = memcmp(at_once, t.out, outer * slice * size_of(dtype)) == 0;
        CHECK(is_same, "%s, planes of %zu, call %d", name_of(dtype), inner, i);
    }
    free(t.x), free(t.z), free(t.dy), free(t.out), free(at_once);
}

static void rows(void) {
    expect_same_bits(BN_FLOAT16, 1);
    expect_same_bits(BN_FLOAT32, 1);
    expect_same_bits(BN_FLOAT32, 49);
}

static void planes(void) {
    /* The end of one plane and the start of the next are one vector. */
    expect_same_bits(BN_FLOAT32, 197);
    expect_same_bits(BN_BFLOAT16, 3001);
    expect_same_bits(BN_FLOAT16, 3001);
}

int main(void) {
    start();
    RUN(rows);
    RUN(planes);
    return finish();
}
