/* SPDX-License-Identifier: Apache-2.0
 *
 * Every status by every cause that the descriptors can have: weights, epilogues, running statistics, sources,
 * groups. */
#include "descriptors.h"

#include <math.h>

static const call group_calls[] = {
    training, inference, backward, moments, normalize, reduce, apply, jvp, double_backward,
};
static const call shape_calls[] = {training, inference, backward, moments, normalize, reduce, apply};

/* The arguments of which each other test changes one. */
static void valid_arguments(void) {
    for (size_t i = 0; i < LENGTH(shape_calls); i++) ACCEPTED(shape_calls[i], weigh());
    ACCEPTED(length_weights, (void)0);
    ACCEPTED(training, add_residual());
    ACCEPTED(inference, add_residual());
    ACCEPTED(normalize, add_residual());
    ACCEPTED(backward, split());
    ACCEPTED(training, keep_mask());
    ACCEPTED(backward, keep_mask());
    ACCEPTED(backward, undo());
    ACCEPTED(training, keep());
    ACCEPTED(training, keep_apart());
    ACCEPTED(training, blend());
    ACCEPTED(backward, blend());
    for (size_t i = 0; i < LENGTH(group_calls); i++) {
        ACCEPTED(group_calls[i], divide());
        ACCEPTED(group_calls[i], divide_all());
        ACCEPTED(group_calls[i], divide_by_index());
        if (group_calls[i] != double_backward) ACCEPTED(group_calls[i], condition());
    }
    ACCEPTED(double_backward, (condition(), a.options_value.frozen = 1));
    REFUSED(double_backward, BN_ERROR_OPTION, "per_group", condition());
    ACCEPTED(training, (divide_all(), keep_apart(), blend(), add_residual(), keep_mask(), weigh()));
    ACCEPTED(backward, (divide_all(), blend(), split(), weigh()));
}

static void struct_size(void) {
    static const size_t off[] = {0, 1, (size_t)-8, (size_t)-1, 1000};
    for (size_t i = 0; i < LENGTH(off); i++) {
        int is_offset = off[i] > 1000;
        for (size_t c = 0; c < LENGTH(shape_calls); c++) {
            REFUSED(shape_calls[c], BN_ERROR_STRUCT_SIZE, "weights",
                    (weigh(), a.weights_value.struct_size = is_offset ? sizeof(bn_weights) + off[i] : off[i]));
        }
        for (size_t c = 0; c < LENGTH(option_calls); c++) {
            call each = option_calls[c];
            REFUSED(each, BN_ERROR_STRUCT_SIZE, "epilogue",
                    (activate(), a.epilogue_value.struct_size = is_offset ? sizeof(bn_epilogue) + off[i] : off[i]));
            REFUSED(each, BN_ERROR_STRUCT_SIZE, "running",
                    (keep(), a.running_value.struct_size = is_offset ? sizeof(bn_running) + off[i] : off[i]));
            REFUSED(each, BN_ERROR_STRUCT_SIZE, "source",
                    (blend(), a.source_value.struct_size = is_offset ? sizeof(bn_source) + off[i] : off[i]));
            REFUSED(each, BN_ERROR_STRUCT_SIZE, "groups",
                    (divide(), a.groups_value.struct_size = is_offset ? sizeof(bn_groups) + off[i] : off[i]));
        }
    }
}

/* Also by a function that does not take the descriptor. */
static void values_out_of_range(void) {
    static const int unknown[] = {-1, 6, 100, -2147483647 - 1};
    for (size_t i = 0; i < LENGTH(unknown); i++) {
        int value = unknown[i];
        for (size_t c = 0; c < LENGTH(shape_calls); c++) {
            REFUSED(shape_calls[c], BN_ERROR_OPTION, "masked", (weigh(), a.weights_value.masked = (bn_masked)value));
            REFUSED(shape_calls[c], BN_ERROR_OPTION, "reserved", (weigh(), a.weights_value.reserved = value));
        }
        for (size_t c = 0; c < LENGTH(option_calls); c++) {
            call each = option_calls[c];
            REFUSED(each, BN_ERROR_OPTION, "activation",
                    (activate(), a.epilogue_value.activation = (bn_activation)value));
            REFUSED(each, BN_ERROR_OPTION, "from_output", (activate(), a.epilogue_value.from_output = value));
            REFUSED(each, BN_ERROR_OPTION, "average", (keep(), a.running_value.average = (bn_average)value));
            REFUSED(each, BN_ERROR_OPTION, "single_value",
                    (keep(), a.running_value.single_value = (bn_single_value)value));
            REFUSED(each, BN_ERROR_OPTION, "nonfinite", (keep(), a.running_value.nonfinite = (bn_nonfinite)value));
            REFUSED(each, BN_ERROR_OPTION, "reserved", (keep(), a.running_value.reserved = value));
            REFUSED(each, BN_ERROR_OPTION, "kind", (blend(), a.source_value.kind = (bn_source_kind)value));
            REFUSED(each, BN_ERROR_OPTION, "reserved", (blend(), a.source_value.reserved = value));
            REFUSED(each, BN_ERROR_OPTION, "interleaved", (divide(), a.groups_value.interleaved = value));
            REFUSED(each, BN_ERROR_OPTION, "averaged", (divide(), a.groups_value.averaged = value));
            REFUSED(each, BN_ERROR_OPTION, "reserved", (divide(), a.groups_value.reserved = value));
        }
    }
}

static void next_values(void) {
    REFUSED(training, BN_ERROR_OPTION, "masked", (weigh(), a.weights_value.masked = (bn_masked)3));
    REFUSED(training, BN_ERROR_OPTION, "average", (keep(), a.running_value.average = (bn_average)5));
    REFUSED(training, BN_ERROR_OPTION, "single_value", (keep(), a.running_value.single_value = (bn_single_value)3));
    REFUSED(training, BN_ERROR_OPTION, "nonfinite", (keep(), a.running_value.nonfinite = (bn_nonfinite)3));
    REFUSED(training, BN_ERROR_OPTION, "kind", (blend(), a.source_value.kind = (bn_source_kind)4));
    REFUSED(training, BN_ERROR_OPTION, "interleaved", (divide(), a.groups_value.interleaved = 2));
}

static void numbers(void) {
    static const double never[] = {NAN, -1, -HUGE_VAL}, infinite = HUGE_VAL;
    for (size_t c = 0; c < LENGTH(option_calls); c++) {
        call each = option_calls[c];
        for (size_t i = 0; i < LENGTH(never); i++) {
            REFUSED(each, BN_ERROR_OPTION, "slope", (activate(), a.epilogue_value.slope = never[i]));
            REFUSED(each, BN_ERROR_OPTION, "pseudo_count", (blend(), a.source_value.pseudo_count = never[i]));
            REFUSED(each, BN_ERROR_OPTION, "r_min", (blend(), a.source_value.r_min = never[i]));
            REFUSED(each, BN_ERROR_OPTION, "r_max", (blend(), a.source_value.r_max = never[i]));
            REFUSED(each, BN_ERROR_OPTION, "d_max", (blend(), a.source_value.d_max = never[i]));
        }
        REFUSED(each, BN_ERROR_OPTION, "slope", (activate(), a.epilogue_value.slope = infinite));
        REFUSED(each, BN_ERROR_OPTION, "pseudo_count", (blend(), a.source_value.pseudo_count = infinite));
        REFUSED(each, BN_ERROR_OPTION, "r_min", (blend(), a.source_value.r_min = 1.001));
        REFUSED(each, BN_ERROR_OPTION, "r_max", (blend(), a.source_value.r_max = 0.999));
        REFUSED(each, BN_ERROR_OPTION, "low", (activate(), a.epilogue_value.low = a.epilogue_value.high));
        REFUSED(each, BN_ERROR_OPTION, "low", (activate(), a.epilogue_value.low = 7));
        REFUSED(each, BN_ERROR_OPTION, "low", (activate(), a.epilogue_value.low = NAN));
        REFUSED(each, BN_ERROR_OPTION, "low", (activate(), a.epilogue_value.high = NAN));
    }
    ACCEPTED(training, (activate(), a.epilogue_value.low = -HUGE_VAL, a.epilogue_value.high = HUGE_VAL));
    ACCEPTED(training, (blend(), a.source_value.d_max = 0, a.source_value.r_min = a.source_value.r_max = 1));
}

/* Every weight is looked at, by every function that takes weights. */
static void weights(void) {
    static const float never[] = {-1, -1e-30f, NAN, HUGE_VALF, -HUGE_VALF};
    for (size_t c = 0; c < LENGTH(shape_calls); c++) {
        for (size_t i = 0; i < LENGTH(never); i++) {
            for (size_t place = 0; place < outer * inner; place += outer * inner - 1) {
                REFUSED(shape_calls[c], BN_ERROR_OPTION, "weights", (weigh(), memory.weights[place] = never[i]));
            }
        }
        REFUSED(shape_calls[c], BN_ERROR_NULL, "weights", (weigh(), a.weights_value.values = NULL));
        REFUSED(shape_calls[c], BN_ERROR_ALIGNMENT, "weights",
                (weigh(), a.weights_value.values = (char *)memory.weights + 2));
        ACCEPTED(shape_calls[c], (weigh(), memory.weights[0] = -0.0f));
        ACCEPTED(shape_calls[c], (weigh(), memory.weights[outer * inner] = NAN)); /* one further */
    }
    for (size_t i = 0; i < LENGTH(never); i++) { /* of a group that is not the first */
        REFUSED(training, BN_ERROR_OPTION, "weights", (weigh(), divide(), memory.weights[inner + 1] = never[i]));
        REFUSED(backward, BN_ERROR_OPTION, "weights", (weigh(), divide_all(), memory.weights[inner + 1] = never[i]));
    }
    REFUSED(training, BN_ERROR_SINGLE_VALUE, "weights",
            (weigh(), memset(memory.weights, 0, sizeof memory.weights), memory.weights[3] = memory.weights[5] = 0.5f));
}

static void lengths(void) {
    REFUSED(length_weights, BN_ERROR_NULL, "lengths", a.lengths = NULL);
    REFUSED(length_weights, BN_ERROR_NULL, "weights", a.length_weights = NULL);
    REFUSED(length_weights, BN_ERROR_OPTION, "lengths", memory.lengths[2] = inner + 1);
    REFUSED(length_weights, BN_ERROR_OPTION, "lengths", memory.lengths[0] = SIZE_MAX);
    REFUSED(length_weights, BN_ERROR_OVERLAP, "weights", a.length_weights = memory.lengths + 1);
    REFUSED(length_weights, BN_ERROR_ALIGNMENT, "weights", a.length_weights = (char *)memory.weights + 2);
    REFUSED(length_weights, BN_ERROR_ALIGNMENT, "weights",
            (a.dtype = BN_FLOAT64, a.length_weights = (char *)memory.counts + 4));
    REFUSED(length_weights, BN_ERROR_ALIGNMENT, "lengths",
            a.lengths = (const size_t *)((char *)memory.lengths + sizeof(size_t) / 2));
    static const int unknown[] = {0, 5, -1};
    for (size_t d = 0; d < LENGTH(unknown); d++) {
        REFUSED(length_weights, BN_ERROR_DTYPE, "dtype", a.dtype = (bn_dtype)unknown[d]);
    }
    REFUSED(length_weights, BN_ERROR_SHAPE, "samples", a.samples = SIZE_MAX);
    REFUSED(length_weights, BN_ERROR_SHAPE, "samples", a.samples = SIZE_MAX / inner / sizeof(float) + 2);
    REFUSED(length_weights, BN_ERROR_SHAPE, "positions", a.positions = SIZE_MAX / 2);
}

static void epilogues(void) {
    for (int activation = BN_HARD_SWISH; activation <= BN_SILU; activation++) {
        REFUSED(training, BN_ERROR_OPTION, "mask",
                (keep_mask(), a.epilogue_value.activation = (bn_activation)activation));
        REFUSED(inference, BN_ERROR_OPTION, "mask",
                (keep_mask(), a.epilogue_value.activation = (bn_activation)activation));
        REFUSED(normalize, BN_ERROR_OPTION, "mask",
                (keep_mask(), a.epilogue_value.activation = (bn_activation)activation));
        REFUSED(backward, BN_ERROR_OPTION, "mask",
                (keep_mask(), a.epilogue_value.activation = (bn_activation)activation));
    }
    static const call forwards[] = {training, inference, normalize};
    for (size_t i = 0; i < LENGTH(forwards); i++) {
        ACCEPTED(forwards[i], (activate(), a.epilogue_value.dz = memory.dz));
        ACCEPTED(forwards[i], undo());
        REFUSED(forwards[i], BN_ERROR_SHAPE, "z_stride",
                (add_residual(), a.epilogue_value.z_stride = channels * inner - 1));
        REFUSED(forwards[i], BN_ERROR_ALIGNMENT, "z", (add_residual(), a.epilogue_value.z = (char *)memory.z + 2));
        if (forwards[i] != normalize) REFUSED(forwards[i], BN_ERROR_NULL, "y", (keep_mask(), a.y = NULL));
    }
    REFUSED(backward, BN_ERROR_SHAPE, "z_stride", (split(), a.epilogue_value.z_stride = channels * inner - 1));
    REFUSED(backward, BN_ERROR_SHAPE, "dz_stride", (split(), a.epilogue_value.dz_stride = channels * inner - 1));
    /* Strides of what is not there, and a slope that these tensors do not have. */
    REFUSED(backward, BN_ERROR_SHAPE, "z_stride", (activate(), a.epilogue_value.z_stride = channels * inner - 1));
    REFUSED(backward, BN_ERROR_SHAPE, "dz_stride", (activate(), a.epilogue_value.dz_stride = channels * inner - 1));
    REFUSED(backward, BN_ERROR_OPTION, "slope",
            (activate(), a.epilogue_value.activation = BN_LEAKY_RELU, a.epilogue_value.slope = 1e-39));
    REFUSED(backward, BN_ERROR_ALIGNMENT, "z", (split(), a.epilogue_value.z = (char *)memory.z + 1));
    REFUSED(backward, BN_ERROR_ALIGNMENT, "dz", (split(), a.epilogue_value.dz = (char *)memory.dz + 2));
    REFUSED(backward, BN_ERROR_ALIGNMENT, "beta", (split(), a.beta = (char *)memory.beta + 2));
    ACCEPTED(backward, (keep_mask(), a.epilogue_value.mask = memory.mask + 1));
}

static void output_alone(void) {
    static const bn_activation not_undone[] = {BN_RELU, BN_CLIP, BN_HARD_SWISH, BN_SILU};
    for (size_t i = 0; i < LENGTH(not_undone); i++) {
        REFUSED(backward, BN_ERROR_OPTION, "activation", (undo(), a.epilogue_value.activation = not_undone[i]));
    }
    REFUSED(backward, BN_ERROR_OPTION, "activation", (undo(), a.epilogue_value.slope = 0));
    ACCEPTED(backward, (undo(), a.epilogue_value.activation = BN_IDENTITY, a.epilogue_value.slope = 0));
    REFUSED(backward, BN_ERROR_OPTION, "z", (undo(), a.epilogue_value.z = memory.z));
    REFUSED(backward, BN_ERROR_OPTION, "from_output", (undo(), blend()));
    REFUSED(backward, BN_ERROR_OPTION, "from_output",
            (divide(), undo(), a.groups_value.per_group = BN_PER_GROUP_PARAMETERS));
    REFUSED(backward, BN_ERROR_OPTION, "gamma", (undo(), memory.gamma[1] = 0));
    REFUSED(backward, BN_ERROR_OPTION, "gamma", (undo(), memory.gamma[0] = -0.0f));
    ACCEPTED(backward, (undo(), memory.gamma[0] = -1));
    ACCEPTED(backward, (undo(), a.gamma = a.beta = NULL));
    REFUSED(backward, BN_ERROR_OPTION, "gamma", (divide_all(), undo(),
                                                 memory.group_gamma[group_count * channels - 1] = 0));
}

/* A residual's gradient, and activations that have to be undone, need x. */
static void pointers(void) {
    REFUSED(backward, BN_ERROR_NULL, "x", (activate(), a.x = NULL, a.dgamma = NULL, a.options_value.frozen = 1));
    ACCEPTED(backward, (keep_mask(), a.x = NULL, a.dgamma = NULL, a.options_value.frozen = 1));
    REFUSED(training, BN_ERROR_NULL, "num_batches",
            (keep(), a.running_value.num_batches = NULL, a.running_value.average = BN_AVERAGE_CUMULATIVE));
    REFUSED(training, BN_ERROR_NULL, "num_batches",
            (keep(), a.running_value.num_batches = NULL, a.running_value.average = BN_AVERAGE_FILLED));
    ACCEPTED(training, (keep(), a.running_value.num_batches = NULL));
    REFUSED(training, BN_ERROR_PAIR, "new_running_mean", (keep_apart(), a.running_value.new_running_mean = NULL));
    REFUSED(training, BN_ERROR_PAIR, "new_running_var", (keep_apart(), a.running_value.new_running_var = NULL));
    REFUSED(training, BN_ERROR_PAIR, "new_num_batches", (keep_apart(), a.running_value.new_num_batches = NULL));
    REFUSED(training, BN_ERROR_PAIR, "new_num_batches",
            (keep(), a.running_value.new_num_batches = memory.new_num_batches));
    REFUSED(training, BN_ERROR_PAIR, "new_num_batches", (keep_apart(), a.running_value.num_batches = NULL));
    REFUSED(training, BN_ERROR_NULL, "running_mean", (keep_apart(), a.running_mean = a.running_var = NULL));
    REFUSED(training, BN_ERROR_NULL, "running_mean",
            (keep(), a.running_mean = a.running_var = NULL, a.running_value.single_value = BN_SINGLE_VALUE_RUNNING));
    REFUSED(training, BN_ERROR_NULL, "running_mean", (blend(), a.running_mean = a.running_var = NULL));
    REFUSED(training, BN_ERROR_NULL, "running_mean", (keep(), blend(), a.running_mean = a.running_var = NULL));
    ACCEPTED(training, (keep(), a.running_mean = a.running_var = NULL, a.running_value.num_batches = NULL,
                        a.running_value.nonfinite = BN_NONFINITE_ERROR));
    REFUSED(training, BN_ERROR_NULL, "saved", (blend(), a.source_value.saved = NULL));
    REFUSED(backward, BN_ERROR_NULL, "saved", (blend(), a.source_value.saved = NULL));
    REFUSED(training, BN_ERROR_ALIGNMENT, "num_batches",
            (keep(), a.running_value.num_batches = (int64_t *)((char *)memory.num_batches + 4)));
    REFUSED(training, BN_ERROR_ALIGNMENT, "new_running_mean",
            (keep_apart(), a.running_value.new_running_mean = (char *)memory.new_mean + 2));
    REFUSED(training, BN_ERROR_ALIGNMENT, "new_running_var",
            (keep_apart(), a.running_value.new_running_var = (char *)memory.new_var + 2));
    REFUSED(training, BN_ERROR_ALIGNMENT, "new_num_batches",
            (keep_apart(), a.running_value.new_num_batches = (int64_t *)((char *)memory.new_num_batches + 4)));
    REFUSED(training, BN_ERROR_ALIGNMENT, "outcome",
            (keep(), a.running_value.outcome = (int32_t *)((char *)memory.outcome + 2)));
    REFUSED(training, BN_ERROR_ALIGNMENT, "saved",
            (blend(), a.source_value.saved = (double *)((char *)memory.saved + 4)));
    REFUSED(backward, BN_ERROR_ALIGNMENT, "saved",
            (blend(), a.source_value.saved = (double *)((char *)memory.saved + 4)));
    REFUSED(training, BN_ERROR_ALIGNMENT, "index",
            (divide_by_index(), a.groups_value.index = (int32_t *)((char *)memory.index + 2)));
}

static void counts_of_batches(void) {
    REFUSED(training, BN_ERROR_OPTION, "num_batches", (keep(), memory.num_batches[0] = -1));
    REFUSED(training, BN_ERROR_OPTION, "num_batches", (keep_apart(), memory.num_batches[0] = INT64_MIN));
    REFUSED(training, BN_ERROR_OPTION, "num_batches", (divide_all(), keep(), memory.num_batches[group_count - 1] = -1));
    ACCEPTED(training, (divide_all(), keep(), memory.num_batches[group_count] = -1));
    ACCEPTED(training, (keep(), memory.num_batches[1] = -1));
}

static void groups(void) {
    for (size_t c = 0; c < LENGTH(option_calls); c++) {
        call each = option_calls[c];
        REFUSED(each, BN_ERROR_OPTION, "samples", (divide(), a.groups_value.samples = 0));
        REFUSED(each, BN_ERROR_OPTION, "groups", (divide(), a.groups_value.groups = 0));
        static const int32_t never[] = {0, -1, 2, 6, 8, 9};
        for (size_t i = 0; i < LENGTH(never); i++) {
            REFUSED(each, BN_ERROR_OPTION, "per_group", (divide(), a.groups_value.per_group = never[i]));
        }
        for (int per_group = 3; per_group <= 7; per_group++) { /* with statistics alone of the running ones shared */
            if (per_group == 5 || per_group == 6) continue;
            REFUSED(each, BN_ERROR_OPTION, "averaged",
                    (divide(), a.groups_value.averaged = 1, a.groups_value.per_group = per_group));
        }
        REFUSED(each, BN_ERROR_OPTION, "interleaved", (divide_by_index(), a.groups_value.interleaved = 1));
        REFUSED(each, BN_ERROR_OPTION, "groups", (divide(), a.groups_value.groups = 2));
        REFUSED(each, BN_ERROR_OPTION, "groups", (divide(), a.groups_value.groups = SIZE_MAX));
    }
    for (size_t c = 0; c < LENGTH(group_calls); c++) {
        call each = group_calls[c];
        REFUSED(each, BN_ERROR_OPTION, "samples", (divide(), a.groups_value.samples = 2, a.groups_value.groups = 2));
        REFUSED(each, BN_ERROR_OPTION, "samples", (divide(), a.groups_value.samples = 6));
        REFUSED(each, BN_ERROR_OPTION, "samples",
                (divide(), a.groups_value.samples = SIZE_MAX, a.groups_value.groups = 1));
        for (size_t sample = 0; sample < outer; sample++) {
            REFUSED(each, BN_ERROR_OPTION, "index", (divide_by_index(), memory.index[sample] = group_count));
            REFUSED(each, BN_ERROR_OPTION, "index", (divide_by_index(), memory.index[sample] = -1));
            REFUSED(each, BN_ERROR_OPTION, "index", (divide_by_index(), memory.index[sample] = INT32_MIN));
        }
        ACCEPTED(each, (divide_by_index(), memory.index[outer] = group_count));
    }
    REFUSED(training, BN_ERROR_SINGLE_VALUE, "values", (divide(), a.shape_value.inner = 1));
}

static void descriptors_in_the_wrong_place(void) {
    static const struct { call function; int epilogue, running, source, groups; } takes[] = {
        {training, 1, 1, 1, 1}, {inference, 1, 1, 1, 1}, {backward, 1, 1, 1, 1}, {inverse_std, 0, 0, 0, 0},
        {moments, 0, 0, 0, 1}, {normalize, 1, 1, 0, 1}, {reduce, 0, 0, 0, 1}, {apply, 0, 1, 0, 1},
        {update_running, 0, 0, 0, 0}, {jvp, 0, 0, 0, 1}, {double_backward, 0, 0, 0, 1}, {scale_shift, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < LENGTH(takes); i++) {
        call each = takes[i].function;
        if (!takes[i].epilogue) REFUSED(each, BN_ERROR_OPTION, "epilogue", activate());
        if (!takes[i].running) REFUSED(each, BN_ERROR_OPTION, "running", keep());
        if (!takes[i].source) REFUSED(each, BN_ERROR_OPTION, "source", blend());
        if (!takes[i].groups) REFUSED(each, BN_ERROR_OPTION, "groups", divide());
    }
}

int main(void) {
    start();
    RUN(valid_arguments);
    RUN(struct_size);
    RUN(values_out_of_range);
    RUN(next_values);
    RUN(numbers);
    RUN(weights);
    RUN(lengths);
    RUN(epilogues);
    RUN(output_alone);
    RUN(pointers);
    RUN(counts_of_batches);
    RUN(groups);
    RUN(descriptors_in_the_wrong_place);
    return finish();
}
