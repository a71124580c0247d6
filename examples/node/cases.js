// SPDX-License-Identifier: Apache-2.0
// The cases of values/cases.txt, which values/cases.py describes: every option, compared with its results.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");

const NAMES = {
    running_mean: "runningMean", running_var: "runningVar", leaky_relu: "leakyRelu", hard_swish: "hardSwish",
};
const ARRAYS = { float32: Float32Array, float64: Float64Array, float16: Uint16Array, bfloat16: Uint16Array };
const IN_SAVED = ["mean", "invstd", "mask"];
const TENSORS = ["y", "dx", "dz"];
const jsName = (name) => NAMES[name] ?? name;

/** The cases by their names: the words of each line, those of `expect` and `strides` by the array's name. */
function casesOf(text) {
    const cases = {};
    let current;
    for (const line of text.trim().split("\n")) {
        const [key, ...words] = line.split(" ");
        if (key === "case") current = cases[words.join(" ")] = { expect: {}, strides: {} };
        else if (key === "expect" || key === "strides") current[key][words[0]] = words.slice(1).map(Number);
        else current[key] = words;
    }
    return cases;
}

function check(bn, given) {
    const { expect, strides, sizes, axis: [axis], dtype: [dtype], call: [call] } = given;
    const [Tensor, isWide, shape] = [ARRAYS[dtype], dtype === "float64", sizes.map(Number)];
    const Parameter = isWide ? Float64Array : Float32Array;
    const [outer, channels, ...positions] = shape;
    const inner = positions.reduce((product, size) => product * size, 1);
    const view = (name, data) => {
        return strides.x ? { data, shape, strides: strides[name] ?? strides.x, axis: Number(axis) } : data;
    };
    const room = (name) => {
        const data = new Tensor(expect[name]?.length ?? given.x.length).fill(7);
        return view(name === "dz" ? "dy" : name, data);
    };
    const args = strides.x ? {} : { outer, channels, inner };
    if (Tensor === Uint16Array) args.dtype = dtype;
    for (const name of ["x", "residual"]) if (given[name]) args[name] = view(name, Tensor.from(given[name]));
    for (const name of ["gamma", "beta", "running_mean", "running_var", "weights"]) {
        if (given[name]) args[jsName(name)] = Parameter.from(given[name]);
    }
    for (const name of ["eps", "momentum", "slope", "low", "high"]) {
        if (given[name]) args[name] = Number(given[name][0]);
    }
    if (given.biased) args.biasedRunningVar = true;
    if (given.mask) args.saveMask = true;
    for (const name of ["activation", "masked"]) if (given[name]) args[name] = jsName(given[name][0]);
    if (given.groups) {
        const { groups: [count], index, per_group: perGroup } = given;
        args.groups = { count: Number(count), perGroup, index: index && Int32Array.from(index) };
    }
    const forward = call === "training" ? bn.forwardTraining : bn.forwardInference;
    const y = room("y");
    if (given.refused) {
        assert.throws(() => forward({ ...args, y }), { name: "Error", message: new RegExp(given.refused[0]) });
        return;
    }
    const saved = forward({ ...args, y });
    const unneeded = [args.gamma, args.beta, args.weights, args.groups?.index, saved.mask && args.residual];
    for (const array of unneeded) if (array) (array.data ?? array).fill(77);
    const [dx, dy] = [room("dx"), view("dy", Tensor.from(given.dy))];
    const gradients = { dgamma: new Parameter(expect.dgamma.length), dbeta: new Parameter(expect.dbeta.length) };
    if (expect.dz) gradients.dz = room("dz");
    bn.backward({ dy, x: args.x, saved, dx, ...gradients });
    const found = { ...args, y, dx, ...gradients };
    for (const [name, wanted] of Object.entries(expect)) {
        const result = IN_SAVED.includes(name) ? saved[name] : found[jsName(name)];
        const array = result.data ?? result;
        assert(array.length === wanted.length, `${name} has ${array.length} values, expected ${wanted.length}`);
        const isExact = name === "mask" || (TENSORS.includes(name) && Tensor === Uint16Array);
        const tolerance = isExact ? 0 : isWide ? 1e-11 : 2e-5;
        wanted.forEach((value, i) => {
            const isNear = Math.abs(array[i] - value) <= tolerance * Math.max(1, Math.abs(value)); // false for NaN, too
            assert(isNear, `${name}[${i}] is ${array[i]}, expected ${value}`);
        });
    }
}

/** Arguments that the library must not see. */
function checkErrors(bn) {
    const data = Float32Array.from({ length: 24 }, (_, i) => i);
    const x = { data, shape: [2, 3, 4], strides: [12, 1, 3] };
    const refuses = (name, message, given) => {
        assert.throws(() => bn.forwardTraining({ x, ...given }), { name, message });
    };
    refuses("RangeError", "x has 23 elements, expected 24", { x: { ...x, data: data.subarray(1) } });
    refuses("TypeError", "x.strides: expected an array of whole numbers", { x: { data, shape: [24, 1] } });
    refuses("TypeError", "y.strides: expected 3 numbers", { y: { ...x, strides: [1] } });
    refuses("TypeError", "y.shape: expected 2,3,4, as x has", { y: { ...x, shape: [2, 4, 3] } });
    refuses("RangeError", "weights has 9 elements, expected 8", { weights: new Float32Array(9) });
    const activations = "identity, relu, leakyRelu, clip, hardSwish, silu";
    refuses("TypeError", `activation: expected ${activations}`, { activation: "gelu" });
    refuses("TypeError", "groups.size: expected no argument of that name", { groups: { count: 2, size: 1 } });
    refuses("TypeError", "index: expected an Int32Array", { groups: { count: 2, index: [0, 1] } });
    refuses("RangeError", "gamma has 3 elements, expected 6",
        { gamma: new Float32Array(3), groups: { count: 2, perGroup: ["parameters"] } });
    refuses("TypeError", "y: expected a Float32Array", { y: new Float64Array(24) });
    const y = new Float32Array(24);
    const saved = bn.forwardTraining({ x, y, residual: data, activation: "relu", saveMask: true });
    structuredClone(saved.mask.buffer, { transfer: [saved.mask.buffer] });
    assert.throws(() => bn.backward({ dy: data, x, saved, dx: new Float32Array(24) }),
        { name: "RangeError", message: "mask has 0 elements, expected 3" });
}

try {
    const bn = require("batchnorm"); // of a folder in NODE_PATH
    const cases = casesOf(fs.readFileSync(process.argv[2] ?? path.join(__dirname, "../values/cases.txt"), "utf8"));
    for (const [name, given] of Object.entries(cases)) {
        try {
            check(bn, given);
        } catch (error) {
            throw new Error(`${name}: ${error.message}`);
        }
    }
    checkErrors(bn);
    console.log(`node: ${Object.keys(cases).length} cases agree`);
} catch (error) {
    console.error(`node: ${error.message}`);
    process.exitCode = 1;
}
