/* SPDX-License-Identifier: Apache-2.0
 *
 * Linked into the C tests, so that what their children reach is counted, too: a child leaves by exit, which writes
 * its profile, and gives the file a name of its own, before its parent writes over it. PROFILES is the folder. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static pid_t first;

void _exit(int status) { exit(status); }

__attribute__((constructor)) static void remember(void) { first = getpid(); }

/* Those of a program come after what is called at exit. */
__attribute__((destructor)) static void keep(void) {
    const char *folder = getenv("PROFILES");
    char written[500], kept[500];
    if (getpid() == first || folder == NULL) return;
    snprintf(written, sizeof written, "%s/%d.profraw", folder, (int)first);
    snprintf(kept, sizeof kept, "%s/%d-%d.profraw", folder, (int)first, (int)getpid());
    rename(written, kept);
}
