/* SPDX-License-Identifier: Apache-2.0
 *
 * libbatchnorm as a MEX function, of which the first argument names the call; see mexFunction for all of them.
 *
 *     [y, saved] = batchnorm ("forward_training", x, gamma, beta, [], [], struct ("eps", 1e-3));
 *     [dx, dgamma, dbeta] = batchnorm ("backward", dy, x, saved);
 *
 * An array has its fastest dimension first: inner x channels x outer. Tensors are single or double, and so are their
 * parameters; statistics are double. C reads them where they are. Results are new arrays, as everywhere in Octave;
 * that goes for the running statistics, which are copied before they are updated. */
#include <batchnorm.h>

#include <mex.h>
#include <stdbool.h>
#include <string.h>

static void check(bn_status status)
{
    if (status != BN_OK)
        mexErrMsgIdAndTxt("batchnorm:error", "%s", bn_last_error());
}

/* The elements of an array that C can read as they are: not complex numbers, not a sparse matrix. */
static void *elements(const char *name, const mxArray *array, mxClassID class)
{
    if (mxGetClassID(array) != class || mxIsComplex(array) || mxIsSparse(array))
        mexErrMsgIdAndTxt("batchnorm:type", "%s is not a real, full array of %s", name,
                          class == mxSINGLE_CLASS ? "single" : "double");
    return mxGetData(array);
}

/* The arguments of a call. */
struct tensor {
    const void *data;
    bn_shape shape;
    bn_dtype dtype;
    mxClassID class;
};

static struct tensor tensor_of(const char *name, const mxArray *array)
{
    struct tensor tensor = {.shape = BN_SHAPE(1, 0, 0)};
    const mwSize *size = mxGetDimensions(array), dimensions = mxGetNumberOfDimensions(array);
    if (dimensions > 3)
        mexErrMsgIdAndTxt("batchnorm:size", "%s has %d dimensions; expected inner x channels x outer", name,
                          (int)dimensions);
    tensor.shape.inner = (size_t)size[0];
    tensor.shape.channels = (size_t)size[1];
    if (dimensions == 3)
        tensor.shape.outer = (size_t)size[2];
    tensor.class = mxIsSingle(array) ? mxSINGLE_CLASS : mxDOUBLE_CLASS;
    tensor.dtype = mxIsSingle(array) ? BN_FLOAT32 : BN_FLOAT64;
    tensor.data = elements(name, array, tensor.class);
    return tensor;
}

/* An element for each channel; NULL for []. */
static void *channels_of(const char *name, const mxArray *array, mxClassID class, const struct tensor *x)
{
    if (mxIsEmpty(array))
        return NULL;
    if (mxGetNumberOfElements(array) != x->shape.channels)
        mexErrMsgIdAndTxt("batchnorm:size", "%s has %.0f elements; expected %.0f", name,
                          (double)mxGetNumberOfElements(array), (double)x->shape.channels);
    return elements(name, array, class);
}

static void *new_tensor(mxArray **result, const mxArray *x)
{
    *result = mxCreateNumericArray(mxGetNumberOfDimensions(x), mxGetDimensions(x), mxGetClassID(x), mxREAL);
    return mxGetData(*result);
}

static void *new_channels(mxArray **result, mxClassID class, const struct tensor *x)
{
    *result = mxCreateNumericMatrix((mwSize)x->shape.channels, 1, class, mxREAL);
    return mxGetData(*result);
}

static double number_of(const char *name, const mxArray *value)
{
    if (!(mxIsNumeric(value) || mxIsLogical(value)) || mxGetNumberOfElements(value) != 1)
        mexErrMsgIdAndTxt("batchnorm:type", "%s is not a number", name);
    return mxGetScalar(value);
}

static bn_options options_of(int count, const mxArray **given)
{
    bn_options options = BN_OPTIONS_INIT;
    if (count == 0)
        return options;
    if (!mxIsStruct(*given) || mxGetNumberOfElements(*given) != 1)
        mexErrMsgIdAndTxt("batchnorm:type", "options are not a struct");
    for (int i = 0; i < mxGetNumberOfFields(*given); i++) {
        const char *name = mxGetFieldNameByNumber(*given, i);
        double number = number_of(name, mxGetFieldByNumber(*given, 0, i));
        if (strcmp(name, "eps") == 0)
            options.eps = number;
        else if (strcmp(name, "momentum") == 0)
            options.momentum = number;
        else if (strcmp(name, "biased_running_var") == 0)
            options.biased_running_var = number != 0;
        else
            mexErrMsgIdAndTxt("batchnorm:option", "there is no option %s", name);
    }
    return options;
}

/* The values of a forward call that backward needs, as a struct: the size and class of x, gamma and beta, what x was
 * normalized with, and whether that was of the batch. */
enum { SIZE, CLASS, GAMMA, BETA, MEAN, INVSTD, FROZEN, FIELDS };
static const char *const fields[FIELDS] = {"size", "class", "gamma", "beta", "mean", "invstd", "frozen"};

static mxArray *save(const struct tensor *x, const mxArray *gamma, const mxArray *beta, mxArray *mean, mxArray *invstd,
                     bool frozen)
{
    const double sizes[3] = {(double)x->shape.inner, (double)x->shape.channels, (double)x->shape.outer};
    mxArray *size = mxCreateDoubleMatrix(1, 3, mxREAL);
    mxArray *saved = mxCreateStructMatrix(1, 1, FIELDS, (const char **)fields);
    memcpy(mxGetData(size), sizes, sizeof sizes);
    mxSetFieldByNumber(saved, 0, SIZE, size);
    mxSetFieldByNumber(saved, 0, CLASS, mxCreateString(x->class == mxSINGLE_CLASS ? "single" : "double"));
    mxSetFieldByNumber(saved, 0, GAMMA, mxDuplicateArray(gamma));
    mxSetFieldByNumber(saved, 0, BETA, mxDuplicateArray(beta));
    mxSetFieldByNumber(saved, 0, MEAN, mean);
    mxSetFieldByNumber(saved, 0, INVSTD, invstd);
    mxSetFieldByNumber(saved, 0, FROZEN, mxCreateLogicalScalar(frozen));
    return saved;
}

/* Its fields, all of them, of a call on a tensor like x. */
static void saved_of(const mxArray *saved, const struct tensor *x, const mxArray *values[FIELDS])
{
    if (!mxIsStruct(saved) || mxGetNumberOfElements(saved) != 1)
        mexErrMsgIdAndTxt("batchnorm:saved", "saved is not what a forward call returned");
    for (int i = 0; i < FIELDS; i++) {
        values[i] = mxGetField(saved, 0, fields[i]);
        if (values[i] == NULL)
            mexErrMsgIdAndTxt("batchnorm:saved", "saved has no %s; expected what a forward call returned", fields[i]);
    }
    char class[8] = "";
    mxGetString(values[CLASS], class, sizeof class);
    if (strcmp(class, x->class == mxSINGLE_CLASS ? "single" : "double") != 0)
        mexErrMsgIdAndTxt("batchnorm:saved", "x is not of the class that it had in the forward call");
    if (mxGetNumberOfElements(values[SIZE]) != 3)
        mexErrMsgIdAndTxt("batchnorm:saved", "saved.size is not what a forward call returned");
    const double *size = elements("saved.size", values[SIZE], mxDOUBLE_CLASS);
    if (size[0] != (double)x->shape.inner || size[1] != (double)x->shape.channels || size[2] != (double)x->shape.outer)
        mexErrMsgIdAndTxt("batchnorm:saved", "x is not of the size that it had in the forward call");
}

/* Each call fills results, of which Octave keeps those that it was asked for. */
enum { MOST = 4 };

static void forward_training(mxArray **results, int count, const mxArray **given)
{
    struct tensor x = tensor_of("x", given[0]);
    const void *gamma = channels_of("gamma", given[1], x.class, &x), *beta = channels_of("beta", given[2], x.class, &x);
    bn_options options = options_of(count - 5, given + 5);
    mxArray *means, *invstds;
    void *y = new_tensor(&results[0], given[0]);
    double *mean = new_channels(&means, mxDOUBLE_CLASS, &x), *invstd = new_channels(&invstds, mxDOUBLE_CLASS, &x);
    results[2] = mxDuplicateArray(given[3]);
    results[3] = mxDuplicateArray(given[4]);
    void *running_mean = channels_of("running_mean", results[2], x.class, &x);
    void *running_var = channels_of("running_var", results[3], x.class, &x);
    check(bn_forward_training(&x.shape, x.dtype, x.data, gamma, beta, running_mean, running_var, y, mean, invstd,
                              &options));
    results[1] = save(&x, given[1], given[2], means, invstds, false);
}

static void forward_inference(mxArray **results, int count, const mxArray **given)
{
    struct tensor x = tensor_of("x", given[0]);
    const void *gamma = channels_of("gamma", given[1], x.class, &x), *beta = channels_of("beta", given[2], x.class, &x);
    const void *running_mean = channels_of("running_mean", given[3], x.class, &x);
    const void *running_var = channels_of("running_var", given[4], x.class, &x);
    bn_options options = options_of(count - 5, given + 5);
    mxArray *means, *invstds;
    void *y = new_tensor(&results[0], given[0]);
    double *mean = new_channels(&means, mxDOUBLE_CLASS, &x), *invstd = new_channels(&invstds, mxDOUBLE_CLASS, &x);
    check(bn_forward_inference(&x.shape, x.dtype, x.data, gamma, beta, running_mean, running_var, y, mean, invstd,
                               &options));
    results[1] = save(&x, given[1], given[2], means, invstds, true);
}

static void backward(mxArray **results, int count, const mxArray **given)
{
    struct tensor dy = tensor_of("dy", given[0]), x = tensor_of("x", given[1]);
    if (memcmp(&dy.shape, &x.shape, sizeof x.shape) != 0 || dy.class != x.class)
        mexErrMsgIdAndTxt("batchnorm:size", "dy is not of the size and class of x");
    const mxArray *saved[FIELDS];
    saved_of(given[2], &x, saved);
    const void *gamma = channels_of("saved.gamma", saved[GAMMA], x.class, &x);
    const void *beta = channels_of("saved.beta", saved[BETA], x.class, &x);
    const double *mean = channels_of("saved.mean", saved[MEAN], mxDOUBLE_CLASS, &x);
    const double *invstd = channels_of("saved.invstd", saved[INVSTD], mxDOUBLE_CLASS, &x);
    bn_options options = BN_OPTIONS_INIT;
    options.frozen = number_of("saved.frozen", saved[FROZEN]) != 0;
    (void)count;
    void *dx = new_tensor(&results[0], given[1]);
    void *dgamma = new_channels(&results[1], x.class, &x), *dbeta = new_channels(&results[2], x.class, &x);
    check(bn_backward(&x.shape, x.dtype, dy.data, x.data, gamma, beta, mean, invstd, dx, dgamma, dbeta, &options));
}

static void moments(mxArray **results, int count, const mxArray **given)
{
    struct tensor x = tensor_of("x", given[0]);
    double *number = new_channels(&results[0], mxDOUBLE_CLASS, &x);
    double *mean = new_channels(&results[1], mxDOUBLE_CLASS, &x);
    double *m2 = new_channels(&results[2], mxDOUBLE_CLASS, &x);
    (void)count;
    check(bn_moments(&x.shape, x.dtype, x.data, number, mean, m2, 0, NULL));
}

static void set_num_threads(mxArray **results, int count, const mxArray **given)
{
    double threads = number_of("threads", given[0]);
    (void)results, (void)count;
    /* A number that int cannot hold is as wrong as -1. */
    check(bn_set_num_threads(threads >= 0 && threads <= 1e6 ? (int)threads : -1));
}

void mexFunction(int wanted, mxArray **results, int count, const mxArray **given)
{
    static const struct {
        const char *name, *usage;
        int least, most, results;
        void (*call)(mxArray **results, int count, const mxArray **given);
    } calls[] = {
        {"forward_training", "x, gamma, beta, running_mean, running_var, [options]", 5, 6, 4, forward_training},
        {"forward_inference", "x, gamma, beta, running_mean, running_var, [options]", 5, 6, 2, forward_inference},
        {"backward", "dy, x, saved", 3, 3, 3, backward},
        {"moments", "x", 1, 1, 3, moments},
        {"set_num_threads", "threads", 1, 1, 0, set_num_threads},
    };
    int version = bn_version();
    if (version / 10000 != 2 || version < 20000)
        mexErrMsgIdAndTxt("batchnorm:version",
                          "libbatchnorm 2.0 or a later 2.x is needed, but libbatchnorm.so.2 is %d.%d.%d",
                          version / 10000, version / 100 % 100, version % 100);

    char name[32] = "";
    if (count > 0 && mxIsChar(given[0]))
        mxGetString(given[0], name, sizeof name);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strcmp(name, calls[i].name) != 0)
            continue;
        if (count - 1 < calls[i].least || count - 1 > calls[i].most || wanted > calls[i].results)
            mexErrMsgIdAndTxt("batchnorm:usage", "usage: batchnorm (\"%s\", %s), with up to %d results", name,
                              calls[i].usage, calls[i].results);
        mxArray *made[MOST] = {NULL};
        calls[i].call(made, count - 1, given + 1);
        for (int k = 0; k < calls[i].results && (k < wanted || k == 0); k++)
            results[k] = made[k];
        return;
    }
    mexErrMsgIdAndTxt("batchnorm:usage", "there is no call \"%s\"", name);
}
