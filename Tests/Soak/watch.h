/* SPDX-License-Identifier: Apache-2.0
 *
 * The resources that a process holds: memory of its own, open files, threads. */
#ifndef SOAK_WATCH_H
#define SOAK_WATCH_H

#include "../C/tasks.h"

#include <malloc.h>
#include <stdio.h>

typedef struct holding {
    long resident, used; /* bytes: of pages that are no file's, and of blocks that this thread has not freed */
    int files, threads;
} holding;

static inline int open_files(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) return -1;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

/* Freed memory goes back to the system first, or a large call among the last would look like growth. */
static inline holding look(void) {
    char line[200];
    long kilobytes = -1;
    malloc_trim(0);
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) sscanf(line, "RssAnon: %ld", &kilobytes);
    if (status != NULL) fclose(status);
    struct mallinfo2 info = mallinfo2();
    return (holding){1024 * kilobytes, (long)(info.uordblks + info.hblkhd), open_files(), tasks()};
}

#endif
