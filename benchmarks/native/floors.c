/* SPDX-License-Identifier: Apache-2.0
 *
 * The least time that memory allows: passes over tensors that do nothing but move them. Each returns the seconds that
 * `times` passes took. Threads take equal parts, cut at cache lines. */
#include <omp.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* One cache line of bits. Sums are of integers: nothing here may be slowed down by arithmetic or by subnormals. */
typedef uint32_t line __attribute__((vector_size(64), aligned(4)));

static void store_past_cache(unsigned char *to, line value) {
#if defined(__AVX512F__)
    _mm512_stream_si512((void *)to, (__m512i)value);
#elif defined(__SSE2__)
    __m128i part[4];
    memcpy(part, &value, sizeof part);
    for (int i = 0; i < 4; i++) _mm_stream_si128((__m128i *)to + i, part[i]);
#else
    memcpy(to, &value, sizeof value);
#endif
}

static line load(const unsigned char *from) {
    line value;
    memcpy(&value, from, sizeof value);
    return value;
}

static void copy(unsigned char *out, const unsigned char *a, const unsigned char *b, size_t size) {
    (void)b;
    memcpy(out, a, size);
}

/* Eight chains, because one addition waits for the one before. */
static void read_all(const unsigned char *from, size_t size) {
    line a = {0}, b = {0}, c = {0}, d = {0}, e = {0}, f = {0}, g = {0}, h = {0};
    for (const unsigned char *end = from + size / 512 * 512; from < end; from += 512) {
        a += load(from), b += load(from + 64), c += load(from + 128), d += load(from + 192);
        e += load(from + 256), f += load(from + 320), g += load(from + 384), h += load(from + 448);
    }
    a += b + c + d + e + f + g + h;
    __asm__ volatile("" : : "m"(a));
}

static void read_then_copy(unsigned char *out, const unsigned char *a, const unsigned char *b, size_t size) {
    (void)b;
    read_all(a, size);
    memcpy(out, a, size);
}

static void read_only(unsigned char *out, const unsigned char *a, const unsigned char *b, size_t size) {
    (void)out, (void)b;
    read_all(a, size);
}

static void add(unsigned char *out, const unsigned char *a, const unsigned char *b, size_t size) {
    size_t i = 0;
    for (; i + 64 <= size; i += 64) {
        line sum = load(a + i) + load(b + i);
        memcpy(out + i, &sum, sizeof sum);
    }
    for (; i < size; i++) out[i] = (unsigned char)(a[i] + b[i]);
}

static void add_past_cache(unsigned char *out, const unsigned char *a, const unsigned char *b, size_t size) {
    size_t i = 0, head = -(uintptr_t)out % 64;
    for (; i < head && i < size; i++) out[i] = (unsigned char)(a[i] + b[i]);
    for (; i + 64 <= size; i += 64) store_past_cache(out + i, load(a + i) + load(b + i));
    for (; i < size; i++) out[i] = (unsigned char)(a[i] + b[i]);
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

typedef void pass(unsigned char *out, const unsigned char *a, const unsigned char *b, size_t size);
static pass *const passes[] = {copy, read_then_copy, add, add_past_cache, read_only};

static void share(pass *function, unsigned char *out, const unsigned char *a, const unsigned char *b, size_t size,
                  int threads) {
    /* A thread that gets less than a page costs more than it brings. */
    if (threads == 1 || size < 4096 * (size_t)threads) {
        function(out, a, b, size);
        return;
    }
    size_t part = (size / (size_t)threads + 63) / 64 * 64;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int i = 0; i < threads; i++) {
        size_t start = part * (size_t)i, rest = start < size ? size - start : 0;
        function(out + start, a + start, b + start, rest < part ? rest : part);
    }
}

double repeat_pass(int which, long times, void *out, const void *a, const void *b, size_t size, int threads) {
    double start = omp_get_wtime();
    for (long i = 0; i < times; i++) {
        share(passes[which], out, a, b, size, threads);
        __asm__ volatile("" : : : "memory");
    }
    return omp_get_wtime() - start;
}
