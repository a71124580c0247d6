/* SPDX-License-Identifier: Apache-2.0
 *
 * XLA's foreign functions, as far as the handlers of the Python package look into a call: the structures of version 0 of
 * its C interface, whose members keep their places in all of its minor versions. Nothing of XLA is needed or linked; an
 * error is made by a function that the call brings along.
 */
#ifndef XLA_H
#define XLA_H

#include <stddef.h>
#include <stdint.h>

typedef struct xla_extension {
    size_t struct_size;
    int type;
    struct xla_extension *next;
} xla_extension;

typedef struct xla_version {
    size_t struct_size;
    xla_extension *extensions;
    int major, minor;
} xla_version;

typedef struct xla_error {
    size_t struct_size;
    xla_extension *extensions;
    const char *message;
    int code;
} xla_error;

typedef struct xla_api {
    size_t struct_size;
    xla_extension *extensions;
    xla_version version;
    const void *internal;
    void *(*create_error)(xla_error *);
    /* more functions, which no handler calls */
} xla_api;

typedef struct xla_buffer {
    size_t struct_size;
    xla_extension *extensions;
    int dtype;
    void *data;
    int64_t rank;
    const int64_t *sizes; /* the memory is dense, the last axis fastest */
} xla_buffer;

/* Operands, or results: pointers to buffers, where their kind is 1. */
typedef struct xla_list {
    size_t struct_size;
    xla_extension *extensions;
    int64_t count;
    const int *kinds;
    const xla_buffer *const *buffers;
} xla_list;

typedef struct xla_name {
    const char *bytes;
    size_t length;
} xla_name;

typedef struct xla_scalar {
    int dtype;
    const void *value;
} xla_scalar;

typedef struct xla_attributes {
    size_t struct_size;
    xla_extension *extensions;
    int64_t count;
    const int *kinds;
    const xla_name *const *names;
    const xla_scalar *const *scalars; /* where the kind is xla_is_scalar */
} xla_attributes;

typedef struct xla_call {
    size_t struct_size;
    xla_extension *extensions; /* one of them asks for xla_metadata, when the function is registered */
    const xla_api *api;
    const void *context;
    int stage;
    xla_list operands, results;
    xla_attributes attributes;
} xla_call;

typedef struct xla_metadata {
    size_t struct_size;
    xla_version version; /* output: that of the interface that the handler is made for */
    uint32_t traits;     /* output: none */
} xla_metadata;

typedef struct xla_metadata_extension {
    xla_extension extension;
    xla_metadata *metadata;
} xla_metadata_extension;

enum { xla_major = 0, xla_minor = 1, xla_extension_metadata = 1, xla_is_buffer = 1, xla_is_scalar = 3, xla_executes = 3 };
enum { xla_s64 = 5, xla_u32 = 8, xla_f16 = 10, xla_f32 = 11, xla_f64 = 12, xla_bf16 = 16 };
enum { xla_invalid_argument = 3, xla_resource_exhausted = 8, xla_failed_precondition = 9, xla_unimplemented = 12 };
enum { xla_most_buffers = 16 };

/* The memory of a call's operands and then its results, for one element of the axes that jax.vmap has added. */
typedef struct xla_memory {
    void *of[xla_most_buffers];
} xla_memory;

/* Handlers. A double is two words of 32 bits, as JAX has no float64 unless it is told to. These are, beside tensors of
 * x's shape and arrays of one element per channel:
 *
 *     saved      2 x C doubles: mean and invstd
 *     moments    3 x parts x C doubles: count, mean and m2 of parts of a batch
 *     sums       2 x parts x C doubles: sum(dy) and sum(dy * x_hat) of parts of a batch
 *     merged     the moments of all parts together, 3 x C doubles; total, such sums, 2 x C
 *
 * All buffers may have more axes in front, as many as another: those of jax.vmap, of length 1 where all of them see the
 * same numbers. Attributes are 64-bit integers: `rank` and `axis` are those of x without these axes, `eps` has the bits
 * of a double, and bit i of `given` says if the i-th of the operands in brackets is there, or if the i-th result is.
 *
 *     forward           x, gamma, beta                            ->  y, saved, mean, var
 *     inference         x, gamma, beta, mean, var                 ->  y
 *     tangent           [x_tangent, gamma_tangent, beta_tangent], x, gamma, saved      ->  y_tangent
 *     backward          dy, x, gamma, saved                       ->  [dx, dgamma, dbeta]
 *     double_backward   [grad_dx, grad_dgamma], dy, x, gamma, saved                    ->  grad_x, grad_gamma
 *
 * and the steps of a batch on several devices. Parts are equal slices of x along its first axis:
 *
 *     moments           x                                         ->  moments
 *     normalize         x, gamma, beta, moments                   ->  y, saved, mean, var, merged
 *     reduce            dy, x, saved                              ->  sums, and dgamma and dbeta of x alone
 *     apply             dy, x, gamma, saved, merged, sums         ->  dx, total
 */
void *batchnorm_xla_forward(const xla_call *call);
void *batchnorm_xla_inference(const xla_call *call);
void *batchnorm_xla_tangent(const xla_call *call);
void *batchnorm_xla_backward(const xla_call *call);
void *batchnorm_xla_double_backward(const xla_call *call);
void *batchnorm_xla_moments(const xla_call *call);
void *batchnorm_xla_normalize(const xla_call *call);
void *batchnorm_xla_reduce(const xla_call *call);
void *batchnorm_xla_apply(const xla_call *call);

#endif
