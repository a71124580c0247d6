/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of batchnorm.wasm beside the library: the structures of batchnorm.h for JavaScript, which then need not know
 * how they are laid out; and what the C library would ask of WASI, which no browser has.
 */
#include <batchnorm.h>

/* One of each will do: there is one thread, and no call begins within another. */
const bn_shape *module_shape(size_t outer, size_t channels, size_t inner, size_t x_stride, size_t y_stride,
                             size_t dx_stride, const bn_weights *weights) {
    static bn_shape shape;
    shape = (bn_shape){sizeof shape, outer, channels, inner, x_stride, y_stride, dx_stride, weights};
    return &shape;
}

/* Outer, channels and inner, then the outer stride of each tensor, of which there are up to five; NULL if the library
 * refuses. */
const size_t *module_extents(size_t rank, const int64_t *sizes, size_t axis, size_t tensors, const int64_t *strides,
                             int samples_outermost) {
    static size_t found[3 + 5];
    bn_shape shape;
    if (bn_shape_from_strides(rank, sizes, axis, 1, tensors, strides, samples_outermost, &shape, found + 3) != BN_OK)
        return NULL;
    found[0] = shape.outer;
    found[1] = shape.channels;
    found[2] = shape.inner;
    return found;
}

const bn_weights *module_weights(const void *values, bn_masked masked) {
    static bn_weights weights;
    weights = (bn_weights){sizeof weights, values, masked, 0};
    return &weights;
}

const bn_groups *module_groups(size_t samples, size_t groups, const int32_t *index, int32_t interleaved,
                               int32_t per_group, int32_t averaged) {
    static bn_groups made;
    made = (bn_groups){sizeof made, samples, groups, index, interleaved, per_group, averaged, 0};
    return &made;
}

const bn_epilogue *module_epilogue(bn_activation activation, double slope, double low, double high, const void *z,
                                   size_t z_stride, void *dz, size_t dz_stride, uint8_t *mask) {
    static bn_epilogue epilogue;
    epilogue = (bn_epilogue){sizeof epilogue, activation, 0, slope, low, high, z, z_stride, dz, dz_stride, mask};
    return &epilogue;
}

const bn_options *module_options(double eps, double momentum, int32_t biased_running_var, int32_t frozen,
                                 bn_dtype param_dtype, const bn_epilogue *epilogue, const bn_groups *groups) {
    static bn_options options;
    options = (bn_options)BN_OPTIONS_INIT;
    options.eps = eps;
    options.momentum = momentum;
    options.biased_running_var = biased_running_var;
    options.frozen = frozen;
    options.param_dtype = param_dtype;
    options.epilogue = epilogue;
    options.groups = groups;
    return &options;
}

/* There is no environment. */
char *getenv(const char *name) { return (void)name, NULL; }

/* snprintf brings the standard streams along, to which nobody writes: these take the place of their imports. */
enum { BAD_DESCRIPTOR = 8 };

int32_t __imported_wasi_snapshot_preview1_fd_write(int32_t file, int32_t parts, int32_t count, int32_t written) {
    return (void)file, (void)parts, (void)count, (void)written, BAD_DESCRIPTOR;
}

int32_t __imported_wasi_snapshot_preview1_fd_seek(int32_t file, int64_t offset, int32_t whence, int32_t position) {
    return (void)file, (void)offset, (void)whence, (void)position, BAD_DESCRIPTOR;
}

int32_t __imported_wasi_snapshot_preview1_fd_close(int32_t file) { return (void)file, BAD_DESCRIPTOR; }
