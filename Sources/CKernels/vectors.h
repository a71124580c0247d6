/* SPDX-License-Identifier: Apache-2.0
 *
 * Vector operations that Swift compiles to a call or has no word for. All other arithmetic stays in Swift, where nothing
 * is contracted to FMA.
 */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Where every CPU fuses, as arm64 does, a compiler of C would fuse whatever it is not told to leave alone. */
#pragma STDC FP_CONTRACT OFF

typedef float vector_f32x16 __attribute__((ext_vector_type(16)));
typedef double vector_f64x16 __attribute__((ext_vector_type(16)));

#define VECTOR_INLINE static inline __attribute__((always_inline))

/* SIMD16<Double>(v) is an out-of-line call per vector in Swift 6.3; this is two instructions with AVX-512. */
VECTOR_INLINE vector_f64x16 vector_widen(vector_f32x16 v) { return __builtin_convertvector(v, vector_f64x16); }
VECTOR_INLINE vector_f32x16 vector_narrow(vector_f64x16 v) { return __builtin_convertvector(v, vector_f32x16); }

/* sum + a * b where the product is exact: fusing the two operations rounds no less and no more. */
VECTOR_INLINE vector_f64x16 vector_add_product(vector_f64x16 sum, vector_f64x16 a, vector_f64x16 b) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
    return __builtin_elementwise_fma(a, b, sum);
#else
    return sum + a * b;
#endif
}

/* The first `lanes` of sixteen lanes, from 1 to 15 of them, from and to memory; the others keep `fill`, and nothing past
 * the last element is touched. A mask register does it in one instruction. Elsewhere the elements take a way over the
 * stack, in pieces of eight, four, two and one. */
#if !defined(__AVX512F__)
static __attribute__((noinline)) void vector_copy(void *to, const void *from, long lanes, size_t size) {
    char *target = (char *)to;
    const char *source = (const char *)from;
    if (lanes & 8) memcpy(target, source, 8 * size), target += 8 * size, source += 8 * size;
    if (lanes & 4) memcpy(target, source, 4 * size), target += 4 * size, source += 4 * size;
    if (lanes & 2) memcpy(target, source, 2 * size), target += 2 * size, source += 2 * size;
    if (lanes & 1) memcpy(target, source, size);
}
#endif

#if defined(__AVX512F__)

VECTOR_INLINE vector_f32x16 vector_load_f32(const float *p, long lanes, vector_f32x16 fill) {
    return (vector_f32x16)_mm512_mask_loadu_ps((__m512)fill, (__mmask16)((1u << lanes) - 1), p);
}

VECTOR_INLINE void vector_store_f32(vector_f32x16 v, float *p, long lanes) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes) - 1), (__m512)v);
}

VECTOR_INLINE vector_f64x16 vector_load_f64(const double *p, long lanes, vector_f64x16 fill) {
    unsigned mask = (1u << lanes) - 1;
    vector_f64x16 v;
    v.lo = _mm512_mask_loadu_pd((__m512d)fill.lo, (__mmask8)mask, p);
    v.hi = _mm512_mask_loadu_pd((__m512d)fill.hi, (__mmask8)(mask >> 8), p + 8);
    return v;
}

VECTOR_INLINE void vector_store_f64(vector_f64x16 v, double *p, long lanes) {
    unsigned mask = (1u << lanes) - 1;
    _mm512_mask_storeu_pd(p, (__mmask8)mask, (__m512d)v.lo);
    _mm512_mask_storeu_pd(p + 8, (__mmask8)(mask >> 8), (__m512d)v.hi);
}

#elif defined(__AVX2__)

/* The mask of eight lanes from the given one on. */
VECTOR_INLINE __m256i vector_mask(long lanes, int from) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)lanes - from), lane);
}

/* Half a mask, for elements of twice the size. */
VECTOR_INLINE __m256i vector_mask_f64(long lanes, int from) {
    return _mm256_cvtepi32_epi64(_mm256_castsi256_si128(vector_mask(lanes, from)));
}

VECTOR_INLINE vector_f32x16 vector_load_f32(const float *p, long lanes, vector_f32x16 fill) {
    __m256i low = vector_mask(lanes, 0), high = vector_mask(lanes, 8);
    fill.lo = _mm256_blendv_ps(fill.lo, _mm256_maskload_ps(p, low), (__m256)low);
    fill.hi = _mm256_blendv_ps(fill.hi, _mm256_maskload_ps(p + 8, high), (__m256)high);
    return fill;
}

VECTOR_INLINE void vector_store_f32(vector_f32x16 v, float *p, long lanes) {
    _mm256_maskstore_ps(p, vector_mask(lanes, 0), (__m256)v.lo);
    _mm256_maskstore_ps(p + 8, vector_mask(lanes, 8), (__m256)v.hi);
}

VECTOR_INLINE vector_f64x16 vector_load_f64(const double *p, long lanes, vector_f64x16 fill) {
    __m256d part[4];
    memcpy(part, &fill, sizeof part);
    for (int i = 0; i < 4; i++) {
        __m256i mask = vector_mask_f64(lanes, 4 * i);
        part[i] = _mm256_blendv_pd(part[i], _mm256_maskload_pd(p + 4 * i, mask), (__m256d)mask);
    }
    memcpy(&fill, part, sizeof part);
    return fill;
}

VECTOR_INLINE void vector_store_f64(vector_f64x16 v, double *p, long lanes) {
    __m256d part[4];
    memcpy(part, &v, sizeof part);
    for (int i = 0; i < 4; i++) _mm256_maskstore_pd(p + 4 * i, vector_mask_f64(lanes, 4 * i), part[i]);
}

#else

VECTOR_INLINE vector_f32x16 vector_load_f32(const float *p, long lanes, vector_f32x16 fill) {
    vector_copy(&fill, p, lanes, sizeof *p);
    return fill;
}

VECTOR_INLINE void vector_store_f32(vector_f32x16 v, float *p, long lanes) { vector_copy(p, &v, lanes, sizeof *p); }

VECTOR_INLINE vector_f64x16 vector_load_f64(const double *p, long lanes, vector_f64x16 fill) {
    vector_copy(&fill, p, lanes, sizeof *p);
    return fill;
}

VECTOR_INLINE void vector_store_f64(vector_f64x16 v, double *p, long lanes) { vector_copy(p, &v, lanes, sizeof *p); }

#endif

/* a > b ? c : d, lane by lane; d where there is a NaN. */
VECTOR_INLINE vector_f32x16 vector_above_f32(vector_f32x16 a, vector_f32x16 b, vector_f32x16 c, vector_f32x16 d) {
    return a > b ? c : d;
}

VECTOR_INLINE vector_f64x16 vector_above_f64(vector_f64x16 a, vector_f64x16 b, vector_f64x16 c, vector_f64x16 d) {
    return a > b ? c : d;
}

/* a == b ? c : d, and a <= b ? c : d; d where there is a NaN. */
VECTOR_INLINE vector_f64x16 vector_equal(vector_f64x16 a, vector_f64x16 b, vector_f64x16 c, vector_f64x16 d) {
    return a == b ? c : d;
}

VECTOR_INLINE vector_f64x16 vector_at_most(vector_f64x16 a, vector_f64x16 b, vector_f64x16 c, vector_f64x16 d) {
    return a <= b ? c : d;
}

typedef uint32_t vector_u32x16 __attribute__((ext_vector_type(16)));
typedef uint64_t vector_u64x16 __attribute__((ext_vector_type(16)));

/* bit ? a : b, the lowest bit for the first lane. */
VECTOR_INLINE vector_f32x16 vector_pick_f32(unsigned bits, vector_f32x16 a, vector_f32x16 b) {
    const vector_u32x16 lane = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return (lane & bits) != 0 ? a : b;
}

VECTOR_INLINE vector_f64x16 vector_pick_f64(unsigned bits, vector_f64x16 a, vector_f64x16 b) {
    const vector_u64x16 lane = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return (lane & bits) != 0 ? a : b;
}

/* Which lanes are above one number and up to another, the first one as the lowest bit. */
VECTOR_INLINE unsigned vector_between_f32(vector_f32x16 v, float low, float top) {
    const vector_u32x16 lane = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return __builtin_reduce_or(((v > low) & (v <= top)) ? lane : (vector_u32x16)0);
}

VECTOR_INLINE unsigned vector_between_f64(vector_f64x16 v, double low, double top) {
    const vector_u64x16 lane = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return (unsigned)__builtin_reduce_or(((v > low) & (v <= top)) ? lane : (vector_u64x16)0);
}

/* Whether all lanes are from one number to another. */
VECTOR_INLINE int vector_all_within(vector_f32x16 v, float low, float high) {
    return __builtin_reduce_and((v >= low) & (v <= high)) != 0;
}

/* 2^(j / 16), where the lowest four bits of v's significand are j: rounded to a float, or what that leaves out. */
VECTOR_INLINE vector_f32x16 vector_sixteenth(vector_f32x16 v, int is_rest) {
    const vector_f32x16 rounded = {
        0x1.000000p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fe0p+0f, 0x1.3dea64p+0f,
        0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
        0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};
    const vector_f32x16 rests = {
        0x0.0p+0f, 0x1.9f3122p-25f, -0x1.c15742p-27f, 0x1.ceac48p-25f, 0x1.4636e2p-25f, 0x1.824684p-25f,
        -0x1.593abcp-25f, -0x1.5bd5ecp-27f, 0x1.9fcef4p-26f, -0x1.829fd0p-25f, 0x1.15506ep-27f, 0x1.51f848p-27f,
        -0x1.a94b14p-26f, -0x1.3d56b2p-27f, -0x1.822dbcp-27f, 0x1.52486cp-27f};
    const vector_f32x16 table = is_rest ? rests : rounded;
#if defined(__AVX512F__)
    return (vector_f32x16)_mm512_permutexvar_ps((__m512i)v, (__m512)table);
#elif defined(__AVX2__)
    const __m256i indices[] = {(__m256i)v.lo, (__m256i)v.hi};
    __m256 half[2];
    for (int i = 0; i < 2; i++) {
        __m256 low = _mm256_permutevar8x32_ps(table.lo, indices[i]), high = _mm256_permutevar8x32_ps(table.hi, indices[i]);
        half[i] = _mm256_blendv_ps(low, high, (__m256)_mm256_slli_epi32(indices[i], 28));
    }
    v.lo = half[0], v.hi = half[1];
    return v;
#else
    float values[16], found[16];
    vector_u32x16 bits;
    memcpy(values, &table, sizeof values);
    memcpy(&bits, &v, sizeof bits);
    for (int i = 0; i < 16; i++) found[i] = values[bits[i] & 15];
    memcpy(&v, found, sizeof v);
    return v;
#endif
}

/* a * 2^n, where the lowest bits of v's significand are n, followed by four others. */
VECTOR_INLINE vector_f32x16 vector_raise(vector_f32x16 a, vector_f32x16 v) {
    vector_u32x16 bits, n;
    memcpy(&bits, &a, sizeof bits);
    memcpy(&n, &v, sizeof n);
    bits += n >> 4 << 23;
    memcpy(&a, &bits, sizeof a);
    return a;
}

/* 2^n, where the lowest bits of v's significand are n: its exponent's. */
VECTOR_INLINE vector_f64x16 vector_power(vector_f64x16 v) {
    vector_u64x16 bits;
    memcpy(&bits, &v, sizeof bits);
    bits = (bits << 52) + 0x3ff0000000000000;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* To memory past the caches; p is a multiple of 64 bytes. */
VECTOR_INLINE void vector_stream_f32(vector_f32x16 v, float *p) {
    __builtin_nontemporal_store(v, (vector_f32x16 *)p);
}

VECTOR_INLINE void vector_stream_f64(vector_f64x16 v, double *p) {
    typedef double half __attribute__((ext_vector_type(8)));
    __builtin_nontemporal_store((half)v.lo, (half *)p);
    __builtin_nontemporal_store((half)v.hi, (half *)(p + 8));
}

/* Orders the streamed values before whatever is stored next. */
VECTOR_INLINE void vector_stream_end(void) {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

/* Fetches what is read or written next to the first cache, and data beyond this cache's contents to the second. */
VECTOR_INLINE void vector_prefetch_soon(const void *p) { __builtin_prefetch(p, 0, 3); }
VECTOR_INLINE void vector_prefetch(const void *p) { __builtin_prefetch(p, 0, 2); }

/* One instruction, where Double.squareRoot() in Embedded Swift keeps a call of libm for negative numbers. */
VECTOR_INLINE double vector_square_root(double v) { return __builtin_elementwise_sqrt(v); }
VECTOR_INLINE vector_f64x16 vector_square_roots(vector_f64x16 v) { return __builtin_elementwise_sqrt(v); }

#endif
