/* SPDX-License-Identifier: Apache-2.0
 *
 * A host that has taken every key of thread-specific data there is. */
#define _DEFAULT_SOURCE
#include "arguments.h"
#include "child.h"

#include <limits.h>
#include <pthread.h>

enum { most_keys = 1 << 16 };
static pthread_key_t keys[most_keys];
static char values[most_keys];
static int taken;

static void take_every_key(void) {
    for (taken = 0; taken < most_keys && pthread_key_create(&keys[taken], NULL) == 0; taken++) {
        CHECK(pthread_setspecific(keys[taken], &values[taken]) == 0, "key %d has no value", taken);
    }
    CHECK(taken > 0 && taken < most_keys, "%d keys", taken);
}

static void check_values(const char *when) {
    int changed = 0;
    for (int i = 0; i < taken; i++) changed += pthread_getspecific(keys[i]) != &values[i] || values[i] != 0;
    CHECK(changed == 0, "%s: %d of %d values changed", when, changed, taken);
}

static void call_without_keys(void) {
    take_every_key();
    int threads = bn_get_num_threads();
    CHECK(threads >= 0, "%d threads", threads);
    CHECK(bn_last_error() != NULL, "no message");
    (void)bn_isa_name();
    (void)bn_set_num_threads(2);
    check_values("questions");
    for (size_t i = 0; i < LENGTH(every_call); i++) {
        reset();
        memcpy(&before, &memory, sizeof memory);
        bn_status status = every_call[i]();
        CHECK(status == BN_OK || status == BN_ERROR_MEMORY, "call %zu: status %d", i, (int)status);
        if (status == BN_ERROR_MEMORY) {
            CHECK(memcmp(&before, &memory, sizeof memory) == 0, "call %zu: something was written", i);
            CHECK(bn_last_error()[0] != '\0', "call %zu: without a word", i);
        }
        check_values("a call");
    }

    /* A refusal has a message to write. */
    reset();
    a.x = NULL;
    bn_status status = training();
    CHECK(status == BN_ERROR_NULL || status == BN_ERROR_MEMORY, "status %d", (int)status);
    check_values("a refusal");

    /* One is enough. */
    taken -= 1;
    CHECK(pthread_key_delete(keys[taken]) == 0, "cannot be given back");
    for (size_t i = 0; i < LENGTH(every_call); i++) {
        reset();
        status = every_call[i]();
        CHECK(status == BN_OK, "call %zu: status %d, \"%s\"", i, (int)status, bn_last_error());
    }
    REFUSED(training, BN_ERROR_NULL, "x", a.x = NULL);
    CHECK(bn_set_num_threads(2) == BN_OK && bn_get_num_threads() == 2, "%d threads", bn_get_num_threads());
    check_values("with a key");
}

static void no_keys_left(void) { in_child(NULL, NULL, call_without_keys); }

int main(void) {
    start();
    RUN(no_keys_left);
    return finish();
}
