/* SPDX-License-Identifier: Apache-2.0
 *
 * The header as a client sees it: version, enum values and struct layouts are pinned when this compiles, as C99 and as
 * C++17 (test_header.cpp); the names link and the library is of the header's version when it runs. */
#include "batchnorm.h"
#include "check.h"

#include <stddef.h>

#ifdef __cplusplus
#define PINNED(name, expression, value) static_assert((expression) == (value), #name)
#else
#define PINNED(name, expression, value) typedef char name##_is_pinned[(expression) == (value) ? 1 : -1]
#endif

PINNED(version, BN_VERSION, 10000);
PINNED(version_parts, BN_VERSION_MAJOR * 10000 + BN_VERSION_MINOR * 100 + BN_VERSION_PATCH, BN_VERSION);

PINNED(dtype_size, sizeof(bn_dtype), sizeof(int));
PINNED(float32, BN_FLOAT32, 1);
PINNED(float64, BN_FLOAT64, 2);
PINNED(float16, BN_FLOAT16, 3);
PINNED(bfloat16, BN_BFLOAT16, 4);

PINNED(status_size, sizeof(bn_status), sizeof(int));
PINNED(ok, BN_OK, 0);
PINNED(error_null, BN_ERROR_NULL, 1);
PINNED(error_shape, BN_ERROR_SHAPE, 2);
PINNED(error_dtype, BN_ERROR_DTYPE, 3);
PINNED(error_struct_size, BN_ERROR_STRUCT_SIZE, 4);
PINNED(error_option, BN_ERROR_OPTION, 5);
PINNED(error_pair, BN_ERROR_PAIR, 6);
PINNED(error_overlap, BN_ERROR_OVERLAP, 7);
PINNED(error_alignment, BN_ERROR_ALIGNMENT, 8);
PINNED(error_single_value, BN_ERROR_SINGLE_VALUE, 20);
PINNED(error_environment, BN_ERROR_ENVIRONMENT, 40);
PINNED(error_memory, BN_ERROR_MEMORY, 41);

PINNED(shape_size, sizeof(bn_shape), 7 * sizeof(size_t));
PINNED(shape_struct_size, offsetof(bn_shape, struct_size), 0);
PINNED(shape_outer, offsetof(bn_shape, outer), sizeof(size_t));
PINNED(shape_channels, offsetof(bn_shape, channels), 2 * sizeof(size_t));
PINNED(shape_inner, offsetof(bn_shape, inner), 3 * sizeof(size_t));
PINNED(shape_x_stride, offsetof(bn_shape, x_stride), 4 * sizeof(size_t));
PINNED(shape_y_stride, offsetof(bn_shape, y_stride), 5 * sizeof(size_t));
PINNED(shape_dx_stride, offsetof(bn_shape, dx_stride), 6 * sizeof(size_t));

PINNED(options_size, sizeof(bn_options), sizeof(size_t) + 32);
PINNED(options_struct_size, offsetof(bn_options, struct_size), 0);
PINNED(options_eps, offsetof(bn_options, eps), sizeof(size_t));
PINNED(options_momentum, offsetof(bn_options, momentum), sizeof(size_t) + 8);
PINNED(options_biased_running_var, offsetof(bn_options, biased_running_var), sizeof(size_t) + 16);
PINNED(options_frozen, offsetof(bn_options, frozen), sizeof(size_t) + 20);
PINNED(options_param_dtype, offsetof(bn_options, param_dtype), sizeof(size_t) + 24);
PINNED(options_reserved, offsetof(bn_options, reserved), sizeof(size_t) + 28);

static void library_is_of_this_version(void) {
    CHECK(bn_version() == BN_VERSION, "the library is %d, the header %d", bn_version(), BN_VERSION);
}

static void default_options(void) {
    bn_options options = BN_OPTIONS_INIT;
    CHECK(options.struct_size == sizeof options, "%lu", (unsigned long)options.struct_size);
    CHECK(options.eps == 1e-5, "%g", options.eps);
    CHECK(options.momentum == 0.1, "%g", options.momentum);
    CHECK(options.biased_running_var == 0 && options.frozen == 0, "a flag is set");
    CHECK((int)options.param_dtype == 0 && options.reserved == 0, "not as in version 1.0");
}

/* Of C++, which takes no variable of another type for a member without a cast. */
static void shape_of_variables(void) {
    int outer = 2, channels = 3, inner = 4;
    bn_shape shape = BN_SHAPE(outer, channels, inner);
    CHECK(shape.struct_size == sizeof shape, "%lu", (unsigned long)shape.struct_size);
    CHECK(shape.outer == 2 && shape.channels == 3 && shape.inner == 4, "other extents");
}

/* A call of each name: they must link under C names from either language. Without a shape they are all refused. */
static void every_name_links(void) {
    CHECK(bn_forward_training(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_forward_inference(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_backward(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_moments(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_merge_moments(0, 0, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_inverse_std(0, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_normalize(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_backward_reduce(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_backward_apply(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK,
          "ran");
    CHECK(bn_update_running(0, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_status_string(BN_OK) != NULL && bn_last_error() != NULL && bn_isa_name() != NULL, "NULL");
    CHECK(bn_set_num_threads(1) == BN_OK && bn_get_num_threads() == 1, "%d", bn_get_num_threads());
}

int main(void) {
    start();
    RUN(library_is_of_this_version);
    RUN(default_options);
    RUN(shape_of_variables);
    RUN(every_name_links);
    return finish();
}
