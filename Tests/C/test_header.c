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

PINNED(version, BN_VERSION, 20000);
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
PINNED(error_nonfinite, BN_ERROR_NONFINITE, 21);
PINNED(error_environment, BN_ERROR_ENVIRONMENT, 40);
PINNED(error_memory, BN_ERROR_MEMORY, 41);
PINNED(error_nested, BN_ERROR_NESTED, 42);

PINNED(shape_size, sizeof(bn_shape), 7 * sizeof(size_t) + sizeof(void *));
PINNED(shape_struct_size, offsetof(bn_shape, struct_size), 0);
PINNED(shape_outer, offsetof(bn_shape, outer), sizeof(size_t));
PINNED(shape_channels, offsetof(bn_shape, channels), 2 * sizeof(size_t));
PINNED(shape_inner, offsetof(bn_shape, inner), 3 * sizeof(size_t));
PINNED(shape_x_stride, offsetof(bn_shape, x_stride), 4 * sizeof(size_t));
PINNED(shape_y_stride, offsetof(bn_shape, y_stride), 5 * sizeof(size_t));
PINNED(shape_dx_stride, offsetof(bn_shape, dx_stride), 6 * sizeof(size_t));
PINNED(shape_weights, offsetof(bn_shape, weights), 7 * sizeof(size_t));

PINNED(options_size, sizeof(bn_options), sizeof(size_t) + 32 + 4 * sizeof(void *));
PINNED(options_struct_size, offsetof(bn_options, struct_size), 0);
PINNED(options_eps, offsetof(bn_options, eps), sizeof(size_t));
PINNED(options_momentum, offsetof(bn_options, momentum), sizeof(size_t) + 8);
PINNED(options_biased_running_var, offsetof(bn_options, biased_running_var), sizeof(size_t) + 16);
PINNED(options_frozen, offsetof(bn_options, frozen), sizeof(size_t) + 20);
PINNED(options_param_dtype, offsetof(bn_options, param_dtype), sizeof(size_t) + 24);
PINNED(options_reserved, offsetof(bn_options, reserved), sizeof(size_t) + 28);
PINNED(options_epilogue, offsetof(bn_options, epilogue), sizeof(size_t) + 32);
PINNED(options_running, offsetof(bn_options, running), sizeof(size_t) + 32 + sizeof(void *));
PINNED(options_source, offsetof(bn_options, source), sizeof(size_t) + 32 + 2 * sizeof(void *));
PINNED(options_groups, offsetof(bn_options, groups), sizeof(size_t) + 32 + 3 * sizeof(void *));

PINNED(masked_size, sizeof(bn_masked), sizeof(int));
PINNED(masked_normalize, BN_MASKED_NORMALIZE, 0);
PINNED(masked_zero, BN_MASKED_ZERO, 1);
PINNED(masked_keep, BN_MASKED_KEEP, 2);

PINNED(activation_size, sizeof(bn_activation), sizeof(int));
PINNED(identity, BN_IDENTITY, 0);
PINNED(relu, BN_RELU, 1);
PINNED(leaky_relu, BN_LEAKY_RELU, 2);
PINNED(clip, BN_CLIP, 3);
PINNED(hard_swish, BN_HARD_SWISH, 4);
PINNED(silu, BN_SILU, 5);

PINNED(average_size, sizeof(bn_average), sizeof(int));
PINNED(average_exponential, BN_AVERAGE_EXPONENTIAL, 0);
PINNED(average_cumulative, BN_AVERAGE_CUMULATIVE, 1);
PINNED(average_windowed, BN_AVERAGE_WINDOWED, 2);
PINNED(average_debiased, BN_AVERAGE_DEBIASED, 3);
PINNED(average_filled, BN_AVERAGE_FILLED, 4);

PINNED(single_value_size, sizeof(bn_single_value), sizeof(int));
PINNED(single_value_error, BN_SINGLE_VALUE_ERROR, 0);
PINNED(single_value_running, BN_SINGLE_VALUE_RUNNING, 1);
PINNED(single_value_beta, BN_SINGLE_VALUE_BETA, 2);

PINNED(nonfinite_size, sizeof(bn_nonfinite), sizeof(int));
PINNED(nonfinite_propagate, BN_NONFINITE_PROPAGATE, 0);
PINNED(nonfinite_skip, BN_NONFINITE_SKIP, 1);
PINNED(nonfinite_error, BN_NONFINITE_ERROR, 2);

PINNED(outcome_used, BN_OUTCOME_USED, 0);
PINNED(outcome_empty, BN_OUTCOME_EMPTY, 1);
PINNED(outcome_running, BN_OUTCOME_RUNNING, 2);
PINNED(outcome_beta, BN_OUTCOME_BETA, 3);
PINNED(outcome_nonfinite, BN_OUTCOME_NONFINITE, 4);
PINNED(outcome_blended, BN_OUTCOME_BLENDED, 5);

PINNED(source_kind_size, sizeof(bn_source_kind), sizeof(int));
PINNED(source_batch, BN_SOURCE_BATCH, 0);
PINNED(source_blend, BN_SOURCE_BLEND, 1);
PINNED(source_renorm, BN_SOURCE_RENORM, 2);
PINNED(source_updated, BN_SOURCE_UPDATED, 3);

PINNED(per_group_statistics, BN_PER_GROUP_STATISTICS, 1);
PINNED(per_group_running, BN_PER_GROUP_RUNNING, 2);
PINNED(per_group_parameters, BN_PER_GROUP_PARAMETERS, 4);

/* Where pointers have eight bytes, as everywhere that the library is built for. */
PINNED(weights_size, sizeof(bn_weights), 24);
PINNED(weights_values, offsetof(bn_weights, values), 8);
PINNED(weights_masked, offsetof(bn_weights, masked), 16);
PINNED(weights_reserved, offsetof(bn_weights, reserved), 20);

PINNED(epilogue_size, sizeof(bn_epilogue), 80);
PINNED(epilogue_activation, offsetof(bn_epilogue, activation), 8);
PINNED(epilogue_from_output, offsetof(bn_epilogue, from_output), 12);
PINNED(epilogue_slope, offsetof(bn_epilogue, slope), 16);
PINNED(epilogue_low, offsetof(bn_epilogue, low), 24);
PINNED(epilogue_high, offsetof(bn_epilogue, high), 32);
PINNED(epilogue_z, offsetof(bn_epilogue, z), 40);
PINNED(epilogue_z_stride, offsetof(bn_epilogue, z_stride), 48);
PINNED(epilogue_dz, offsetof(bn_epilogue, dz), 56);
PINNED(epilogue_dz_stride, offsetof(bn_epilogue, dz_stride), 64);
PINNED(epilogue_mask, offsetof(bn_epilogue, mask), 72);

PINNED(running_size, sizeof(bn_running), 64);
PINNED(running_average, offsetof(bn_running, average), 8);
PINNED(running_single_value, offsetof(bn_running, single_value), 12);
PINNED(running_nonfinite, offsetof(bn_running, nonfinite), 16);
PINNED(running_reserved, offsetof(bn_running, reserved), 20);
PINNED(running_num_batches, offsetof(bn_running, num_batches), 24);
PINNED(running_new_running_mean, offsetof(bn_running, new_running_mean), 32);
PINNED(running_new_running_var, offsetof(bn_running, new_running_var), 40);
PINNED(running_new_num_batches, offsetof(bn_running, new_num_batches), 48);
PINNED(running_outcome, offsetof(bn_running, outcome), 56);

PINNED(source_size, sizeof(bn_source), 56);
PINNED(source_kind, offsetof(bn_source, kind), 8);
PINNED(source_reserved, offsetof(bn_source, reserved), 12);
PINNED(source_pseudo_count, offsetof(bn_source, pseudo_count), 16);
PINNED(source_r_min, offsetof(bn_source, r_min), 24);
PINNED(source_r_max, offsetof(bn_source, r_max), 32);
PINNED(source_d_max, offsetof(bn_source, d_max), 40);
PINNED(source_saved, offsetof(bn_source, saved), 48);

PINNED(groups_size, sizeof(bn_groups), 48);
PINNED(groups_samples, offsetof(bn_groups, samples), 8);
PINNED(groups_groups, offsetof(bn_groups, groups), 16);
PINNED(groups_index, offsetof(bn_groups, index), 24);
PINNED(groups_interleaved, offsetof(bn_groups, interleaved), 32);
PINNED(groups_per_group, offsetof(bn_groups, per_group), 36);
PINNED(groups_averaged, offsetof(bn_groups, averaged), 40);
PINNED(groups_reserved, offsetof(bn_groups, reserved), 44);

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
    CHECK(options.epilogue == NULL && options.running == NULL, "a descriptor is set");
    CHECK(options.source == NULL && options.groups == NULL, "a descriptor is set");
}

static void default_descriptors(void) {
    bn_weights weights = BN_WEIGHTS_INIT;
    CHECK(weights.struct_size == sizeof weights, "%lu", (unsigned long)weights.struct_size);
    CHECK(weights.values == NULL && weights.masked == BN_MASKED_NORMALIZE && weights.reserved == 0, "weights");
    bn_epilogue epilogue = BN_EPILOGUE_INIT;
    CHECK(epilogue.struct_size == sizeof epilogue, "%lu", (unsigned long)epilogue.struct_size);
    CHECK(epilogue.activation == BN_IDENTITY && epilogue.from_output == 0, "activation");
    CHECK(epilogue.slope == 0.01 && epilogue.low == 0 && epilogue.high == 6, "numbers of activations");
    CHECK(epilogue.z == NULL && epilogue.z_stride == 0 && epilogue.dz == NULL && epilogue.dz_stride == 0, "residual");
    CHECK(epilogue.mask == NULL, "mask");
    bn_running running = BN_RUNNING_INIT;
    CHECK(running.struct_size == sizeof running, "%lu", (unsigned long)running.struct_size);
    CHECK(running.average == BN_AVERAGE_EXPONENTIAL && running.single_value == BN_SINGLE_VALUE_ERROR, "policies");
    CHECK(running.nonfinite == BN_NONFINITE_PROPAGATE && running.reserved == 0, "policies");
    CHECK(running.num_batches == NULL && running.new_running_mean == NULL && running.new_running_var == NULL,
          "pointers");
    CHECK(running.new_num_batches == NULL && running.outcome == NULL, "pointers");
    bn_source source = BN_SOURCE_INIT;
    CHECK(source.struct_size == sizeof source, "%lu", (unsigned long)source.struct_size);
    CHECK(source.kind == BN_SOURCE_BATCH && source.reserved == 0 && source.pseudo_count == 0, "source");
    CHECK(source.r_min == 0 && source.r_max == HUGE_VAL && source.d_max == HUGE_VAL && source.saved == NULL, "source");
    bn_groups groups = BN_GROUPS_INIT;
    CHECK(groups.struct_size == sizeof groups, "%lu", (unsigned long)groups.struct_size);
    CHECK(groups.samples == 0 && groups.groups == 0 && groups.index == NULL && groups.interleaved == 0, "groups");
    CHECK(groups.per_group == BN_PER_GROUP_STATISTICS && groups.averaged == 0 && groups.reserved == 0, "groups");
}

/* C++ takes no variable of another type for a member without a cast. */
static void shape_of_variables(void) {
    int outer = 2, channels = 3, inner = 4;
    bn_shape shape = BN_SHAPE(outer, channels, inner);
    CHECK(shape.struct_size == sizeof shape, "%lu", (unsigned long)shape.struct_size);
    CHECK(shape.outer == 2 && shape.channels == 3 && shape.inner == 4, "other extents");
    CHECK(shape.weights == NULL, "weights");
}

/* A call of each name: they must link under C names from either language. Without a shape they are all refused. */
static void every_name_links(void) {
    CHECK(bn_forward_training(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_forward_inference(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_backward(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_moments(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, 0, NULL) != BN_OK, "ran");
    CHECK(bn_merge_moments(0, 0, NULL, NULL, NULL, 0, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_inverse_std(0, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_normalize(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_backward_reduce(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL) != BN_OK, "ran");
    CHECK(bn_backward_apply(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK,
          "ran");
    CHECK(bn_update_running(0, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_length_weights(1, 1, NULL, BN_FLOAT32, NULL) != BN_OK, "ran");
    CHECK(bn_jvp(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_double_backward(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                             NULL) != BN_OK,
          "ran");
    CHECK(bn_scale_shift(0, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_fold_into_previous(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_fold_into_next(NULL, BN_FLOAT32, NULL, NULL, NULL, NULL, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_shape_from_strides(1, NULL, 0, 1, 1, NULL, 0, NULL, NULL) != BN_OK, "ran");
    CHECK(bn_status_string(BN_OK) != NULL && bn_last_error() != NULL && bn_isa_name() != NULL, "NULL");
    CHECK(bn_set_num_threads(1) == BN_OK && bn_get_num_threads() == 1, "%d", bn_get_num_threads());
}

int main(void) {
    start();
    RUN(library_is_of_this_version);
    RUN(default_options);
    RUN(default_descriptors);
    RUN(shape_of_variables);
    RUN(every_name_links);
    return finish();
}
