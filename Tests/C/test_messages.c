/* SPDX-License-Identifier: Apache-2.0
 *
 * The message of an error, which belongs to a thread; numbers outside the threads' range. */
#include "arguments.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>

/* New memory of a thread, whatever is in it, is no message of a failure. */
static void nothing_has_failed_yet(void) {
#ifdef __GLIBC__
    CHECK(mallopt(M_PERTURB, 'x') == 1, "memory is as it was");
#endif
    reset();
    bn_status status = training();
    CHECK(status == BN_OK, "status %d", (int)status);
    CHECK(bn_last_error()[0] == '\0', "\"%s\"", bn_last_error());
}

#define SAYS(value, change)                                                                  \
    do {                                                                                     \
        reset();                                                                             \
        change;                                                                              \
        CHECK(training() != BN_OK, #change);                                                 \
        CHECK(strstr(bn_last_error(), value) != NULL, "\"%s\" lacks " value, bn_last_error()); \
    } while (0)

static void messages_show_the_value(void) {
    SAYS("-0.25", a.options_value.eps = -0.25);
    SAYS("1.5", a.options_value.momentum = 1.5);
    SAYS("77", a.options_value.frozen = 77);
    SAYS("99", a.dtype = (bn_dtype)99);
    SAYS("12345", a.shape_value.struct_size = 12345);
    SAYS("7", a.shape_value.x_stride = 7);
}

static void *fresh_thread(void *unused) {
    (void)unused;
    CHECK(bn_last_error()[0] == '\0', "another thread's error: \"%s\"", bn_last_error());
    reset();
    a.shape_value.channels = 0;
    CHECK(training() == BN_ERROR_SHAPE, "not refused");
    return NULL;
}

/* A message stays until the next failure on the same thread. */
static void messages_are_kept_by_thread(void) {
    char message[1000];
    reset();
    a.x = NULL;
    CHECK(training() == BN_ERROR_NULL, "not refused");
    strncpy(message, bn_last_error(), sizeof message - 1)[sizeof message - 1] = '\0';

    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, fresh_thread, NULL) == 0, "no thread");
    pthread_join(thread, NULL);
    reset();
    CHECK(training() == BN_OK, "%s", bn_last_error());
    CHECK(strcmp(message, bn_last_error()) == 0, "\"%s\" became \"%s\"", message, bn_last_error());
}

static void status_strings(void) {
    static const int known[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 40, 41, 42};
    static const int unknown[] = {-1, 9, 19, 22, 43, 1000000};
    enum { known_count = sizeof known / sizeof known[0] };
    for (int i = 0; i < known_count; i++) {
        const char *text = bn_status_string((bn_status)known[i]);
        CHECK(text[0] != '\0' && strcmp(text, "unknown status") != 0, "%d is \"%s\"", known[i], text);
        for (int j = 0; j < i; j++) {
            const char *other = bn_status_string((bn_status)known[j]);
            CHECK(strcmp(text, other) != 0, "%d and %d are \"%s\"", known[i], known[j], text);
        }
    }
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        const char *text = bn_status_string((bn_status)unknown[i]);
        CHECK(strcmp(text, "unknown status") == 0, "%d is \"%s\"", unknown[i], text);
    }
}

static void numbers_of_threads(void) {
    static const int refused[] = {-1, 1025, 1000000, -2147483647 - 1};
    CHECK(bn_set_num_threads(3) == BN_OK, "%s", bn_last_error());
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        CHECK(bn_set_num_threads(refused[i]) == BN_ERROR_OPTION, "%d", refused[i]);
        CHECK(names(bn_last_error(), "threads"), "\"%s\"", bn_last_error());
        CHECK(bn_get_num_threads() == 3, "%d", bn_get_num_threads());
    }
    CHECK(bn_set_num_threads(1024) == BN_OK && bn_get_num_threads() == 1024, "%d", bn_get_num_threads());
    CHECK(bn_set_num_threads(0) == BN_OK && bn_get_num_threads() >= 1, "%d", bn_get_num_threads());
}

int main(void) {
    start();
    RUN(nothing_has_failed_yet);
    RUN(messages_show_the_value);
    RUN(messages_are_kept_by_thread);
    RUN(status_strings);
    RUN(numbers_of_threads);
    return finish();
}
