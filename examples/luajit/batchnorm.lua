-- SPDX-License-Identifier: Apache-2.0

-- libbatchnorm through LuaJIT's ffi: what batchnorm.h declares, with arrays like ffi.new("float[?]", n), which C reads
-- and writes without a copy, a table for options and errors for statuses. Shapes are {outer, channels, inner}.

local ffi = require "ffi"

-- Tensors are of float here, where C has void, so that an array of anything else is ffi's error.
ffi.cdef [[
typedef struct bn_shape {
    size_t struct_size, outer, channels, inner, x_stride, y_stride, dx_stride;
    const void *weights;
} bn_shape;

typedef struct bn_options {
    size_t struct_size;
    double eps, momentum;
    int32_t biased_running_var, frozen, param_dtype, reserved;
    const void *epilogue, *running, *source, *groups;
} bn_options;

int bn_forward_training(const bn_shape *, int dtype, const float *x, const float *gamma, const float *beta,
                        float *running_mean, float *running_var, float *y, double *saved_mean, double *saved_invstd,
                        const bn_options *);
int bn_forward_inference(const bn_shape *, int dtype, const float *x, const float *gamma, const float *beta,
                         const float *running_mean, const float *running_var, float *y, double *saved_mean,
                         double *saved_invstd, const bn_options *);
int bn_backward(const bn_shape *, int dtype, const float *dy, const float *x, const float *gamma, const float *beta,
                const double *saved_mean, const double *saved_invstd, float *dx, float *dgamma, float *dbeta,
                const bn_options *);
int bn_moments(const bn_shape *, int dtype, const float *x, double *count, double *mean, double *m2, size_t stride,
               const bn_options *);
int bn_version(void);
const char *bn_last_error(void);
int bn_set_num_threads(int threads);
]]

local FLOAT32 = 1
local floats, doubles = ffi.typeof("float[?]"), ffi.typeof("double[?]")

local function load()
    local path = os.getenv("BATCHNORM_LIBRARY") or ""
    path = path ~= "" and path or "libbatchnorm.so.2"
    local function refuse(reason, ...)
        error("libbatchnorm 2.0 or a later 2.x is needed, but " .. reason:format(...), 0)
    end
    local found, C = pcall(ffi.load, path)
    if not found then
        refuse("cannot be loaded: %s", C)
    end
    local is_ours, version = pcall(function() return C.bn_version() end)
    if not is_ours then
        refuse("%s has no bn_version", path)
    end
    local major, minor, patch = math.floor(version / 10000), math.floor(version / 100) % 100, version % 100
    if major ~= 2 then
        refuse("%s is %d.%d.%d", path, major, minor, patch)
    end
    return C
end

local C = load()

-- The third level is the caller of the function that calls these.
local function call(status)
    if status ~= 0 then
        error(ffi.string(C.bn_last_error()), 3)
    end
end

-- C cannot know how long arrays are. A nil is left to the library, which may need it or not.
local function check(kind, size, arrays)
    for name, array in pairs(arrays) do
        local ctype = type(array) == "cdata" and tostring(ffi.typeof(array)) or type(array)
        -- An array or a reference to one; the size of a pointer would say nothing about what it points to.
        if ctype:match("(%a+) [%[(]") ~= kind or ctype:find("*", 1, true) then
            error(("%s is a %s; expected an array of %s"):format(name, ctype, kind), 3)
        end
        local elements = ffi.sizeof(array) / ffi.sizeof(kind)
        if elements ~= size then
            error(("%s has %g elements; expected %g"):format(name, elements, size), 3)
        end
    end
end

-- A bn_shape, and the numbers of elements of a tensor and of an array of channels.
local function extents(shape)
    if type(shape) ~= "table" then
        error(("shape is %s; expected {outer, channels, inner}"):format(tostring(shape)), 3)
    end
    local size = 1
    for i = 1, 3 do
        local extent = shape[i]
        if type(extent) ~= "number" or not (extent >= 0) or extent % 1 ~= 0 then
            error(("shape[%d] is %s; expected {outer, channels, inner}"):format(i, tostring(extent)), 3)
        end
        size = size * extent
    end
    return ffi.new("bn_shape", ffi.sizeof("bn_shape"), shape[1], shape[2], shape[3]), size, shape[2]
end

-- These are not all members of the structure: with another param_dtype, C would read past the end of the parameters.
local may_be_set = {eps = "number", momentum = "number", biased_running_var = "boolean"}

local function options_of(given)
    local options = ffi.new("bn_options", ffi.sizeof("bn_options"), 1e-5, 0.1)
    for name, value in pairs(given or {}) do
        if type(value) ~= may_be_set[name] then
            error(("options.%s is %s; expected %s"):format(tostring(name), tostring(value),
                                                           may_be_set[name] or "no option of that name"), 3)
        end
        options[name] = value
    end
    return options
end

-- The state of a forward call that backward needs, for each saved that one returned. A saved shows mean and invstd.
local kept = setmetatable({}, {__mode = "k"})

local function copy(array, size)
    if array == nil then
        return nil
    end
    local own = floats(size)
    ffi.copy(own, array, ffi.sizeof(own))
    return own
end

local function save(shape, gamma, beta, mean, invstd, frozen)
    local saved = {mean = mean, invstd = invstd}
    kept[saved] = {
        shape = {shape[1], shape[2], shape[3]}, gamma = copy(gamma, shape[2]), beta = copy(beta, shape[2]), mean = mean,
        invstd = invstd, frozen = frozen,
    }
    return saved
end

local bn = {}

-- Returns y, and what backward needs; the running statistics are updated in place. Only shape and x are needed.
function bn.forward_training(shape, x, gamma, beta, running_mean, running_var, options)
    local c_shape, size, channels = extents(shape)
    check("float", size, {x = x})
    check("float", channels, {gamma = gamma, beta = beta, running_mean = running_mean, running_var = running_var})
    local y, mean, invstd = floats(size), doubles(channels), doubles(channels)
    call(C.bn_forward_training(c_shape, FLOAT32, x, gamma, beta, running_mean, running_var, y, mean, invstd,
                               options_of(options)))
    return y, save(shape, gamma, beta, mean, invstd, false)
end

-- Like forward_training, but with the running statistics, which are constants to the gradient.
function bn.forward_inference(shape, x, gamma, beta, running_mean, running_var, options)
    local c_shape, size, channels = extents(shape)
    check("float", size, {x = x})
    check("float", channels, {gamma = gamma, beta = beta, running_mean = running_mean, running_var = running_var})
    local y, mean, invstd = floats(size), doubles(channels), doubles(channels)
    call(C.bn_forward_inference(c_shape, FLOAT32, x, gamma, beta, running_mean, running_var, y, mean, invstd,
                                options_of(options)))
    return y, save(shape, gamma, beta, mean, invstd, true)
end

-- Returns dx, dgamma and dbeta. x is that of the forward call that returned saved, as it was then.
function bn.backward(dy, x, saved)
    local forward = kept[saved]
    if not forward then
        error(("saved is %s; expected what a forward call returned"):format(tostring(saved)), 2)
    end
    local c_shape, size, channels = extents(forward.shape)
    check("float", size, {dy = dy, x = x})
    local options = options_of()
    options.frozen = forward.frozen
    local dx, dgamma, dbeta = floats(size), floats(channels), floats(channels)
    call(C.bn_backward(c_shape, FLOAT32, dy, x, forward.gamma, forward.beta, forward.mean, forward.invstd, dx,
                       dgamma, dbeta, options))
    return dx, dgamma, dbeta
end

-- Returns the number of values, their mean and the sum of squared deviations from it.
function bn.moments(shape, x)
    local c_shape, size, channels = extents(shape)
    check("float", size, {x = x})
    local count, mean, m2 = doubles(channels), doubles(channels), doubles(channels)
    call(C.bn_moments(c_shape, FLOAT32, x, count, mean, m2, 0, nil))
    return count, mean, m2
end

function bn.set_num_threads(threads)
    call(C.bn_set_num_threads(threads))
end

return bn
