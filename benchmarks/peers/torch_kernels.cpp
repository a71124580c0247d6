// SPDX-License-Identifier: Apache-2.0
//
// PyTorch's own kernels behind three C functions, on buffers of the caller: what its operators call after they have
// allocated, and its dispatcher has decided.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/batch_norm.h>
#include <chrono>
#include <cmath>
#include <exception>

namespace {

enum Operation { training, inference, backward };

struct Buffers { // float32, in the layout of the problem
    void *x, *dy, *y, *dx, *gamma, *beta, *mean, *invstd, *running_mean, *running_var, *dgamma, *dbeta;
};

struct Job {
    Operation operation;
    double momentum, eps;
    int64_t count; // positions of a channel
    at::Tensor x, dy, y, dx, gamma, beta, mean, invstd, running_mean, running_var, dgamma, dbeta;
};

// The steps of batch_norm_cpu_update_stats_template with its results where they belong: sums of squares become the
// inverse standard deviation, and running statistics move.
void train(Job &job) {
    at::native::batch_norm_cpu_collect_stats_stub(at::kCPU, job.mean, job.invstd, job.x);
    auto mean = job.mean.mutable_data_ptr<float>(), invstd = job.invstd.mutable_data_ptr<float>();
    auto running_mean = job.running_mean.mutable_data_ptr<float>(), running_var = job.running_var.mutable_data_ptr<float>();
    const auto momentum = float(job.momentum);
    const double n = double(job.count);
    for (int64_t c = 0; c < job.mean.numel(); c++) {
        const double m2 = invstd[c];
        running_mean[c] = momentum * mean[c] + (1 - momentum) * running_mean[c];
        running_var[c] = float(momentum * (m2 / (n - 1)) + (1 - momentum) * running_var[c]);
        invstd[c] = float(1 / std::sqrt(m2 / n + job.eps));
    }
}

void run(Job &job) {
    switch (job.operation) {
    case training:
        train(job);
        [[fallthrough]];
    case inference:
        at::native::batch_norm_cpu_stub(at::kCPU, job.y, job.x, job.gamma, job.beta, job.mean, job.invstd,
                                        job.running_mean, job.running_var, job.operation == training, job.eps);
        return;
    case backward:
        at::native::batch_norm_cpu_backward_stub(at::kCPU, job.dx, job.dgamma, job.dbeta, job.dy, job.x, job.gamma,
                                                 job.running_mean, job.running_var, job.mean, job.invstd, true, job.eps);
    }
}

} // namespace

// layout: 0 for NCHW, 1 for NHWC, 2 for NC.
extern "C" Job *torch_kernels_prepare(int operation, long n, long c, long inner, int layout, double momentum, double eps,
                                      const Buffers *b) try {
    at::AutoDispatchBelowAutograd no_gradients;
    const bool last = layout == 1;
    auto tensor = [&](void *p) {
        if (layout == 2) return at::from_blob(p, {n, c}, at::kFloat);
        return at::from_blob(p, {n, c, 1, inner}, last ? at::IntArrayRef{inner * c, 1, inner * c, c}
                                                       : at::IntArrayRef{c * inner, inner, inner, 1}, at::kFloat);
    };
    auto row = [&](void *p) { return at::from_blob(p, {c}, at::kFloat); };
    return new Job{Operation(operation), momentum, eps, n * inner, tensor(b->x), tensor(b->dy), tensor(b->y),
                   tensor(b->dx), row(b->gamma), row(b->beta), row(b->mean), row(b->invstd), row(b->running_mean),
                   row(b->running_var), row(b->dgamma), row(b->dbeta)};
} catch (const std::exception &) {
    return nullptr;
}

// Seconds for that many calls, below 0 if one failed.
extern "C" double torch_kernels_run(Job *job, long times) try {
    at::AutoDispatchBelowAutograd no_gradients;
    const auto start = std::chrono::steady_clock::now();
    for (long i = 0; i < times; i++) run(*job);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
} catch (const std::exception &) {
    return -1;
}

extern "C" void torch_kernels_free(Job *job) { delete job; }
