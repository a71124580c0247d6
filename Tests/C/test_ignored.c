/* SPDX-License-Identifier: Apache-2.0
 *
 * A call ignores parts of its bn_options. They change no bit of its outputs, and the call does not write to them: every
 * call with all descriptors, beside the same call with those that it needs. */
#include "cases.h"
#include "chance.h"
#include "agrees.h"

enum { layers = 600 };

/* A layer that gives every call all descriptors, and one that gives each call those that it needs. */
typedef struct pair {
    layer all, needed;
} pair;

/* A bn_running of all kinds beside whatever else there is, frozen, and from_output where it is allowed. */
static pair pair_of(layer *l) {
    int can_undo = l->epilogue.activation == BN_IDENTITY || l->epilogue.activation == BN_LEAKY_RELU;
    l->with |= WITH_RUNNING | WITH_EPILOGUE | WITH_NEW * (int)below(2);
    l->running.average = (bn_average)below(5);
    l->running.single_value = (bn_single_value)(1 + below(2));
    l->running.nonfinite = (bn_nonfinite)below(3);
    int is_shared = (l->with & WITH_GROUPS) != 0 && l->groups.per_group == BN_PER_GROUP_PARAMETERS;
    if ((l->with & (WITH_Z | WITH_SOURCE)) != 0 || !can_undo || is_shared) l->epilogue.from_output = 0;
    else l->epilogue.from_output = (int32_t)below(2);
    make_arrays(l);
    if (l->arrays[DZ] == NULL) { /* dz without z is the gradient of u */
        l->bytes[DZ] = l->shape.outer * stride_of(l, DZ) * size_of(l->dtype);
        l->arrays[DZ] = memset(allocate(l->bytes[DZ], 1), 0xA5, l->bytes[DZ]);
    }
    l->options.frozen = (int32_t)below(2);
    pair p = {*l, clone_of(l)};
    return p;
}

static void free_pair(pair *p) { free_arrays(&p->all), free_arrays(&p->needed); }

/* Every array, whether it was written by both or by neither. */
static void check_same(const pair *p, const char *call) {
    const char *name = difference(&p->all, &p->needed);
    CHECK(name == NULL, "%s: %s differs (%s, with %d, activation %d, source %d, per_group %d)", call, name,
          name_of(p->all.dtype), p->all.with, (int)p->all.epilogue.activation, (int)p->all.source.kind,
          p->all.groups.per_group);
}

static void training_ignores(pair *p) {
    CHECK_OK(train_layer(&p->all));
    layer *l = &p->needed;
    void **a = l->arrays;
    connect(l, 0);
    l->epilogue.dz = NULL, l->epilogue.dz_stride = 0, l->epilogue.from_output = 0, l->options.frozen = 0;
    CHECK_OK(bn_forward_training(&l->shape, l->dtype, a[X], a[GAMMA], a[BETA], a[RUNNING_MEAN], a[RUNNING_VAR], a[Y],
                                 a[SAVED_MEAN], a[SAVED_INVSTD], &l->options));
    l->epilogue.dz_stride = p->all.epilogue.dz_stride, l->epilogue.from_output = p->all.epilogue.from_output;
    l->options.frozen = p->all.options.frozen;
    check_same(p, "training");
}

/* Backward needs no bn_running, unless it says that some statistics were constants. */
static void backward_ignores(pair *p, int has_single_value) {
    CHECK_OK(back_layer(&p->all));
    if (!has_single_value) p->needed.with &= ~WITH_RUNNING;
    p->needed.running.average = BN_AVERAGE_EXPONENTIAL, p->needed.running.nonfinite = BN_NONFINITE_PROPAGATE;
    void *kept[array_count];
    memcpy(kept, p->needed.arrays, sizeof kept);
    for (int i = NUM_BATCHES; i <= OUTCOME; i++) p->needed.arrays[i] = NULL;
    CHECK_OK(back_layer(&p->needed));
    memcpy(p->needed.arrays, kept, sizeof kept);
    check_same(p, "backward");
}

/* bn_source takes what bn_backward has to know; nothing else of it counts. */
static void inference_ignores(pair *p) {
    layer *l = &p->needed;
    void **a = l->arrays;
    CHECK_OK(infer_layer(&p->all));
    connect(l, 0);
    l->options.running = NULL, l->options.source = NULL, l->epilogue.dz = NULL, l->epilogue.from_output = 0;
    l->options.frozen = 0;
    CHECK_OK(bn_forward_inference(&l->shape, l->dtype, a[X], a[GAMMA], a[BETA], a[RUNNING_MEAN], a[RUNNING_VAR], a[Y],
                                  a[SAVED_MEAN], a[SAVED_INVSTD], &l->options));
    l->epilogue.from_output = p->all.epilogue.from_output;
    for (size_t i = 0; i < l->bytes[SAVED] / sizeof(double); i++) {
        CHECK(saved(&p->all, SAVED, i) == 0, "saved[%zu] is %g", i, saved(&p->all, SAVED, i));
    }
    if (l->bytes[SAVED] != 0) memset(a[SAVED], 0, l->bytes[SAVED]);
    check_same(p, "inference");
}

/* bn_backward after inference: frozen by the source, or by options->frozen. dx is rounded after other operations, so that
 * both are off by half a unit. */
static void backward_after_inference(pair *p) {
    int per_group = p->all.groups.per_group, is_split = (p->all.with & WITH_GROUPS) != 0;
    if (is_split && (per_group & BN_PER_GROUP_STATISTICS) == 0 && (per_group & BN_PER_GROUP_RUNNING) != 0) return;
    p->all.options.frozen = (p->all.with & WITH_SOURCE) == 0;
    p->needed.options.frozen = 1;
    p->needed.with &= ~(WITH_SOURCE | WITH_RUNNING);
    memset(p->all.arrays[DX], 0xA5, p->all.bytes[DX]);
    memset(p->needed.arrays[DX], 0xA5, p->all.bytes[DX]);
    CHECK_OK(back_layer(&p->all));
    CHECK_OK(back_layer(&p->needed));
    for (size_t i = 0; i < elements_of(&p->all); i++) {
        double dx = element(&p->all, DX, i), expected = element(&p->needed, DX, i);
        check_close(&p->all, dx, expected, 2 * fabs(expected), "dx", i);
        put(p->all.dtype, p->all.arrays[DX], place_of(&p->all, DX, i), expected);
    }
    check_same(p, "backward after inference");
}

static void all_calls(layer *l) {
    pair p = pair_of(l);
    layer trained = clone_of(&p.all), given = clone_of(&p.all);
    training_ignores(&p);
    CHECK_OK(train_layer(&trained));
    int has_single_value = 0;
    for (size_t i = 0; i < l->bytes[OUTCOME] / sizeof(int32_t); i++) {
        has_single_value |= ((int32_t *)trained.arrays[OUTCOME])[i] >= BN_OUTCOME_RUNNING;
    }
    backward_ignores(&p, has_single_value);
    pair q = {given, clone_of(&given)};
    inference_ignores(&q);
    backward_after_inference(&q);
    free_pair(&p), free_pair(&q), free_arrays(&trained);
}

static void layers_of_chance(void) {
    for (int i = 0; i < layers; i++) {
        layer l = choose_layer();
        all_calls(&l);
    }
}

static void layers_of_every_case(void) {
    static const size_t shapes[][3] = {{6, 3, 49}, {9, 37, 1}, {6, 2, 3}, {1200, 5, 1}};
    for (int s = 0; s < 4; s++) {
        for (int c = 0; c < case_count; c++) {
            for (int d = 0; d < all_dtype_count; d++) {
                layer l = layer_of_case(c, shapes[s][0], shapes[s][1], shapes[s][2], all_dtypes[d]);
                all_calls(&l);
            }
        }
    }
}

int main(void) {
    start();
    RUN(layers_of_chance);
    RUN(layers_of_every_case);
    return finish();
}
