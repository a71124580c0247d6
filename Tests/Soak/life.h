/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of one layer: random steps of training, frozen training and inference, with refused calls in between. After
 * each step its outputs are what the oracle makes of its own state, and its state is where its twin's is. */
#ifndef SOAK_LIFE_H
#define SOAK_LIFE_H

#include "../C/chance.h"
#include "twin.h"

enum { most_steps = 400, elements_of_a_life = 1 << 21 };

static unsigned long long steps_made, calls_made;
static int most_threads = 1;

typedef struct life {
    layer l;
    twin t;
    double rate, decay; /* of the steps of gamma and beta */
    uint64_t digest;
    int is_sure;
} life;

static inline void add_to_digest(uint64_t *digest, const layer *l) {
    for (int a = 0; a < array_count; a++) {
        const unsigned char *bytes = l->arrays[a];
        for (size_t i = 0; i + 1 < l->bytes[a]; i += 2) { /* the smallest element; masks may have a byte more */
            uint16_t two;
            memcpy(&two, bytes + i, 2);
            *digest = (*digest ^ two) * 1099511628211u;
            *digest ^= *digest >> 32;
        }
    }
}

static inline void draw_batch(layer *l) {
    fill(l, X, l->dtype, 0.5 * random_value(), 1.5 + 0.5 * random_value());
    fill(l, DY, l->dtype, 0.25, 1);
    fill(l, Z, l->dtype, 0.125, 1);
    if (l->arrays[INDEX] == NULL) return;
    for (size_t i = 0; i < l->groups.samples; i++) ((int32_t *)l->arrays[INDEX])[i] = (int32_t)below(l->groups.groups);
}

/* A kink near u of the twin: the oracle of the library's own state will see to its own. */
static inline void clear_kinks(layer *l, const oracle *o) {
    for (size_t i = 0; i < elements_of(l); i++) {
        if (is_near_kink(&l->epilogue, l->dtype, o->u[i])) put(l->dtype, l->arrays[DY], place_of(l, DY, i), 0);
    }
}

/* A call that is refused leaves everything as it is. */
static inline void refuse(layer *l) {
    layer broken = *l, before = clone_of(l);
    switch (below(4)) {
    case 0: broken.options.eps = -1; break;
    case 1: broken.shape.x_stride = 1, broken.shape.channels *= 2; break;
    case 2: broken.arrays[RUNNING_VAR] = NULL; break;
    default: broken.options.struct_size = 3; break;
    }
    bn_status status = below(2) ? train_layer(&broken) : infer_layer(&broken);
    CHECK(status != BN_OK, "a call that is wrong was made");
    const char *changed = difference(l, &before);
    CHECK(changed == NULL, "%s was written by a call that was refused", changed);
    calls_made += 1;
    free_arrays(&before);
}

/* Gamma and beta of the library in their own type, those of the twin in double. */
static inline void descend(life *f) {
    layer *l = &f->l, *t = &f->t.l;
    static const enum array of[2][2] = {{GAMMA, DGAMMA}, {BETA, DBETA}};
    double step = f->rate / (double)(l->shape.outer * l->shape.inner), unit = unit_of_type(l->param);
    for (int k = 0; k < 2; k++) {
        enum array value = of[k][0], sum = of[k][1];
        double centre = value == GAMMA ? 1.5 : 0.25, kept = 1 - f->rate * f->decay;
        for (size_t i = 0; i < t->bytes[value] / sizeof(double); i++) {
            double ours = get(BN_FLOAT64, t->arrays[value], i), theirs = parameter(l, value, i);
            double of_ours = saved(t, sum, i), *allowed = &f->t.allowed[value][i];
            put(l->param, l->arrays[value], i, centre + kept * (theirs - centre) - step * parameter(l, sum, i));
            ours = centre + kept * (ours - centre) - step * of_ours;
            put(BN_FLOAT64, t->arrays[value], i, ours);
            *allowed = kept * *allowed + step * (f->t.allowed[sum][i] + unit * fabs(of_ours)) + stored(l->param, ours);
        }
    }
}

/* A caller of the pure form hands on what is new. */
static inline void hand_on(layer *l) {
    static const enum array old[] = {RUNNING_MEAN, RUNNING_VAR, NUM_BATCHES};
    static const enum array new[] = {NEW_MEAN, NEW_VAR, NEW_NUM_BATCHES};
    for (int k = 0; k < 3; k++) memcpy(l->arrays[old[k]], l->arrays[new[k]], l->bytes[old[k]]);
}

static inline void compare(const life *f) {
    const layer *l = &f->l, *t = &f->t.l;
    for (int s = 0; s < state_count; s++) {
        enum array a = state[s];
        for (size_t i = 0; i < t->bytes[a] / sizeof(double); i++) {
            double theirs = parameter(l, a, i), ours = saved(t, a, i), allowed = f->t.allowed[a][i];
            double part = theirs == ours ? 0 : fabs(theirs - ours) / allowed;
            CHECK(part <= 1, "%s[%zu] is %.17g, the twin's is %.17g +- %.2g", array_names[a], i, theirs, ours, allowed);
            most_of_allowed = fmax(most_of_allowed, part);
        }
    }
    size_t bytes = l->bytes[NUM_BATCHES];
    int is_same = bytes == 0 || memcmp(l->arrays[NUM_BATCHES], t->arrays[NUM_BATCHES], bytes) == 0;
    CHECK(is_same, "num_batches is another than the twin's");
}

/* The step once more, of what it began with and with another number of threads: the same bits. */
static inline void repeat(const layer *l, layer *before, int is_frozen) {
    int threads = bn_get_num_threads();
    CHECK_OK(bn_set_num_threads(1 + threads % most_threads));
    memcpy(before->arrays[DY], l->arrays[DY], l->bytes[DY]);
    before->options.frozen = is_frozen;
    CHECK_OK(is_frozen ? infer_layer(before) : train_layer(before));
    CHECK_OK(back_layer(before));
    const char *changed = difference(l, before);
    CHECK(changed == NULL, "%s has other bits with %d threads and with %d", changed, threads, bn_get_num_threads());
    CHECK_OK(bn_set_num_threads(threads));
    calls_made += 2;
}

static inline void train_step(life *f, int is_frozen) {
    layer *l = &f->l, *t = &f->t.l, before;
    int per_group = is_frozen ? BN_PER_GROUP_RUNNING : BN_PER_GROUP_STATISTICS, is_repeated = below(8) == 0;
    l->options.frozen = t->options.frozen = is_frozen;
    oracle theirs = is_frozen ? expected_inference(l) : expected_training(l);
    oracle ours = is_frozen ? expected_inference(t) : expected_training(t);
    clear_kinks(l, &ours);
    if (is_repeated) before = clone_of(l);
    CHECK_OK(is_frozen ? infer_layer(l) : train_layer(l));
    if (is_frozen) check_tensor(l, Y, theirs.y);
    else check_training(&theirs);
    expect_gradients(&theirs, per_group);
    CHECK_OK(back_layer(l));
    check_gradients(&theirs);
    calls_made += 2;
    if (is_repeated) repeat(l, &before, is_frozen), free_arrays(&before);
    expect_gradients(&ours, per_group);
    memcpy(t->arrays[DGAMMA], ours.dgamma, t->bytes[DGAMMA]);
    memcpy(t->arrays[DBETA], ours.dbeta, t->bytes[DBETA]);
    f->is_sure = doubt_sums(&f->t, &ours, per_group);
    if (!is_frozen) move_running(&f->t, &ours);
    if (!is_frozen && l->with & WITH_NEW) hand_on(l);
    descend(f);
    compare(f);
    free_oracle(&theirs), free_oracle(&ours);
}

/* A layer that may be neither trained nor frozen is in inference: a group has one value, or rows that bn_backward would
 * not find. */
static inline void one_step(life *f) {
    layer *l = &f->l;
    draw_batch(l);
    size_t kind = below(8);
    int is_read = rows_of(l, BN_PER_GROUP_STATISTICS) == rows_of(l, BN_PER_GROUP_RUNNING);
    if (kind == 0) refuse(l);
    if (kind == 1 && is_read && (l->with & WITH_SOURCE) == 0) train_step(f, 1);
    else if (kind > 1 && !has_single_value(l)) train_step(f, 0);
    else inference_agrees(l), calls_made += 1;
    add_to_digest(&f->digest, l);
    steps_made += 1;
}

/* Returns the digest of everything that the library wrote. */
static inline uint64_t live(unsigned long long number) {
    random_state = seed * UINT64_C(0xD1342543DE82EF95) + number;
    life f = {.l = choose_layer(), .rate = 0.05, .is_sure = 1, .digest = 14695981039346656037u};
    f.decay = f.l.epilogue.from_output || below(2); /* x_hat of the output wants a gamma that is not small */
    if (below(3) == 0) f.l.options.momentum = 0.01;
    make_arrays(&f.l);
    f.t = twin_of(&f.l);
    size_t affordable = 1 + elements_of_a_life / elements_of(&f.l);
    size_t steps = 1 + below(1 + below(affordable < most_steps ? affordable : most_steps));
    for (size_t step = 0; step < steps && f.is_sure && checks_failed == 0; step++) {
        one_step(&f);
        if (checks_failed > 0) fprintf(stderr, "step %zu of %zu\n", step, steps), show(&f.l);
    }
    free_twin(&f.t), free_arrays(&f.l);
    return f.digest;
}

#endif
