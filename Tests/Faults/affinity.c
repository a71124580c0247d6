/* SPDX-License-Identifier: Apache-2.0
 *
 * affinity [SECONDS]: a thread of the library that would wake on its caller's processor is kept off it, by its affinity,
 * for a moment: when it has worked, it may run where it could before. Here the caller goes to where the thread has
 * parked, for as long as it takes until that has happened. */
#define _GNU_SOURCE
#include "../C/problem.h"
#include "interpose.h"

#include <dirent.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

enum { moves = 5, patience = 120 };

static problem p;
static unsigned seconds;
static int moved;

static void call(void) { CHECK_OK(train(&p, NULL)); }

/* The one that is not this; 0 if there is none. */
static pid_t find_worker(void) {
    pid_t found = 0;
    DIR *directory = opendir("/proc/self/task");
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        pid_t thread = (pid_t)atoi(entry->d_name);
        if (thread > 0 && thread != getpid()) found = thread;
    }
    if (directory != NULL) closedir(directory);
    return found;
}

/* The processor on which a thread that sleeps ran last; -1 if it is awake. */
static int processor_of_sleeper(pid_t thread) {
    char path[64], state = 0;
    int processor = -1;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *file = fopen(path, "r");
    if (file == NULL) return -1;
    int read = fscanf(file, "%*d %*s %c", &state);
    for (int field = 4; read == 1 && field < 39; field++) read += fscanf(file, "%*s");
    if (fscanf(file, "%d", &processor) != 1 || state != 'S') processor = -1;
    fclose(file);
    return processor;
}

static void go_to(int processor) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0, "cannot go to processor %d", processor);
}

static void affinity_is_given_back(void) {
    cpu_set_t granted, now;
    CHECK(sched_getaffinity(0, sizeof granted, &granted) == 0, "no affinity mask");
    if (CPU_COUNT(&granted) < 2) {
        skip("one processor");
        return;
    }
    p = make_problem(dense(32, 64, 784), BN_FLOAT32, 0, 1);
    CHECK_OK(bn_set_num_threads(2));
    call();
    pid_t worker = find_worker();
    CHECK(worker != 0, "no thread of the library");
    for (time_t begun = time(NULL); worker != 0 && (moved < moves || difftime(time(NULL), begun) < seconds);) {
        int processor;
        while ((processor = processor_of_sleeper(worker)) < 0) usleep(100);
        go_to(processor);
        fail_from(can_fail, 0, 0, 0);
        interpose();
        call();
        leave_alone();
        CHECK(sched_setaffinity(0, sizeof granted, &granted) == 0, "cannot come back");
        moved += interposed.seen[AFFINITY] >= 2; /* was read, and set */
        do {
            CHECK(sched_getaffinity(worker, sizeof now, &now) == 0, "the thread is gone");
        } while (!CPU_EQUAL(&now, &granted)); /* the watchdog ends what is never given back */
    }
    free_problem(&p);
}

int main(int argc, char **argv) {
    start();
    seconds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    alarm(seconds + patience);
    RUN(affinity_is_given_back);
    printf("figure: threads kept off a processor, and given back = %d\n", moved);
    return finish();
}
