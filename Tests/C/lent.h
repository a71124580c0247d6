/* SPDX-License-Identifier: Apache-2.0
 *
 * A loop to lend to the library (bn_set_parallel_for). */
#ifndef LENT_H
#define LENT_H

#include <batchnorm.h>

static inline void turns_in_order(void *context, size_t count, void (*work)(void *call, size_t i), void *call) {
    (void)context;
    for (size_t i = 0; i < count; i++) work(call, i);
}

#endif
