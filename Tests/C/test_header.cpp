// SPDX-License-Identifier: Apache-2.0
//
// The same, through a C++ compiler.
#include "test_header.c"
