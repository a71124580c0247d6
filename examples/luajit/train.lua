-- SPDX-License-Identifier: Apache-2.0

-- Three steps of training and an inference, compared with what examples/values/make.py computes.

local ffi = require "ffi"

local here = arg[0]:match("^(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path

local function stop(message, ...)
    io.stderr:write(message:format(...), "\n")
    os.exit(1)
end

local loaded, bn = pcall(require, "batchnorm")
if not loaded then
    stop("%s", bn)
end

local OUTER, CHANNELS, INNER = 4, 3, 6
local SHAPE, SIZE = {OUTER, CHANNELS, INNER}, OUTER * CHANNELS * INNER
local RATE = 0.01

local function floats(values)
    return ffi.new("float[?]", #values, values)
end

local function tensor(element)
    local values = ffi.new("float[?]", SIZE)
    for i = 0, SIZE - 1 do
        values[i] = element(i)
    end
    return values
end

local function batch(k)
    return tensor(function(i) return (i * 37 + k * 11) % 101 / 8 - 5 end)
end

local function descend(values, gradient)
    for c = 0, CHANNELS - 1 do
        values[c] = values[c] - RATE * gradient[c]
    end
end

-- expected: a table, or a function of the index from 0.
local function agree(name, values, size, expected)
    for i = 0, size - 1 do
        local value, wanted = values[i], type(expected) == "table" and expected[i + 1] or expected(i)
        -- A NaN is not within, either.
        if not (math.abs(value - wanted) <= 1e-4 * math.max(1, math.abs(wanted))) then
            stop("%s[%d] is %.9g, not %.9g", name, i, value, wanted)
        end
    end
end

local function fails(message, ...)
    local worked, found = pcall(...)
    if worked or not found:find(message, 1, true) then
        stop("not the error %q: %s", message, worked and "none" or found)
    end
end

bn.set_num_threads(1)
local dy = tensor(function(i) return (i * 53 + 7) % 17 / 4 - 2 end)
local gamma, beta = floats {1, 2, 0.5}, floats {0, -1, 3}
local running_mean, running_var = floats {0, 0, 0}, floats {1, 1, 1}
local y, dx, dgamma, dbeta
for k = 0, 2 do
    local x, saved = batch(k)
    y, saved = bn.forward_training(SHAPE, x, gamma, beta, running_mean, running_var)
    dx, dgamma, dbeta = bn.backward(dy, x, saved)
    descend(gamma, dgamma)
    descend(beta, dbeta)
end
local x = batch(0)
local inferred, saved = bn.forward_inference(SHAPE, x, gamma, beta, running_mean, running_var)

local results = {
    y = y, dx = dx, dgamma = dgamma, dbeta = dbeta, gamma = gamma, beta = beta,
    running_mean = running_mean, running_var = running_var, inferred = inferred,
}
local names, compared = 0, 0
for line in io.lines(arg[1] or here .. "../values/values.txt") do
    local name, size, rest = line:match("^(%S+) (%d+) (.*)$")
    local expected = {}
    for number in rest:gmatch("%S+") do
        expected[#expected + 1] = tonumber(number)
    end
    local values = results[name]
    if not values or ffi.sizeof(values) ~= 4 * #expected then
        stop("%s is not a result of %d values", name, #expected)
    end
    agree(name, values, #expected, expected)
    names, compared = names + 1, compared + #expected
end
if names ~= 9 then
    stop("values.txt has %d of 9 results", names)
end

-- Frozen statistics are constants: dx = gamma * invstd * dy.
local frozen = bn.backward(dy, x, saved)
agree("frozen dx", frozen, SIZE, function(i)
    local c = math.floor(i / INNER) % CHANNELS
    return gamma[c] * saved.invstd[c] * dy[i]
end)

-- With momentum 1 and the biased variance, the running statistics are the moments of the batch.
local replace = {eps = 1, momentum = 1, biased_running_var = true}
local _, replaced = bn.forward_training(SHAPE, x, nil, nil, running_mean, running_var, replace)
local count, batch_mean, m2 = bn.moments(SHAPE, x)
agree("momentum 1", running_mean, CHANNELS, function(c) return batch_mean[c] end)
agree("momentum 1", running_var, CHANNELS, function(c) return m2[c] / count[c] end)
agree("eps 1", replaced.invstd, CHANNELS, function(c) return 1 / math.sqrt(m2[c] / count[c] + 1) end)

-- Backward uses gamma and beta as they were in the forward call.
local _, told = bn.forward_training(SHAPE, x, gamma, beta)
local before = bn.backward(dy, x, told)
ffi.fill(gamma, ffi.sizeof(gamma))
ffi.fill(beta, ffi.sizeof(beta))
agree("dx of a gamma that was changed", bn.backward(dy, x, told), SIZE, function(i) return before[i] end)
for _, none in ipairs {{}, {mean = told.mean, invstd = told.invstd}, 1} do
    fails("expected what a forward call returned", bn.backward, dy, x, none)
end
fails("saved is nil; expected what a forward call returned", bn.backward, dy, x)
fails("dy has 71 elements", bn.backward, ffi.new("float[?]", SIZE - 1), x, told)
fails("options.param_dtype is 2; expected no option of that name", bn.forward_training, SHAPE, x, nil, nil, nil, nil,
      {param_dtype = 2})
fails("options.eps is small; expected number", bn.forward_training, SHAPE, x, nil, nil, nil, nil, {eps = "small"})

fails("bn_moments: channels is 0", bn.moments, {OUTER, 0, INNER}, floats {})
fails("x has 71 elements", bn.moments, SHAPE, ffi.new("float[?]", SIZE - 1))

print(("LuaJIT: %d values agree"):format(compared))
