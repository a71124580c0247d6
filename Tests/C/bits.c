/* SPDX-License-Identifier: Apache-2.0
 *
 * Prints a digest of the bits of each of some thousand calls, for scripts/test-arm64 to compare two machines by. */
#include "digests.h"

static void print(const char *name, uint64_t digest) { printf("%016llx %s\n", (unsigned long long)digest, name); }

int main(void) {
    start();
    random_state = seed;
    on_digest = print;
    for (int i = 0; i < all_dtype_count; i++) digest_all(all_dtypes[i]);
    return checks_failed > 0 || digests_made == 0;
}
