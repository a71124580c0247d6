// SPDX-License-Identifier: Apache-2.0
// PyTorch's operators batchnorm::..., on the part of its ABI that is the same from 2.10 on, for every Python. There is no
// autograd in this part: batchnorm.torch has the derivatives.
#include "calls.h"

#include <torch/csrc/stable/library.h>

Library library;

namespace {

std::tuple<Tensor, Tensor> forward_training(const Tensor &x, const Optional &weight, const Optional &bias,
                                            const Optional &running_mean, const Optional &running_var,
                                            const Optional &num_batches_tracked, double momentum, double eps) {
    ForwardCall call(x, weight, bias, running_mean, running_var, momentum, eps);
    int64_t *count = counter(num_batches_tracked);
    Tensor y = alike(x), statistics = call.into(y);
    if (count) ++*count;
    return {y, statistics};
}

std::tuple<Tensor, Tensor> forward_activated(const Tensor &x, const Optional &weight, const Optional &bias,
                                             const Optional &residual, const Optional &running_mean,
                                             const Optional &running_var, const Optional &num_batches_tracked,
                                             double momentum, double eps, int64_t activation, double slope, double low,
                                             double high) {
    ForwardCall call(x, weight, bias, running_mean, running_var, momentum, eps);
    int64_t *count = counter(num_batches_tracked);
    Activated activated(activation, slope, low, high, call.options);
    activated.add(residual, x);
    Tensor y = alike(x), statistics = call.into(y);
    if (count) ++*count;
    return {y, statistics};
}

Tensor forward_activated_(const Tensor &x, const Optional &weight, const Optional &bias, const Optional &running_mean,
                          const Optional &running_var, const Optional &num_batches_tracked, double momentum, double eps,
                          int64_t activation, double slope, double low, double high) {
    ForwardCall call(x, weight, bias, running_mean, running_var, momentum, eps);
    int64_t *count = counter(num_batches_tracked);
    const Activated activated(activation, slope, low, high, call.options);
    Tensor statistics = call.into(x);
    if (count) ++*count;
    return statistics;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward_functional(const Tensor &x, const Optional &weight,
                                                              const Optional &bias, const Optional &running_mean,
                                                              const Optional &running_var, double momentum, double eps) {
    ForwardCall call(x, weight, bias, running_mean, running_var, momentum, eps);
    Tensor new_mean = gradient_of(running_mean, x), new_var = gradient_of(running_var, x);
    bn_running running = BN_RUNNING_INIT;
    if (running_mean && running_var) {
        running.new_running_mean = new_mean.data_ptr();
        running.new_running_var = new_var.data_ptr();
        call.options.running = &running;
    }
    Tensor y = alike(x), statistics = call.into(y);
    return {y, statistics, new_mean, new_var};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor &dy, const Tensor &x, const Optional &weight,
                                            const Optional &bias, const Tensor &statistics) {
    BackwardCall call(dy, x, weight, bias, statistics);
    return call.results();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward_activated(const Tensor &dy, const Tensor &x, const Optional &weight,
                                                              const Optional &bias, const Optional &residual,
                                                              const Tensor &statistics, int64_t activation, double slope,
                                                              double low, double high, bool from_output) {
    BackwardCall call(dy, x, weight, bias, statistics);
    Activated activated(activation, slope, low, high, call.options);
    activated.epilogue.from_output = from_output;
    activated.add(residual, x);
    Tensor dz = residual ? alike(x) : nothing(x);
    if (residual) activated.epilogue.dz = dz.data_ptr();
    return std::tuple_cat(call.results(), std::make_tuple(dz));
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
        "Tensor(c!)? num_batches_tracked, float momentum, float eps) -> (Tensor y, Tensor statistics)");
    operators.def(
        "forward_activated(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, Tensor(a!)? running_mean, "
        "Tensor(b!)? running_var, Tensor(c!)? num_batches_tracked, float momentum, float eps, int activation, "
        "float slope, float low, float high) -> (Tensor y, Tensor statistics)");
    operators.def(
        "forward_activated_(Tensor(d!) x, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, "
        "Tensor(b!)? running_var, Tensor(c!)? num_batches_tracked, float momentum, float eps, int activation, "
        "float slope, float low, float high) -> Tensor statistics");
    operators.def(
        "forward_functional(Tensor x, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, "
        "float momentum, float eps) "
        "-> (Tensor y, Tensor statistics, Tensor new_running_mean, Tensor new_running_var)");
    operators.def(
        "backward(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor statistics) "
        "-> (Tensor dx, Tensor dweight, Tensor dbias)");
    operators.def(
        "backward_activated(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, Tensor statistics, "
        "int activation, float slope, float low, float high, bool from_output) "
        "-> (Tensor dx, Tensor dweight, Tensor dbias, Tensor dresidual)");
}

STABLE_TORCH_LIBRARY_IMPL(batchnorm, CPU, operators) {
    operators.impl("forward_training", TORCH_BOX(&forward_training));
    operators.impl("forward_activated", TORCH_BOX(&forward_activated));
    operators.impl("forward_activated_", TORCH_BOX(&forward_activated_));
    operators.impl("forward_functional", TORCH_BOX(&forward_functional));
    operators.impl("backward", TORCH_BOX(&backward));
    operators.impl("backward_activated", TORCH_BOX(&backward_activated));
}
