/* SPDX-License-Identifier: Apache-2.0
 *
 * load_time LIBRARY: prints the median time from dlopen to the address of a function, each time in a process that has
 * not loaded the library before. */
#define _DEFAULT_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { loads = 101 };

static double microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static double load(const char *path) {
    double start = microseconds();
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL || dlsym(library, "bn_version") == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return microseconds() - start;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int count, char **arguments) {
    double times[loads];
    int ends[2];
    if (count != 2 || pipe(ends) != 0) return 1;
    for (int i = 0; i < loads; i++) {
        pid_t child = fork();
        if (child == 0) {
            double time = load(arguments[1]);
            _exit(write(ends[1], &time, sizeof time) == (ssize_t)sizeof time ? 0 : 1);
        }
        int status;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return 1;
        if (read(ends[0], &times[i], sizeof times[i]) != (ssize_t)sizeof times[i]) return 1;
    }
    qsort(times, loads, sizeof times[0], ascending);
    printf("%.0f us\n", times[loads / 2]);
    return 0;
}
