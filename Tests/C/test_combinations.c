/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers of chance against the oracle. */
#include "chance.h"
#include "agrees.h"

enum { layers = 1500 };

/* Inference, and backward after it where inference saves as many rows as backward reads. */
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

static void each_layer(int is_training) {
    for (int i = 0; i < layers; i++) {
        layer l = choose_layer();
        make_arrays(&l);
        int is_single = is_training && has_single_value(&l);
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
