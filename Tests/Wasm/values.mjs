// SPDX-License-Identifier: Apache-2.0
// The cases of examples/values/cases.txt, which cases.py there describes.
import { check, throws } from "./assertions.mjs";

const NAMES = {
    running_mean: "runningMean", running_var: "runningVar", biased: "biasedRunningVar", mask: "saveMask",
    leaky_relu: "leakyRelu", hard_swish: "hardSwish",
};
const IN_SAVED = ["mean", "invstd", "mask"];
const TENSORS = ["x", "y", "residual", "dy", "dx", "dz"];
const FILL = 7;
const jsName = (name) => NAMES[name] ?? name;

/** The cases by their names: the words of each line, those of `expect` and `strides` by the array's name. */
export function casesOf(text) {
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

const ARRAYS = { float32: Float32Array, float64: Float64Array, float16: Uint16Array, bfloat16: Uint16Array };

/** Makes the calls of a case: forward, and backward after what it does not need is overwritten. */
export function checkCase(bn, given) {
    const { expect, strides, sizes, axis: [axis], dtype: [dtype], call } = given;
    const [Tensor, isWide] = [ARRAYS[dtype], dtype === "float64"];
    const Parameter = isWide ? Float64Array : Float32Array;
    const shape = sizes.map(Number);
    const isStrided = "x" in strides;
    const view = (name, data) => {
        return isStrided ? { data, shape, strides: strides[name] ?? strides.x, axis: Number(axis) } : data;
    };
    const args = isStrided ? {} : { shape };
    if (Tensor === Uint16Array) args.dtype = dtype;
    for (const name of ["x", "residual"]) if (given[name]) args[name] = view(name, Tensor.from(given[name]));
    for (const name of ["gamma", "beta", "running_mean", "running_var", "weights"]) {
        if (given[name]) args[jsName(name)] = Parameter.from(given[name]);
    }
    for (const name of ["eps", "momentum", "slope", "low", "high"]) {
        if (given[name]) args[name] = Number(given[name][0]);
    }
    for (const name of ["biased", "mask"]) if (given[name]) args[jsName(name)] = true;
    for (const name of ["activation", "masked"]) if (given[name]) args[name] = jsName(given[name][0]);
    if (given.groups) {
        const { groups: [count], index, per_group: perGroup } = given;
        args.groups = { count: Number(count), perGroup, index: index && Int32Array.from(index) };
    }
    const bits = (array) => array.data ?? array;
    const target = (name) => view(name, new Tensor(expect[name]?.length ?? given.x.length).fill(FILL));
    const room = (name) => (isStrided ? { [name]: target(name) } : {});
    const forward = call[0] === "training" ? bn.forwardTraining : bn.forwardInference;
    if (given.refused) {
        const { message } = throws({ name: "BatchNormError" }, () => forward.call(bn, { ...args, ...room("y") }));
        check(message.includes(given.refused[0]), message);
        return;
    }
    const { y, saved } = forward.call(bn, { ...args, ...room("y") });
    for (const array of [args.gamma, args.beta, args.groups?.index, saved.mask && args.residual]) {
        if (array) bits(array).fill(-77);
    }
    const dy = view("dy", Tensor.from(given.dy));
    const gradients = bn.backward({ dy, x: args.x, saved, ...room("dx") });
    const found = { y, ...args, ...saved, ...gradients };
    for (const [name, wanted] of Object.entries(expect)) {
        const array = bits(IN_SAVED.includes(name) ? saved[name] : found[jsName(name)]);
        check(array.length === wanted.length, `${name} has ${array.length} elements, expected ${wanted.length}`);
        const isExact = name === "mask" || (TENSORS.includes(name) && Tensor === Uint16Array);
        const tolerance = isExact ? 0 : isWide ? 1e-11 : 2e-5;
        // dz is a new array, whose gaps are 0.
        const filled = wanted.map((value) => (name === "dz" && isStrided && value === FILL ? 0 : value));
        filled.forEach((value, i) => {
            const isNear = Math.abs(array[i] - value) <= tolerance * Math.max(1, Math.abs(value)); // false for NaN, too
            check(isNear, `${name}[${i}] is ${array[i]}, expected ${value}`);
        });
    }
}
