/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensors flush against pages that may not be touched, for every small extent: a read or write beyond them kills
 * this program, and a write that stays within the pages is found by what surrounds the tensor. Where a tensor lies
 * must not change a bit of the result, and the result must be right for every tail that a kernel can have. */
#define _DEFAULT_SOURCE
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

int main(void) {
    start();
    for (int t = 0; t < tensor_count; t++) guards[t] = make_guarded();
    RUN(training);
    RUN(inference);
    return finish();
}
