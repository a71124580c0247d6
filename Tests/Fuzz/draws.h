/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the choices come from: a fuzzer's bytes as long as there are any, then random numbers. Numbers in bulk are random
 * from the first, so that few bytes say much about a call. */
#ifndef DRAWS_H
#define DRAWS_H

#include <stddef.h>
#include <stdint.h>

static struct draws {
    const uint8_t *bytes;
    size_t left;
    uint64_t state;
} draws;

/* splitmix64 (Steele, Lea and Flood, 2014) */
static inline uint64_t noise(void) {
    draws.state += 0x9E3779B97F4A7C15u;
    uint64_t z = draws.state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* A number below `end`, from as many bytes as that needs; the lowest numbers are a little more frequent. */
static inline size_t below(size_t end) {
    uint64_t drawn = 0;
    size_t width = end <= 256 ? 1 : end <= 65536 ? 2 : 8;
    if (draws.left == 0) return (size_t)((noise() >> 11) % end);
    for (size_t i = 0; i < width && draws.left > 0; i++, draws.left--) drawn = drawn << 8 | *draws.bytes++;
    return (size_t)(drawn % end);
}

static inline size_t between(size_t least, size_t most) { return least + below(most - least + 1); }
static inline int percent(int share) { return below(100) < (size_t)share; }

#define ONE_OF(type, ...) (((const type[]){__VA_ARGS__})[below(sizeof(((const type[]){__VA_ARGS__})) / sizeof(type))])

/* Call number `number` of a seed, the same alone and after others. */
static inline void draw_from_seed(uint64_t seed, uint64_t number) {
    draws = (struct draws){NULL, 0, seed * 0xD1342543DE82EF95u + number};
    draws.state = noise();
}

static inline void draw_from_bytes(const uint8_t *bytes, size_t count) {
    draws = (struct draws){bytes, count, count};
}

#endif
