/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers of chance against the oracle. */
#include "chance.h"
#include "oracle.h"

enum { layers = 1500 };

/* Whether some group has one value: what is done of those is the matter of other tests. */
static int has_single_value(layer *l) {
    oracle o = make_oracle(l);
    l->with |= WITH_RUNNING;
    weigh(&o);
    int is_single = 0;
    for (size_t row = 0; row < rows_of(l, BN_PER_GROUP_STATISTICS); row++) {
        is_single = is_single || o.outcomes[row] == BN_OUTCOME_BETA || o.outcomes[row] == BN_OUTCOME_RUNNING;
    }
    free_oracle(&o);
    return is_single;
}

/* Where bn_backward takes a row of what inference saved for each row that it has itself. */
static void frozen_agrees(layer *l) {
    oracle o = expected_inference(l);
    l->options.frozen = 1;
    CHECK_OK(infer_layer(l));
    check_tensor(l, Y, o.y);
    if (l->arrays[MASK] != NULL) check_bits(&o);
    int is_read = rows_of(l, BN_PER_GROUP_STATISTICS) == rows_of(l, BN_PER_GROUP_RUNNING);
    if (is_read && (l->with & WITH_SOURCE) == 0) {
        expect_gradients(&o, BN_PER_GROUP_RUNNING);
        CHECK_OK(back_layer(l));
        check_gradients(&o);
    }
    free_oracle(&o);
}

static void show(const layer *l) {
    fprintf(stderr, "%zu x %zu x %zu, strides %zu %zu %zu %zu %zu, with %d, activation %d, from_output %d, masked %d\n",
            l->shape.outer, l->shape.channels, l->shape.inner, l->shape.x_stride, l->shape.y_stride, l->shape.dx_stride,
            l->epilogue.z_stride, l->epilogue.dz_stride, l->with, (int)l->epilogue.activation, l->epilogue.from_output,
            (int)l->weights.masked);
    fprintf(stderr, "source %d, %zu samples, %zu groups, per_group %d, interleaved %d, averaged %d, param_dtype %d\n",
            (int)l->source.kind, l->groups.samples, l->groups.groups, l->groups.per_group, l->groups.interleaved,
            l->groups.averaged, (int)l->options.param_dtype);
}

static void each_layer(int is_training) {
    for (int i = 0; i < layers; i++) {
        layer l = choose_layer();
        int with = l.with;
        make_arrays(&l);
        int is_single = is_training && has_single_value(&l);
        l.with = with;
        unsigned long failed = checks_failed;
        if (!is_training) frozen_agrees(&l);
        else if (!is_single) training_agrees(&l);
        if (checks_failed > failed && failed < failures_shown) show(&l);
        free_arrays(&l);
    }
}

static void training(void) { each_layer(1); }
static void inference(void) { each_layer(0); }

int main(void) {
    start();
    RUN(training);
    RUN(inference);
    return finish();
}
