/* SPDX-License-Identifier: Apache-2.0
 *
 * The seam between the engine and the loops. The same Swift sources are compiled once per instruction set; the engine
 * reaches them through these C declarations alone, so that no loop is ever re-compiled with the engine's flags.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>

/* The 16-bit elements are computed with in float32. */
enum kernel_element { KERNEL_FLOAT32, KERNEL_FLOAT64, KERNEL_FLOAT16, KERNEL_BFLOAT16 };

/* How channels lie in a tile. */
enum kernel_layout {
    KERNEL_PLANES, /* a channel is a stretch of every run (NCHW) */
    KERNEL_ROWS    /* each column of all runs is a channel (NHWC, NC), or an element of a short plane */
};

/* One tensor's part of a tile: its first element, and the elements from one run to the next; and what is asked for early,
 * as so many elements on from those in hand, and from those in the last run. */
typedef struct kernel_operand {
    void *base;
    size_t stride;
    size_t ahead, last;
} kernel_operand;

/* `runs` runs, each of `stretches` stretches of `length` consecutive elements, `pitch` elements apart. For planes a stretch
 * is a channel; for rows there is one stretch, and a channel is a column. A loop reads and writes only the operands that
 * it names. */
typedef struct kernel_tile {
    enum kernel_element element;
    enum kernel_layout layout;
    size_t runs, stretches, pitch, length;
    /* runs of rows that a reduction sums before the next column: it decides bits, and follows from the whole shape */
    size_t band;
    kernel_operand x, dy, out;
    /* whether `out` is better written past the caches */
    int streams;
    /* whether vectors of `out` are better written where cache lines begin, and coefficients lie as `out` does */
    int aligns;
} kernel_tile;

/* An element for each channel of a tile, or for each column. For rows, whole vectors are read from the last columns on,
 * wherever those begin, and written to sums: the arrays go on for a vector, with anything in it. */
typedef struct kernel_channels {
    /* what a reduction subtracts from x, and its two results */
    const double *centre;
    double *first, *second;
    /* coefficients of a map, of the type that the tile's elements are computed with */
    const void *mean, *scale, *shift, *dy_mean, *slope;
} kernel_channels;

typedef void (*kernel_loop)(const kernel_tile *tile, const kernel_channels *channels);

typedef struct kernel_table {
    /* first = sum(x), second = sum(x^2), not of float64: what deviation_sums gives, to the bit, where every centre is 0 */
    kernel_loop power_sums;
    /* first = sum(x - centre), second = sum((x - centre)^2), of float32 and float64; centre is a value of the type */
    kernel_loop deviation_sums;
    /* first = sum(dy), second = sum(dy * x), not of float64: what gradient_sums gives, to the bit, where every centre is 0 */
    kernel_loop product_sums;
    /* first = sum(dy), second = sum(dy * (x - centre)), of float32 and float64 */
    kernel_loop gradient_sums;
    /* out = (x - mean) * scale + shift */
    kernel_loop normalize;
    /* out = (((dy - dy_mean) - (x - mean) * slope) + shift) * scale */
    kernel_loop gradient;
    /* each of `channels` elements so many times in a row; up to fifteen elements more are written */
    void (*spread)(enum kernel_element element, const void *source, size_t channels, size_t columns, void *target);
} kernel_table;

/* One per instruction set: fills in its loops. */
void kernels_baseline(kernel_table *table);
void kernels_avx2(kernel_table *table);
void kernels_avx512(kernel_table *table);

#endif
