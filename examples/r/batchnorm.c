/* SPDX-License-Identifier: Apache-2.0
 *
 * The half of the binding that is C: arguments of .Call become those of libbatchnorm, and a status becomes an R error.
 *
 * R has no float32: its numbers are doubles, which C reads where they are. Results are new arrays, as everywhere in R;
 * that goes for the running statistics, which are copied before they are updated. */
#include <batchnorm.h>

#include <R.h>
#include <R_ext/Rdynload.h>
#include <Rinternals.h>

/* An array of R has its fastest dimension first: inner, channels, outer. */
static bn_shape shape_of(SEXP x)
{
    SEXP dim = getAttrib(x, R_DimSymbol);
    if (!isReal(x) || length(dim) != 3)
        error("expected an array of doubles with the dimensions inner, channels, outer");
    return (bn_shape)BN_SHAPE(INTEGER(dim)[2], INTEGER(dim)[1], INTEGER(dim)[0]);
}

static void same_shape(const char *name, SEXP tensor, const bn_shape *shape)
{
    bn_shape own = shape_of(tensor);
    if (own.outer != shape->outer || own.channels != shape->channels || own.inner != shape->inner)
        error("%s has other dimensions than x", name);
}

/* The numbers of a vector with an element per channel, NULL for NULL. */
static double *channels_of(const char *name, SEXP vector, const bn_shape *shape)
{
    if (isNull(vector))
        return NULL;
    if (!isReal(vector))
        error("%s is not a vector of doubles", name);
    if ((size_t)xlength(vector) != shape->channels)
        error("%s has %.0f elements; expected %.0f", name, (double)xlength(vector), (double)shape->channels);
    return REAL(vector);
}

static void check(bn_status status)
{
    if (status != BN_OK)
        error("%s", bn_last_error());
}

static SEXP new_tensor(SEXP x)
{
    SEXP result = allocVector(REALSXP, xlength(x));
    PROTECT(result);
    setAttrib(result, R_DimSymbol, getAttrib(x, R_DimSymbol));
    UNPROTECT(1);
    return result;
}

/* Puts a value into a list, which protects it, and tells where its numbers are. */
static double *put(SEXP list, int index, SEXP value)
{
    return REAL(SET_VECTOR_ELT(list, index, value));
}

static double *put_channels(SEXP list, int index, const bn_shape *shape)
{
    return put(list, index, allocVector(REALSXP, (R_xlen_t)shape->channels));
}

static SEXP forward_training(SEXP x, SEXP gamma, SEXP beta, SEXP running_mean, SEXP running_var, SEXP eps,
                             SEXP momentum, SEXP biased_running_var)
{
    const char *names[] = {"y", "mean", "invstd", "running_mean", "running_var", ""};
    bn_shape shape = shape_of(x);
    bn_options options = BN_OPTIONS_INIT;
    options.eps = asReal(eps);
    options.momentum = asReal(momentum);
    options.biased_running_var = asLogical(biased_running_var);
    const double *scale = channels_of("gamma", gamma, &shape), *shift = channels_of("beta", beta, &shape);
    SEXP list = PROTECT(mkNamed(VECSXP, names));
    double *y = put(list, 0, new_tensor(x));
    double *mean = put_channels(list, 1, &shape);
    double *invstd = put_channels(list, 2, &shape);
    double *new_mean = channels_of("running_mean", SET_VECTOR_ELT(list, 3, duplicate(running_mean)), &shape);
    double *new_var = channels_of("running_var", SET_VECTOR_ELT(list, 4, duplicate(running_var)), &shape);
    check(bn_forward_training(&shape, BN_FLOAT64, REAL(x), scale, shift, new_mean, new_var, y, mean, invstd, &options));
    UNPROTECT(1);
    return list;
}

static SEXP forward_inference(SEXP x, SEXP gamma, SEXP beta, SEXP running_mean, SEXP running_var, SEXP eps)
{
    const char *names[] = {"y", "mean", "invstd", ""};
    bn_shape shape = shape_of(x);
    bn_options options = BN_OPTIONS_INIT;
    options.eps = asReal(eps);
    SEXP list = PROTECT(mkNamed(VECSXP, names));
    double *y = put(list, 0, new_tensor(x));
    double *mean = put_channels(list, 1, &shape);
    double *invstd = put_channels(list, 2, &shape);
    check(bn_forward_inference(&shape, BN_FLOAT64, REAL(x), channels_of("gamma", gamma, &shape),
                               channels_of("beta", beta, &shape), channels_of("running_mean", running_mean, &shape),
                               channels_of("running_var", running_var, &shape), y, mean, invstd, &options));
    UNPROTECT(1);
    return list;
}

static SEXP backward(SEXP dy, SEXP x, SEXP mean, SEXP invstd, SEXP gamma, SEXP beta, SEXP frozen)
{
    const char *names[] = {"dx", "dgamma", "dbeta", ""};
    bn_shape shape = shape_of(x);
    bn_options options = BN_OPTIONS_INIT;
    options.frozen = asLogical(frozen);
    same_shape("dy", dy, &shape);
    SEXP list = PROTECT(mkNamed(VECSXP, names));
    double *dx = put(list, 0, new_tensor(x));
    double *dgamma = put_channels(list, 1, &shape);
    double *dbeta = put_channels(list, 2, &shape);
    check(bn_backward(&shape, BN_FLOAT64, REAL(dy), REAL(x), channels_of("gamma", gamma, &shape),
                      channels_of("beta", beta, &shape), channels_of("mean", mean, &shape),
                      channels_of("invstd", invstd, &shape), dx, dgamma, dbeta, &options));
    UNPROTECT(1);
    return list;
}

static SEXP moments(SEXP x)
{
    const char *names[] = {"count", "mean", "m2", ""};
    bn_shape shape = shape_of(x);
    SEXP list = PROTECT(mkNamed(VECSXP, names));
    double *count = put_channels(list, 0, &shape);
    double *mean = put_channels(list, 1, &shape);
    double *m2 = put_channels(list, 2, &shape);
    check(bn_moments(&shape, BN_FLOAT64, REAL(x), count, mean, m2, 0, NULL));
    UNPROTECT(1);
    return list;
}

static SEXP set_num_threads(SEXP threads)
{
    check(bn_set_num_threads(asInteger(threads)));
    return R_NilValue;
}

/* Called by dyn.load. */
void R_init_batchnorm(DllInfo *dll)
{
    static const R_CallMethodDef methods[] = {
        {"forward_training", (DL_FUNC)forward_training, 8},
        {"forward_inference", (DL_FUNC)forward_inference, 6},
        {"backward", (DL_FUNC)backward, 7},
        {"moments", (DL_FUNC)moments, 1},
        {"set_num_threads", (DL_FUNC)set_num_threads, 1},
        {NULL, NULL, 0},
    };
    int version = bn_version();
    if (version / 10000 != 2 || version < 20000)
        error("libbatchnorm 2.0 or a later 2.x is needed, but libbatchnorm.so.2 is %d.%d.%d", version / 10000,
              version / 100 % 100, version % 100);
    R_registerRoutines(dll, NULL, methods, NULL, NULL);
    R_useDynamicSymbols(dll, FALSE);
}
