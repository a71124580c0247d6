/* SPDX-License-Identifier: Apache-2.0
 *
 * CPython's and NumPy's objects, as far as the built-in functions of the Python package look into them. It is how a
 * compiled extension sees them, and the same from Python 3.9 and NumPy 1.24 on; the package compares it with the
 * interpreter that it runs in before a first call. Only interpreters with a global lock have objects of this form.
 */
#ifndef PYTHON_H
#define PYTHON_H

#include <stddef.h>
#include <stdint.h>

typedef struct python_object {
    intptr_t references;
    const void *type;
} python_object;

/* numpy.ndarray. Strides are in bytes. */
typedef struct python_array {
    python_object object;
    void *data;
    int rank;
    const intptr_t *sizes, *strides;
    const void *base, *dtype;
    int flags;
} python_array;

enum { python_array_is_writeable = 0x400 };

/* DLPack's DLTensor. Strides are in elements. */
typedef struct python_tensor {
    void *data;
    int32_t device, device_id, rank;
    uint8_t code, bits;
    uint16_t lanes;
    const intptr_t *sizes, *strides;
    uint64_t offset;
} python_tensor;

typedef struct python_float {
    python_object object;
    double value;
} python_float;

typedef struct python_bytes {
    python_object object;
    intptr_t size, hash;
    /* then the bytes */
} python_bytes;

/* A ctypes.Structure: the `self` of the functions is one that holds a python_interpreter. */
typedef struct python_structure {
    python_object object;
    const void *memory;
} python_structure;

/* Objects and functions of the interpreter, by address: nothing of it is linked. */
typedef struct python_interpreter {
    const void *none, *yes, *no;
    const void *array, *real, *integer, *text; /* the types ndarray, float, int, bytes */
    const void *dtypes[5];             /* numpy.dtype objects, by bn_dtype; NULL for one that is not known */
    const void *tensors[2];            /* the types torch.Tensor and torch.nn.Parameter, or NULL; their package */
    int (*open_tensor)(const void *, python_tensor *); /* describes them: DLPack's dltensor_from_py_object_no_sync */
    void *(*save_thread)(void);
    void (*restore_thread)(void *);
    void *(*new_bytes)(const void *, intptr_t);
    void (*clear_error)(void);
    long (*as_long)(const void *, int *);
    void (*retain)(void *);
    void (*release)(void *);
} python_interpreter;

/* The start of the bytes that a forward call returns. Then follow the sizes of x, mean and invstd in doubles, and copies of
   gamma and beta. */
typedef struct python_record {
    int8_t axis; /* as it was given: below 0 from the end */
    uint8_t dtype, parameter, has; /* has: the bits below */
    int32_t rank;
    int64_t channels;
} python_record;

enum {
    python_record_has_gamma = 1,
    python_record_has_beta = 2,
    python_record_is_frozen = 4,
    python_record_is_in_place = 8 /* y was written over x */
};

/* Built-in functions (METH_FASTCALL). Their arguments, by position:
 *
 *     forward_training    x, gamma, beta, running_mean, running_var, y, axis, momentum, eps, unbiased
 *     forward_inference   x, gamma, beta, running_mean, running_var, y, axis, eps, records
 *     backward            dy, x, record, dx, dgamma, dbeta
 *
 * They return a record in bytes, or True where there is none; or None for anything but plain arrays, and for what the
 * library refuses: then nothing was written, and the package goes the long way, which has the messages. */
void *batchnorm_python_forward_training(const void *self, const void *const *arguments, intptr_t count);
void *batchnorm_python_forward_inference(const void *self, const void *const *arguments, intptr_t count);
void *batchnorm_python_backward(const void *self, const void *const *arguments, intptr_t count);

#endif
