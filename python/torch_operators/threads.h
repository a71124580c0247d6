// SPDX-License-Identifier: Apache-2.0
// PyTorch's threads, lent to the library: they spin between operators, and its own would wait for their processors.
#pragma once

#include "library.h"

#include <torch/csrc/stable/c/shim.h>

// Lends PyTorch's threads to this thread's calls until the end of the scope, and takes back any loop that the program had
// lent to this thread.
class LentThreads {
    struct Turns {
        void (*work)(void *call, size_t i);
        void *call;
    };

    static void run(int64_t first, int64_t end, void *context) {
        const Turns &turns = *static_cast<const Turns *>(context);
        for (int64_t i = first; i < end; ++i) turns.work(turns.call, static_cast<size_t>(i));
    }

    // If PyTorch reports an error, the library does the remaining turns itself.
    static void parallel_for(void *, size_t count, void (*work)(void *, size_t), void *call) {
        Turns turns{work, call};
        (void)torch_parallel_for(0, static_cast<int64_t>(count), 1, run, &turns);
    }

public:
    LentThreads() { library.check(library.set_parallel_for(parallel_for, nullptr)); }
    ~LentThreads() { (void)library.set_parallel_for(nullptr, nullptr); }
    LentThreads(const LentThreads &) = delete;
};
