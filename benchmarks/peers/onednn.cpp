// SPDX-License-Identifier: Apache-2.0
//
// Batch normalization of oneDNN behind three C functions, on buffers of the caller.

#include <chrono>
#include <exception>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>

using namespace dnnl;

namespace {

enum Operation { training, inference, backward };

struct Buffers { // float32, in the layout of the problem
    void *x, *dy, *y, *dx, *gamma, *beta, *mean, *variance, *dgamma, *dbeta;
};

struct Job {
    primitive work;
    stream queue;
    std::unordered_map<int, memory> arguments;
    std::string implementation;
};

const engine &cpu() {
    // With a primitive in the cache, next_impl() gives that one again, for ever.
    static const engine the = (set_primitive_cache_capacity(0), engine(engine::kind::cpu, 0));
    return the;
}

template <class Description>
bool advance(Description &description, int implementation) {
    while (implementation-- > 0)
        if (!description.next_impl()) return false;
    return true;
}

Job *prepare(Operation operation, memory::dims dims, memory::format_tag tag, int implementation, float eps,
             const Buffers &b) {
    using flags = normalization_flags;
    const auto data = memory::desc(dims, memory::data_type::f32, tag);
    const auto row = memory::desc({dims[1]}, memory::data_type::f32, memory::format_tag::a);
    auto with = flags::use_scale | flags::use_shift;
    if (operation == inference) with |= flags::use_global_stats;
    const auto kind = operation == inference ? prop_kind::forward_inference : prop_kind::forward_training;
    auto forward = batch_normalization_forward::primitive_desc(cpu(), kind, data, data, eps, with);

    auto *job = new Job;
    job->queue = stream(cpu());
    auto bind = [&](int name, const memory::desc &desc, void *p) { job->arguments[name] = memory(desc, cpu(), p); };
    bind(DNNL_ARG_SRC, data, b.x);
    bind(DNNL_ARG_SCALE, row, b.gamma);
    bind(DNNL_ARG_MEAN, row, b.mean);
    bind(DNNL_ARG_VARIANCE, row, b.variance);
    if (operation == backward) {
        auto description =
            batch_normalization_backward::primitive_desc(cpu(), prop_kind::backward, data, data, data, eps, with, forward);
        if (!advance(description, implementation)) return delete job, nullptr;
        bind(DNNL_ARG_DIFF_DST, data, b.dy);
        bind(DNNL_ARG_DIFF_SRC, data, b.dx);
        bind(DNNL_ARG_DIFF_SCALE, row, b.dgamma);
        bind(DNNL_ARG_DIFF_SHIFT, row, b.dbeta);
        job->work = batch_normalization_backward(description);
        job->implementation = description.impl_info_str();
    } else {
        if (!advance(forward, implementation)) return delete job, nullptr;
        bind(DNNL_ARG_SHIFT, row, b.beta);
        bind(DNNL_ARG_DST, data, b.y);
        job->work = batch_normalization_forward(forward);
        job->implementation = forward.impl_info_str();
    }
    return job;
}

} // namespace

// The implementation of that number, counted from the one that oneDNN prefers; NULL if there are fewer.
// layout: 0 for NCHW, 1 for NHWC, 2 for NC.
extern "C" Job *onednn_prepare(int operation, long n, long c, long inner, int layout, int implementation, float eps,
                               const Buffers *buffers) try {
    using tag = memory::format_tag;
    const memory::dims dims = layout == 2 ? memory::dims{n, c} : memory::dims{n, c, 1, inner};
    const tag tags[] = {tag::nchw, tag::nhwc, tag::nc};
    return prepare(Operation(operation), dims, tags[layout], implementation, eps, *buffers);
} catch (const std::exception &) {
    return nullptr;
}

extern "C" const char *onednn_implementation(const Job *job) { return job->implementation.c_str(); }

extern "C" double onednn_run(Job *job, long times) {
    const auto start = std::chrono::steady_clock::now();
    for (long i = 0; i < times; i++) {
        job->work.execute(job->queue, job->arguments);
        job->queue.wait();
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

extern "C" void onednn_free(Job *job) { delete job; }
