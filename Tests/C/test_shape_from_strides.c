/* SPDX-License-Identifier: Apache-2.0
 *
 * bn_shape_from_strides: the extents that it finds name every element, and where it finds none there are none. The oracle
 * enumerates elements and tries every extent; it knows nothing of memory orders. */
#include <batchnorm.h>

#include "check.h"

enum { most_axes = 5, most_elements = 1024, most_tensors = 3, drawn = 60000 };

typedef struct tensors {
    size_t rank, axis, axes, count;
    int64_t sizes[most_axes], strides[most_tensors * most_axes];
} tensors;

static size_t below(size_t end) { return (size_t)(random_bits() % end); }

/* The place of an element of a tensor, from its number in the order of the axes. */
static int64_t place(const tensors *t, size_t tensor, size_t element) {
    int64_t found = 0;
    for (size_t a = t->rank; a-- > 0;) {
        found += (int64_t)(element % (size_t)t->sizes[a]) * t->strides[tensor * t->rank + a];
        element /= (size_t)t->sizes[a];
    }
    return found;
}

static size_t channel(const tensors *t, size_t element) {
    size_t index[most_axes], found = 0;
    for (size_t a = t->rank; a-- > 0; element /= (size_t)t->sizes[a]) index[a] = element % (size_t)t->sizes[a];
    for (size_t a = t->axis; a < t->axis + t->axes; a++) found = found * (size_t)t->sizes[a] + index[a];
    return found;
}

static size_t product(const tensors *t, size_t from, size_t to) {
    size_t result = 1;
    for (size_t a = from; a < to; a++) result *= (size_t)t->sizes[a];
    return result;
}

/* 1 if the extents put the same element of every tensor at the same outer, channel and inner index. */
static int names_all(const tensors *t, size_t outer, size_t channels, size_t inner, const size_t *strides) {
    size_t elements = product(t, 0, t->rank);
    static size_t cell_of[most_elements];
    for (size_t tensor = 0; tensor < t->count; tensor++) {
        size_t stride = strides[tensor] ? strides[tensor] : channels * inner;
        if (stride < channels * inner) return 0;
        static unsigned char taken[most_elements];
        memset(taken, 0, elements);
        for (size_t e = 0; e < elements; e++) {
            int64_t at = place(t, tensor, e);
            if (at < 0) return 0;
            size_t o = outer > 1 ? (size_t)at / stride : 0, rest = (size_t)at - o * stride;
            if (o >= outer || rest >= channels * inner || rest / inner != channel(t, e)) return 0;
            size_t cell = o * channels * inner + rest;
            if (taken[cell]++) return 0;
            if (tensor == 0) cell_of[e] = cell;
            else if (cell_of[e] != cell) return 0;
        }
    }
    return 1;
}

/* 1 if axis 0, of more than one element, is outermost: all of its first half lies before its second in every tensor. */
static int samples_are_outermost(const tensors *t) {
    size_t elements = product(t, 0, t->rank);
    for (size_t tensor = 0; tensor < t->count && t->sizes[0] > 1; tensor++) {
        int64_t stride = t->strides[tensor * t->rank];
        for (size_t e = 0; e < elements / (size_t)t->sizes[0]; e++) {
            if (place(t, tensor, e) >= stride) return 0;
        }
    }
    return 1;
}

/* Any extents at all: inner, and for each tensor the distance of its slices, which some element tells. */
static int exist(const tensors *t, int samples_outermost) {
    size_t elements = product(t, 0, t->rank), channels = product(t, t->axis, t->axis + t->axes);
    if (samples_outermost && (t->axis == 0 || !samples_are_outermost(t))) return 0;
    for (size_t inner = 1; inner <= elements / channels; inner++) {
        size_t outer = elements / channels / inner, strides[most_tensors] = {0, 0, 0};
        if (outer * inner * channels != elements) continue;
        if (samples_outermost && outer % (size_t)t->sizes[0]) continue;
        for (size_t tensor = 0; tensor < t->count && outer > 1; tensor++) {
            int64_t last = 0;
            for (size_t e = 0; e < elements; e++) {
                if (place(t, tensor, e) > last) last = place(t, tensor, e);
            }
            /* The last element is the last one of the last slice. */
            if (last >= (int64_t)(channels * inner)) strides[tensor] = ((size_t)last + 1 - channels * inner) / (outer - 1);
        }
        if (names_all(t, outer, channels, inner, strides)) return 1;
    }
    return 0;
}

/* Axes in some order in memory, most tensors in one, some with a gap, some odd. */
static tensors draw(void) {
    tensors t = {.rank = 1 + below(most_axes), .count = 1 + below(most_tensors)};
    t.axis = below(t.rank), t.axes = 1 + below(t.rank - t.axis);
    if (below(3)) t.axes = 1;
    for (size_t a = 0; a < t.rank; a++) t.sizes[a] = (int64_t)(1 + below(4));
    size_t order[most_axes] = {0, 1, 2, 3, 4};
    int kind = (int)below(4);
    for (size_t a = t.rank; kind < 2 && a-- > 1;) {
        size_t other = below(a + 1), kept = order[a];
        order[a] = order[other], order[other] = kept;
    }
    if (kind == 3) { /* NHWC */
        for (size_t a = 1; a + 1 < t.rank; a++) order[a] = a + 1;
        if (t.rank > 1) order[t.rank - 1] = 1;
        t.axis = t.rank > 1, t.axes = 1;
    }
    for (size_t tensor = 0; tensor < t.count; tensor++) {
        int64_t stride = 1;
        size_t gap = below(3) ? most_axes : below(t.rank);
        if (tensor > 0 && below(20) == 0) order[0] = below(t.rank); /* two axes in one place, one in none */
        for (size_t i = t.rank; i-- > 0;) {
            if (i == gap) stride *= 1 + (int64_t)below(3), stride += (int64_t)below(2);
            int64_t *own = &t.strides[tensor * t.rank + order[i]];
            *own = t.sizes[order[i]] == 1 && below(2) ? (int64_t)below(9) - 4 : stride;
            stride *= t.sizes[order[i]];
        }
        if (below(15) == 0) t.strides[tensor * t.rank + below(t.rank)] *= (int64_t)below(3) - 1;
    }
    return t;
}

static void drawn_tensors(void) {
    size_t found = 0;
    for (int i = 0; i < drawn; i++) {
        tensors t = draw();
        int samples_outermost = (int)below(2);
        bn_shape shape;
        size_t strides[most_tensors] = {77, 77, 77};
        memset(&shape, 0x55, sizeof shape);
        bn_status status = bn_shape_from_strides(t.rank, t.sizes, t.axis, t.axes, t.count, t.strides, samples_outermost,
                                                 &shape, strides);
        if (status == BN_OK) {
            found++;
            CHECK(names_all(&t, shape.outer, shape.channels, shape.inner, strides), "draw %d: %zu x %zu x %zu", i,
                  shape.outer, shape.channels, shape.inner);
            CHECK(shape.struct_size == sizeof shape && shape.x_stride == strides[0], "draw %d: %zu", i, shape.x_stride);
            CHECK(shape.y_stride == 0 && shape.dx_stride == 0 && shape.weights == NULL, "draw %d", i);
            CHECK(!samples_outermost || (samples_are_outermost(&t) && shape.outer % (size_t)t.sizes[0] == 0), "draw %d: %zu",
                  i, shape.outer);
        } else {
            CHECK(status == BN_ERROR_SHAPE && strlen(bn_last_error()) > 40, "draw %d: %s", i, bn_last_error());
            CHECK(!exist(&t, samples_outermost), "draw %d: %s", i, bn_last_error());
            CHECK(strides[0] == 77 && shape.outer == SIZE_MAX / 3, "draw %d: written", i);
        }
    }
    CHECK(found > drawn / 5 && found < drawn * 4 / 5, "%zu of %d", found, drawn);
}

typedef struct case_of {
    const char *says;
    size_t rank, axis, axes, count;
    int64_t sizes[4], strides[8];
} case_of;

static const case_of wrong[] = {
    {"rank is 0; expected 1 to 64 axes", 0, 0, 1, 1, {0}, {0}},
    {"rank is 65; expected 1 to 64 axes", 65, 0, 1, 1, {0}, {0}},
    {"channel_axis is 2; expected an axis, from 0 to rank - 1", 2, 2, 1, 1, {2, 3}, {3, 1}},
    {"channel_axes is 2; expected 1 to rank - channel_axis axes", 2, 1, 2, 1, {2, 3}, {3, 1}},
    {"channel_axes is 0; expected 1 to rank - channel_axis axes", 2, 1, 0, 1, {2, 3}, {3, 1}},
    {"tensors is 0; expected 1 to 32 tensors", 2, 1, 1, 0, {2, 3}, {3, 1}},
    {"sizes[1] is -3; expected at least 0", 2, 1, 1, 1, {2, -3}, {3, 1}},
    {"strides[1] is -1; expected above 0: a tensor that runs backwards, or repeats elements, has to be copied", 2, 1, 1, 1,
     {2, 3}, {3, -1}},
    {"strides[2] is 0; expected above 0: a tensor that runs backwards, or repeats elements, has to be copied", 2, 1, 1, 2,
     {2, 3}, {3, 1, 0, 1}},
    {"strides[3] is 2; expected no gap but where the channel axes begin: the dense stride, which is 1", 4, 1, 1, 1,
     {2, 3, 4, 5}, {120, 40, 10, 2}},
    {"strides[2] is 4; expected elements that do not overlap, which is 5", 4, 1, 1, 1, {2, 3, 4, 5}, {60, 20, 4, 1}},
    {"strides[2] is 1; expected the order in memory of the first tensor: copy one of the two", 2, 1, 1, 2, {2, 3},
     {3, 1, 1, 2}},
    {"axis 1 lies beside axis 2; expected channel axes that lie in memory side by side and in sequence: copy the tensor", 3, 1,
     2, 1, {4, 2, 3}, {6, 1, 2}},
    {"sizes is given; expected at most PTRDIFF_MAX elements", 2, 1, 1, 1, {INT64_MAX, 3}, {3, 1}},
};

static void sentences(void) {
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const case_of *c = &wrong[i];
        bn_shape shape = {0};
        CHECK(bn_shape_from_strides(c->rank, c->sizes, c->axis, c->axes, c->count, c->strides, 0, &shape, NULL) ==
                  BN_ERROR_SHAPE, "case %zu", i);
        CHECK(strcmp(bn_last_error() + strlen("bn_shape_from_strides: "), c->says) == 0, "%s", bn_last_error());
        CHECK(shape.struct_size == 0, "case %zu: written", i);
    }
}

static void null_and_overlap(void) {
    int64_t sizes[8] = {2, 3}, strides[2] = {3, 1};
    bn_shape shape;
    CHECK(bn_shape_from_strides(2, NULL, 1, 1, 1, strides, 0, &shape, NULL) == BN_ERROR_NULL, "sizes");
    CHECK(bn_shape_from_strides(2, sizes, 1, 1, 1, NULL, 0, &shape, NULL) == BN_ERROR_NULL, "strides");
    CHECK(bn_shape_from_strides(2, sizes, 1, 1, 1, strides, 0, NULL, NULL) == BN_ERROR_NULL, "shape");
    CHECK(bn_shape_from_strides(2, sizes, 1, 1, 1, strides, 2, &shape, NULL) == BN_ERROR_OPTION, "samples_outermost");
    CHECK(bn_shape_from_strides(2, sizes, 0, 1, 1, strides, 1, &shape, NULL) == BN_ERROR_SHAPE, "samples are channels");
    CHECK(bn_shape_from_strides(2, sizes, 1, 1, 1, strides, 0, (bn_shape *)sizes, NULL) == BN_ERROR_OVERLAP, "shape");
    CHECK(bn_shape_from_strides(2, sizes, 1, 1, 1, strides, 0, &shape, (size_t *)strides) == BN_ERROR_OVERLAP, "strides");
    CHECK(sizes[0] == 2 && strides[0] == 3, "written");
}

static void empty_and_single(void) {
    int64_t empty[] = {0, 3, 5}, one[] = {1, 1, 1}, strides[] = {-7, 0, 3};
    bn_shape shape;
    CHECK(bn_shape_from_strides(3, empty, 1, 1, 1, strides, 0, &shape, NULL) == BN_OK, "%s", bn_last_error());
    CHECK(shape.outer * shape.inner == 0 && shape.channels == 3, "%zu %zu", shape.outer, shape.channels);
    CHECK(bn_shape_from_strides(3, one, 1, 1, 1, strides, 1, &shape, NULL) == BN_OK, "%s", bn_last_error());
    CHECK(shape.outer == 1 && shape.channels == 1 && shape.inner == 1, "%zu %zu", shape.outer, shape.inner);
}

int main(void) {
    start();
    RUN(drawn_tensors);
    RUN(sentences);
    RUN(null_and_overlap);
    RUN(empty_and_single);
    return finish();
}
