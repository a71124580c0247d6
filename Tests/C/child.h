/* SPDX-License-Identifier: Apache-2.0
 *
 * The library reads the environment at its first call. A test of the environment is therefore a function that runs in a
 * process of its own, forked before this one has made any call. */
#ifndef CHILD_H
#define CHILD_H

#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

/* Runs the function where the variable has the value (NULL: no variable); what it CHECKs is reported here. */
static inline void in_child(const char *variable, const char *value, void (*function)(void)) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        unsetenv("BATCHNORM_ISA");
        unsetenv("BATCHNORM_NUM_THREADS");
        unsetenv("OMP_NUM_THREADS");
        if (variable != NULL) setenv(variable, value, 1);
        checks_made = checks_failed = 0;
        function();
        _exit(checks_failed > 0 || checks_made == 0);
    }
    int status = -1;
    int ended = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status);
    CHECK(ended && WEXITSTATUS(status) == 0, "%s=%s", variable ? variable : "no variable", value ? value : "");
}

#endif
