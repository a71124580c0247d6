/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes per cycle of each loop of the library, with tensors that lie in each level of memory in turn, beside what that
 * level gives to a loop that only reads, copies, or reads two tensors and writes one. One thread. A share far below 1
 * at a level says: here the loop, not memory, is the limit.
 *
 * A cycle is a third of a dependent 64-bit multiplication, which takes three on x86-64 processors of the last fifteen
 * years; so it is a cycle of the core as it runs now, not of the time stamp counter. */
#define _POSIX_C_SOURCE 200809L
#include <batchnorm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 9, CHANNELS_OF_PLANES = 8, SAMPLES_OF_PLANES = 2, CHANNELS_OF_ROWS = 64 };

/* One tensor each, and what belongs to the channels. */
static void *x, *dy, *out;
static double count[CHANNELS_OF_ROWS], mean[CHANNELS_OF_ROWS], invstd[CHANNELS_OF_ROWS], m2[CHANNELS_OF_ROWS],
    sum_dy[CHANNELS_OF_ROWS], sum_dy_x_hat[CHANNELS_OF_ROWS];
static bn_shape shape;
static bn_dtype dtype;
static size_t bytes; /* of one tensor */

/* ---- The loops that are measured ----------------------------------------------------------------------------- */

typedef uint32_t line __attribute__((vector_size(64), aligned(4), may_alias));

/* Eight chains, because one addition waits for the one before. */
static void read_tensor(const line *from) {
    line a = {0}, b = {0}, c = {0}, d = {0}, e = {0}, f = {0}, g = {0}, h = {0};
    for (const line *end = from + bytes / 64 / 8 * 8; from < end; from += 8) {
        a += from[0], b += from[1], c += from[2], d += from[3];
        e += from[4], f += from[5], g += from[6], h += from[7];
    }
    a += b + c + d + e + f + g + h;
    __asm__ volatile("" : : "m"(a));
}

static void read_one(void) { read_tensor(x); }
static void read_two(void) { read_tensor(x), read_tensor(dy); }
static void copy(void) { memcpy(out, x, bytes); }

static void add(void) {
    const line *a = x, *b = dy;
    line *c = out;
    for (size_t i = 0; i < bytes / 64; i++) c[i] = a[i] + b[i];
}

static void done(bn_status status) {
    if (status == BN_OK) return;
    fprintf(stderr, "%s\n", bn_last_error());
    exit(1);
}

static void moments(void) { done(bn_moments(&shape, dtype, x, count, mean, m2, 0, NULL)); }
static void normalize(void) { done(bn_normalize(&shape, dtype, x, NULL, NULL, mean, invstd, out, NULL)); }
static void backward_reduce(void) {
    done(bn_backward_reduce(&shape, dtype, dy, x, mean, invstd, sum_dy, sum_dy_x_hat, 0, NULL));
}
static void backward_apply(void) {
    done(bn_backward_apply(&shape, dtype, dy, x, NULL, mean, invstd, count, sum_dy, sum_dy_x_hat, out, NULL));
}

/* Each loop, the pass that moves the same tensors and does nothing else, and how many tensors these are. */
static const struct loop {
    const char *name;
    void (*run)(void);
    const char *limit_name;
    void (*limit)(void);
    int tensors;
} loops[] = {
    {"moments", moments, "read", read_one, 1},
    {"normalize", normalize, "copy", copy, 2},
    {"backward_reduce", backward_reduce, "read two", read_two, 2},
    {"backward_apply", backward_apply, "read two, write one", add, 3},
};

/* ---- The clock ----------------------------------------------------------------------------------------------- */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double seconds_per_cycle(void) {
    enum { STEPS = 100000, CYCLES = 3 };
    uint64_t value = 3;
    double start = seconds();
    for (int i = 0; i < STEPS; i++) {
        value *= 0x9E3779B97F4A7C15u;
        __asm__ volatile("" : "+r"(value)); /* the compiler may not fold two steps into one */
    }
    return (seconds() - start) / STEPS / CYCLES;
}

static int ascending(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Seconds of a call: enough of them in a row that the clock is exact, after one for the caches. */
static double sample(void (*run)(void), int calls) {
    run();
    double start = seconds();
    for (int i = 0; i < calls; i++) run();
    return (seconds() - start) / calls;
}

/* Bytes per cycle of a loop and of its limit, in turns; the cycle is taken anew in each round. */
static void measure(const struct loop *loop, double *rate, double *limit) {
    double of_loop[ROUNDS], of_limit[ROUNDS], volume = (double)loop->tensors * (double)bytes;
    int calls = 1 + (int)(4e6 / volume);
    for (int i = 0; i < ROUNDS; i++) {
        double cycle = seconds_per_cycle();
        of_loop[i] = volume / (sample(loop->run, calls) / cycle);
        of_limit[i] = volume / (sample(loop->limit, calls) / cycle);
    }
    qsort(of_loop, ROUNDS, sizeof *of_loop, ascending);
    qsort(of_limit, ROUNDS, sizeof *of_limit, ascending);
    *rate = of_loop[ROUNDS / 2];
    *limit = of_limit[ROUNDS / 2];
}

/* ---- The tensors --------------------------------------------------------------------------------------------- */

/* The size of a data cache, or what is usual if the system does not say. sysconf() is not asked: in a virtual machine
 * it may count the caches of the whole processor. */
static size_t cache(int index, size_t usual) {
    char name[64];
    size_t kilobytes = 0;
    snprintf(name, sizeof name, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
    FILE *file = fopen(name, "r");
    if (file && fscanf(file, "%zuK", &kilobytes) != 1) kilobytes = 0;
    if (file) fclose(file);
    return kilobytes ? kilobytes << 10 : usual;
}

static void fill(void *tensor, uint64_t state) {
    for (size_t i = 0; i < bytes / (dtype == BN_FLOAT32 ? 4 : 8); i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        double value = (double)(state >> 40) / (1 << 24);
        if (dtype == BN_FLOAT32)
            ((float *)tensor)[i] = (float)value;
        else
            ((double *)tensor)[i] = value;
    }
}

/* Planes or rows of about that many bytes: a multiple of what a block of either layout holds. */
static void set_up(size_t wanted, int rows, bn_dtype type) {
    dtype = type;
    size_t elements = wanted / (type == BN_FLOAT32 ? 4 : 8);
    shape = (bn_shape){.struct_size = sizeof shape, .outer = SAMPLES_OF_PLANES, .channels = CHANNELS_OF_PLANES};
    shape.inner = elements / (SAMPLES_OF_PLANES * CHANNELS_OF_PLANES);
    if (rows) {
        shape.channels = CHANNELS_OF_ROWS;
        shape.outer = elements / CHANNELS_OF_ROWS;
        shape.inner = 1;
    }
    bytes = shape.outer * shape.channels * shape.inner * (type == BN_FLOAT32 ? 4 : 8);
    fill(x, 1);
    fill(dy, 2);
    memset(out, 0, bytes);
    moments();
    done(bn_inverse_std(shape.channels, count, m2, invstd, NULL));
    backward_reduce();
}

static void *allocate(size_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, 4096, size)) exit(1);
    return memory;
}

int main(void) {
    /* index1 is the instruction cache. */
    const size_t l1 = cache(0, 32 << 10), l2 = cache(2, 1 << 20), l3 = cache(3, 8 << 20);
    /* Three tensors fill two thirds of a cache, and beyond them all four times the last one: but no more than 512 MB. */
    const size_t beyond = 4 * l3 / 3 < (170u << 20) ? 4 * l3 / 3 : 170u << 20;
    const struct {
        const char *name;
        size_t size;
    } levels[] = {{"L1", l1 * 2 / 9}, {"L2", l2 * 2 / 9}, {"L3", l3 * 2 / 9}, {"memory", beyond}};

    if (!bn_isa_name()) {
        fprintf(stderr, "%s\n", bn_last_error());
        return 0; /* an instruction set that this machine lacks is no failure */
    }
    done(bn_set_num_threads(1));
    x = allocate(beyond + 64), dy = allocate(beyond + 64), out = allocate(beyond + 64);

    printf("\n### %s, %.2f GHz, bytes per cycle\n\n", bn_isa_name(), 1e-9 / seconds_per_cycle());
    printf("| level | tensor, KB | dtype | layout | loop | bytes/cycle | limit | bytes/cycle of the limit | share |\n");
    printf("|---|--:|---|---|---|--:|---|--:|--:|\n");
    for (size_t level = 0; level < sizeof levels / sizeof *levels; level++)
        for (int type = BN_FLOAT32; type <= BN_FLOAT64; type++)
            for (int rows = 0; rows < 2; rows++) {
                set_up(levels[level].size, rows, (bn_dtype)type);
                for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
                    double rate, limit;
                    measure(&loops[i], &rate, &limit);
                    printf("| %s | %zu | %s | %s | %s | %.1f | %s | %.1f | %.2f |\n", levels[level].name, bytes >> 10,
                           type == BN_FLOAT32 ? "float32" : "float64", rows ? "rows" : "planes", loops[i].name, rate,
                           loops[i].limit_name, limit, rate / limit);
                    fflush(stdout);
                }
            }
    return 0;
}
