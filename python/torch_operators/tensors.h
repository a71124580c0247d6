// SPDX-License-Identifier: Apache-2.0
// Tensors of PyTorch as the arguments of libbatchnorm: addresses, dtypes, shapes. Whatever the library cannot take as it
// is, is refused before anything is written.
#pragma once

#include "library.h"

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

template <typename... Parts>
[[noreturn]] void refuse(const Parts &...parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw std::runtime_error(text.str());
}

inline void succeed(AOTITorchError error) {
    if (error != AOTI_TORCH_SUCCESS) throw std::runtime_error("PyTorch could not make or read a tensor");
}

inline int32_t dtype_of(const Tensor &tensor) {
    int32_t dtype;
    succeed(aoti_torch_get_dtype(tensor.get(), &dtype));
    return dtype;
}

// 0 if the library has no such elements.
inline bn_dtype element_of(const Tensor &tensor) {
    static const int32_t known[] = {aoti_torch_dtype_float32(), aoti_torch_dtype_float64(), aoti_torch_dtype_float16(),
                                    aoti_torch_dtype_bfloat16()};
    const auto found = std::find(std::begin(known), std::end(known), dtype_of(tensor));
    return found == std::end(known) ? bn_dtype(0) : bn_dtype(BN_FLOAT32 + (found - known));
}

inline Tensor empty(int64_t rank, const int64_t *sizes, const int64_t *strides, int32_t dtype) {
    AtenTensorHandle made;
    succeed(aoti_torch_empty_strided(rank, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, &made));
    return Tensor(made);
}

// Memory for a tensor that lies as this one does.
inline Tensor alike(const Tensor &tensor) {
    return empty(tensor.dim(), tensor.sizes().data(), tensor.strides().data(), dtype_of(tensor));
}

// Rows of one number per channel; where the first two begin is where the library writes mean and invstd.
inline Tensor statistics_of(int64_t channels) {
    const int64_t sizes[] = {2, channels}, strides[] = {channels, 1};
    return empty(2, sizes, strides, aoti_torch_dtype_float64());
}

// x, without gaps, whose strides those of y and dx are.
struct Input {
    bn_shape shape;
    bn_dtype dtype;
    int64_t channels;

    explicit Input(const Tensor &x) : dtype(element_of(x)) {
        if (!dtype) refuse("x is of a dtype that is none of float32, float64, float16 and bfloat16");
        if (x.dim() < 2) refuse("x has ", x.dim(), " dimensions, expected at least 2");
        channels = x.size(1);
        if (x.numel() <= channels) refuse("x has ", x.numel(), " elements, expected more than one per channel");
        size_t stride;
        library.check(library.shape_from_strides(x.dim(), x.sizes().data(), 1, 1, 1, x.strides().data(), 0, &shape,
                                                 &stride));
        if (stride) refuse("x has gaps in memory, expected a tensor without");
    }

    // True if dy can be read where it is: a part of the gradient of a concatenation lies between others.
    bool takes(const Tensor &dy, const Tensor &x) {
        const size_t rank = x.dim();
        const auto sizes = x.sizes(), theirs = dy.sizes();
        if (!std::equal(sizes.begin(), sizes.end(), theirs.begin(), theirs.end()) || dtype_of(dy) != dtype_of(x)) return false;
        std::vector<int64_t> strides(x.strides().begin(), x.strides().end());
        strides.insert(strides.end(), dy.strides().begin(), dy.strides().end());
        bn_shape both;
        size_t outer[2];
        if (library.shape_from_strides(rank, sizes.data(), 1, 1, 2, strides.data(), 0, &both, outer) != BN_OK) return false;
        if (outer[0]) return false;
        shape = both;
        shape.y_stride = outer[1];
        return true;
    }
};

inline const double *read(const Tensor &statistics, const Input &input) {
    const bool is_dense = statistics.is_contiguous() && statistics.numel() == 2 * input.channels;
    if (!is_dense || element_of(statistics) != BN_FLOAT64) refuse("statistics are none of a forward call with this x");
    return static_cast<const double *>(statistics.data_ptr());
}

inline bool lies_like(const Tensor &tensor, const Tensor &x) {
    for (int64_t axis = 0; axis < x.dim(); axis++)
        if (x.size(axis) != 1 && tensor.stride(axis) != x.stride(axis)) return false;
    return true;
}

// A tensor of x's shape and dtype, or a copy of it that lies in memory as x does.
inline Tensor beside(const Tensor &tensor, const Tensor &x, const char *name) {
    const auto sizes = tensor.sizes(), expected = x.sizes();
    if (!std::equal(sizes.begin(), sizes.end(), expected.begin(), expected.end()))
        refuse(name, " is of another shape than x");
    if (dtype_of(tensor) != dtype_of(x)) refuse(name, " is of another dtype than x");
    if (lies_like(tensor, x)) return tensor;
    Tensor copy = alike(x);
    torch::stable::copy_(copy, tensor);
    return copy;
}

// Gamma, beta and running statistics: vectors of one dtype, which is x's, or float32 beside 16 bits.
struct Parameters {
    const Input &input;
    bn_dtype dtype = bn_dtype(0);

    void *take(const Optional &vector, const char *name) {
        if (!vector) return nullptr;
        if (vector->dim() != 1 || vector->size(0) != input.channels)
            refuse(name, " is not of shape (", input.channels, ",)");
        if (input.channels > 1 && vector->stride(0) != 1) refuse(name, " has gaps in memory");
        const bn_dtype own = element_of(*vector);
        const bool fits = own == input.dtype || (own == BN_FLOAT32 && input.dtype >= BN_FLOAT16);
        if (!own || !fits) refuse(name, " is of another dtype than x, and not of float32 beside 16 bits");
        if (dtype && own != dtype) refuse(name, " is of another dtype than the parameters before it");
        dtype = own;
        return vector->data_ptr();
    }
};

// An operator returns this in place of a result that there is not.
inline Tensor nothing(const Tensor &x) {
    const int64_t none = 0, stride = 1;
    return empty(1, &none, &stride, dtype_of(x));
}

// The gradient of a parameter, or its new value.
inline Tensor gradient_of(const Optional &parameter, const Tensor &x) {
    return parameter ? alike(*parameter) : nothing(x);
}
