/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer of every kind that the descriptors can make, for tests of what must hold of all of them. */
#ifndef CASES_H
#define CASES_H

#include "layer.h"

static const struct {
    int with;
    bn_activation activation;
    bn_masked masked;
    bn_source_kind source;
    int32_t per_group, interleaved, averaged, from_output;
} cases[] = {
    {WITH_WEIGHTS, BN_IDENTITY, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_WEIGHTS | WITH_EPILOGUE | WITH_Z | WITH_MASK, BN_LEAKY_RELU, BN_MASKED_ZERO, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_WEIGHTS | WITH_EPILOGUE | WITH_Z, BN_HARD_SWISH, BN_MASKED_KEEP, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_EPILOGUE, BN_SILU, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_EPILOGUE | WITH_Z, BN_CLIP, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_EPILOGUE | WITH_Z, BN_IDENTITY, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_EPILOGUE | WITH_Z | WITH_MASK, BN_RELU, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_EPILOGUE, BN_LEAKY_RELU, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 0, 0, 0, 1},
    {WITH_RUNNING | WITH_NEW, BN_IDENTITY, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 0, 0, 0, 0},
    {WITH_SOURCE, BN_IDENTITY, BN_MASKED_NORMALIZE, BN_SOURCE_BLEND, 0, 0, 0, 0},
    {WITH_SOURCE | WITH_WEIGHTS, BN_IDENTITY, BN_MASKED_NORMALIZE, BN_SOURCE_RENORM, 0, 0, 0, 0},
    {WITH_SOURCE | WITH_RUNNING, BN_IDENTITY, BN_MASKED_NORMALIZE, BN_SOURCE_UPDATED, 0, 0, 0, 0},
    {WITH_GROUPS, BN_IDENTITY, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 1, 0, 0, 0},
    {WITH_GROUPS | WITH_RUNNING | WITH_EPILOGUE | WITH_MASK, BN_RELU, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 1, 1, 1, 0},
    {WITH_GROUPS | WITH_INDEX | WITH_EPILOGUE, BN_CLIP, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 4, 0, 0, 0},
    {WITH_GROUPS | WITH_EPILOGUE, BN_LEAKY_RELU, BN_MASKED_NORMALIZE, BN_SOURCE_BATCH, 5, 1, 0, 1},
    {WITH_GROUPS | WITH_INDEX | WITH_RUNNING | WITH_NEW | WITH_SOURCE | WITH_WEIGHTS | WITH_EPILOGUE | WITH_Z, BN_SILU,
     BN_MASKED_ZERO, BN_SOURCE_RENORM, 7, 0, 0, 0},
};
enum { case_count = sizeof cases / sizeof cases[0], first_of_groups = 12 };

/* Outer is of samples of one outer index each, in threes or not at all. */
static inline layer layer_of_case(int i, size_t outer, size_t channels, size_t inner, bn_dtype dtype) {
    layer l = layer_of(outer, channels, inner, dtype, cases[i].with);
    l.weights.masked = cases[i].masked;
    l.epilogue.activation = cases[i].activation;
    l.epilogue.from_output = cases[i].from_output;
    l.epilogue.high = 0.5;
    l.source.kind = cases[i].source;
    l.source.pseudo_count = 7;
    l.source.r_max = 1.25;
    l.groups.samples = outer;
    l.groups.groups = 3;
    l.groups.per_group = cases[i].per_group;
    l.groups.interleaved = cases[i].interleaved;
    l.groups.averaged = cases[i].averaged;
    l.running.average = BN_AVERAGE_WINDOWED;
    l.running.single_value = BN_SINGLE_VALUE_BETA;
    l.options.biased_running_var = 1; /* so that no weights are too light */
    return l;
}

#endif
