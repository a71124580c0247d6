// SPDX-License-Identifier: Apache-2.0
// libbatchnorm as the package batchnorm has loaded it: its functions by their addresses, so that nothing is linked.
#pragma once

#include <batchnorm.h>

#include <stdexcept>

struct Library {
    decltype(&bn_forward_training) forward_training;
    decltype(&bn_backward) backward;
    decltype(&bn_shape_from_strides) shape_from_strides;
    decltype(&bn_last_error) last_error;
    decltype(&bn_set_parallel_for) set_parallel_for;

    void check(bn_status status) const {
        if (status != BN_OK) throw std::runtime_error(last_error());
    }
};

extern Library library;
