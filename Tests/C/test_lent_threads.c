/* SPDX-License-Identifier: Apache-2.0
 *
 * bn_set_parallel_for: calls run on threads that their caller lends, and give the bits that they give without, however the
 * caller's loop goes about its turns. */
#define _DEFAULT_SOURCE
#include "cases.h"
#include "lent.h"

#include <dirent.h>
#include <fenv.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

enum { most_turns = 64 };

/* Turns of the loop that is being tested, on their way to threads. */
typedef struct turn {
    pthread_t thread;
    void (*work)(void *call, size_t i);
    void *call;
    size_t i;
    double third; /* of 1, as the thread rounds after the turn */
} turn;

static size_t loops, turns_asked, most_asked;
static void *context_seen;

static void note(void *context, size_t count) {
    loops += 1, turns_asked += count, context_seen = context;
    if (count > most_asked) most_asked = count;
}

/* By division: fegetround() looks at another unit than the one that divides. */
static double third_of_1(void) {
    volatile double one = 1, three = 3;
    return one / three;
}

static void *take(void *argument) {
    turn *t = argument;
    fesetround(FE_UPWARD);
    t->work(t->call, t->i);
    t->third = third_of_1();
    return NULL;
}

/* A thread for each turn, none of which rounds to nearest. */
static void on_threads(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    turn turns[most_turns];
    note(context, count);
    for (size_t i = 0; i < count; i++) {
        turns[i] = (turn){.work = work, .call = call, .i = i};
        CHECK(pthread_create(&turns[i].thread, NULL, take, &turns[i]) == 0, "no thread");
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(turns[i].thread, NULL);
        CHECK(turns[i].third > third_of_1(), "after turn %zu its thread rounds to nearest", i);
    }
}

static void in_order(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    note(context, count);
    turns_in_order(context, count, work, call);
}

static void backwards(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    note(context, count);
    for (size_t i = count; i-- > 0;) work(call, i);
}

/* What a loop must not do, and does no harm with: turns left out, twice one after the other, and out of range. */
static void not_at_all(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    (void)work, (void)call;
    note(context, count);
}
static void the_last_one(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    note(context, count);
    work(call, count - 1);
}
static void too_many(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    note(context, count);
    work(call, count), work(call, SIZE_MAX), work(call, 0), work(call, 0);
}

static const struct {
    const char *name;
    bn_parallel_for loop;
} ways[] = {{"on threads", on_threads}, {"in order", in_order},         {"backwards", backwards},
            {"not at all", not_at_all}, {"the last one", the_last_one}, {"too many", too_many}};
enum { way_count = sizeof ways / sizeof ways[0] };

/* An emulator has a thread of its own in the process. */
static size_t threads_at_first;

static size_t own_threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    size_t count = 0;
    for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;) count += entry->d_name[0] != '.';
    if (tasks != NULL) closedir(tasks);
    return count;
}

/* Layers of every kind, in shapes of some hundred kilobytes; the library has started no thread when they are through. */
static void bits_are_the_same(void) {
    static const size_t extents[][3] = {{12, 32, 400}, {6, 3, 7001}, {4200, 40, 1}, {999, 7, 25}, {300, 256, 1}};
    static const int numbers[] = {2, 3, 8};
    int context = 0;
    for (size_t e = 0; e < sizeof extents / sizeof extents[0]; e++) {
        for (int c = 0; c < case_count; c++) {
            layer original =
                layer_of_case(c, extents[e][0], extents[e][1], extents[e][2], all_dtypes[c % all_dtype_count]);
            make_arrays(&original);
            layer alone = clone_of(&original);
            CHECK_OK(bn_set_parallel_for(NULL, NULL));
            CHECK_OK(bn_set_num_threads(1));
            CHECK_OK(train_layer(&alone));
            CHECK_OK(back_layer(&alone));
            for (int i = 0; i < way_count; i++) {
                layer l = clone_of(&original);
                CHECK_OK(bn_set_num_threads(numbers[(i + c) % 3]));
                CHECK_OK(bn_set_parallel_for(ways[i].loop, &context));
                CHECK_OK(train_layer(&l));
                CHECK_OK(back_layer(&l));
                const char *other = difference(&alone, &l);
                CHECK(other == NULL, "%s: %s differs (case %d, %s)", ways[i].name, other, c, name_of(l.dtype));
                free_arrays(&l);
            }
            free_arrays(&original), free_arrays(&alone);
        }
    }
    CHECK(own_threads() == threads_at_first, "%zu threads at last, %zu at first", own_threads(), threads_at_first);
    CHECK(loops > 1000 && context_seen == &context, "%zu loops", loops);
    CHECK(most_asked >= 2 && most_asked <= 8, "%zu turns at most", most_asked);
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
    CHECK_OK(bn_set_num_threads(0));
}

/* A tensor of 200 KB is worth a second lent thread, one of 100 KB is not, and one thread asks for none. */
static void small_tensors_stay_alone(void) {
    CHECK_OK(bn_set_num_threads(2));
    CHECK_OK(bn_set_parallel_for(in_order, NULL));
    problem small = make_problem(dense(100, 256, 1), BN_FLOAT32, 3, 1);
    problem large = make_problem(dense(200, 256, 1), BN_FLOAT32, 3, 1);
    loops = most_asked = 0;
    CHECK_OK(train(&small, NULL));
    CHECK(loops == 0, "%zu loops for 100 KB", loops);
    CHECK_OK(train(&large, NULL));
    CHECK(loops > 0 && most_asked == 2, "%zu loops for 200 KB, of %zu turns", loops, most_asked);
    CHECK_OK(bn_set_num_threads(1));
    loops = 0;
    CHECK_OK(train(&large, NULL));
    CHECK(loops == 0, "%zu loops for one thread", loops);
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
    CHECK_OK(bn_set_num_threads(2));
    CHECK_OK(train(&large, NULL));
    CHECK(loops == 0, "%zu loops after they were taken back", loops);
    CHECK_OK(bn_set_num_threads(0));
    free_problem(&small), free_problem(&large);
}

static problem shared;

static void *call_from_another(void *unused) {
    (void)unused;
    return train(&shared, NULL) == BN_OK ? &shared : NULL;
}

/* Threads are lent to the calls of one thread alone. */
static void others_keep_theirs(void) {
    pthread_t other;
    void *result;
    shared = make_problem(dense(500, 256, 1), BN_FLOAT32, 3, 1);
    CHECK_OK(bn_set_num_threads(2));
    CHECK_OK(bn_set_parallel_for(in_order, NULL));
    loops = 0;
    CHECK(pthread_create(&other, NULL, call_from_another, NULL) == 0, "no thread");
    pthread_join(other, &result);
    CHECK(result != NULL && loops == 0, "%zu loops in another thread's call", loops);
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
    CHECK_OK(bn_set_num_threads(0));
    free_problem(&shared);
}

static double third_seen;

/* It leaves the turns to the calling thread, which computes them in another environment. */
static void looks_at_rounding(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    third_seen = third_of_1();
    not_at_all(context, count, work, call);
}

/* The loop is the caller's own code, and what it starts inherits its environment. */
static void the_loop_has_the_callers_environment(void) {
    problem p = make_problem(dense(500, 256, 1), BN_FLOAT32, 3, 1);
    problem same = make_problem(dense(500, 256, 1), BN_FLOAT32, 3, 1);
    size_t bytes = p.elements * sizeof(float);
    memcpy(same.x, p.x, bytes);
    CHECK_OK(bn_set_num_threads(2));
    CHECK_OK(bn_forward_training(&same.shape, same.dtype, same.x, NULL, NULL, NULL, NULL, same.y, NULL, NULL, NULL));
    CHECK_OK(bn_set_parallel_for(looks_at_rounding, NULL));
    double nearest = third_of_1();
    fesetround(FE_UPWARD);
    bn_status status = bn_forward_training(&p.shape, p.dtype, p.x, NULL, NULL, NULL, NULL, p.y, NULL, NULL, NULL);
    double after = third_of_1();
    fesetround(FE_TONEAREST);
    CHECK(status == BN_OK, "%s", bn_last_error());
    CHECK(third_seen > nearest, "the loop rounds to nearest");
    CHECK(after == third_seen, "the call leaves another rounding");
    CHECK(memcmp(p.y, same.y, bytes) == 0, "y differs");
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
    CHECK_OK(bn_set_num_threads(0));
    free_problem(&p), free_problem(&same);
}

static problem inner_problem, expected;
static bn_status status_inside, status_elsewhere;

static void *call_elsewhere(void *unused) {
    status_elsewhere = train(&inner_problem, NULL);
    return unused;
}

/* Calls from within: the calling thread is at its call, and says so; another thread's is right. */
static void calls_inside(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    pthread_t other;
    status_inside = train(&inner_problem, NULL);
    if (pthread_create(&other, NULL, call_elsewhere, NULL) == 0) pthread_join(other, NULL);
    in_order(context, count, work, call);
}

static int status_of_child;

static void *fork_and_call(void *unused) {
    pid_t child = fork();
    if (child == 0) {
        int is_right = train(&inner_problem, NULL) == BN_OK;
        _exit(is_right && own_threads() == threads_at_first + 1 ? 0 : 1);
    }
    int status = -1;
    if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)) status_of_child = WEXITSTATUS(status);
    return unused;
}

static void forks_elsewhere(void *context, size_t count, void (*work)(void *, size_t), void *call) {
    pthread_t other;
    if (pthread_create(&other, NULL, fork_and_call, NULL) == 0) pthread_join(other, NULL);
    in_order(context, count, work, call);
}

/* Another thread forks while threads are lent. Its child has none of them, and starts one of the library's own. */
static void forks_inside_a_loop(void) {
    inner_problem = make_problem(dense(16, 64, 784), BN_FLOAT32, 3, 1);
    problem outer = make_problem(dense(500, 256, 1), BN_FLOAT32, 3, 1);
    status_of_child = -1;
    CHECK_OK(bn_set_num_threads(2));
    CHECK_OK(bn_set_parallel_for(forks_elsewhere, NULL));
    CHECK_OK(train(&outer, NULL));
    CHECK(status_of_child == 0, "the child gave %d", status_of_child);
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
    CHECK_OK(bn_set_num_threads(0));
    free_problem(&inner_problem), free_problem(&outer);
}

static void calls_inside_a_loop(void) {
    random_state = seed;
    expected = make_problem(dense(16, 64, 784), BN_FLOAT32, 3, 1);
    random_state = seed;
    inner_problem = make_problem(dense(16, 64, 784), BN_FLOAT32, 3, 1);
    random_state = seed;
    problem outer = make_problem(dense(16, 64, 784), BN_FLOAT32, 3, 1);
    CHECK_OK(bn_set_num_threads(2));
    CHECK_OK(train(&expected, NULL));
    CHECK_OK(bn_set_parallel_for(calls_inside, NULL));
    CHECK_OK(train(&outer, NULL));
    CHECK(status_inside == BN_ERROR_NESTED, "status %d inside", status_inside);
    CHECK(status_elsewhere == BN_OK, "status %d elsewhere", status_elsewhere);
    size_t bytes = expected.elements * sizeof(float);
    CHECK(memcmp(outer.y, expected.y, bytes) == 0, "the call around differs");
    CHECK(memcmp(inner_problem.y, expected.y, bytes) == 0, "the call inside differs");
    CHECK_OK(bn_set_parallel_for(NULL, NULL));
    CHECK_OK(bn_set_num_threads(0));
    free_problem(&expected), free_problem(&inner_problem), free_problem(&outer);
}

static void needs_two_processors(void) {
    if (bn_get_num_threads() < 2) skip("one processor");
    CHECK(bn_get_num_threads() >= 1, "%d", bn_get_num_threads());
}

int main(void) {
    start();
    threads_at_first = own_threads();
    RUN(needs_two_processors);
    if (tests_skipped > 0) return finish();
    RUN(bits_are_the_same);
    RUN(forks_inside_a_loop); /* before the library has a thread of its own */
    RUN(small_tensors_stay_alone);
    RUN(others_keep_theirs);
    RUN(the_loop_has_the_callers_environment);
    RUN(calls_inside_a_loop);
    return finish();
}
