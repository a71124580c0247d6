/* SPDX-License-Identifier: Apache-2.0
 *
 * Any number of threads gives the same bits; callers do not disturb one another; fork() is safe. */
#define _DEFAULT_SOURCE
#include "cases.h"

#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { callers = 6, rounds = 10 };

/* Large enough to be split, in each layout: many channels, few channels, one; rows of one block by strips of columns, wide and
 * as long runs; one sample; and small. */
static const size_t split[][3] = {{16, 64, 784},  {64, 3, 5000},  {20000, 96, 1}, {3, 1, 400000},
                                  {400, 1040, 1}, {900, 200, 1}, {1, 300, 1024}, {4, 8, 16}};
enum { split_count = sizeof split / sizeof split[0] };

static problem problem_of(int i, bn_dtype dtype) {
    random_state = seed;
    return make_problem(dense(split[i][0], split[i][1], split[i][2]), dtype, 3, 1);
}

static void run_layer(problem *p) {
    CHECK_OK(train(p, NULL));
    CHECK_OK(backward(p, NULL));
}

static int same_outputs(const problem *a, const problem *b) {
    size_t tensor = a->elements * size_of(a->dtype), vector = a->shape.channels * size_of(a->dtype);
    size_t doubles = a->shape.channels * sizeof(double);
    return memcmp(a->y, b->y, tensor) == 0 && memcmp(a->dx, b->dx, tensor) == 0 &&
           memcmp(a->dgamma, b->dgamma, vector) == 0 && memcmp(a->dbeta, b->dbeta, vector) == 0 &&
           memcmp(a->mean, b->mean, doubles) == 0 && memcmp(a->invstd, b->invstd, doubles) == 0;
}

static void number_does_not_matter(void) {
    for (int i = 0; i < split_count; i++) {
        for (int d = 0; d < dtype_count; d++) {
            problem alone = problem_of(i, dtypes[d]);
            size_t bytes = alone.elements * size_of(alone.dtype);
            CHECK_OK(bn_set_num_threads(1));
            CHECK_OK(infer(&alone, NULL));
            void *inferred = copy_of(alone.y, bytes);
            run_layer(&alone);
            for (int threads = 2; threads <= 8; threads++) {
                problem p = problem_of(i, dtypes[d]);
                CHECK_OK(bn_set_num_threads(threads));
                CHECK(bn_get_num_threads() == threads, "%d", bn_get_num_threads());
                CHECK_OK(infer(&p, NULL));
                CHECK(memcmp(p.y, inferred, bytes) == 0, "inference, %d threads (%s, case %d)", threads, name_of(p.dtype), i);
                run_layer(&p);
                CHECK(same_outputs(&alone, &p), "%d threads (%s, case %d)", threads, name_of(p.dtype), i);
                free_problem(&p);
            }
            free(inferred);
            free_problem(&alone);
        }
    }
    CHECK_OK(bn_set_num_threads(0));
}

/* Every kind of layer, in shapes of some hundred kilobytes. */
static void number_does_not_matter_to_layers(void) {
    static const size_t extents_of_layers[][3] = {{12, 32, 400}, {6, 3, 7001}, {4200, 40, 1}, {999, 7, 25}};
    static const int numbers[] = {1, 2, 3, 8};
    for (size_t e = 0; e < sizeof extents_of_layers / sizeof extents_of_layers[0]; e++) {
        for (int c = 0; c < case_count; c++) {
            const size_t *extent = extents_of_layers[e];
            layer original = layer_of_case(c, extent[0], extent[1], extent[2], all_dtypes[c % all_dtype_count]);
            make_arrays(&original);
            layer alone = clone_of(&original);
            for (int i = 0; i < 4; i++) {
                layer l = i == 0 ? alone : clone_of(&original);
                CHECK_OK(bn_set_num_threads(numbers[i]));
                CHECK_OK(train_layer(&l));
                CHECK_OK(back_layer(&l));
                const char *other = difference(&alone, &l);
                CHECK(other == NULL, "%d threads: %s differs (case %d, %s)", numbers[i], other, c, name_of(l.dtype));
                if (i > 0) free_arrays(&l);
            }
            free_arrays(&original), free_arrays(&alone);
        }
    }
    CHECK_OK(bn_set_num_threads(0));
}

/* The work of one of several callers, and its outcome. CHECK is not for threads: it counts without a lock. */
typedef struct caller {
    pthread_t thread;
    problem problem;
    const problem *expected;
    int wrong;
} caller;

static void *call_repeatedly(void *argument) {
    caller *c = argument;
    for (int round = 0; round < rounds; round++) {
        int failed = train(&c->problem, NULL) != BN_OK || backward(&c->problem, NULL) != BN_OK;
        c->wrong += failed || !same_outputs(&c->problem, c->expected);
    }
    return NULL;
}

static void call_at_once(int i) {
    caller all[callers];
    problem expected = problem_of(i, BN_FLOAT32);
    CHECK_OK(bn_set_num_threads(4));
    run_layer(&expected);
    for (int c = 0; c < callers; c++) {
        all[c].problem = problem_of(i, BN_FLOAT32);
        all[c].expected = &expected;
        all[c].wrong = 0;
    }
    for (int c = 0; c < callers; c++) {
        CHECK(pthread_create(&all[c].thread, NULL, call_repeatedly, &all[c]) == 0, "no thread");
    }
    for (int c = 0; c < callers; c++) {
        pthread_join(all[c].thread, NULL);
        CHECK(all[c].wrong == 0, "caller %d: %d of %d rounds went wrong (case %d)", c, all[c].wrong, rounds, i);
        free_problem(&all[c].problem);
    }
    free_problem(&expected);
}

static void callers_at_once(void) {
    call_at_once(0);
    call_at_once(split_count - 1);
}

/* True if the layer still gives the expected bits, with 1 and with several threads. */
static int works(const problem *expected, int i) {
    int right = 1;
    for (int threads = 1; threads <= 4; threads += 3) {
        problem p = problem_of(i, BN_FLOAT32);
        right = right && bn_set_num_threads(threads) == BN_OK && train(&p, NULL) == BN_OK;
        right = right && backward(&p, NULL) == BN_OK && same_outputs(&p, expected);
        free_problem(&p);
    }
    return right;
}

/* The exit status of a child that works, and has a child that works; 0 if all is well. */
static int descend(const problem *expected, int generations) {
    pid_t child = fork();
    if (child == 0) {
        int status = works(expected, 0) ? 0 : 1;
        if (generations > 1) status += descend(expected, generations - 1);
        _exit(status);
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static void fork_after_threads(void) {
    problem expected = problem_of(0, BN_FLOAT32);
    CHECK_OK(bn_set_num_threads(4));
    run_layer(&expected);
    for (int round = 0; round < rounds; round++) {
        int status = descend(&expected, 2);
        CHECK(status == 0, "round %d: the children gave %d", round, status);
        CHECK(works(&expected, 0), "round %d: the parent fails after the fork", round);
    }
    free_problem(&expected);
}

static void *fork_repeatedly(void *argument) {
    const problem *expected = argument;
    int wrong = 0;
    for (int round = 0; round < rounds; round++) wrong += descend(expected, 1) != 0;
    return wrong == 0 ? NULL : argument;
}

/* dgamma of a ReLU, unrounded, beside float32 tensors: one channel far from 0, whose sums are about its mean, does not decide
 * how its neighbours are summed, whoever shares their group; and neither do the outputs that are wanted. */
static void neighbours_do_not_matter(void) {
    enum { rows = 1500, channels = 700, count = rows * channels };
    float *x = malloc(count * sizeof *x), *dy = malloc(count * sizeof *dy), *dx = malloc(count * sizeof *dx);
    double mean[channels], invstd[channels], beta[channels], found[3][channels];
    random_state = seed;
    for (size_t i = 0; i < count; i++) {
        x[i] = (float)random_value() + (i % channels == 3 ? 3000 : 0);
        dy[i] = (float)random_value();
    }
    for (size_t c = 0; c < channels; c++) beta[c] = 0.25;
    bn_shape shape = BN_SHAPE(rows, channels, 1);
    bn_epilogue relu = BN_EPILOGUE_INIT;
    relu.activation = BN_RELU;
    bn_options options = BN_OPTIONS_INIT;
    options.param_dtype = BN_FLOAT64;
    options.epilogue = &relu;
    CHECK_OK(bn_forward_training(&shape, BN_FLOAT32, x, NULL, beta, NULL, NULL, NULL, mean, invstd, &options));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(bn_set_num_threads(i == 1 ? 2 : 1));
        void *wanted = i == 2 ? NULL : dx;
        CHECK_OK(bn_backward(&shape, BN_FLOAT32, dy, x, NULL, beta, mean, invstd, wanted, found[i], NULL,
                             &options));
        CHECK(memcmp(found[0], found[i], sizeof found[0]) == 0, "way %d", i);
    }
    CHECK_OK(bn_set_num_threads(0));
    free(x);
    free(dy);
    free(dx);
}

/* fork() in one thread, while calls run in another. */
static void fork_amid_calls(void) {
    problem expected = problem_of(0, BN_FLOAT32);
    CHECK_OK(bn_set_num_threads(4));
    run_layer(&expected);
    pthread_t forker;
    CHECK(pthread_create(&forker, NULL, fork_repeatedly, &expected) == 0, "no thread");
    for (int round = 0; round < rounds; round++) CHECK(works(&expected, 0), "round %d", round);
    void *wrong;
    pthread_join(forker, &wrong);
    CHECK(wrong == NULL, "a child went wrong");
    free_problem(&expected);
}

/* Threads that have nothing to do use no processor: less than half of one in a third of a second, all seven. */
static void workers_sleep(void) {
    problem p = problem_of(0, BN_FLOAT32);
    CHECK_OK(bn_set_num_threads(8));
    run_layer(&p);
    const struct timespec pause = {0, 300 * 1000 * 1000};
    clock_t before = clock();
    nanosleep(&pause, NULL);
    double used = (double)(clock() - before) / CLOCKS_PER_SEC;
    CHECK(used < 0.15, "%g s of processors' time in a pause of 0.3 s", used);
    CHECK_OK(bn_set_num_threads(0));
    free_problem(&p);
}

int main(void) {
    start();
    RUN(number_does_not_matter);
    RUN(number_does_not_matter_to_layers);
    RUN(neighbours_do_not_matter);
    RUN(callers_at_once);
    RUN(workers_sleep);
    RUN(fork_after_threads);
    RUN(fork_amid_calls);
    return finish();
}
