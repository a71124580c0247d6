/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of batchnorm.wasm beside the library: the structures of batchnorm.h for JavaScript, which then need not know
 * how they are laid out; and what the C library would ask of WASI, which no browser has.
 */
#include <batchnorm.h>

/* One of each will do: there is one thread, and no call begins within another. */
const bn_shape *module_shape(size_t outer, size_t channels, size_t inner) {
    static bn_shape shape;
    shape = (bn_shape)BN_SHAPE(outer, channels, inner);
    return &shape;
}

const bn_epilogue *module_epilogue(bn_activation activation, double slope, double low, double high, const void *z,
                                   void *dz) {
    static bn_epilogue epilogue;
    epilogue = (bn_epilogue)BN_EPILOGUE_INIT;
    epilogue.activation = activation;
    epilogue.slope = slope;
    epilogue.low = low;
    epilogue.high = high;
    epilogue.z = z;
    epilogue.dz = dz;
    return &epilogue;
}

const bn_options *module_options(double eps, double momentum, int32_t biased_running_var, int32_t frozen,
                                 bn_dtype param_dtype, const bn_epilogue *epilogue) {
    static bn_options options;
    options = (bn_options)BN_OPTIONS_INIT;
    options.eps = eps;
    options.momentum = momentum;
    options.biased_running_var = biased_running_var;
    options.frozen = frozen;
    options.param_dtype = param_dtype;
    options.epilogue = epilogue;
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
