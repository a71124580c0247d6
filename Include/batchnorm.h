/* SPDX-License-Identifier: Apache-2.0
 *
 * libbatchnorm: batch normalization for the CPU, behind a C ABI.
 *
 * This header is the contract. The library exports nothing else.
 *
 *     mean_c = sum(x_c) / M           var_c = sum((x_c - mean_c)^2) / M       M values in channel c
 *     x_hat  = (x - mean_c) * invstd_c                invstd_c = 1 / sqrt(var_c + eps)
 *     y      = gamma_c * x_hat + beta_c               (Ioffe and Szegedy, arXiv:1502.03167)
 *
 * Tensors. Every tensor is outer x channels x inner, the inner index running fastest: NCHW is (N, C, H*W), NHWC is
 * (N*H*W, C, 1), NC is (N, C, 1): bn_shape. x, y, dy and dx are of the call's bn_dtype, and so are gamma,
 * beta, running_mean, running_var, dgamma and dbeta (`channels` elements each, dense). Statistics and sums cross this
 * boundary as double (`channels` elements each): they are few, and float32 would round away what was computed exactly.
 * Pointers need the alignment of one element and no more.
 *
 * Aliasing. y may be x, and dx may be dy, if the pointers and the strides are equal; functions name their small arrays
 * that may be the same. Any other overlap of an output is BN_ERROR_OVERLAP, also one with *shape, *options or a
 * structure that they point to. The library never reads or writes the gaps between strided slices.
 *
 * Errors. Every argument is checked before anything is written: after a status other than BN_OK all outputs, the
 * running statistics included, are as they were. bn_last_error() names the argument, its value, and what was
 * expected; of several wrong arguments, the one found first.
 *
 * NaN and infinity propagate as the formulas say, within their own channel. With eps == 0 a channel of zero variance
 * has invstd 0, so that y is beta. Finite float32 data of any magnitude have the statistics and outputs that the real
 * numbers give, rounded; an output that is itself beyond float32 is infinite. Finite float64 data overflow, to
 * infinity or NaN, or vanish, to beta, where the sum of (x - mean)^2 is outside the normal numbers of a double: a
 * standard deviation below 1e-153 or above 1e150. With weights, the same is true of each weight times the square
 * of a difference of two values.
 *
 * The same arguments give the same bits for every number of threads, instruction set and alignment, for every choice of
 * outputs, and from run to run; only the sign and the payload of a NaN may differ. Two versions of the library may give
 * different bits, and so may two layouts of the same values. Calls compute in the default floating-point
 * environment, whatever the caller's is: to nearest, with subnormal numbers, without traps. They leave the caller's as
 * it was, its exception flags included: no call raises one.
 *
 * Threads. Every function may be called from several threads at once, provided that no two calls write the same
 * memory. No pointer is kept after the call returns, but for those that bn_set_parallel_for is given. A call may use the
 * library's own threads (bn_set_num_threads), or those that its caller lends (bn_set_parallel_for);
 * from inside one of them, or while they serve another caller, it runs on the calling thread alone. The library's
 * threads take none of the signals that are sent to the process. A thread of the library that would wake on the CPU of
 * its caller is kept off it for a moment, by its affinity. fork() is safe, with one exception: if a signal handler or
 * a lent loop forks in the middle of a call, the child must not continue that call. The library's memory for a thread is freed
 * when the thread ends, unless a destructor of thread-specific data makes a call in the last round of destructors.
 *
 * Signals. A call from a signal handler that interrupts another call on the same thread is BN_ERROR_NESTED, and writes
 * nothing. The thread's first call allocates memory, as does one larger than all before: in a handler that is as safe
 * as malloc is there. A call has to return: after a longjmp out of it, or the cancellation of its thread, the thread's
 * later calls are BN_ERROR_NESTED, and those of other threads may run on one thread, or wait for ever. errno may
 * change.
 *
 * Stack. A call takes at most 14 KiB of its caller's stack.
 *
 * Environment, read once, at the first call:
 *     BATCHNORM_ISA          baseline, or on x86-64 avx2 or avx512: the instruction set (default: the widest that the
 *                            CPU has)
 *     BATCHNORM_NUM_THREADS  1 to 1024: the number of threads (default: OMP_NUM_THREADS, else the CPUs granted to the
 *                            process by its affinity mask and its container's cgroup quota)
 * An empty value counts as none, and so does an OMP_NUM_THREADS below 1 or not a number; one above 1024 is 1024. If
 * one of the two above cannot be honoured, every computing call returns BN_ERROR_ENVIRONMENT.
 */
#ifndef BATCHNORM_H
#define BATCHNORM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BN_VERSION_MAJOR 2
#define BN_VERSION_MINOR 0
#define BN_VERSION_PATCH 0
#define BN_VERSION (BN_VERSION_MAJOR * 10000 + BN_VERSION_MINOR * 100 + BN_VERSION_PATCH)

/* ---- Types --------------------------------------------------------------------------------------------------- */

/* Element type of the tensors, and unless the options say otherwise of gamma, beta, dgamma, dbeta, running_mean and
 * running_var; those of 16-bit tensors are float32. The values are pinned.
 *
 * Outputs of 16-bit tensors are computed in float32 and rounded to nearest, ties to even. */
typedef enum bn_dtype {
    BN_FLOAT32 = 1,
    BN_FLOAT64 = 2,
    BN_FLOAT16 = 3, /* IEEE 754 binary16 */
    BN_BFLOAT16 = 4 /* the upper half of a float32 */
} bn_dtype;

/* Outcome of a call. The values are pinned; the gaps are for later members of the same group. */
typedef enum bn_status {
    BN_OK = 0,

    /* the caller's arguments */
    BN_ERROR_NULL = 1,        /* a pointer that is needed is NULL */
    BN_ERROR_SHAPE = 2,       /* zero channels, a size that overflows, a stride smaller than one outer slice */
    BN_ERROR_DTYPE = 3,       /* not a bn_dtype */
    BN_ERROR_STRUCT_SIZE = 4, /* struct_size is not one that this version knows */
    BN_ERROR_OPTION = 5,      /* a value outside its documented range */
    BN_ERROR_PAIR = 6,        /* two pointers that go together: one is NULL and the other is not */
    BN_ERROR_OVERLAP = 7,     /* an output overlaps another argument */
    BN_ERROR_ALIGNMENT = 8,   /* a pointer is not aligned to its element */

    /* the data */
    BN_ERROR_SINGLE_VALUE = 20, /* one value per channel has no variance to normalize or to estimate with */
    BN_ERROR_NONFINITE = 21,    /* the statistics of a batch are not finite, and bn_running makes that an error */

    /* the machine */
    BN_ERROR_ENVIRONMENT = 40, /* BATCHNORM_ISA or BATCHNORM_NUM_THREADS cannot be honoured */
    BN_ERROR_MEMORY = 41,      /* working memory could not be had: some numbers per channel and row of groups, or, with
                                  planes of up to 32 elements, per element of a channel's plane; where threads share
                                  a channel, per block of values; and some thousand values per thread at work */
    BN_ERROR_NESTED = 42       /* the call interrupts another one on the same thread, from a signal handler or from the
                                  loop of bn_set_parallel_for */
} bn_status;

/* The extents of a call's tensors, the distances between their outer slices, and the weights of their positions.
 *
 *     bn_shape shape = BN_SHAPE(32, 64, 56 * 56);     // 32 dense images of 64 channels, NCHW
 *
 * A stride is counted in elements, from one outer index to the next; 0 stands for dense (channels * inner). It must be
 * at least that, also where a call has no use for it, and lets a call work on a part of a larger tensor: the first 64
 * of 96 channels, every second sample. With outer 0 or 1 it makes no difference.
 * outer * stride elements must be addressable: the product in bytes may not exceed PTRDIFF_MAX. */
typedef struct bn_shape {
    size_t struct_size; /* sizeof(bn_shape) */
    size_t outer;       /* samples (NCHW) or positions (NHWC); 0 is an empty batch */
    size_t channels;    /* at least 1; arrays of channels must be addressable, also for an empty batch */
    size_t inner;       /* consecutive elements of one channel; 0 is an empty batch */
    size_t x_stride;    /* of x (default 0) */
    size_t y_stride;    /* of y, and of its gradient dy (default 0) */
    size_t dx_stride;   /* of dx (default 0) */
    const struct bn_weights *weights; /* (default NULL: every position counts once) */
} bn_shape;

/* An initializer for dense tensors. */
#define BN_SHAPE(outer, channels, inner) \
    {sizeof(bn_shape), (size_t)(outer), (size_t)(channels), (size_t)(inner), 0, 0, 0, NULL}

/* y at positions of weight 0. The values are pinned. */
typedef enum bn_masked {
    BN_MASKED_NORMALIZE = 0, /* y as anywhere else, though they have no say in the statistics; as in Keras */
    BN_MASKED_ZERO = 1,      /* y is 0, and dx and dz are */
    BN_MASKED_KEEP = 2       /* y is x, dx is dy, and dz is 0 */
} bn_masked;

/* Weights of positions, in the statistics of every channel; a mask is made of 0 and 1. With W = sum(w):
 *
 *     mean = sum(w * x) / W        var = sum(w * (x - mean)^2) / W        count = W
 *     dx   = gamma * invstd * (dy - w * sum(dy) / W - w * x_hat * sum(dy * x_hat) / W)
 *
 * The sums over dy are over every position whose y depends on the channel: all of them with BN_MASKED_NORMALIZE, those
 * of a weight above 0 otherwise. A value of x at a position of weight 0 has no part in any statistic, be it NaN. W = 0
 * is an empty batch; one position with a weight above 0 is one value. Weights are frequencies where a variance is
 * unbiased, sum(...) / (W - 1): W <= 1 is then BN_ERROR_SINGLE_VALUE where there is a running_var. A weight is 0, or
 * 1e-150 to 1e150 (of float32, any positive number); any other is BN_ERROR_OPTION. */
typedef struct bn_weights {
    size_t struct_size; /* sizeof(bn_weights) */
    const void *values; /* outer x inner, dense: float64 beside BN_FLOAT64 tensors, float32 beside all others */
    bn_masked masked;   /* (default BN_MASKED_NORMALIZE) */
    int32_t reserved;   /* 0 (default 0) */
} bn_weights;

#define BN_WEIGHTS_INIT {sizeof(bn_weights), NULL, BN_MASKED_NORMALIZE, 0}

/* The activation after normalization: y = activation(u), u = gamma * x_hat + beta + z; NaN stays NaN. The values are
 * pinned. */
typedef enum bn_activation {
    BN_IDENTITY = 0,
    BN_RELU = 1,       /* u above 0, else 0 */
    BN_LEAKY_RELU = 2, /* u above 0, else slope * u */
    BN_CLIP = 3,       /* u, or the limit that it is beyond; ReLU6 is 0 to 6. At the limits no gradient passes */
    BN_HARD_SWISH = 4, /* u * clip(u + 3, 0, 6) / 6 (arXiv:1905.02244) */
    BN_SILU = 5        /* u / (1 + exp(-u)) (arXiv:1702.03118) */
} bn_activation;

/* An activation, and a residual tensor z that is added before it, computed with the numbers that y is rounded from.
 *
 * Backward, activation'(u) is found in one of three ways:
 *   - from x (and z, beta), from which u is computed again: the default;
 *   - from the mask that the forward call wrote, one bit per element: z and beta may be NULL then. Not for
 *     BN_HARD_SWISH and BN_SILU, whose gradient is more than a bit;
 *   - from y alone, with from_output (arXiv:1712.02616): x is then the forward call's y, and may have been its x as
 *     well. x_hat = (activation^-1(y) - beta) / gamma, which loses digits where beta is large beside gamma. For
 *     BN_IDENTITY, and BN_LEAKY_RELU with a slope above 0; without z. gamma may be negative; a gamma of 0 is
 *     BN_ERROR_OPTION, and in bn_backward so is from_output beside a source, or beside parameters per group that share
 *     their statistics. */
typedef struct bn_epilogue {
    size_t struct_size;       /* sizeof(bn_epilogue) */
    bn_activation activation; /* (default BN_IDENTITY) */
    int32_t from_output;      /* for bn_backward, forward calls ignore it: 1 if x is the forward call's y (default 0) */
    double slope;             /* of BN_LEAKY_RELU: 0, or a positive normal number of the type that the tensors are
                                 computed with: float64, or float32 for all others (default 0.01) */
    double low, high;         /* of BN_CLIP: low below high (default 0 and 6) */
    const void *z;            /* the residual, of the tensors' type and shape; NULL for none (default NULL) */
    size_t z_stride;          /* its outer stride (default 0) */
    void *dz;                 /* for bn_backward, forward calls ignore it: output, the gradient with respect to z,
                                 dy * activation'(u); may be dy, and may be the only output (default NULL) */
    size_t dz_stride;         /* its outer stride (default 0) */
    uint8_t *mask;            /* output of a forward call, input of bn_backward: bit i % 8 of byte i / 8 says whether
                                 the gradient passes at element i of the dense tensor (BN_LEAKY_RELU: with 1, not
                                 slope), as y tells: where it is above low (or 0) and below high. A 16-bit y may be
                                 rounded to a bound that u is not at. ceil(outer * channels * inner / 8) bytes
                                 (default NULL) */
} bn_epilogue;

#define BN_EPILOGUE_INIT {sizeof(bn_epilogue), BN_IDENTITY, 0, 0.01, 0, 6, NULL, 0, NULL, 0, NULL}

/* The weight of a batch in the running statistics, as the n-th that they see. The values are pinned. */
typedef enum bn_average {
    BN_AVERAGE_EXPONENTIAL = 0, /* momentum */
    BN_AVERAGE_CUMULATIVE = 1,  /* 1 / n: all batches alike; as PyTorch's momentum=None */
    BN_AVERAGE_WINDOWED = 2,    /* 1 / n, but at least momentum; as in dlib, whose window is 1 / momentum */
    BN_AVERAGE_DEBIASED = 3,    /* momentum / (1 - (1 - momentum)^n): nothing was before the first batch; as in haiku */
    BN_AVERAGE_FILLED = 4       /* 1 for the first, then momentum; as in equinox */
} bn_average;

/* The treatment of a batch of one value per channel. The values are pinned. */
typedef enum bn_single_value {
    BN_SINGLE_VALUE_ERROR = 0,   /* BN_ERROR_SINGLE_VALUE, unless BN_SOURCE_BLEND has pseudo-values beside it */
    BN_SINGLE_VALUE_RUNNING = 1, /* normalized with the running statistics, which are needed and stay as they are; to
                                    bn_backward, which is given the same bn_running, they are constants */
    BN_SINGLE_VALUE_BETA = 2     /* beta, as x_hat is 0; the running statistics stay as they are */
} bn_single_value;

/* The treatment of a batch of which some mean or variance is not finite, or would make a running statistic that is not
 * finite, once rounded to its type: a variance beyond float16, say. The values are pinned. */
typedef enum bn_nonfinite {
    BN_NONFINITE_PROPAGATE = 0, /* nothing: the running statistics of that channel become NaN or infinite */
    BN_NONFINITE_SKIP = 1,      /* the running statistics of all channels stay as they are */
    BN_NONFINITE_ERROR = 2      /* BN_ERROR_NONFINITE, and nothing is written; costs one more pass over x */
} bn_nonfinite;

/* The outcome of a batch, in bn_running. The values are pinned. */
typedef enum bn_outcome {
    BN_OUTCOME_USED = 0,      /* normalized with its own statistics, and counted */
    BN_OUTCOME_EMPTY = 1,     /* no values */
    BN_OUTCOME_RUNNING = 2,   /* one value per channel, normalized with the running statistics, which are constants to
                                 bn_backward, if it is given the same bn_running */
    BN_OUTCOME_BETA = 3,      /* one value per channel, normalized to beta */
    BN_OUTCOME_NONFINITE = 4, /* normalized with its own statistics, but not counted */
    BN_OUTCOME_BLENDED = 5    /* one value per channel, normalized with what BN_SOURCE_BLEND makes of it and the running
                                 statistics; not counted */
} bn_outcome;

/* The policy for running statistics. bn_forward_training writes what is pointed to here; bn_backward looks at
 * single_value alone, and bn_forward_inference and the steps at nothing. Only BN_OUTCOME_USED changes the running
 * statistics, and their number of batches. */
typedef struct bn_running {
    size_t struct_size;            /* sizeof(bn_running) */
    bn_average average;            /* (default BN_AVERAGE_EXPONENTIAL) */
    bn_single_value single_value;  /* (default BN_SINGLE_VALUE_ERROR) */
    bn_nonfinite nonfinite;        /* (default BN_NONFINITE_PROPAGATE) */
    int32_t reserved;              /* 0 (default 0) */
    int64_t *num_batches;          /* batches seen so far, which the call counts up: 0 to INT64_MAX less the number of
                                      groups; one for each row of running statistics. All averages but the
                                      exponential need it (default NULL) */
    /* The pure form: these take the new statistics, and running_mean, running_var and num_batches are only read. Both
     * or neither of the two, and the third where there is num_batches as well (default NULL: updated in place). */
    void *new_running_mean;
    void *new_running_var;
    int64_t *new_num_batches;
    int32_t *outcome;              /* takes a bn_outcome for each group of statistics (default NULL) */
} bn_running;

#define BN_RUNNING_INIT \
    {sizeof(bn_running), BN_AVERAGE_EXPONENTIAL, BN_SINGLE_VALUE_ERROR, BN_NONFINITE_PROPAGATE, 0, \
     NULL, NULL, NULL, NULL, NULL}

/* The source of the statistics that x is normalized with in training. The values are pinned. */
typedef enum bn_source_kind {
    BN_SOURCE_BATCH = 0,  /* mean and variance of the batch */
    BN_SOURCE_BLEND = 1,  /* (pseudo_count * running + M * batch) / (pseudo_count + M), for mean and (biased) variance,
                             M the values per channel: test-time adaptation (arXiv:2006.16971), which has momentum 0.
                             pseudo_count counts values as well: 32 images of 56 x 56 are 32 * 56 * 56. With a
                             pseudo_count above 0, M may be 1: BN_OUTCOME_BLENDED */
    BN_SOURCE_RENORM = 2, /* batch renormalization (arXiv:1702.03275): y = gamma * (x_hat * r + d) + beta, where
                             r = std / running_std                     clipped to r_min and r_max,
                             d = (mean - running_mean) / running_std   clipped to -d_max and d_max,
                             std = sqrt(var + eps), and r and d are constants to the gradient */
    BN_SOURCE_UPDATED = 3 /* the running statistics that this call updates them to, of which the batch is a part, also
                             to the gradient; as in equinox's mode "ema". Each of several groups that share running
                             statistics takes them as they were before the call */
} bn_source_kind;

/* Another source of the statistics than the batch alone, in training; bn_forward_inference takes it to say that its
 * statistics are constants, so that bn_backward after it needs no options->frozen. The running statistics, as they are
 * before the call, are needed, unless it is BN_SOURCE_BATCH. x_hat = (x - saved_mean) * saved_invstd + a shift of the
 * channel. `saved` takes this shift, and tells bn_backward for each channel how far its statistics are constants;
 * options->frozen tells it for all. An empty batch, and one whose weights are all 0, has mean 0 and variance 0 in
 * these formulas; the running statistics alone are left of BN_SOURCE_UPDATED, and of BN_SOURCE_BLEND with a
 * pseudo_count above 0. */
typedef struct bn_source {
    size_t struct_size;   /* sizeof(bn_source) */
    bn_source_kind kind;  /* (default BN_SOURCE_BATCH) */
    int32_t reserved;     /* 0 (default 0) */
    double pseudo_count;  /* finite, at least 0 (default 0) */
    double r_min;         /* 0 to 1; the paper has 1 / r_max (default 0) */
    double r_max;         /* at least 1; may be infinite (default infinity) */
    double d_max;         /* at least 0; may be infinite (default infinity) */
    double *saved;        /* written by a forward call, read by bn_backward: 4 doubles for each of saved_mean's.
                             Needed (default NULL) */
} bn_source;

#define BN_SOURCE_INIT {sizeof(bn_source), BN_SOURCE_BATCH, 0, 0, 0, HUGE_VAL, HUGE_VAL, NULL}

/* Bits of bn_groups's per_group. The values are pinned. */
typedef enum bn_per_group {
    BN_PER_GROUP_STATISTICS = 1, /* each group is normalized with its own statistics: saved_mean, saved_invstd and what
                                    bn_source saves have a row per group */
    BN_PER_GROUP_RUNNING = 2,    /* running_mean, running_var and num_batches have a row per group; with STATISTICS */
    BN_PER_GROUP_PARAMETERS = 4  /* gamma, beta, dgamma and dbeta have a row per group */
} bn_per_group;

/* The samples of a batch in groups. A sample is outer / samples outer indices: one image of NCHW or NHWC is a sample.
 *
 *     ghost batches             STATISTICS; running statistics take every group as a batch, in order, or their average
 *     segments (a type each)    all three; those of groups without samples stay as they are, and their gradients are 0
 *     split (auxiliary) BN      all three, or STATISTICS and RUNNING; the first half clean, the second adversarial, say
 *     conditional BN            PARAMETERS; a class, or a style, for each sample */
typedef struct bn_groups {
    size_t struct_size;   /* sizeof(bn_groups) */
    size_t samples;       /* at least 1, and divides outer (default 0) */
    size_t groups;        /* at least 1 (default 0) */
    const int32_t *index; /* the group of each sample, from 0 to groups - 1, fastest where neighbours are of one group;
                             NULL: groups of equal size (default NULL) */
    int32_t interleaved;  /* without index: 0: neighbours make a group (groups divides samples); 1: sample i is in group
                             i % groups, as with virtual_batch_size of tf.keras 2 (default 0) */
    int32_t per_group;    /* a sum of bn_per_group, not 0 (default BN_PER_GROUP_STATISTICS) */
    int32_t averaged;     /* without RUNNING: 1: the running statistics move once, towards the average of the groups'
                             means and variances, as with virtual_batch_size; 0: once for each group (default 0) */
    int32_t reserved;     /* 0 (default 0) */
} bn_groups;

#define BN_GROUPS_INIT {sizeof(bn_groups), 0, 0, NULL, 0, BN_PER_GROUP_STATISTICS, 0, 0}

/* The options of a call. A NULL pointer means all defaults; start from BN_OPTIONS_INIT to change one, as a structure
 * that is zero elsewhere has momentum 0:
 *
 *     bn_options options = BN_OPTIONS_INIT;
 *     options.eps = 1e-3;
 *
 * One bn_options, with all its descriptors, serves the calls of a layer: bn_forward_training, bn_backward and
 * bn_forward_inference. Each ignores what it has no use for: forward calls ignore frozen,
 * epilogue->from_output and epilogue->dz; backward and inference ignore running, but for running->single_value in
 * backward. Every field is checked all the same. Other functions
 * refuse a descriptor that would change their result, with BN_ERROR_OPTION; each structure is read once, before
 * anything is written. */
typedef struct bn_options {
    size_t struct_size;         /* sizeof(bn_options) */
    double eps;                 /* added to the variance: finite, at least 0 (default 1e-5) */
    double momentum;            /* weight of the new batch in the running statistics, 0 to 1, as in PyTorch and cuDNN:
                                   running = (1 - momentum) * running + momentum * batch. Keras, flax and ONNX give the
                                   weight of the old value: pass 1 - theirs. bn_running has other averages
                                   (default 0.1) */
    int32_t biased_running_var; /* 0: running_var takes sum((x - mean)^2) / (M - 1), as in the paper and PyTorch;
                                   1: / M, as in Keras, flax and ONNX (default 0) */
    int32_t frozen;             /* bn_backward only. 0: mean and invstd depend on x (from bn_forward_training);
                                   1: they are constants (from bn_forward_inference) (default 0) */
    bn_dtype param_dtype;       /* element type of gamma, beta, dgamma, dbeta, running_mean and running_var; 0 stands
                                   for that of the tensors, and for float32 if theirs has 16 bits (default 0) */
    int32_t reserved;           /* in place of padding: 0, or BN_ERROR_OPTION (default 0) */
    const bn_epilogue *epilogue; /* activation and residual (default NULL: none) */
    const bn_running *running;   /* policy for running statistics (default NULL: bn_running's defaults) */
    const bn_source *source;     /* source of the statistics in training (default NULL: the batch) */
    const bn_groups *groups;     /* groups of samples (default NULL: all are one) */
} bn_options;

#define BN_OPTIONS_INIT {sizeof(bn_options), 1e-5, 0.1, 0, 0, (bn_dtype)0, 0, NULL, NULL, NULL, NULL}

/* ---- The layer ----------------------------------------------------------------------------------------------- */

/* Normalizes x with the mean and the biased variance of this batch, and moves the running statistics towards them.
 *
 *     x                          the input
 *     gamma, beta                scale and shift; NULL stands for 1 and for 0
 *     running_mean, running_var  read and updated; both or neither NULL
 *     y                          the output; may be x; NULL if only the statistics are wanted
 *     saved_mean, saved_invstd   outputs for bn_backward; each may be NULL
 *
 * An empty batch (outer or inner 0) changes no running statistics, gives saved_mean 0 and saved_invstd 1 / sqrt(eps)
 * (0 if eps is 0; with a source, what that makes of them), and is BN_OK. One value per channel (outer * inner == 1) is
 * BN_ERROR_SINGLE_VALUE, unless bn_running says otherwise. Where saved_mean and saved_invstd have a row per group, an
 * empty group has those of an empty batch. Uses options: eps, momentum, biased_running_var, param_dtype, epilogue,
 * running, source, groups. */
bn_status bn_forward_training(const bn_shape *shape, bn_dtype dtype, const void *x, const void *gamma, const void *beta,
                              void *running_mean, void *running_var, void *y, double *saved_mean, double *saved_invstd,
                              const bn_options *options);

/* Like bn_forward_training, but normalizes with the running statistics, which are needed and stay as they are. Nothing
 * depends on the other values of the batch, and one value per channel is fine. saved_mean and saved_invstd, if wanted,
 * are those of the running statistics, for bn_backward with options->frozen. A negative running_var is used as it is:
 * the square root of a negative number is NaN. With groups that have statistics of their own, saved_mean and
 * saved_invstd have a row per group, all alike where the running statistics have none. Uses options: eps, param_dtype,
 * epilogue, groups, source->saved. */
bn_status bn_forward_inference(const bn_shape *shape, bn_dtype dtype, const void *x, const void *gamma,
                               const void *beta, const void *running_mean, const void *running_var, void *y,
                               double *saved_mean, double *saved_invstd, const bn_options *options);

/* Gradients of a loss with respect to x, gamma and beta, given its gradient dy with respect to y.
 *
 *     dbeta  = sum(dy)                 dgamma = sum(dy * x_hat)
 *     dx     = gamma * invstd * (dy - dbeta / M - x_hat * dgamma / M)       frozen == 0
 *     dx     = gamma * invstd * dy                                          frozen == 1
 *
 *     dy, x                      of the forward call's shape; x may be NULL if frozen is 1, dgamma is NULL, and no
 *                                activation has to be found from it
 *     gamma, beta                as in the forward call; NULL stands for 1 and for 0. beta counts where an activation
 *                                has to be found from x, or x_hat from the output
 *     saved_mean, saved_invstd   as the forward call gave them
 *     dx, dgamma, dbeta          outputs, any of which may be NULL; dx may be dy
 *
 * An empty batch gives zero dgamma and dbeta. With an activation, dy stands for dy * activation'(u) in these formulas;
 * weights, groups and sources change dx as their structures say. Shape and options are those of the forward call;
 * options->frozen is 1 after bn_forward_inference. Uses options: frozen, param_dtype, epilogue, running->single_value,
 * source, groups. */
bn_status bn_backward(const bn_shape *shape, bn_dtype dtype, const void *dy, const void *x, const void *gamma,
                      const void *beta, const double *saved_mean, const double *saved_invstd, void *dx, void *dgamma,
                      void *dbeta, const bn_options *options);

/* ---- The building blocks --------------------------------------------------------------------------------------
 *
 * The layer in steps, for a caller with an exchange of its own to put between them (several processes, several
 * micro-batches). Forward: bn_moments on each part, bn_merge_moments over the parts, bn_inverse_std, bn_normalize, and
 * bn_update_running. Backward: bn_backward_reduce on each part, the sums added up, bn_backward_apply. Weights count in
 * all of them. With an activation, call bn_backward first, with epilogue->dz as its only output: the steps begin with
 * this gradient.
 *
 * A stride is the number of doubles from a row to the next, of `channels` each; 0 stands for dense. With 3 * channels,
 * three arrays lie in one piece of memory for each part or group, as an all-gather takes and delivers them:
 *
 *     double own[3 * C], all[ranks * 3 * C];                   // count | mean | m2 of each process
 *     bn_moments(&shape, dtype, x, own, own + C, own + 2 * C, 0, NULL);
 *     MPI_Allgather(own, 3 * C, MPI_DOUBLE, all, 3 * C, MPI_DOUBLE, comm);
 *     bn_merge_moments(ranks, C, all, all + C, all + 2 * C, 3 * C, own, own + C, own + 2 * C);
 *
 * Groups that have statistics of their own have a row of them each, in every step: those that take a number of channels
 * see groups * channels. With a group for each sample, a batch has the same bits however it is parted: gather the rows
 * of all samples, in their order, merge them, and add up their sums one by one. */

/* Number of values, mean and sum of squared deviations from the mean, per channel. Empty: 0, 0 and 0.
 *
 *     count, mean, m2   outputs, none NULL; a row for each group that has statistics of its own
 *     stride            from a row to the next, of each of the three
 *
 * Uses options: groups. */
bn_status bn_moments(const bn_shape *shape, bn_dtype dtype, const void *x, double *count, double *mean, double *m2,
                     size_t stride, const bn_options *options);

/* Moments of the union of `parts` sets, in the order given (Chan, Golub and LeVeque, 1979):
 *
 *     n = n1 + n2      mean = mean1 + (mean2 - mean1) * n2 / n      m2 = m21 + m22 + (mean2 - mean1)^2 * n1 * n2 / n
 *
 *     counts, means, m2s   a row for each part; empty parts (count 0) are fine, and so is parts == 0
 *     stride               from a part's row to the next, of each of the three
 *     count, mean, m2      outputs, none NULL; each may be the first row of its inputs
 *
 * A count is 0, or 1e-150 to 1e250, as sums of weights are; any other is BN_ERROR_OPTION. */
bn_status bn_merge_moments(size_t parts, size_t channels, const double *counts, const double *means, const double *m2s,
                           size_t stride, double *count, double *mean, double *m2);

/* invstd = 1 / sqrt(m2 / count + eps), and 0 where that would divide by 0; a count of 0 counts as variance 0.
 * invstd may be m2. A count is 0, or 1e-150 to 1e250, or BN_ERROR_OPTION. Uses options: eps. */
bn_status bn_inverse_std(size_t channels, const double *count, const double *m2, double *invstd,
                         const bn_options *options);

/* y = gamma * (x - mean) * invstd + beta. gamma and beta as in bn_forward_training; mean, invstd and y are needed.
 * Uses options: param_dtype, epilogue, groups. */
bn_status bn_normalize(const bn_shape *shape, bn_dtype dtype, const void *x, const void *gamma, const void *beta,
                       const double *mean, const double *invstd, void *y, const bn_options *options);

/* sum_dy = sum(dy) and sum_dy_x_hat = sum(dy * x_hat): dbeta and dgamma of this part of the batch, unrounded.
 *
 *     sum_dy, sum_dy_x_hat   outputs; a row for each group, also of groups that share their statistics
 *     stride                 from a row to the next, of both
 *
 * All pointers are needed. Uses options: groups. */
bn_status bn_backward_reduce(const bn_shape *shape, bn_dtype dtype, const void *dy, const void *x, const double *mean,
                             const double *invstd, double *sum_dy, double *sum_dy_x_hat, size_t stride,
                             const bn_options *options);

/* dx = gamma * invstd * (dy - sum_dy / count - x_hat * sum_dy_x_hat / count), where count and the sums are those of the
 * whole batch, of which x and dy may be a part. gamma may be NULL, everything else is needed; dx may be dy. Where groups
 * have parameters of their own but share their statistics, the sums are of gamma * dy, each group's times its gamma.
 * A count is 1e-150 to 1e250, or BN_ERROR_OPTION; that of a group without samples may be 0. Uses options: param_dtype,
 * groups. */
bn_status bn_backward_apply(const bn_shape *shape, bn_dtype dtype, const void *dy, const void *x, const void *gamma,
                            const double *mean, const double *invstd, const double *count, const double *sum_dy,
                            const double *sum_dy_x_hat, void *dx, const bn_options *options);

/* running = (1 - momentum) * running + momentum * batch, where batch is mean for running_mean, and for running_var
 * m2 / (count - 1), or m2 / count if biased_running_var is 1. The running statistics are of the given dtype.
 *
 * Channels with a count of 0 stay as they are. A count above 0 and up to 1 is BN_ERROR_SINGLE_VALUE, unless
 * biased_running_var is 1; one that is not 0, or 1e-150 to 1e250, is BN_ERROR_OPTION.
 * Uses options: momentum, biased_running_var. */
bn_status bn_update_running(size_t channels, bn_dtype dtype, const double *count, const double *mean, const double *m2,
                            void *running_mean, void *running_var, const bn_options *options);

/* Weights of padded sequences: 1 at the first lengths[sample] positions of a sample, 0 at the others.
 *
 *     lengths   one per sample, at most `positions`, or BN_ERROR_OPTION
 *     weights   output, samples x positions, for tensors of this dtype: of N x T x C (outer N * T, inner 1) and of
 *               N x C x T (outer N, inner T) alike */
bn_status bn_length_weights(size_t samples, size_t positions, const size_t *lengths, bn_dtype dtype, void *weights);

/* ---- Derivatives ---------------------------------------------------------------------------------------------
 *
 * P(v) is the derivative of x_hat along a direction v of x: invstd * (v - sum(v) / M - x_hat * sum(v * x_hat) / M), or
 * invstd * v with options->frozen, where the statistics are constants. gamma, saved_mean, saved_invstd and frozen are
 * as in bn_backward, whose dx is gamma * P(dy). x may be NULL if frozen is 1 and there is no gamma_tangent, or no
 * grad_dgamma. Working memory is some numbers per channel and row of groups. Weights and descriptors other than groups
 * are BN_ERROR_OPTION. gamma, saved statistics, and directions and gradients of parameters have the rows that groups
 * say, and M and sums are of the values that share their statistics. */

/* The derivative of y along a direction of x, gamma and beta (forward mode, a Jacobian-vector product):
 *
 *     y_tangent = gamma * P(x_tangent) + gamma_tangent * x_hat + beta_tangent
 *
 *     x_tangent                    of x's shape, its outer stride dx_stride; NULL stands for 0
 *     gamma_tangent, beta_tangent  NULL stands for 0
 *     y_tangent                    output, of y's shape and stride; may be x_tangent
 *
 * Uses options: frozen, param_dtype, groups. */
bn_status bn_jvp(const bn_shape *shape, bn_dtype dtype, const void *x, const void *x_tangent, const void *gamma,
                 const void *gamma_tangent, const void *beta_tangent, const double *saved_mean,
                 const double *saved_invstd, void *y_tangent, const bn_options *options);

/* The gradients of bn_backward (double backward) with respect to its inputs, given those with respect to its outputs.
 * With U = sum(grad_dx * x_hat), G = sum(dy * x_hat) and A = sum(grad_dx * (dy - sum(dy) / M)) - U * G / M:
 *
 *     grad_dy    = gamma * P(grad_dx) + grad_dgamma * x_hat + grad_dbeta
 *     grad_gamma = invstd * A
 *     grad_x     = grad_dgamma * P(dy) - gamma * invstd / M * (U * P(dy) + G * P(grad_dx) + invstd * A * x_hat)
 *
 * and with frozen: grad_gamma = sum(grad_dx * dy) * invstd, grad_x = grad_dgamma * P(dy).
 *
 *     grad_dx                  of dx's shape and stride; NULL stands for 0
 *     grad_dgamma, grad_dbeta  NULL stands for 0
 *     dy, x                    as bn_backward was given them
 *     grad_dy                  output, of dy's shape and stride; may be grad_dx, or NULL
 *     grad_x                   output, of x's shape, its outer stride dx_stride; may be dy, or NULL
 *     grad_gamma               output; may be NULL
 *
 * Uses options: frozen, param_dtype, groups. Groups with parameters of their own that share their statistics are
 * BN_ERROR_OPTION, unless frozen is 1. */
bn_status bn_double_backward(const bn_shape *shape, bn_dtype dtype, const void *grad_dx, const void *grad_dgamma,
                             const void *grad_dbeta, const void *dy, const void *x, const void *gamma,
                             const double *saved_mean, const double *saved_invstd, void *grad_dy, void *grad_x,
                             void *grad_gamma, const bn_options *options);

/* ---- Folding --------------------------------------------------------------------------------------------------
 *
 * In inference a batch norm is y = scale * x + shift, which a linear or convolutional layer beside it can do as well.
 * Everything is computed in double and rounded once. */

/* scale = gamma / sqrt(running_var + eps) and shift = beta - running_mean * scale, where dtype is that of the
 * parameters. gamma and beta may be NULL for 1 and 0; scale and shift, outputs, are needed. A channel whose
 * running_var + eps is 0 has scale 0, as in bn_forward_inference; one where it is negative or NaN is BN_ERROR_OPTION.
 * Uses options: eps. */
bn_status bn_scale_shift(size_t channels, bn_dtype dtype, const void *gamma, const void *beta,
                         const void *running_mean, const void *running_var, double *scale, double *shift,
                         const bn_options *options);

/* The batch norm that follows a layer: folded_weight = scale_c * weight and folded_bias = scale_c * bias + shift_c.
 *
 *     shape          of the weights: channels is the layer's outputs. (1, out, in / groups * kernel) for a linear layer
 *                    and a convolution; (in, out, kernel) for a transposed one, of each of its groups
 *     weight, bias   bias has `channels` elements; NULL stands for 0
 *     scale, shift   of bn_scale_shift; what is not finite, or beyond the dtype, becomes what the formulas make of it
 *     folded_weight  output, of the stride y_stride; may be weight
 *     folded_bias    output; may be bias */
bn_status bn_fold_into_previous(const bn_shape *shape, bn_dtype dtype, const void *weight, const void *bias,
                                const double *scale, const double *shift, void *folded_weight, void *folded_bias);

/* The batch norm that a layer follows: folded_weight = scale_c * weight and folded_bias = bias + sum(shift_c * weight)
 * over the channels and the kernel. Like bn_fold_into_previous, but
 *
 *     shape          (out, in, kernel) of a linear layer or a convolution, of each of its groups: channels is its
 *                    inputs. A transposed convolution has no such shape
 *     bias           `outer` elements; NULL stands for 0
 *
 * A convolution that pads its input with zeros cannot take the batch norm before it, unless every shift is 0: the
 * folded bias would count a shift for padded positions, too. */
bn_status bn_fold_into_next(const bn_shape *shape, bn_dtype dtype, const void *weight, const void *bias,
                            const double *scale, const double *shift, void *folded_weight, void *folded_bias);

/* ---- Shapes from strides ---------------------------------------------------------------------------------------
 *
 * The bn_shape of tensors that are described by the length of each axis and its stride, as arrays of most languages are.
 * A caller that has such arrays asks here if they can go to the library as they are. */

/* Finds the extents of some tensors of one shape, and how far their outer slices lie apart.
 *
 *     rank           axes, 1 to 64
 *     sizes          their lengths; if one is 0, the batch is empty
 *     channel_axis   the first of the axes that make the channels, from 0
 *     channel_axes   how many axes make them, from that one on
 *     tensors        1 to 32
 *     strides        tensors rows of rank strides, in elements, as DLPack has them. An axis of length 1 may have any
 *     samples_outermost   1 if axis 0 has to be outermost in memory, as groups of samples need it; or 0
 *     shape          output: the extents, and x_stride, which is of the first tensor; the other members are 0
 *     outer_strides  output, one for each tensor, for y_stride, dx_stride, bn_epilogue's z_stride and dz_stride; 0 if it is
 *                    dense. May be NULL
 *
 *     int64_t sizes[] = {32, 64, 28, 28}, strides[] = {64 * 784, 784, 28, 1};     // NCHW
 *     bn_shape shape;
 *     bn_shape_from_strides(4, sizes, 1, 1, 1, strides, 0, &shape, NULL);         // 32 x 64 x 784
 *
 * The axes may be in any order in memory (NCHW, NHWC, Fortran's, a transposed view), which is the same for all tensors. The
 * channel axes lie side by side and in sequence, and there is no gap but where they begin: slices along the axes before
 * them may lie further apart. A tensor of any other kind is BN_ERROR_SHAPE, and has to be copied first. With
 * samples_outermost channel_axis is at least 1. A second tensor fits the shape of a first if both are given together.
 * Writes nothing after an error. */
bn_status bn_shape_from_strides(size_t rank, const int64_t *sizes, size_t channel_axis, size_t channel_axes,
                                size_t tensors, const int64_t *strides, int samples_outermost, bn_shape *shape,
                                size_t *outer_strides);

/* ---- The library ---------------------------------------------------------------------------------------------- */

/* BN_VERSION of the library that was loaded. It serves every program that was compiled against a header of the same
 * major version and the same or a smaller minor version. */
int bn_version(void);

/* A few words for a status, "unknown status" for any other number. The string is constant. */
const char *bn_status_string(bn_status status);

/* The message of the last call that failed on this thread, as one line of UTF-8; "" if none did. The string is
 * valid until the next call that fails on this thread, or its end. */
const char *bn_last_error(void);

/* The instruction set in use: "baseline", or on x86-64 "avx2" or "avx512". NULL, with bn_last_error() set, if
 * BATCHNORM_ISA names none that this machine has, in the process's first call if there is no memory, and in a call that
 * interrupts another one on its thread. */
const char *bn_isa_name(void);

/* Sets the number of threads that later calls may use: 1 to 1024, or 0 for the default that the environment gives.
 * Any other value is BN_ERROR_OPTION. Results do not depend on it, and no more threads are at work than the process had
 * CPUs when it made its first call. */
bn_status bn_set_num_threads(int threads);

/* The number of threads that a call may use; 0, with bn_last_error() set, if BATCHNORM_NUM_THREADS has no meaning, and
 * where bn_isa_name() is NULL for want of memory or in a call that interrupts another one. */
int bn_get_num_threads(void);

/* A caller's loop whose turns may run at once. It calls work(call, i) for every i from 0 to count - 1, once each, on any
 * threads and in any order. It returns when all of these calls have returned, neither earlier nor by a throw or a jump. On
 * the calling thread it makes no other call of this library, which would be BN_ERROR_NESTED: a pool whose threads take up
 * other tasks while they wait has to isolate the loop. */
typedef void (*bn_parallel_for)(void *context, size_t count, void (*work)(void *call, size_t i), void *call);

/* Lends threads to the library: the calls that this thread makes from now on run on those of parallel_for, and not on the
 * library's own. NULL takes them back. It is for frameworks whose threads spin between operators, so that other threads
 * would wait for a CPU.
 *
 *     context    passed to parallel_for; both have to be valid until they are taken back, or the thread ends
 *
 * A call runs the loop once or several times, each time with at most one turn for each thread that bn_set_num_threads
 * allows, and for each CPU. It does so if a tensor, or the largest of its groups, has 192 KB or more; the library's own
 * threads work from 512 KB on. Results are the same to the bit. If the loop runs its turns one after the other, or leaves
 * some out, the call is slower, but right. While the threads of one caller are at work, the calls of others run on one
 * thread each.
 *
 * The loop runs in the caller's floating-point environment. Each turn computes in the default one, and restores that of
 * its thread. A turn needs 14 KiB of stack; on the calling thread the call and a turn need 14 KiB together, and the loop
 * its own. After fork() the loop has to work in the child, too. */
bn_status bn_set_parallel_for(bn_parallel_for parallel_for, void *context);

#ifdef __cplusplus
}
#endif

#endif /* BATCHNORM_H */
