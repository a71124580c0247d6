/* SPDX-License-Identifier: Apache-2.0
 *
 * The seam between the engine and the loops. The same Swift sources are compiled once per instruction set; the engine
 * reaches them through these C declarations alone, so that no loop is ever re-compiled with the engine's flags.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>

/* Swift sees enumerations that have no other members than these: a switch that forgets one does not compile. */
#define MEMBER(name) __attribute__((swift_name(name)))
#define CLOSED __attribute__((enum_extensibility(closed)))

/* The 16-bit elements are computed with in float32. */
enum CLOSED kernel_element {
    KERNEL_FLOAT32 MEMBER("float32"),
    KERNEL_FLOAT64 MEMBER("float64"),
    KERNEL_FLOAT16 MEMBER("float16"),
    KERNEL_BFLOAT16 MEMBER("bfloat16")
};

/* The order of channels in a tile. */
enum CLOSED kernel_layout {
    KERNEL_PLANES MEMBER("planes"), /* a channel is a segment of every run (NCHW) */
    KERNEL_ROWS MEMBER("rows")      /* each column of all runs is a channel (NHWC, NC), or an element of a short plane */
};

/* One tensor's part of a tile: its first element, and the elements from one run to the next; and what is asked for early,
 * as so many elements on from those in hand, and from those in the last run, which for an output is as any other. */
typedef struct kernel_operand {
    void *base;
    size_t stride;
    size_t prefetch, prefetch_last;
} kernel_operand;

/* The activation that follows normalization. */
enum CLOSED kernel_activation {
    KERNEL_IDENTITY MEMBER("identity"),
    KERNEL_CLIP MEMBER("clip"),
    KERNEL_LEAKY MEMBER("leaky"),
    KERNEL_HARD_SWISH MEMBER("hardSwish"),
    KERNEL_SILU MEMBER("silu")
};

/* y at positions of weight 0. */
enum CLOSED kernel_masked {
    KERNEL_MASKED_NORMALIZE MEMBER("normalize"),
    KERNEL_MASKED_ZERO MEMBER("zero"),
    KERNEL_MASKED_KEEP MEMBER("keep")
};

/* The steps besides normalizing, the same for all tiles of a call. */
typedef struct kernel_epilogue {
    enum kernel_activation activation;
    enum kernel_masked masked;
    /* of KERNEL_LEAKY, and of KERNEL_CLIP; the gradient passes above low up to top, the number before high, or infinity */
    double slope, low, high, top;
    /* whether x is the output, of which the activation has to be undone */
    int from_output;
    /* a vector of the element that stands for no z: -0, which changes nothing it is added to */
    const void *zeros;
    /* whether the gradient goes through no statistics: out = g * scale */
    int frozen;
} kernel_epilogue;

/* Which gradients pass the activation, a bit for each element: the first one's place, and the bits between runs. */
typedef struct kernel_bits {
    const unsigned char *base;
    size_t first, stride;
} kernel_bits;

/* `runs` runs, each of `segments` segments of `length` consecutive elements, `pitch` elements apart. For planes a segment
 * is a channel; for rows there is one segment, and a channel is a column. A loop reads and writes only the operands that
 * it names. */
typedef struct kernel_tile {
    enum kernel_element element;
    enum kernel_layout layout;
    size_t runs, segments, pitch, length;
    /* runs of rows that a reduction sums before the next column: it decides bits, and follows from the whole shape */
    size_t band;
    kernel_operand x, dy, out;
    /* of loops with an epilogue; each may be absent */
    kernel_operand z, dz;
    kernel_bits bits;
    /* a weight for each position, of the type that elements are computed with: its stride is from run to run */
    kernel_operand weights;
    const kernel_epilogue *epilogue;
    /* whether `out` is better written past the caches */
    int streams;
    /* whether vectors of `out` are better written where cache lines begin, and coefficients lie as `out` does */
    int aligns;
    /* of rows whose output begins at one place of a cache line: how many are written before the next four vectors of each,
     * by loops that have a way for that; 0 if each is written whole */
    size_t panel;
} kernel_tile;

/* An element for each channel of a tile, or for each column. For rows, whole vectors are read from the last columns on,
 * wherever those begin, and written to sums: the arrays go on for a vector, with anything in it. */
typedef struct kernel_channels {
    /* what a reduction subtracts from x, and its two results */
    const double *pivot;
    double *first, *second;
    /* coefficients of a map, of the type that the tile's elements are computed with */
    const void *mean, *scale, *shift, *dy_mean, *slope;
    /* what an activation's argument is computed with, in a gradient; and the factor of what passes it */
    const void *u_scale, *u_shift, *gain;
    /* besides, of a combination, whose coefficients are all of double */
    const void *invstd, *z_mean;
} kernel_channels;

/* The coefficients of a map as the steps below write them, from a channel on, of float32; and whether that type cannot
 * express them. */
typedef struct kernel_coefficients {
    void *mean, *scale, *shift, *dy_mean, *slope;
    unsigned char *extremes;
} kernel_coefficients;

/* Channels between the reduction of x and the map to y. Parameters and running statistics are of float32. */
typedef struct kernel_forward_step {
    kernel_coefficients map;
    /* the moments of the batch; or, if they are there, the running statistics of an evaluation */
    double count, eps;
    const double *mean, *mean_tail, *m2;
    const void *running_mean, *running_var;
    const void *gamma, *beta;
    double *saved_mean, *saved_invstd;
    /* running statistics that move towards those of the batch, whose variance is m2 / divisor */
    void *moved_mean, *moved_var;
    double momentum, divisor;
} kernel_forward_step;

/* Channels between the reduction of dy and the map to dx: sums of dy and of dy * (x - mean). */
typedef struct kernel_backward_step {
    kernel_coefficients map;
    double count;
    const double *sum_dy, *sum_dy_centred, *mean, *invstd;
    const void *gamma;
    void *dgamma, *dbeta;
} kernel_backward_step;

/* The sums of a block, and the moments of all blocks so far, which they join. */
typedef struct kernel_fold {
    double own, before; /* numbers of values */
    const double *pivot, *sum, *squares;
    double *mean, *mean_tail, *m2;
} kernel_fold;

/* Sums of dy and of dy * (x - pivot) of a block, and those of all blocks so far, about the means, which they join. */
typedef struct kernel_gradient_fold {
    int is_first; /* there is no block before */
    const double *pivot, *sum, *products, *mean;
    double *sum_dy, *sum_dy_centred;
} kernel_gradient_fold;

/* Three float32 values of each channel, side by side, and what becomes of them. */
typedef struct kernel_pivots {
    const void *samples[3];
    double ratio;
    const double *mean, *invstd; /* of gradient_pivots */
    double *pivots;
} kernel_pivots;

typedef void (*kernel_loop)(const kernel_tile *tile, const kernel_channels *channels);

typedef struct kernel_table {
    /* first = sum(x), second = sum(x^2), not of float64: what deviation_sums gives, to the bit, where every pivot is 0 */
    kernel_loop power_sums;
    /* first = sum(x - pivot), second = sum((x - pivot)^2), of float32 and float64; pivot is a value of the type */
    kernel_loop deviation_sums;
    /* first = sum(dy), second = sum(dy * x), not of float64: what gradient_sums gives, to the bit, where every pivot is 0 */
    kernel_loop product_sums;
    /* first = sum(dy), second = sum(dy * (x - pivot)), of float32 and float64 */
    kernel_loop gradient_sums;
    /* whether normalize and gradient have a way by panels, for float32 */
    int has_panels;
    /* out = (x - mean) * scale + shift */
    kernel_loop normalize;
    /* out = (((dy - dy_mean) - (x - mean) * slope) + shift) * scale */
    kernel_loop gradient;
    /* in double: out = ((dy - dy_mean) * scale + (z - z_mean) * gain) + ((x - mean) * invstd * slope + shift) */
    kernel_loop combination;
    /* first = sum(w * d), second = sum(w * d^2), where d = x - pivot */
    kernel_loop weighted_sums;
    /* first = sum(g), second = sum(g * (x - pivot)), where g is the gradient that passes the activation */
    kernel_loop activated_sums;
    /* out = activation((x - mean) * scale + shift + z) */
    kernel_loop activated;
    /* dz = g, out = (((g * gain - w * dy_mean) - (x - mean) * w * slope) + w * shift) * scale */
    kernel_loop activated_gradient;
    /* the same of KERNEL_CLIP, without weights, bits, gain, and of what is neither frozen nor the output; of the sums, not
     * of float64, what activated_sums gives, to the bit, where every pivot is 0. NULL where the others do as well */
    kernel_loop clipped_products;
    kernel_loop clipped;
    kernel_loop clipped_gradient;
    /* bits of x: whether it is above low and up to top */
    void (*write_bits)(const kernel_tile *tile, unsigned char *bits);
    /* each of `channels` elements so many times in a row; up to fifteen elements more are written */
    void (*repeat_each)(enum kernel_element element, const void *source, size_t channels, size_t columns, void *target);
    /* Steps between reduce and map, for so many channels, a multiple of sixteen: to the bit what the engine computes for one
     * at a time. NULL where that does as well. */
    void (*forward_step)(const kernel_forward_step *step, size_t channels);
    void (*backward_step)(const kernel_backward_step *step, size_t channels);
    void (*fold_moments)(const kernel_fold *fold, size_t channels);
    void (*fold_gradient)(const kernel_gradient_fold *fold, size_t channels);
    /* whether all pivots are 0 */
    int (*choose_pivots)(const kernel_pivots *pivots, size_t channels);
    int (*gradient_pivots)(const kernel_pivots *pivots, size_t channels);
    /* whether squares > most * (squares - sum^2 / count) somewhere, or is a NaN */
    int (*lose_digits)(const kernel_fold *fold, double most, size_t channels);
} kernel_table;

/* One per instruction set: fills in its loops. */
void kernels_baseline(kernel_table *table);
#if defined(__x86_64__)
void kernels_avx2(kernel_table *table);
void kernels_avx512(kernel_table *table);
#endif

#endif
