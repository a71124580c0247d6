/* SPDX-License-Identifier: Apache-2.0
 *
 * A training step of a batch norm whose batch lies in several processes, forward and backward, over MPI. Each process
 * has some of the samples, or none; all normalize with the statistics of the whole batch.
 *
 * The step is made twice: with a row of statistics from each process, and with one from each sample. Sums then have the
 * same order however the samples are shared out, and the results the same bits as those of one process. */
#include <batchnorm.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 30, CHANNELS = 5, PLANE = 49, SLICE = CHANNELS * PLANE };

/* Some of the samples of a batch, and what a step makes of them. */
typedef struct part {
    size_t samples;
    double *x, *dy, *y, *dx;
} part;

static struct {
    double gamma[CHANNELS], beta[CHANNELS];
} affine;

/* What all processes have, each the same. */
typedef struct whole {
    double running_mean[CHANNELS], running_var[CHANNELS];
    double count[CHANNELS], mean[CHANNELS], invstd[CHANNELS];
    double sums[2 * CHANNELS]; /* dbeta and dgamma */
} whole;

static void check(bn_status status)
{
    if (status == BN_OK) return;
    fprintf(stderr, "%s\n", bn_last_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count + 1, size);
    if (memory == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
    return memory;
}

/* The rows of all processes, in the order of their ranks; `total` takes their number. */
static double *gather(MPI_Comm comm, const double *own, int rows, int width, int *total)
{
    int size, length = rows * width;
    MPI_Comm_size(comm, &size);
    int *lengths = allocate((size_t)size, sizeof *lengths), *places = allocate((size_t)size, sizeof *places);
    MPI_Allgather(&length, 1, MPI_INT, lengths, 1, MPI_INT, comm);
    for (int i = 0; i < size; i++) places[i + 1] = places[i] + lengths[i];
    double *all = allocate((size_t)places[size], sizeof *all);
    MPI_Allgatherv(own, length, MPI_DOUBLE, all, lengths, places, MPI_DOUBLE, comm);
    *total = places[size] / width;
    free(lengths), free(places);
    return all;
}

/* A step of some of the samples; `is_by_sample`: with a row of each sample, and not of each process. */
static void step(MPI_Comm comm, int is_by_sample, part p, whole *w)
{
    enum { C = CHANNELS };
    bn_shape shape = BN_SHAPE(p.samples, C, PLANE);
    bn_groups each = BN_GROUPS_INIT;
    bn_options rows_of_samples = BN_OPTIONS_INIT, *options = is_by_sample ? &rows_of_samples : NULL;
    int rows = is_by_sample ? (int)p.samples : 1, total;
    each.samples = each.groups = p.samples > 0 ? p.samples : 1;
    rows_of_samples.groups = &each;
    double *own = allocate(3 * C * (p.samples + 1), sizeof *own), m2[C];
    memset(w, 0, sizeof *w);

    check(bn_moments(&shape, BN_FLOAT64, p.x, own, own + C, own + 2 * C, 3 * C, options));
    double *all = gather(comm, own, rows, 3 * C, &total);
    check(bn_merge_moments((size_t)total, C, all, all + C, all + 2 * C, 3 * C, w->count, w->mean, m2));
    check(bn_inverse_std(C, w->count, m2, w->invstd, NULL));
    check(bn_normalize(&shape, BN_FLOAT64, p.x, affine.gamma, affine.beta, w->mean, w->invstd, p.y, NULL));
    check(bn_update_running(C, BN_FLOAT64, w->count, w->mean, m2, w->running_mean, w->running_var, NULL));
    free(all);

    each.per_group = BN_PER_GROUP_PARAMETERS; /* the statistics are those of all samples */
    check(bn_backward_reduce(&shape, BN_FLOAT64, p.dy, p.x, w->mean, w->invstd, own, own + C, 2 * C, options));
    all = gather(comm, own, rows, 2 * C, &total);
    for (int i = 0; i < total * 2 * C; i++) w->sums[i % (2 * C)] += all[i];
    check(bn_backward_apply(&shape, BN_FLOAT64, p.dy, p.x, affine.gamma, w->mean, w->invstd, w->count, w->sums,
                            w->sums + C, p.dx, NULL));
    free(all), free(own);
}

/* Numbers that are the same on every machine, in [-1, 1). */
static double uniform(void)
{
    static uint64_t state = 20150211;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 4503599627370496.0 - 1; /* 2^52 */
}

static part draw_batch(void)
{
    part p = {SAMPLES, NULL, NULL, NULL, NULL};
    double **tensors[] = {&p.x, &p.dy, &p.y, &p.dx};
    for (int t = 0; t < 4; t++) *tensors[t] = allocate(SAMPLES * SLICE, sizeof(double));
    for (int i = 0; i < SAMPLES * SLICE; i++) {
        p.x[i] = 1000 + 3 * uniform(); /* far from 0, where sums of squares would lose most digits */
        p.dy[i] = uniform();
    }
    for (int c = 0; c < CHANNELS; c++) affine.gamma[c] = 1.5 + uniform(), affine.beta[c] = uniform();
    return p;
}

/* The first sample of a process, the first of which has none, and the last most. */
static size_t first_of(int rank, int size)
{
    size_t r = (size_t)rank, s = (size_t)size;
    return r * r * r * SAMPLES / (s * s * s);
}

static part share(part all, int rank, int size)
{
    size_t first = first_of(rank, size), place = first * SLICE;
    part p = {first_of(rank + 1, size) - first, all.x + place, all.dy + place, NULL, NULL};
    p.y = allocate(p.samples * SLICE, sizeof(double));
    p.dx = allocate(p.samples * SLICE, sizeof(double));
    return p;
}

/* The largest difference of this process's results from those of one that has the whole batch. */
static double distance(part own, part alone, size_t first)
{
    double most = 0;
    for (size_t i = 0; i < own.samples * SLICE; i++) {
        most = fmax(most, fabs(own.y[i] - alone.y[first * SLICE + i]));
        most = fmax(most, fabs(own.dx[i] - alone.dx[first * SLICE + i]));
    }
    return most;
}

static int has_bits(part own, part alone, size_t first)
{
    size_t bytes = own.samples * SLICE * sizeof(double);
    return memcmp(own.y, alone.y + first * SLICE, bytes) == 0 && memcmp(own.dx, alone.dx + first * SLICE, bytes) == 0;
}

int main(int argc, char **argv)
{
    int version = bn_version(), rank, size;
    if (version / 10000 != BN_VERSION_MAJOR || version < BN_VERSION) {
        fprintf(stderr, "libbatchnorm %d.%d is needed, but this one is %d.%d\n", BN_VERSION_MAJOR, BN_VERSION_MINOR,
                version / 10000, version / 100 % 100);
        return 1;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    part all = draw_batch(), own = share(all, rank, size);
    size_t first = first_of(rank, size);
    whole by_process, by_sample, alone;

    step(MPI_COMM_WORLD, 0, own, &by_process);
    step(MPI_COMM_SELF, 0, all, &alone);
    double apart = distance(own, all, first), most;
    MPI_Allreduce(&apart, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    step(MPI_COMM_WORLD, 1, own, &by_sample);
    step(MPI_COMM_SELF, 1, all, &alone);
    int is_same = has_bits(own, all, first) && memcmp(&by_sample, &alone, sizeof alone) == 0, are_same;
    MPI_Allreduce(&is_same, &are_same, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (rank == 0) {
        printf("%d processes: at most %.1e from one process; sample by sample %s\n", size, most,
               are_same ? "its bits" : "OTHER BITS");
    }
    MPI_Finalize();
    return are_same && most < 1e-9 ? 0 : 1;
}
