/* SPDX-License-Identifier: Apache-2.0
 *
 * No output may lie in a structure that the call reads: *shape, *options, or one that they point to. */
#include "arguments.h"

#define PLACE(member) offsetof(struct arguments, member)

typedef struct output {
    call function;
    size_t pointer, bytes;
} output;

enum { tensor = outer * channels * inner * sizeof(float), singles = channels * sizeof(float) };
enum { doubles = channels * sizeof(double) };

static const output outputs[] = {
    {training, PLACE(y), tensor}, {training, PLACE(mean), doubles}, {training, PLACE(invstd), doubles},
    {training, PLACE(running_mean), singles}, {training, PLACE(running_var), singles}, {inference, PLACE(y), tensor},
    {inference, PLACE(mean), doubles}, {inference, PLACE(invstd), doubles}, {backward, PLACE(dx), tensor},
    {backward, PLACE(dgamma), singles}, {backward, PLACE(dbeta), singles},
};
enum { output_count = sizeof outputs / sizeof outputs[0] };

static const struct { size_t place, bytes; } structures[] = {
    {PLACE(shape_value), sizeof(bn_shape)}, {PLACE(options_value), sizeof(bn_options)},
    {PLACE(weights_value), sizeof(bn_weights)}, {PLACE(epilogue_value), sizeof(bn_epilogue)},
    {PLACE(running_value), sizeof(bn_running)}, {PLACE(source_value), sizeof(bn_source)},
    {PLACE(groups_value), sizeof(bn_groups)},
};
enum { structure_count = sizeof structures / sizeof structures[0] };

static void give_all_structures(void) {
    reset();
    a.shape_value.weights = &a.weights_value;
    a.weights_value.values = memory.weights;
    a.options_value.epilogue = &a.epilogue_value;
    a.options_value.running = &a.running_value;
    a.options_value.source = &a.source_value;
    a.source_value.saved = memory.saved;
    a.options_value.groups = &a.groups_value;
    a.groups_value.samples = outer, a.groups_value.groups = 1, a.groups_value.per_group = BN_PER_GROUP_PARAMETERS;
}

/* With the last bytes of the output on the first of the structure, and with the first on the last. */
static void outputs_in_structures(void) {
    for (int o = 0; o < output_count; o++) {
        give_all_structures();
        CHECK(outputs[o].function() == BN_OK, "output %d: %s", o, bn_last_error());
        for (int s = 0; s < structure_count; s++) {
            char *start = (char *)&a + structures[s].place;
            char *places[] = {start + 8 - outputs[o].bytes, start, start + structures[s].bytes - 8};
            for (int p = 0; p < 3; p++) {
                give_all_structures();
                memcpy((char *)&a + outputs[o].pointer, &places[p], sizeof places[p]);
                struct arguments copy = a;
                memcpy(&before, &memory, sizeof memory);
                bn_status status = outputs[o].function();
                CHECK(status == BN_ERROR_OVERLAP, "output %d in structure %d at %d: status %d", o, s, p, (int)status);
                CHECK(memcmp(&copy, &a, sizeof a) == 0 && memcmp(&before, &memory, sizeof memory) == 0, "was written");
            }
        }
    }
}

/* The outputs that structures point to. */
static void outputs_of_structures(void) {
    for (int s = 0; s < structure_count; s++) {
        char *start = (char *)&a + structures[s].place;
        give_all_structures();
        a.epilogue_value.dz = start;
        CHECK(backward() == BN_ERROR_OVERLAP, "dz in structure %d", s);
        give_all_structures();
        a.epilogue_value.activation = BN_RELU;
        a.epilogue_value.mask = (uint8_t *)start + structures[s].bytes - 1;
        CHECK(training() == BN_ERROR_OVERLAP, "mask in structure %d", s);
        give_all_structures();
        a.source_value.saved = (double *)start;
        CHECK(training() == BN_ERROR_OVERLAP && inference() == BN_ERROR_OVERLAP, "saved in structure %d", s);
        give_all_structures();
        a.running_value.num_batches = (int64_t *)start;
        CHECK(training() == BN_ERROR_OVERLAP, "num_batches in structure %d", s);
        give_all_structures();
        a.running_value.outcome = (int32_t *)(start + structures[s].bytes - 4);
        CHECK(training() == BN_ERROR_OVERLAP, "outcome in structure %d", s);
    }
}

/* Outputs of the other functions, each with the structures that the function takes: a shape, its weights, options. */
static const struct {
    call function;
    size_t pointer, bytes;
    int shape, weights, options;
} step_outputs[] = {
    {moments, PLACE(count), doubles, 1, 1, 0}, {moments, PLACE(mean), doubles, 1, 1, 0},
    {moments, PLACE(m2), doubles, 1, 1, 0}, {normalize, PLACE(y), tensor, 1, 1, 1},
    {reduce, PLACE(sum_dy), doubles, 1, 1, 0}, {reduce, PLACE(sum_dy_x_hat), doubles, 1, 1, 0},
    {apply, PLACE(dx), tensor, 1, 1, 1}, {inverse_std, PLACE(invstd), doubles, 0, 0, 1},
    {update_running, PLACE(running_mean), singles, 0, 0, 1}, {update_running, PLACE(running_var), singles, 0, 0, 1},
    {jvp, PLACE(y_tangent), tensor, 1, 0, 1}, {double_backward, PLACE(grad_dy), tensor, 1, 0, 1},
    {double_backward, PLACE(grad_x), tensor, 1, 0, 1}, {double_backward, PLACE(grad_gamma), singles, 1, 0, 1},
    {scale_shift, PLACE(scale), doubles, 0, 0, 1}, {scale_shift, PLACE(shift), doubles, 0, 0, 1},
    {fold_into_previous, PLACE(folded_weight), tensor, 1, 0, 0},
    {fold_into_previous, PLACE(folded_bias), singles, 1, 0, 0},
    {fold_into_next, PLACE(folded_weight), tensor, 1, 0, 0},
    {fold_into_next, PLACE(folded_bias), outer * sizeof(float), 1, 0, 0},
};

static void outputs_of_steps(void) {
    for (size_t o = 0; o < LENGTH(step_outputs); o++) {
        const int has[] = {step_outputs[o].shape, step_outputs[o].options, step_outputs[o].weights};
        for (int s = 0; s < 3; s++) { /* the first three structures */
            if (!has[s]) continue;
            char *start = (char *)&a + structures[s].place;
            char *places[] = {start + 8 - step_outputs[o].bytes, start, start + structures[s].bytes - 8};
            for (int p = 0; p < 3; p++) {
                reset();
                if (has[2]) a.shape_value.weights = &a.weights_value, a.weights_value.values = memory.weights;
                CHECK(p > 0 || step_outputs[o].function() == BN_OK, "output %zu: %s", o, bn_last_error());
                reset();
                if (has[2]) a.shape_value.weights = &a.weights_value, a.weights_value.values = memory.weights;
                memcpy((char *)&a + step_outputs[o].pointer, &places[p], sizeof places[p]);
                struct arguments copy = a;
                memcpy(&before, &memory, sizeof memory);
                bn_status status = step_outputs[o].function();
                CHECK(status == BN_ERROR_OVERLAP, "output %zu in structure %d, place %d: status %d", o, s, p,
                      (int)status);
                CHECK(memcmp(&copy, &a, sizeof a) == 0 && memcmp(&before, &memory, sizeof memory) == 0, "was written");
            }
        }
    }
}

/* A misaligned structure is an error, because the library reads structures by member. */
static void misaligned_structures(void) {
    char room[sizeof(bn_shape) + 4];
    give_all_structures();
    memcpy(room + 4 - (uintptr_t)room % 8 % 4, &a.shape_value, sizeof a.shape_value - 4);
    a.shape = (const bn_shape *)(((uintptr_t)room + 7) / 8 * 8 + 4);
    CHECK(training() == BN_ERROR_ALIGNMENT && names(bn_last_error(), "shape"), "\"%s\"", bn_last_error());
}

int main(void) {
    start();
    RUN(outputs_in_structures);
    RUN(outputs_of_structures);
    RUN(outputs_of_steps);
    if (sizeof(void *) == 8) RUN(misaligned_structures);
    return finish();
}
