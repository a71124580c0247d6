/* SPDX-License-Identifier: Apache-2.0
 *
 * Every instruction set gives the bits of the baseline. */
#define _DEFAULT_SOURCE
#include "cases.h"
#include "child.h"
#include "derivatives.h"

#include <sys/mman.h>

static const char *wanted;
static uint64_t *digests; /* shared with the children: the baseline's, then that of the set under test */

static int machine_has(const char *isa) {
#if defined(__x86_64__)
    if (strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("avx2");
    if (strcmp(isa, "avx512") == 0) return __builtin_cpu_supports("avx512f");
#endif
    return strcmp(isa, "baseline") == 0;
}

/* FNV-1a */
static uint64_t digest(const void *bytes, size_t count, uint64_t hash) {
    for (size_t i = 0; i < count; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
    return hash;
}

static void add_outputs(problem *p) {
    uint64_t *hash = &digests[strcmp(wanted, "baseline") != 0];
    size_t tensor = p->elements * size_of(p->dtype), vector = p->shape.channels * size_of(p->dtype);
    CHECK_OK(train(p, NULL));
    CHECK_OK(backward(p, NULL));
    const void *outputs[] = {p->y, p->dx, p->dgamma, p->dbeta, p->running_mean, p->running_var};
    for (int i = 0; i < 6; i++) *hash = digest(outputs[i], i < 2 ? tensor : vector, *hash);
    *hash = digest(p->mean, p->shape.channels * sizeof(double), *hash);
    *hash = digest(p->invstd, p->shape.channels * sizeof(double), *hash);
    CHECK_OK(infer(p, NULL));
    *hash = digest(p->y, tensor, *hash);
}

/* Every kind of layer, in planes and rows, with tails of every length. */
static void add_layers(void) {
    static const size_t extents_of_layers[][3] = {{6, 3, 49}, {9, 37, 1}, {6, 2, 5003}, {1200, 5, 1},
                                                   {300, 64, 1}, {6, 5, 7}};
    uint64_t *hash = &digests[strcmp(wanted, "baseline") != 0];
    for (size_t e = 0; e < sizeof extents_of_layers / sizeof extents_of_layers[0]; e++) {
        for (int c = 0; c < case_count; c++) {
            for (int d = 0; d < all_dtype_count; d++) {
                const size_t *extent = extents_of_layers[e];
                layer l = layer_of_case(c, extent[0], extent[1], extent[2], all_dtypes[d]);
                make_arrays(&l);
                CHECK_OK(train_layer(&l));
                CHECK_OK(back_layer(&l));
                for (int i = 0; i < array_count; i++) *hash = digest(l.arrays[i], l.bytes[i], *hash);
                CHECK_OK(infer_layer(&l));
                *hash = digest(l.arrays[Y], l.bytes[Y], *hash);
                free_arrays(&l);
            }
        }
    }
}

static void add_derivatives(void) {
    static const size_t extents_of_derivatives[][3] = {{6, 3, 49}, {9, 37, 1}, {6, 2, 5003}, {1200, 5, 1}, {6, 5, 7}};
    uint64_t *hash = &digests[strcmp(wanted, "baseline") != 0];
    for (int number = 0; number < 5 * all_dtype_count * 2; number++) {
        const size_t *extent = extents_of_derivatives[number % 5];
        layer l = derivative_of(extent[0], extent[1], extent[2], all_dtypes[number / 5 % all_dtype_count], number / 20);
        make_derivative(&l);
        if (number % 3 == 0) put(l.param, l.arrays[GAMMA], 1, 1e-40); /* a coefficient that float32 does not have */
        CHECK_OK(run_jvp(&l));
        CHECK_OK(run_double_backward(&l));
        for (int i = 0; i < array_count; i++) *hash = digest(l.arrays[i], l.bytes[i], *hash);
        free_arrays(&l);
    }
}

static void compute(void) {
    const char *isa = bn_isa_name();
    CHECK(isa != NULL && strcmp(isa, wanted) == 0, "%s: %s", isa ? isa : "NULL", bn_last_error());
    each_problem(add_outputs);
    add_layers();
    add_derivatives();
}

static void same_bits(const char *isa) {
    if (!machine_has(isa)) {
        skip(isa);
        return;
    }
    const char *const both[] = {"baseline", isa};
    digests[0] = digests[1] = 0;
    for (int i = 0; i < 2; i++) {
        wanted = both[i];
        in_child("BATCHNORM_ISA", wanted, compute);
    }
    CHECK(digests[0] != 0, "the baseline computed nothing");
    if (strcmp(isa, "baseline") != 0) CHECK(digests[1] == digests[0], "%s gives other bits", isa);
}

static void baseline(void) { same_bits("baseline"); }
static void avx2(void) { same_bits("avx2"); }
static void avx512(void) { same_bits("avx512"); }

int main(void) {
    digests = mmap(NULL, 2 * sizeof *digests, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (digests == MAP_FAILED) abort();
    start();
    RUN(baseline);
    RUN(avx2);
    RUN(avx512);
    return finish();
}
