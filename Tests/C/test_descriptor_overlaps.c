/* SPDX-License-Identifier: Apache-2.0
 *
 * No output may share memory with what the descriptors bring, unless it is the very tensor that it stands for. */
#include "descriptors.h"

/* No output shares memory with an array that a descriptor names. */
static void forward_calls(void) {
    static const call forwards[] = {training, inference, normalize};
    for (size_t i = 0; i < LENGTH(forwards); i++) {
        call each = forwards[i];
        REFUSED(each, BN_ERROR_OVERLAP, "y", (add_residual(), a.epilogue_value.z = a.y));
        REFUSED(each, BN_ERROR_OVERLAP, "y", (add_residual(), a.epilogue_value.z = (float *)a.y + 23));
        REFUSED(each, BN_ERROR_OVERLAP, "y", (weigh(), a.weights_value.values = (float *)a.y + 5));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = a.x));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = (uint8_t *)a.y + 95));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = (uint8_t *)a.y - mask_bytes + 1));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = a.gamma));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = (uint8_t *)a.beta + 1));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (add_residual(), a.epilogue_value.mask = (uint8_t *)memory.z + 50));
        REFUSED(each, BN_ERROR_OVERLAP, "mask",
                (keep_mask(), weigh(), a.epilogue_value.mask = (uint8_t *)memory.weights));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = (uint8_t *)a.mean + 3));
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = (uint8_t *)a.invstd + 3));
    }
    for (size_t i = 0; i < 2; i++) {
        call each = forwards[i];
        REFUSED(each, BN_ERROR_OVERLAP, "mask", (keep_mask(), a.epilogue_value.mask = a.running_var));
        REFUSED(each, BN_ERROR_OVERLAP, "y",
                (divide_by_index(), clear_y(), a.groups_value.index = (int32_t *)a.y + 23));
        REFUSED(each, BN_ERROR_OVERLAP, "saved_mean", (divide_by_index(), a.mean = (double *)memory.index));
        REFUSED(each, BN_ERROR_OVERLAP, "saved_mean", (weigh(), a.weights_value.values = (float *)a.mean));
        REFUSED(each, BN_ERROR_OVERLAP, "saved_invstd", (add_residual(), a.epilogue_value.z = (float *)a.invstd));
        /* rows that there are for each group, but not without groups */
        REFUSED(each, BN_ERROR_OVERLAP, "y", (divide_all(), a.gamma = (float *)a.y - 4));
        REFUSED(each, BN_ERROR_OVERLAP, "y", (divide_all(), a.beta = (float *)a.y - 4));
        REFUSED(each, BN_ERROR_OVERLAP, "saved_mean", (divide_all(), a.mean = a.invstd - group_count * channels + 1));
    }
    REFUSED(training, BN_ERROR_OVERLAP, "saved_mean", (divide(), a.mean = a.invstd - group_count * channels + 1));
    REFUSED(training, BN_ERROR_OVERLAP, "running_mean", (divide_all(), a.running_mean = (float *)a.running_var - 5));
}

static void running(void) {
    REFUSED(training, BN_ERROR_OVERLAP, "num_batches", (keep(), a.running_value.num_batches = (int64_t *)memory.x + 5));
    REFUSED(training, BN_ERROR_OVERLAP, "running_mean", (keep(), a.running_mean = memory.num_batches));
    REFUSED(training, BN_ERROR_OVERLAP, "y",
            (keep(), clear_y(), a.running_value.num_batches = (int64_t *)memory.y + 11));
    REFUSED(training, BN_ERROR_OVERLAP, "outcome", (keep(), a.running_value.outcome = (int32_t *)memory.x + 23));
    REFUSED(training, BN_ERROR_OVERLAP, "outcome",
            (keep(), a.running_value.outcome = (int32_t *)memory.num_batches + 1));
    REFUSED(training, BN_ERROR_OVERLAP, "saved_mean", (keep(), a.running_value.outcome = (int32_t *)a.mean + 2));
    REFUSED(training, BN_ERROR_OVERLAP, "outcome",
            (divide_by_index(), keep(), a.running_value.outcome = memory.index + 2));
    REFUSED(training, BN_ERROR_OVERLAP, "new_running_mean",
            (keep_apart(), a.running_value.new_running_mean = memory.x + 7));
    static const int offsets[] = {0, 1, -1};
    for (size_t i = 0; i < LENGTH(offsets); i++) {
        REFUSED(training, BN_ERROR_OVERLAP, "running_mean",
                (keep_apart(), a.running_mean = memory.group_mean,
                 a.running_value.new_running_mean = memory.group_mean + offsets[i]));
        REFUSED(training, BN_ERROR_OVERLAP, "running_var",
                (keep_apart(), a.running_var = memory.group_var,
                 a.running_value.new_running_var = memory.group_var + offsets[i]));
        REFUSED(training, BN_ERROR_OVERLAP, "running_var",
                (keep_apart(), a.running_var = memory.group_var,
                 a.running_value.new_running_mean = memory.group_var + offsets[i]));
    }
    REFUSED(training, BN_ERROR_OVERLAP, "running_mean", (keep_apart(), a.running_mean = memory.new_num_batches));
    REFUSED(training, BN_ERROR_OVERLAP, "running_var", (keep_apart(), a.running_var = memory.outcome));
    REFUSED(training, BN_ERROR_OVERLAP, "new_running_var",
            (keep_apart(), a.running_value.new_running_var = memory.new_mean + 1));
    REFUSED(training, BN_ERROR_OVERLAP, "new_num_batches",
            (keep_apart(), a.running_value.new_num_batches = memory.num_batches));
    REFUSED(training, BN_ERROR_OVERLAP, "new_num_batches",
            (keep_apart(), a.running_value.new_num_batches = (int64_t *)memory.new_mean));
    REFUSED(training, BN_ERROR_OVERLAP, "y", (keep_apart(), a.running_value.new_running_var = memory.y + 23));
    REFUSED(training, BN_ERROR_OVERLAP, "saved_invstd",
            (keep_apart(), a.running_value.new_running_mean = a.invstd + 1));
    REFUSED(training, BN_ERROR_OVERLAP, "saved", (blend(), a.source_value.saved = (double *)memory.x + 11));
    REFUSED(training, BN_ERROR_OVERLAP, "saved", (blend(), a.source_value.saved = (double *)memory.gamma));
    REFUSED(training, BN_ERROR_OVERLAP, "saved_mean", (blend(), a.source_value.saved = a.mean));
    REFUSED(training, BN_ERROR_OVERLAP, "y", (blend(), a.source_value.saved = (double *)memory.y - 3));
}

static void of_backward(void) {
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), a.epilogue_value.dz = a.x));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), a.epilogue_value.dz = memory.z));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), a.epilogue_value.dz = (float *)a.dy + 1));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz",
            (split(), a.epilogue_value.dz = a.dy, a.epilogue_value.dz_stride = channels * inner + 1));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), a.epilogue_value.dz = memory.gamma));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), a.epilogue_value.dz = memory.beta));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), a.epilogue_value.dz = memory.mean));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), weigh(), a.epilogue_value.dz = memory.weights));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), keep_mask(), a.epilogue_value.dz = (float *)memory.mask));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), blend(), a.epilogue_value.dz = memory.saved));
    REFUSED(backward, BN_ERROR_OVERLAP, "dz", (split(), divide_by_index(), a.epilogue_value.dz = memory.index));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (split(), a.epilogue_value.dz = a.dx));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (split(), a.dx = memory.dz + 20));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (split(), a.epilogue_value.z = a.dx));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (split(), a.beta = a.dx));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (keep_mask(), a.epilogue_value.mask = (uint8_t *)a.dx + 95));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (weigh(), a.weights_value.values = a.dx));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (blend(), a.source_value.saved = (double *)memory.dx + 5));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (divide_by_index(), a.dx = memory.index));
    REFUSED(backward, BN_ERROR_OVERLAP, "dgamma", (split(), a.dgamma = memory.dz + 3));
    REFUSED(backward, BN_ERROR_OVERLAP, "dbeta", (split(), a.beta = a.dbeta));
    REFUSED(backward, BN_ERROR_OVERLAP, "dgamma", (weigh(), a.weights_value.values = (float *)a.dgamma - 11));
    REFUSED(backward, BN_ERROR_OVERLAP, "dgamma", (divide_all(), a.dgamma = (float *)a.dbeta - 5));
    ACCEPTED(backward, (divide(), a.dgamma = (float *)a.dbeta - 5));
    ACCEPTED(backward, (split(), a.epilogue_value.dz = a.dy));
    ACCEPTED(backward, (split(), a.dx = a.dy));
    ACCEPTED(backward, (split(), a.dx = NULL, a.epilogue_value.dz = a.dy));
    REFUSED(backward, BN_ERROR_OVERLAP, "dx", (split(), a.dx = a.epilogue_value.dz = a.dy));
}

static void blocks(void) {
    REFUSED(moments, BN_ERROR_OVERLAP, "count", (weigh(), a.weights_value.values = a.count));
    REFUSED(moments, BN_ERROR_OVERLAP, "m2", (weigh(), a.weights_value.values = a.m2));
    REFUSED(reduce, BN_ERROR_OVERLAP, "sum_dy", (weigh(), a.weights_value.values = a.sum_dy));
    REFUSED(apply, BN_ERROR_OVERLAP, "dx", (weigh(), a.weights_value.values = a.dx));
}

int main(void) {
    start();
    RUN(forward_calls);
    RUN(running);
    RUN(of_backward);
    RUN(blocks);
    return finish();
}
