/* SPDX-License-Identifier: Apache-2.0
 *
 * Working memory: had once, given back with its thread, and any one of the allocations may fail. */
#define _DEFAULT_SOURCE
#include "allocations.h"
#include "cases.h"
#include "child.h"
#include "derivatives.h"
#include "lent.h"

#include <pthread.h>

/* Planes and rows; split among threads, and small. */
static const size_t shapes[][3] = {{16, 64, 784}, {20000, 96, 1}, {3, 1, 400000}, {4, 8, 16}, {40, 5, 1}};
enum { shape_count = sizeof shapes / sizeof shapes[0] };

static problem problem_of(int i, bn_dtype dtype) {
    random_state = seed;
    problem p = make_problem(dense(shapes[i][0], shapes[i][1], shapes[i][2]), dtype, 3, 1);
    put(dtype, p.gamma, 0, 1e-40); /* makes coefficients that float32 does not have: channel 0 is computed in double */
    return p;
}

static int run_every_call(problem *p) {
    double *count = p->mean, *mean = p->invstd, m2[96], sum[96], product[96];
    int failed = train(p, NULL) != BN_OK || infer(p, NULL) != BN_OK || backward(p, NULL) != BN_OK;
    failed |= bn_backward_reduce(&p->shape, p->dtype, p->dy, p->x, p->mean, p->invstd, sum, product, 0, NULL) != BN_OK;
    failed |= bn_normalize(&p->shape, p->dtype, p->x, p->gamma, p->beta, p->mean, p->invstd, p->y, NULL) != BN_OK;
    failed |= bn_moments(&p->shape, p->dtype, p->x, count, mean, m2, 0, NULL) != BN_OK;
    failed |= bn_backward_apply(&p->shape, p->dtype, p->dy, p->x, p->gamma, mean, m2, count, sum, product, p->dx,
                                NULL) != BN_OK;
    failed |= bn_merge_moments(1, p->shape.channels, count, mean, m2, 0, count, mean, m2) != BN_OK;
    failed |= bn_update_running(p->shape.channels, p->dtype, count, mean, m2, p->running_mean, p->running_var,
                                NULL) != BN_OK;
    return failed | (bn_inverse_std(p->shape.channels, count, m2, m2, NULL) != BN_OK);
}

static void the_second_call_allocates_nothing(void) {
    for (int threads = 1; threads <= 4; threads++) {
        CHECK_OK(bn_set_num_threads(threads));
        CHECK_OK(bn_set_parallel_for(threads == 4 ? turns_in_order : NULL, NULL));
        for (int i = 0; i < shape_count; i++) {
            for (int d = 0; d < dtype_count; d++) {
                problem p = problem_of(i, dtypes[d]);
                CHECK(run_every_call(&p) == 0, "%s", bn_last_error());
                long before = allocations;
                CHECK(run_every_call(&p) == 0, "%s", bn_last_error());
                CHECK(allocations == before, "%ld allocations (%d threads, %s, case %d)", allocations - before,
                      threads, name_of(p.dtype), i);
                free_problem(&p);
            }
        }
    }
    CHECK_OK(bn_set_num_threads(0));
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
}

/* Takes 64 keys, so that the values of the next one need memory: the C library has room for those of the first few. */
static void take_some_keys(void) {
    pthread_key_t key;
    for (int i = 0; i < 64; i++) CHECK(pthread_key_create(&key, NULL) == 0, "no key");
}

/* The number of the first allocation that fails, and how many do: one, or all from then on. */
static long first_failure, failures;

/* Enough for every allocation of a first call, and for its two threads'. The last of them should not be reached. */
enum { allocations_tried = 24 };

/* The first call fails as a whole or succeeds as a whole, and after it there is nothing left that would be missing. */
static void first_call_fails(void) {
    problem p = problem_of(0, BN_FLOAT32), expected = problem_of(0, BN_FLOAT32);
    size_t tensor = p.elements * sizeof(float), channels = p.shape.channels * sizeof(double);
    take_some_keys();
    fail_allocations(first_failure, failures);
    bn_status status = train(&p, NULL);
    const char *message = bn_last_error();
    fail_allocations(LONG_MAX, 0);
    CHECK(status == BN_OK || status == BN_ERROR_MEMORY, "status %d: %s", (int)status, message);
    CHECK(message != NULL, "no message"); /* but an empty one, if there was no memory to keep it in */
    if (status == BN_ERROR_MEMORY) {
        CHECK(memcmp(p.y, expected.y, tensor) == 0, "y was written");
        CHECK(memcmp(p.mean, expected.mean, channels) == 0, "saved_mean was written");
        CHECK_OK(train(&p, NULL));
    }
    CHECK_OK(backward(&p, NULL));
    CHECK(bn_get_num_threads() == 3, "%d threads", bn_get_num_threads());
    CHECK_OK(train(&expected, NULL));
    CHECK_OK(backward(&expected, NULL));
    CHECK(memcmp(p.y, expected.y, tensor) == 0, "y differs");
    CHECK(memcmp(p.dx, expected.dx, tensor) == 0, "dx differs");
    CHECK(memcmp(p.mean, expected.mean, channels) == 0, "saved_mean differs");
}

static void refusal_fails(void) {
    problem p = problem_of(4, BN_FLOAT32);
    take_some_keys();
    fail_allocations(first_failure, failures);
    bn_status status = train(&p, NULL);
    const char *message = bn_last_error();
    fail_allocations(LONG_MAX, 0);
    CHECK(status == BN_ERROR_ENVIRONMENT || status == BN_ERROR_MEMORY, "status %d: %s", (int)status, message);
    CHECK(message != NULL, "no message");
    CHECK(train(&p, NULL) == BN_ERROR_ENVIRONMENT, "%s", bn_last_error());
    CHECK(strstr(bn_last_error(), "BATCHNORM_NUM_THREADS") != NULL, "%s", bn_last_error());
}

static void each_failure(const char *threads, void (*function)(void)) {
    for (first_failure = 0; first_failure < allocations_tried; first_failure++) {
        for (failures = 1; failures <= 1000; failures += 999) in_child("BATCHNORM_NUM_THREADS", threads, function);
    }
}

static void any_allocation_may_fail(void) { each_failure("3", first_call_fails); }
static void any_allocation_of_a_refusal_may_fail(void) { each_failure("three", refusal_fails); }

/* A layer of each kind in turn, in a shape for each kind of loop. */
static layer layer_of_number(int number, bn_dtype dtype) {
    random_state = seed;
    int is_rows = number % 2;
    layer l = layer_of_case(number, is_rows ? 1200 : 12, is_rows ? 24 : 16, is_rows ? 1 : 196, dtype);
    make_arrays(&l);
    put(l.param, l.arrays[GAMMA], 0, 1e-40);
    return l;
}

static void the_second_call_of_a_layer_allocates_nothing(void) {
    for (int threads = 1; threads <= 3; threads += 2) {
        CHECK_OK(bn_set_num_threads(threads));
        for (int c = 0; c < case_count; c++) {
            for (int d = 0; d < all_dtype_count; d++) {
                layer l = layer_of_number(c, all_dtypes[d]);
                long before = 0;
                for (int round = 0; round < 2; round++) {
                    before = allocations;
                    CHECK_OK(train_layer(&l));
                    CHECK_OK(back_layer(&l));
                    CHECK_OK(infer_layer(&l));
                }
                CHECK(allocations == before, "%ld allocations (%d threads, %s, case %d)", allocations - before, threads,
                      name_of(l.dtype), c);
                free_arrays(&l);
            }
        }
    }
    CHECK_OK(bn_set_num_threads(0));
}

static layer derivative_of_number(int number, bn_dtype dtype) {
    random_state = seed;
    int is_rows = number % 2;
    layer l = derivative_of(is_rows ? 1200 : 12, is_rows ? 24 : 16, is_rows ? 1 : 196, dtype, number / 2);
    make_derivative(&l);
    return l;
}

/* Folds running statistics into weights as large as the layer's tensors. */
static bn_status fold_layer(layer *l) {
    void **a = l->arrays;
    bn_shape shape = l->shape;
    bn_status status = bn_scale_shift(shape.channels, l->param, a[GAMMA], NULL, a[RUNNING_MEAN], a[RUNNING_VAR],
                                      a[SAVED_MEAN], a[SAVED_INVSTD], &l->options);
    if (status != BN_OK) return status;
    status = bn_fold_into_previous(&shape, l->dtype, a[X], a[GAMMA], a[SAVED_MEAN], a[SAVED_INVSTD], a[Y], a[DBETA]);
    if (status != BN_OK) return status;
    return bn_fold_into_next(&shape, l->dtype, a[X], NULL, a[SAVED_MEAN], a[SAVED_INVSTD], a[Y], a[DX]);
}

static void the_second_call_of_a_derivative_allocates_nothing(void) {
    for (int threads = 1; threads <= 3; threads += 2) {
        CHECK_OK(bn_set_num_threads(threads));
        for (int number = 0; number < 4 * all_dtype_count; number++) {
            layer l = derivative_of_number(number / all_dtype_count, all_dtypes[number % all_dtype_count]);
            long before = 0;
            for (int round = 0; round < 2; round++) {
                before = allocations;
                CHECK_OK(run_jvp(&l));
                CHECK_OK(run_double_backward(&l));
                CHECK_OK(fold_layer(&l));
            }
            CHECK(allocations == before, "%ld allocations (%d threads, %s, case %d)", allocations - before, threads,
                  name_of(l.dtype), number);
            free_arrays(&l);
        }
    }
    CHECK_OK(bn_set_num_threads(0));
}

/* The layer whose calls are to fail. */
static int failing_case;

/* Refused for want of memory, with nothing changed that the call could reach; and done once there is some. */
static void fails_as_a_whole(bn_status (*call)(layer *l), layer *l) {
    layer before = clone_of(l);
    fail_allocations(first_failure, failures);
    bn_status status = call(l);
    fail_allocations(LONG_MAX, 0);
    CHECK(status == BN_OK || status == BN_ERROR_MEMORY, "status %d: %s", (int)status, bn_last_error());
    const char *written = difference(l, &before);
    CHECK(status == BN_OK || written == NULL, "%s was written (case %d, failure %ld)", written, failing_case,
          first_failure);
    if (status != BN_OK) CHECK_OK(call(l));
    free_arrays(&before);
}

/* These calls one after the other, beside those of a layer that has all memory. */
static void fail_beside(layer l, bn_status (*const calls[])(layer *l), int count) {
    layer expected = clone_of(&l);
    take_some_keys();
    for (int i = 0; i < count; i++) fails_as_a_whole(calls[i], &l);
    for (int i = 0; i < count; i++) CHECK_OK(calls[i](&expected));
    const char *other = difference(&l, &expected);
    CHECK(other == NULL, "%s differs (case %d, failure %ld)", other, failing_case, first_failure);
    free_arrays(&l), free_arrays(&expected);
}

static void layer_fails(void) {
    bn_status (*const calls[])(layer *l) = {train_layer, back_layer};
    fail_beside(layer_of_number(failing_case, BN_FLOAT32), calls, 2);
}

/* Whichever of the two comes first. */
static void derivative_fails(void) {
    bn_status (*const calls[])(layer *l) = {run_jvp, run_double_backward, run_jvp};
    fail_beside(derivative_of_number(failing_case / 2, BN_FLOAT32), calls + failing_case % 2, 2);
}

/* Each of the functions that have no sweep, as the first one that is called. */
static void folding_fails(void) {
    float gamma[] = {2, 3}, mean[] = {0, 1}, var[] = {1, 2}, weight[] = {1, 2, 3, 4, 5, 6};
    float new_weight[] = {7, 7, 7, 7, 7, 7}, new_bias[] = {7, 7, 7};
    double scale[] = {7, 7}, shift[] = {7, 7};
    bn_shape shape = BN_SHAPE(3, 2, 1);
    take_some_keys();
    fail_allocations(first_failure, failures);
    bn_status status;
    switch (failing_case) {
    case 0: status = bn_scale_shift(2, BN_FLOAT32, gamma, NULL, mean, var, scale, shift, NULL); break;
    case 1:
        status = bn_fold_into_previous(&shape, BN_FLOAT32, weight, NULL, scale, shift, new_weight, new_bias);
        break;
    default: status = bn_fold_into_next(&shape, BN_FLOAT32, weight, NULL, scale, shift, new_weight, new_bias); break;
    }
    fail_allocations(LONG_MAX, 0);
    CHECK(status == BN_OK || status == BN_ERROR_MEMORY, "status %d: %s", (int)status, bn_last_error());
    int written = 0;
    for (int i = 0; i < 2; i++) written += (scale[i] != 7) + (shift[i] != 7);
    for (int i = 0; i < 3; i++) written += new_bias[i] != 7;
    for (int i = 0; i < 6; i++) written += new_weight[i] != 7;
    CHECK((written > 0) == (status == BN_OK), "%d written after status %d (failure %ld)", written, (int)status,
          first_failure);
}

/* Groups that lie in longer and longer runs, the later of which may need more than the first did. */
static void inference_fails(void) {
    layer l = layer_of_number(failing_case, BN_FLOAT32);
    for (size_t s = 0; l.arrays[INDEX] != NULL && s < l.groups.samples; s++) {
        ((int32_t *)l.arrays[INDEX])[s] = (int32_t)(s == 0 ? 0 : s < 4 ? 1 : 2);
    }
    bn_status (*const calls[])(layer *l) = {infer_layer};
    fail_beside(l, calls, 1);
}

/* A short slice first, then one that needs more memory. */
static void growing_groups_fail(void) {
    enum { samples = 4000, channels = 300, groups = 2 };
    float *x = calloc(samples * channels, sizeof *x), *y = malloc(samples * channels * sizeof *y);
    float mean[groups * channels], variance[groups * channels];
    double saved[groups * channels];
    int32_t index[samples] = {0};
    for (int s = 1; s < samples; s++) index[s] = 1;
    for (int i = 0; i < groups * channels; i++) mean[i] = 1, variance[i] = 1, saved[i] = 7;
    for (int i = 0; i < samples * channels; i++) y[i] = 7;
    bn_shape shape = BN_SHAPE(samples, channels, 1);
    bn_groups given = BN_GROUPS_INIT;
    given.samples = samples, given.groups = groups, given.index = index;
    given.per_group = BN_PER_GROUP_STATISTICS + BN_PER_GROUP_RUNNING;
    bn_options options = BN_OPTIONS_INIT;
    options.groups = &given;
    fail_allocations(first_failure, failures);
    bn_status status =
        bn_forward_inference(&shape, BN_FLOAT32, x, NULL, NULL, mean, variance, y, saved, NULL, &options);
    fail_allocations(LONG_MAX, 0);
    CHECK(status == BN_OK || status == BN_ERROR_MEMORY, "%d", status);
    int written = 0;
    for (int i = 0; i < samples * channels; i++) written += y[i] != 7;
    for (int i = 0; i < groups * channels; i++) written += saved[i] != 7;
    int expected = status == BN_OK ? samples * channels + groups * channels : 0;
    CHECK(written == expected, "%d written after status %d (failure %ld)", written, status, first_failure);
    free(x), free(y);
}

static void any_allocation_of_a_layer_may_fail(void) {
    each_failure("2", growing_groups_fail);
    for (failing_case = 0; failing_case < case_count; failing_case++) {
        each_failure("2", layer_fails);
        each_failure("2", inference_fails);
    }
}

static void any_allocation_of_a_derivative_may_fail(void) {
    for (failing_case = 0; failing_case < 8; failing_case++) each_failure("2", derivative_fails);
    for (failing_case = 0; failing_case < 3; failing_case++) each_failure("2", folding_fails);
}

/* Every function, as the first one that is called. */
static int number;

static void questions_fail(void) {
    fail_allocations(0, 1000);
    switch (number) {
    case 0: (void)bn_last_error(); break;
    case 1: (void)bn_isa_name(); break;
    case 2: (void)bn_get_num_threads(); break;
    case 3: (void)bn_set_num_threads(2); break;
    case 4: (void)bn_version(); break;
    default: (void)bn_status_string(BN_OK); break;
    }
    CHECK(bn_last_error() != NULL, "NULL");
    fail_allocations(LONG_MAX, 0);
    CHECK(bn_isa_name() != NULL, "%s", bn_last_error());
    CHECK(bn_get_num_threads() > 0, "%s", bn_last_error());
}

static void questions_without_memory(void) {
    for (number = 0; number <= 5; number++) in_child(NULL, NULL, questions_fail);
}

/* Threads one after another, so that each finds the stack and the heap that the last one left. */
enum { first_threads = 100, short_lives = 2000 };

static void *call_once(void *argument) {
    return train(argument, NULL) == BN_OK && infer(argument, NULL) == BN_OK ? NULL : argument;
}

static void *fail_once(void *argument) {
    problem wrong = *(problem *)argument;
    wrong.shape.channels = 0;
    return train(&wrong, NULL) == BN_ERROR_SHAPE ? NULL : argument;
}

static int live_and_die(int lives, problem *p) {
    int wrong = 0;
    for (int i = 0; i < lives; i++) {
        pthread_t thread;
        void *result = p;
        if (pthread_create(&thread, NULL, i % 2 ? call_once : fail_once, p) == 0) pthread_join(thread, &result);
        wrong += result != NULL;
    }
    return wrong;
}

static long resident_pages(void) {
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &resident) == 2, "no /proc/self/statm");
    if (file != NULL) fclose(file);
    return resident;
}

/* Exactly as many blocks as before: what a thread is given is given back. Memory that is not from the heap shows in
 * resident memory, of which no thread can keep less than a page; one for every fourth would be too many. The C library
 * keeps nothing more for the threads after the first ones, which left it their stacks and heaps. */
static void threads_leave_nothing(void) {
    problem p = problem_of(0, BN_FLOAT32);
    p.shape = dense(2, 512, 4);
    p.gamma = p.beta = NULL;
    p.running_mean = random_values(BN_FLOAT32, 512, 0, 1);
    p.running_var = random_values(BN_FLOAT32, 512, 2, 1);
    p.mean = p.invstd = NULL;
    CHECK(live_and_die(first_threads, &p) == 0, "calls failed");
    long pages = resident_pages(), blocks = blocks_in_use;
    CHECK(live_and_die(short_lives, &p) == 0, "calls failed");
    CHECK(blocks_in_use == blocks, "%ld more blocks", blocks_in_use - blocks);
    pages = resident_pages() - pages;
    CHECK(pages < short_lives / 4, "%ld more pages", pages);
}

int main(void) {
    start();
    RUN(any_allocation_may_fail);
    RUN(any_allocation_of_a_refusal_may_fail);
    RUN(any_allocation_of_a_layer_may_fail);
    RUN(any_allocation_of_a_derivative_may_fail);
    RUN(questions_without_memory);
    RUN(the_second_call_allocates_nothing);
    RUN(the_second_call_of_a_layer_allocates_nothing);
    RUN(the_second_call_of_a_derivative_allocates_nothing);
    RUN(threads_leave_nothing);
    return finish();
}
