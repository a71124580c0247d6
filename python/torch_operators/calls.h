// SPDX-License-Identifier: Apache-2.0
// The calls of libbatchnorm that the operators make, with their arguments checked and their results made.
#pragma once

#include "tensors.h"
#include "threads.h"

#include <tuple>

// The common part of forward calls: all checks are made before there are results.
struct ForwardCall {
    const Input input;
    const void *x;
    void *gamma, *beta, *mean, *var;
    bn_options options = BN_OPTIONS_INIT;

    ForwardCall(const Tensor &tensor, const Optional &weight, const Optional &bias, const Optional &running_mean,
                const Optional &running_var, double momentum, double eps)
        : input(tensor), x(tensor.data_ptr()) {
        Parameters parameters{input};
        gamma = parameters.take(weight, "weight");
        beta = parameters.take(bias, "bias");
        mean = parameters.take(running_mean, "running_mean");
        var = parameters.take(running_var, "running_var");
        options.param_dtype = parameters.dtype;
        options.momentum = momentum;
        options.eps = eps;
    }

    // Writes y, which may be x; the statistics that backward needs.
    Tensor into(const Tensor &y) const {
        Tensor statistics = statistics_of(input.channels);
        double *saved = static_cast<double *>(statistics.data_ptr());
        const LentThreads lent;
        library.check(library.forward_training(&input.shape, input.dtype, x, gamma, beta, mean, var, y.data_ptr(), saved,
                                               saved + input.channels, &options));
        return statistics;
    }
};

struct BackwardCall {
    Input input;
    const Tensor &x, dy;
    void *gamma, *beta;
    const Optional &weight, &bias;
    const double *saved;
    bn_options options = BN_OPTIONS_INIT;

    BackwardCall(const Tensor &gradient, const Tensor &tensor, const Optional &scale, const Optional &shift,
                 const Tensor &statistics)
        : input(tensor), x(tensor), dy(input.takes(gradient, tensor) ? gradient : beside(gradient, tensor, "dy")),
          weight(scale), bias(shift), saved(read(statistics, input)) {
        Parameters parameters{input};
        gamma = parameters.take(weight, "weight");
        beta = parameters.take(bias, "bias");
        options.param_dtype = parameters.dtype;
    }

    std::tuple<Tensor, Tensor, Tensor> results() const {
        Tensor dx = alike(x), dweight = gradient_of(weight, x), dbias = gradient_of(bias, x);
        const LentThreads lent;
        library.check(library.backward(&input.shape, input.dtype, dy.data_ptr(), x.data_ptr(), gamma, beta, saved,
                                       saved + input.channels, dx.data_ptr(), gamma ? dweight.data_ptr() : nullptr,
                                       beta ? dbias.data_ptr() : nullptr, &options));
        return {dx, dweight, dbias};
    }
};

// An activation, and a residual before it, in a call's options.
struct Activated {
    bn_epilogue epilogue = BN_EPILOGUE_INIT;
    Optional z;

    Activated(int64_t activation, double slope, double low, double high, bn_options &options) {
        if (activation < BN_IDENTITY || activation > BN_SILU) refuse("activation is ", activation, ", expected 0 to 5");
        epilogue.activation = static_cast<bn_activation>(activation);
        epilogue.slope = slope;
        epilogue.low = low;
        epilogue.high = high;
        options.epilogue = &epilogue;
    }
    Activated(const Activated &) = delete;

    void add(const Optional &residual, const Tensor &x) {
        if (!residual) return;
        z = beside(*residual, x, "residual");
        epilogue.z = z->data_ptr();
    }
};

// Where the batches are counted.
inline int64_t *counter(const Optional &tracked) {
    if (!tracked) return nullptr;
    if (tracked->numel() != 1 || dtype_of(*tracked) != aoti_torch_dtype_int64())
        refuse("num_batches_tracked is not a single number of int64");
    return static_cast<int64_t *>(tracked->data_ptr());
}
