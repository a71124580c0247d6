/* SPDX-License-Identifier: Apache-2.0
 *
 * Linked into the C tests, so that what their children reach is counted, too: a child leaves by exit, which writes
 * its profile, and gives the file a name of its own, before its parent writes over it. PROFILES is the folder.
 *
 * Ordinary Swift makes a description of each C enumeration where a switch over it first runs, and ends the process if
 * there is no memory for it. A release has none of them. Here they are made before a test can let allocations fail:
 * ACCESSORS says how far from bn_version() the functions are that make them. */
#define _GNU_SOURCE
#include <batchnorm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef void accessor(size_t request);

static pid_t first;

void _exit(int status) { exit(status); }

__attribute__((constructor)) static void remember(void) {
    char *next = getenv("ACCESSORS");
    first = getpid();
    while (next != NULL && *next != '\0') {
        long distance = strtol(next, &next, 10);
        ((accessor *)((intptr_t)bn_version + distance))(0);
    }
}

/* A program's destructors run after the functions that are called at exit. */
__attribute__((destructor)) static void keep(void) {
    const char *folder = getenv("PROFILES");
    char written[500], kept[500];
    if (getpid() == first || folder == NULL) return;
    snprintf(written, sizeof written, "%s/%d.profraw", folder, (int)first);
    snprintf(kept, sizeof kept, "%s/%d-%d.profraw", folder, (int)first, (int)getpid());
    rename(written, kept);
}
