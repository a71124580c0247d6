/* SPDX-License-Identifier: Apache-2.0
 *
 * The number of threads that this process has. */
#ifndef TASKS_H
#define TASKS_H

#include <dirent.h>
#include <stddef.h>

static inline int tasks(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/task");
    if (directory == NULL) return -1;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

#endif
