// SPDX-License-Identifier: Apache-2.0
// PyTorch's operators batchnorm::..., on the part of its ABI that is the same from 2.10 on, for every Python. There is no
// autograd in this part: batchnorm.torch has the derivatives.
#include "tensors.h"

#include <torch/csrc/stable/library.h>

#include <sstream>
#include <tuple>

Library library;

// C++ libraries older than the compiler's own lack these in their newest form.
template class std::basic_stringbuf<char>;
template class std::basic_stringstream<char>;
template class std::basic_ostringstream<char>;

// The C library has this one from 2.32 on, and C++ asks it before it counts references: here it always counts as with
// several threads, so that the operators load beside every C library that PyTorch does.
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;

namespace {

std::tuple<Tensor, Tensor> forward_training(const Tensor &x, const Optional &weight, const Optional &bias,
                                            const Optional &running_mean, const Optional &running_var, double momentum,
                                            double eps) {
    const Input input(x);
    Parameters parameters{input};
    void *gamma = parameters.take(weight, "weight"), *beta = parameters.take(bias, "bias");
    void *mean = parameters.take(running_mean, "running_mean"), *var = parameters.take(running_var, "running_var");
    bn_options options = BN_OPTIONS_INIT;
    options.eps = eps;
    options.momentum = momentum;
    options.param_dtype = parameters.dtype;
    Tensor y = alike(x), statistics = statistics_of(input.channels);
    double *saved = static_cast<double *>(statistics.data_ptr());
    library.check(library.forward_training(&input.shape, input.dtype, x.data_ptr(), gamma, beta, mean, var, y.data_ptr(),
                                           saved, saved + input.channels, &options));
    return {y, statistics};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor &dy, const Tensor &x, const Optional &weight, const Optional &bias,
                                            const Tensor &statistics) {
    const Input input(x);
    Parameters parameters{input};
    void *gamma = parameters.take(weight, "weight"), *beta = parameters.take(bias, "bias");
    bn_options options = BN_OPTIONS_INIT;
    options.param_dtype = parameters.dtype;
    const Tensor lying = beside(dy, x, "dy");
    Tensor dx = alike(x), dgamma = gradient_of(weight, x), dbeta = gradient_of(bias, x);
    const double *saved = read(statistics, input);
    library.check(library.backward(&input.shape, input.dtype, lying.data_ptr(), x.data_ptr(), gamma, beta, saved,
                                   saved + input.channels, dx.data_ptr(), gamma ? dgamma.data_ptr() : nullptr,
                                   beta ? dbeta.data_ptr() : nullptr, &options));
    return {dx, dgamma, dbeta};
}

}  // namespace

// Has the operators call functions of libbatchnorm, in the order of Library.
extern "C" __attribute__((visibility("default"))) void batchnorm_torch_connect(const Library *functions) {
    library = *functions;
}

extern "C" __attribute__((visibility("default"))) const char *batchnorm_torch_version() { return BATCHNORM_TORCH_VERSION; }

STABLE_TORCH_LIBRARY(batchnorm, operators) {
    operators.def(
        "forward_training(Tensor x, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, Tensor(b!)? running_var, "
        "float momentum, float eps) -> (Tensor y, Tensor statistics)");
    operators.def(
        "backward(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor statistics) "
        "-> (Tensor dx, Tensor dgamma, Tensor dbeta)");
}

STABLE_TORCH_LIBRARY_IMPL(batchnorm, CPU, operators) {
    operators.impl("forward_training", TORCH_BOX(&forward_training));
    operators.impl("backward", TORCH_BOX(&backward));
}
