/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that tensors may share: y in x, dx in dy, and the gaps of a strided tensor. */
#include "expect.h"

typedef bn_status (*step)(problem *p, const bn_options *options);

/* Runs the call with the output apart, then in the input's place. */
static void in_place(problem *p, step call, const bn_options *options, void **input, void **output) {
    size_t bytes = p->elements * size_of(p->dtype);
    void *original = copy_of(*input, bytes), *apart = *output;
    memcpy(apart, original, bytes); /* the gaps of a strided tensor are compared too */
    CHECK_OK(call(p, options));
    *output = *input;
    CHECK_OK(call(p, options));
    CHECK(memcmp(*output, apart, bytes) == 0, "differs in place (%s, %zu x %zu x %zu)", name_of(p->dtype),
          p->shape.outer, p->shape.channels, p->shape.inner);
    memcpy(*input, original, bytes);
    *output = apart;
    free(original);
}

static void every_call_in_place(bn_shape shape) {
    bn_options frozen = BN_OPTIONS_INIT;
    frozen.frozen = 1;
    for (int d = 0; d < dtype_count; d++) {
        problem p = make_problem(shape, dtypes[d], 2, 1);
        in_place(&p, train, NULL, &p.x, &p.y);
        in_place(&p, infer, NULL, &p.x, &p.y);
        CHECK_OK(train(&p, NULL));
        in_place(&p, backward, NULL, &p.dy, &p.dx);
        in_place(&p, backward, &frozen, &p.dy, &p.dx);
        free_problem(&p);
    }
}

static void dense_in_place(void) {
    every_call_in_place(dense(3, 5, 7));
    every_call_in_place(dense(40, 33, 1));
    every_call_in_place(dense(6, 4, 1000));
    every_call_in_place(dense(16, 8, 4096));
    every_call_in_place(dense(40001, 7, 1)); /* whose last row is alone */
}

static void strided_in_place(void) {
    bn_shape shape = dense(5, 3, 14);
    shape.x_stride = shape.y_stride = shape.dx_stride = 8 * 14;
    every_call_in_place(shape);
}

/* A stride of 0 and the dense stride written out are the same stride. */
static void dense_stride_by_number(void) {
    bn_shape shape = dense(5, 3, 14);
    shape.y_stride = 3 * 14;
    every_call_in_place(shape);
}

/* Each tensor has a stride of its own; what lies between the slices stays as it is. */
static void gaps_are_left_alone(void) {
    bn_shape shape = dense(7, 3, 10);
    shape.x_stride = 55;
    shape.y_stride = 31;
    shape.dx_stride = 90;
    for (int d = 0; d < dtype_count; d++) {
        problem p = make_problem(shape, dtypes[d], 2, 1);
        void *y = copy_of(p.y, p.elements * size_of(p.dtype)), *dx = copy_of(p.dx, p.elements * size_of(p.dtype));
        CHECK_OK(train(&p, NULL));
        CHECK_OK(backward(&p, NULL));
        for (size_t c = 0; c < shape.channels; c++) {
            statistics s = reference_statistics(&p, c, 1e-5);
            sums g = reference_sums(&p, c);
            check_y(&p, c, p.gamma, p.beta, s.mean, s.invstd);
            check_dx(&p, c, divided(g.dy, s.count), divided(g.dy_x_hat, s.count));
        }
        for (size_t i = 0; i < p.elements; i++) {
            if (i % 31 >= 30) CHECK(get(p.dtype, y, i) == get(p.dtype, p.y, i), "y[%zu] is in a gap", i);
            if (i % 90 >= 30) CHECK(get(p.dtype, dx, i) == get(p.dtype, p.dx, i), "dx[%zu] is in a gap", i);
        }
        free(y), free(dx), free_problem(&p);
    }
}

/* y in every second sample of the tensor that has x in the others. */
static void interleaved(void) {
    bn_shape shape = dense(6, 4, 9);
    shape.x_stride = shape.y_stride = 2 * 4 * 9;
    for (int d = 0; d < dtype_count; d++) {
        problem p = make_problem(shape, dtypes[d], 2, 1);
        problem shared = p;
        shared.y = (char *)p.x + 4 * 9 * size_of(p.dtype);
        CHECK_OK(train(&shared, NULL));
        for (size_t c = 0; c < shape.channels; c++) {
            statistics s = reference_statistics(&shared, c, 1e-5);
            check_y(&shared, c, p.gamma, p.beta, s.mean, s.invstd);
        }
        free_problem(&p);
    }
}

/* Slices of x at 0, 2, 4... and of y at 1, 4, 7...: they meet at 4, if there are that many. */
static void strides_that_meet(void) {
    for (size_t outer = 1; outer <= 3; outer++) {
        bn_shape shape = dense(outer, 2, 5);
        shape.x_stride = 2 * 10;
        shape.y_stride = 3 * 10;
        problem p = make_problem(shape, BN_FLOAT32, 2, 1);
        problem shared = p;
        shared.x = allocate(100, sizeof(float));
        shared.y = (float *)shared.x + 10;
        bn_status status = infer(&shared, NULL);
        CHECK(status == (outer < 3 ? BN_OK : BN_ERROR_OVERLAP), "%zu slices: status %d", outer, (int)status);
        shared.y = (float *)shared.x + 9;
        CHECK(infer(&shared, NULL) == BN_ERROR_OVERLAP, "%zu slices: one element is shared", outer);
        free(shared.x), free_problem(&p);
    }
}

/* True if two tensors have an element in common, when y begins so many elements after x. */
static int have_common_element(const bn_shape *s, long distance) {
    long slice = (long)(s->channels * s->inner);
    for (size_t i = 0; i < s->outer; i++) {
        for (size_t j = 0; j < s->outer; j++) {
            long apart = distance + (long)(j * s->y_stride) - (long)(i * s->x_stride);
            if (apart > -slice && apart < slice) return 1;
        }
    }
    return 0;
}

/* Every way in which slices of one parent can lie beside, between or upon each other: with equal strides, the end of a
 * slice may reach the beginning of the next; with others, they meet somewhere or not at all. */
static void slices_of_one_parent(void) {
    enum { slice = 6, farthest = 60, most_slices = 4, longest = 17 };
    static float parent[2 * farthest + most_slices * longest];
    static const size_t strides[] = {6, 7, 11, 12, 13, longest};
    enum { stride_count = sizeof strides / sizeof strides[0] };
    float parameter[2] = {1, 1};
    for (size_t outer = 1; outer <= most_slices; outer++) {
        for (int pair = 0; pair < stride_count * stride_count; pair++) {
            bn_shape shape = dense(outer, 2, slice / 2);
            shape.x_stride = strides[pair / stride_count];
            shape.y_stride = strides[pair % stride_count];
            for (int distance = -farthest; distance <= farthest; distance++) {
                float *x = parent + (distance < 0 ? -distance : 0), *y = parent + (distance < 0 ? 0 : distance);
                bn_status status = bn_forward_inference(&shape, BN_FLOAT32, x, NULL, NULL, parameter, parameter, y,
                                                        NULL, NULL, NULL);
                int same_place = distance == 0 && (shape.x_stride == shape.y_stride || outer == 1);
                int legal = same_place || !have_common_element(&shape, distance);
                CHECK(status == (legal ? BN_OK : BN_ERROR_OVERLAP), "status %d: %zu slices, strides %zu and %zu, %d on",
                      (int)status, outer, shape.x_stride, shape.y_stride, distance);
            }
        }
    }
}

int main(void) {
    start();
    RUN(dense_in_place);
    RUN(strided_in_place);
    RUN(dense_stride_by_number);
    RUN(gaps_are_left_alone);
    RUN(interleaved);
    RUN(strides_that_meet);
    RUN(slices_of_one_parent);
    return finish();
}
