/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensors flush against pages that may not be touched, for every small extent: a read or write beyond them kills
 * this program, and a write that stays within the pages is found by what surrounds the tensor. Where a tensor lies
 * must not change a bit of the result, and the result must be right for every tail that a kernel can have. */
#define _DEFAULT_SOURCE
#include "cases.h"
#include "derivatives.h"
#include "expect.h"
#include "guarded.h"

enum { longest = 70 };

static guarded guards[tensor_count];

static void check_same(const problem *p, const problem *g, enum placement where) {
    size_t element = size_of(p->dtype), tensor = p->elements * element, vector = p->shape.channels * element;
    int same = memcmp(p->y, g->y, tensor) == 0 && memcmp(p->dx, g->dx, tensor) == 0;
    same = same && memcmp(p->dgamma, g->dgamma, vector) == 0 && memcmp(p->dbeta, g->dbeta, vector) == 0;
    size_t doubles = p->shape.channels * sizeof(double);
    same = same && memcmp(p->mean, g->mean, doubles) == 0 && memcmp(p->invstd, g->invstd, doubles) == 0;
    CHECK(same, "placement %d changes bits (%s, %zu x %zu x %zu)", (int)where, name_of(p->dtype), p->shape.outer,
          p->shape.channels, p->shape.inner);
}

static void check_values(const problem *p) {
    for (size_t c = 0; c < p->shape.channels; c++) {
        statistics s = reference_statistics(p, c, 1e-5);
        sums g = reference_sums(p, c);
        check_y(p, c, p->gamma, p->beta, s.mean, s.invstd);
        check_dx(p, c, divided(g.dy, s.count), divided(g.dy_x_hat, s.count));
        check_near(get(p->dtype, p->dgamma, c), rounded(p->dtype, g.dy_x_hat), "dgamma", p, c);
    }
}

static void train_and_back(problem *p) {
    CHECK_OK(train(p, NULL));
    CHECK_OK(backward(p, NULL));
}

static void infer_and_back(problem *p) {
    bn_options frozen = BN_OPTIONS_INIT;
    frozen.frozen = 1;
    CHECK_OK(infer(p, NULL));
    CHECK_OK(backward(p, &frozen));
}

/* The calls in plain memory, then in every placement. */
static void everywhere(size_t outer, size_t channels, size_t inner, bn_dtype dtype, int training) {
    uint64_t state = random_state;
    problem original = make_problem(dense(outer, channels, inner), dtype, 1, 1);
    random_state = state;
    problem plain = make_problem(original.shape, dtype, 1, 1);
    void (*calls)(problem *p) = training ? train_and_back : infer_and_back;
    calls(&plain);
    if (training) check_values(&plain);
    for (int where = 0; where < placements; where++) {
        problem g = guard(&original, guards, (enum placement)where);
        calls(&g);
        check_same(&plain, &g, (enum placement)where);
        for (int t = 0; t < tensor_count; t++) {
            CHECK(margins_are_intact(&guards[t]), "tensor %d, placement %d: written outside (%s, %zu x %zu x %zu)", t,
                  where, name_of(dtype), outer, channels, inner);
        }
    }
    free_problem(&original);
    free_problem(&plain);
}

static void each_extent(int training) {
    static const size_t outers[] = {2, 3, 9};
    for (size_t length = 1; length <= longest; length++) {
        for (size_t o = 0; o < sizeof outers / sizeof outers[0]; o++) {
            for (int d = 0; d < dtype_count; d++) {
                everywhere(outers[o], 2, length, dtypes[d], training); /* NCHW */
                everywhere(outers[o], length, 3, dtypes[d], training); /* NCHW with tiny planes */
                everywhere(outers[o], length, 1, dtypes[d], training); /* NHWC and NC */
            }
        }
    }
}

static void training(void) { each_extent(1); }
static void inference(void) { each_extent(0); }

static guarded layer_guards[array_count];

/* The bytes of an element of an array of the layer, to which it is aligned. */
static size_t unit_size(const layer *l, int array) {
    switch (array) {
    case X: case Y: case DY: case DX: case Z: case DZ: return size_of(l->dtype);
    case MASK: return 1;
    case OUTCOME: case INDEX: return sizeof(int32_t);
    case SAVED_MEAN: case SAVED_INVSTD: case SAVED: case NUM_BATCHES: case NEW_NUM_BATCHES: return sizeof(double);
    default: return size_of(l->param);
    }
}

static void layer_calls(layer *l, int training) {
    l->options.frozen = !training;
    CHECK_OK(training ? train_layer(l) : infer_layer(l));
    /* Inference saves a row for each row of running statistics; bn_backward reads one for each group. */
    int is_read = training || rows_of(l, BN_PER_GROUP_STATISTICS) == rows_of(l, BN_PER_GROUP_RUNNING);
    if (is_read && (training || (l->with & WITH_SOURCE) == 0)) CHECK_OK(back_layer(l));
}

static void layer_everywhere(layer *original, void (*calls)(layer *l, int training), int training) {
    layer plain = clone_of(original);
    calls(&plain, training);
    for (int where = 0; where < placements; where++) {
        layer g = *original;
        for (int i = 0; i < array_count; i++) {
            if (g.arrays[i] == NULL) continue;
            g.arrays[i] = place(&layer_guards[i], (enum placement)where, original->arrays[i], g.bytes[i],
                                unit_size(&g, i));
        }
        calls(&g, training);
        const char *other = difference(&plain, &g);
        CHECK(other == NULL, "placement %d changes bits of %s (%s, %zu x %zu x %zu)", where, other,
              name_of(g.dtype), g.shape.outer, g.shape.channels, g.shape.inner);
        for (int i = 0; i < array_count; i++) {
            if (g.arrays[i] == NULL) continue;
            CHECK(margins_are_intact(&layer_guards[i]), "%s, placement %d: written outside (%s, %zu x %zu x %zu)",
                  array_names[i], where, name_of(g.dtype), g.shape.outer, g.shape.channels, g.shape.inner);
        }
    }
    free_arrays(&plain);
}

/* Every kind of layer, in every type; lengths up to a few vectors, and around multiples of them. */
static void each_layer(int training) {
    static const size_t lengths[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 33, 34, 63, 65, 70};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (int c = 0; c < case_count; c++) {
            for (int d = 0; d < all_dtype_count; d++) {
                for (int layout = 0; layout < 3; layout++) {
                    size_t channels = layout == 0 ? 2 : lengths[i];
                    size_t inner = layout == 0 ? lengths[i] : layout == 1 ? 2 : 1;
                    layer l = layer_of_case(c, 6, channels, inner, all_dtypes[d]);
                    if (i % 2) l.shape.y_stride = l.epilogue.z_stride = channels * inner + 1;
                    make_arrays(&l);
                    layer_everywhere(&l, layer_calls, training);
                    free_arrays(&l);
                }
            }
        }
    }
}

static void layers_in_training(void) { each_layer(1); }
static void layers_in_inference(void) { each_layer(0); }

static void derivative_calls(layer *l, int training) {
    l->options.frozen = !training;
    CHECK_OK(run_jvp(l));
    CHECK_OK(run_double_backward(l));
}

/* In every type, with any one of the tensors and parameters missing. */
static void derivatives(void) {
    static const int may_be_null[] = {GRAD_DX, GRAD_DGAMMA, GRAD_DBETA, GAMMA, GRAD_DY, GRAD_X, GRAD_GAMMA};
    for (size_t length = 1; length <= longest; length++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int layout = 0; layout < 3; layout++) {
                size_t channels = layout == 0 ? 2 : length, inner = layout == 0 ? length : layout == 1 ? 2 : 1;
                size_t slice = channels * inner;
                layer l = derivative_of(2 + length % 5, channels, inner, all_dtypes[d], 0);
                if (length % 2) l.shape.x_stride = slice + 1, l.shape.dx_stride = slice + 2;
                make_derivative(&l);
                if (length % 8 < 7) leave_out(&l, may_be_null[length % 8]);
                layer_everywhere(&l, derivative_calls, (length + (size_t)layout) % 2);
                free_arrays(&l);
            }
        }
    }
}

enum { weight, bias, folded_weight, folded_bias, scale, shift, folding_count };

static void fold(char *const *arrays, const bn_shape *shape, bn_dtype dtype, int is_next) {
    CHECK_OK((is_next ? bn_fold_into_next : bn_fold_into_previous)(
        shape, dtype, arrays[weight], arrays[bias], (double *)arrays[scale], (double *)arrays[shift],
        arrays[folded_weight], arrays[folded_bias]));
}

/* The strides differ, and what follows the last slice is not there. */
static void folding(void) {
    for (size_t length = 1; length <= longest; length++) {
        for (int number = 0; number < all_dtype_count * placements * 2; number++) {
            bn_dtype dtype = all_dtypes[number / 6];
            int is_next = number % 2;
            bn_shape shape = dense(1 + length % 3, length, 1 + length % 4);
            size_t slice = shape.channels * shape.inner, size = size_of(dtype), last = shape.outer - 1;
            shape.x_stride = slice + 3, shape.y_stride = slice + length % 2;
            size_t old = last * shape.x_stride + slice, new = last * shape.y_stride + slice;
            size_t biases = is_next ? shape.outer : shape.channels, doubles = length * sizeof(double);
            size_t bytes[] = {old * size, biases * size, new * size, biases * size, doubles, doubles};
            char *plain[folding_count], *placed[folding_count];
            for (int i = 0; i < folding_count; i++) {
                plain[i] = random_values(i < scale ? dtype : BN_FLOAT64, bytes[i] / (i < scale ? size : 8), 0, 1);
                placed[i] = place(&layer_guards[i], (enum placement)(number / 2 % placements), plain[i], bytes[i],
                                  i < scale ? size : 8);
            }
            fold(plain, &shape, dtype, is_next), fold(placed, &shape, dtype, is_next);
            for (int i = 0; i < folding_count; i++) {
                CHECK(memcmp(plain[i], placed[i], bytes[i]) == 0, "array %d differs", i);
                CHECK(margins_are_intact(&layer_guards[i]), "array %d: written outside", i);
                free(plain[i]);
            }
        }
    }
}

static void scales_and_shifts(void) {
    for (size_t channels = 1; channels <= longest; channels++) {
        for (int number = 0; number < all_dtype_count * placements; number++) {
            bn_dtype dtype = all_dtypes[number / placements];
            char *given[6];
            for (int i = 0; i < 6; i++) {
                bn_dtype type = i < 4 ? dtype : BN_FLOAT64;
                char *values = random_values(type, channels, 2, 1);
                given[i] = place(&layer_guards[i], (enum placement)(number % placements), values,
                                 channels * size_of(type), size_of(type));
                free(values);
            }
            CHECK_OK(bn_scale_shift(channels, dtype, given[0], given[1], given[2], given[3], (double *)given[4],
                                    (double *)given[5], NULL));
            for (int i = 0; i < 6; i++) CHECK(margins_are_intact(&layer_guards[i]), "array %d: written outside", i);
        }
    }
}

/* The arrays that bn_length_weights reads and writes. */
static void weights_of_lengths(void) {
    static guarded lengths_guard, weights_guard;
    enum { samples = 3 };
    lengths_guard = make_guarded(1), weights_guard = make_guarded(1);
    for (size_t positions = 1; positions <= longest; positions++) {
        for (int d = 0; d < all_dtype_count; d++) {
            for (int where = 0; where < placements; where++) {
                size_t number = all_dtypes[d] == BN_FLOAT64 ? 8 : 4, given[samples] = {positions, 0, positions / 2};
                double nothing[samples * longest] = {0};
                void *lengths = place(&lengths_guard, (enum placement)where, given, sizeof given, sizeof(size_t));
                void *weights = place(&weights_guard, (enum placement)where, nothing, samples * positions * number,
                                      number);
                CHECK_OK(bn_length_weights(samples, positions, lengths, all_dtypes[d], weights));
                CHECK(margins_are_intact(&lengths_guard), "lengths: written outside");
                CHECK(margins_are_intact(&weights_guard), "weights: written outside");
            }
        }
    }
}

int main(void) {
    start();
    for (int i = 0; i < array_count; i++) layer_guards[i] = make_guarded(8192);
    for (int t = 0; t < tensor_count; t++) guards[t] = make_guarded(most_room);
    RUN(training);
    RUN(inference);
    RUN(layers_in_training);
    RUN(layers_in_inference);
    RUN(derivatives);
    RUN(folding);
    RUN(scales_and_shifts);
    RUN(weights_of_lengths);
    return finish();
}
