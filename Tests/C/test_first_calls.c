/* SPDX-License-Identifier: Apache-2.0
 *
 * Two first calls at once: each makes the library's state, and the one that comes second gives back all that it has
 * made. Here the second call comes in the first's first allocation. */
#define _DEFAULT_SOURCE
#include "allocations.h"
#include "child.h"

#include <batchnorm.h>
#include <pthread.h>

enum { most_keys = 1 << 16 };

static long blocks_of_one;

static int free_keys(void) {
    static pthread_key_t keys[most_keys];
    int count = 0;
    while (count < most_keys && pthread_key_create(&keys[count], NULL) == 0) count++;
    for (int i = 0; i < count; i++) CHECK(pthread_key_delete(keys[i]) == 0, "key %d", i);
    return count;
}

static void call_meanwhile(void) {
    on_allocation = NULL;
    long before = blocks_in_use;
    bn_get_num_threads();
    blocks_of_one = blocks_in_use - before;
}

static void call_twice_at_once(void) {
    int keys = free_keys();
    long before = blocks_in_use;
    on_allocation = call_meanwhile;
    bn_get_num_threads();
    CHECK(on_allocation == NULL && blocks_of_one > 0, "the library's state takes no memory");
    CHECK(blocks_in_use - before == blocks_of_one, "%ld blocks in use, not %ld", blocks_in_use - before, blocks_of_one);
    CHECK(free_keys() == keys - 1, "%d keys of %d are left", free_keys(), keys);
}

static void the_second_gives_back_all(void) {
    in_child(NULL, NULL, call_twice_at_once);
    /* The environment's faults have memory of their own, for what it says. */
    in_child("BATCHNORM_ISA", "none", call_twice_at_once);
    in_child("BATCHNORM_NUM_THREADS", "none", call_twice_at_once);
}

int main(void) {
    start();
    RUN(the_second_gives_back_all);
    return finish();
}
