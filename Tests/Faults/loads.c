/* SPDX-License-Identifier: Apache-2.0
 *
 * loads [SECONDS]: the library loaded and closed again and again, several copies of it at once, in namespaces of
 * their own, by threads, while calls of another copy run, and across a fork. All give the same bits, and no memory is
 * lost. */
#define _GNU_SOURCE
#include "../C/problem.h"
#include "interpose.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { copies = 6, loads = 300, namespaces = 4, patience = 600 };

typedef struct loaded {
    void *handle;
    __typeof__(bn_forward_training) *train;
    __typeof__(bn_set_num_threads) *set_num_threads;
} loaded;

static char paths[copies][8192];
static problem wanted;
static unsigned seconds;
static unsigned long made;

/* Copies, as one file is loaded once. */
static void copy_library(void) {
    Dl_info information;
    void *function = NULL;
    __typeof__(bn_version) *version = bn_version;
    memcpy(&function, &version, sizeof function);
    CHECK(dladdr(function, &information) != 0, "the library is nowhere");
    for (int i = 0; i < copies; i++) {
        snprintf(paths[i], sizeof paths[i], "%s.copy%d", information.dli_fname, i);
        FILE *from = fopen(information.dli_fname, "rb"), *to = fopen(paths[i], "wb");
        for (int byte; from != NULL && to != NULL && (byte = getc(from)) != EOF;) putc(byte, to);
        CHECK(from != NULL && fclose(from) == 0 && to != NULL && fclose(to) == 0, "%s cannot be written", paths[i]);
    }
}

/* No data to ISO C, again. */
static loaded look_up(void *handle) {
    loaded l = {handle, NULL, NULL};
    if (handle == NULL) return l;
    void *train = dlsym(handle, "bn_forward_training"), *threads = dlsym(handle, "bn_set_num_threads");
    memcpy(&l.train, &train, sizeof train), memcpy(&l.set_num_threads, &threads, sizeof threads);
    return l;
}

static problem fresh_problem(void) {
    random_state = seed;
    return make_problem(dense(16, 24, 800), BN_FLOAT32, 3, 1);
}

/* True if the copy gives the bits of the library that the program is linked with. */
static int is_right(const loaded *l, problem *p) {
    size_t tensor = p->elements * sizeof(float), vector = p->shape.channels * sizeof(double);
    if (l->train == NULL || l->set_num_threads(2) != BN_OK) return 0;
    memset(p->y, 0, tensor);
    bn_status status =
        l->train(&p->shape, p->dtype, p->x, p->gamma, p->beta, NULL, NULL, p->y, p->mean, p->invstd, NULL);
    if (status != BN_OK) return 0;
    __atomic_fetch_add(&made, 1, __ATOMIC_SEQ_CST);
    return memcmp(p->y, wanted.y, tensor) == 0 && memcmp(p->mean, wanted.mean, vector) == 0 &&
           memcmp(p->invstd, wanted.invstd, vector) == 0;
}

static int load_and_close(int copy, problem *p) {
    loaded l = look_up(dlopen(paths[copy], RTLD_NOW | RTLD_LOCAL));
    int right = is_right(&l, p);
    return l.handle != NULL && dlclose(l.handle) == 0 && right;
}

/* All are there before anything is counted: the first time a copy keeps what it needs. */
static void again_and_again(void) {
    problem p = fresh_problem();
    for (int i = 0; i < copies; i++) CHECK(load_and_close(i, &p), "copy %d", i);
    long blocks = interposed.blocks;
    int wrong = 0;
    time_t begun = time(NULL);
    for (int i = 0; i < loads || difftime(time(NULL), begun) < seconds / 2.0; i++) {
        wrong += !load_and_close(i % copies, &p);
    }
    CHECK(wrong == 0, "%d went wrong", wrong);
    CHECK(interposed.blocks == blocks, "%ld more blocks in use", interposed.blocks - blocks);
    free_problem(&p);
}

static int is_over;

static void *load_until_over(void *argument) {
    problem *p = argument;
    for (int i = 0; !__atomic_load_n(&is_over, __ATOMIC_SEQ_CST); i++) {
        if (!load_and_close(i % copies, p)) return argument;
    }
    return NULL;
}

/* Two threads load and close; this one calls, and forks: the child calls all copies. */
static void beside_calls_and_forks(void) {
    problem p = fresh_problem(), own[2] = {fresh_problem(), fresh_problem()};
    loaded linked = {NULL, bn_forward_training, bn_set_num_threads};
    pthread_t threads[2];
    time_t begun = time(NULL);
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, load_until_over, &own[i]) == 0, "no thread");
    int wrong = 0;
    for (int i = 0; i < loads || difftime(time(NULL), begun) < seconds / 2.0; i++) wrong += !is_right(&linked, &p);
    CHECK(wrong == 0, "%d calls went wrong", wrong);
    __atomic_store_n(&is_over, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        CHECK(failed == NULL, "thread %d", i);
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(patience);
        for (int i = 0; i < copies; i++) wrong += !load_and_close(i, &p);
        _exit(wrong);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "the child ended with %d", status);
    free_problem(&p), free_problem(&own[0]), free_problem(&own[1]);
}

/* With a C library of their own. */
static void in_namespaces(void) {
    problem p = fresh_problem();
    for (int i = 0; i < namespaces; i++) {
        loaded l = look_up(dlmopen(LM_ID_NEWLM, paths[i], RTLD_NOW));
        CHECK(is_right(&l, &p), "namespace %d: %s", i, l.handle == NULL ? dlerror() : "other bits");
    }
    free_problem(&p);
}

int main(int argc, char **argv) {
    start();
    seconds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    alarm(seconds + patience);
    wanted = fresh_problem();
    (void)bn_forward_training(&wanted.shape, wanted.dtype, wanted.x, wanted.gamma, wanted.beta, NULL, NULL, wanted.y,
                              wanted.mean, wanted.invstd, NULL);
    copy_library();
    RUN(again_and_again);
    RUN(beside_calls_and_forks);
    RUN(in_namespaces);
    printf("figure: loads and calls of copies = %lu\n", made);
    return finish();
}
