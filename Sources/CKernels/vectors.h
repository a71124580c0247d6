/* SPDX-License-Identifier: Apache-2.0
 *
 * Vector operations that Swift compiles to a call or has no word for. Arithmetic stays in Swift, where nothing is
 * contracted to FMA.
 */
#ifndef VECTORS_H
#define VECTORS_H

typedef float vector_f32x16 __attribute__((ext_vector_type(16)));
typedef double vector_f64x16 __attribute__((ext_vector_type(16)));

/* SIMD16<Double>(v) is an out-of-line call per vector in Swift 6.3; this is two instructions with AVX-512. */
static inline __attribute__((always_inline)) vector_f64x16 vector_widen(vector_f32x16 v) {
    return __builtin_convertvector(v, vector_f64x16);
}

/* One instruction, where Double.squareRoot() in Embedded Swift keeps a call of libm for negative numbers. */
static inline __attribute__((always_inline)) double vector_square_root(double v) {
    return __builtin_elementwise_sqrt(v);
}

#endif
