// SPDX-License-Identifier: Apache-2.0
// Parts of C and C++ that the compiler's own libraries have, and older ones lack: compiled in, so that the operators load
// wherever PyTorch does.
#include <sstream>

template class std::basic_stringbuf<char>;
template class std::basic_stringstream<char>;
template class std::basic_ostringstream<char>;

// glibc has it from 2.32 on, and C++ asks it before it counts references: here it always counts as with several threads.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
