/* SPDX-License-Identifier: Apache-2.0
 *
 * Every instruction set gives the bits of the baseline. */
#define _DEFAULT_SOURCE
#include "child.h"
#include "digests.h"

#include <sys/mman.h>

enum { most = 10000 };

static const char *wanted;
static uint64_t *baseline_digests; /* shared with the children */
static int is_first;

static int machine_has(const char *isa) {
#if defined(__x86_64__)
    if (strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("avx2");
    if (strcmp(isa, "avx512") == 0) return __builtin_cpu_supports("avx512f");
#endif
    return strcmp(isa, "baseline") == 0;
}

static void compare(const char *name, uint64_t digest) {
    CHECK(digests_made < most, "more digests than there is room for");
    if (digests_made >= most) return;
    if (is_first) baseline_digests[digests_made] = digest;
    CHECK(baseline_digests[digests_made] == digest, "%s gives other bits: %s", wanted, name);
}

static void compute(void) {
    const char *isa = bn_isa_name();
    CHECK(isa != NULL && strcmp(isa, wanted) == 0, "%s: %s", isa ? isa : "NULL", bn_last_error());
    on_digest = compare;
    for (int i = 0; i < all_dtype_count; i++) digest_all(all_dtypes[i]);
}

/* The baseline is compared with itself: it has to give the same bits twice. */
static void same_bits(const char *isa) {
    if (!machine_has(isa)) {
        skip(isa);
        return;
    }
    const char *const both[] = {"baseline", isa};
    for (int i = 0; i < 2; i++) {
        wanted = both[i];
        is_first = i == 0;
        in_child("BATCHNORM_ISA", wanted, compute);
    }
}

static void baseline(void) { same_bits("baseline"); }
#if defined(__x86_64__)
static void avx2(void) { same_bits("avx2"); }
static void avx512(void) { same_bits("avx512"); }
#endif

int main(void) {
    size_t size = most * sizeof *baseline_digests;
    baseline_digests = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (baseline_digests == MAP_FAILED) abort();
    start();
    RUN(baseline);
#if defined(__x86_64__)
    RUN(avx2);
    RUN(avx512);
#endif
    return finish();
}
