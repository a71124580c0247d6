/* SPDX-License-Identifier: Apache-2.0
 *
 * values [-s SEED] [-t SECONDS] [-n ROUNDS] [-o NUMBER]: random layers against the oracles of the C tests, a round of each
 * kind in turn: every descriptor against plain loops in double, plain layers and their derivatives in long double. Ends
 * with the first round that fails. */
#include "../C/chain_rule.h"
#include "../C/chance.h"
#include "../C/expect.h"
#include "../C/agrees.h"

#include <time.h>
#include <unistd.h>

static void layers(void) {
    layer l = choose_layer();
    make_arrays(&l);
    if (!has_single_value(&l)) training_agrees(&l);
    if (checks_failed > 0) show(&l);
    free_arrays(&l);
}

static void derivatives(void) {
    size_t outer = extent(20), channels = extent(40), inner = below(2) ? extent(250) : 1;
    layer l = derivative_of(outer, channels, inner, all_dtypes[below(all_dtype_count)], (int)below(2));
    size_t slice = channels * inner;
    l.shape.x_stride = slice + gap(), l.shape.y_stride = slice + gap(), l.shape.dx_stride = slice + gap();
    if (below(4) == 0) l.param = l.options.param_dtype = all_dtypes[below(all_dtype_count)];
    make_derivative(&l);
    CHECK_OK(run_jvp(&l));
    CHECK_OK(run_double_backward(&l));
    for (size_t c = 0; c < channels; c++) check_channel(&l, c);
    free_arrays(&l);
}

/* Means up to a million deviations, deviations of any size that float32 and float64 have room for. */
static void plain_layers(void) {
    bn_dtype dtype = below(2) ? BN_FLOAT32 : BN_FLOAT64;
    bn_shape shape = dense(extent(300), extent(90), below(3) ? extent(900) : 1);
    size_t slice = shape.channels * shape.inner, count = shape.outer * shape.inner;
    if (count == 1) shape.outer = count = 2;
    shape.x_stride = slice + gap(), shape.y_stride = slice + gap(), shape.dx_stride = slice + gap();
    double spread = pow(10, (dtype == BN_FLOAT32 ? 12 : 60) * random_value());
    problem p = make_problem(shape, dtype, spread * pow(10, 6 * random_value()), spread);
    bn_options options = BN_OPTIONS_INIT;
    CHECK_OK(train(&p, &options));
    CHECK_OK(backward(&p, &options));
    for (size_t c = 0; c < shape.channels; c++) {
        statistics s = reference_statistics(&p, c, options.eps);
        /* docs/numbers.md: float32's squares are summed about a value near the mean, not about the mean. */
        if (dtype == BN_FLOAT32) s.invstd.error += 1e-9 * s.invstd.value;
        check_near(p.mean[c], s.mean, "saved_mean", &p, c);
        check_near(p.invstd[c], s.invstd, "saved_invstd", &p, c);
        check_y(&p, c, p.gamma, p.beta, s.mean, s.invstd);
        sums g = reference_sums(&p, c);
        check_near(get(dtype, p.dbeta, c), rounded(dtype, g.dy), "dbeta", &p, c);
        check_near(get(dtype, p.dgamma, c), rounded(dtype, g.dy_x_hat), "dgamma", &p, c);
        check_dx(&p, c, divided(g.dy, (double)count), divided(g.dy_x_hat, (double)count));
    }
    free_problem(&p);
}

static void one_round(unsigned long long number) {
    random_state = seed * UINT64_C(0xD1342543DE82EF95) + number;
    layers();
    derivatives();
    plain_layers();
}

int main(int argc, char **argv) {
    unsigned long long rounds = 0, number = 0;
    double seconds = 0;
    int option;
    start();
    while ((option = getopt(argc, argv, "s:t:n:o:")) != -1) {
        switch (option) {
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 't': seconds = strtod(optarg, NULL); break;
        case 'n': rounds = strtoull(optarg, NULL, 10); break;
        case 'o': number = strtoull(optarg, NULL, 10), rounds = number + 1; break;
        default: return 2;
        }
    }
    time_t began = time(NULL);
    while (rounds > 0 ? number < rounds : difftime(time(NULL), began) < seconds) {
        one_round(number);
        if (checks_failed > 0) {
            fprintf(stderr, "round %llu of seed %llu: -s %llu -o %llu\n", number, (unsigned long long)seed,
                    (unsigned long long)seed, number);
            return 1;
        }
        number += 1;
    }
    printf("%llu rounds, %lu values compared, seed %llu, %s\n", number, checks_made, (unsigned long long)seed,
           bn_isa_name());
    return checks_made == 0;
}
