// SPDX-License-Identifier: Apache-2.0
// What calls refuse, in which words, and what they take for what is not given.
import { batch, check, checkSame, shape, size, throws } from "./assertions.mjs";

export const argumentChecks = {
    "what the library refuses": ({ bn, BatchNormError }) => {
        const x = batch(0);
        const refused = (status, message, given) => {
            const kept = x.slice();
            const call = () => bn.forwardTraining({ x, shape, ...given });
            const error = throws({ name: "BatchNormError", status, message }, call);
            check(error instanceof BatchNormError && error instanceof Error, "another class");
            checkSame(x, kept, undefined, "x");
        };
        const one = Float32Array.of(1, 2, 3);
        refused(2, "bn_forward_training: channels is 0; expected at least 1, and fewer than memory holds",
            { x: new Float32Array(0), shape: [2, 0, 3] });
        refused(2, "bn_forward_training: shape->inner is 2147483647; " +
            "expected channels * inner elements within PTRDIFF_MAX bytes",
            { x: new Float32Array(0), shape: [0, 3, 2147483647] });
        refused(5, "bn_forward_training: eps is -1; expected a finite number, at least 0", { eps: -1, y: x });
        refused(5, "bn_forward_training: momentum is nan; expected a number from 0 to 1", { momentum: NaN });
        refused(5, "bn_forward_training: epilogue->low is 6; expected a number below high",
            { activation: "clip", low: 6 });
        refused(6, "bn_forward_training: running_var is NULL; expected both of a pair, or neither",
            { runningMean: one });
        refused(20, "bn_forward_training: values per channel (outer * inner) is 1; " +
            "expected more than 1 in training: one value has no variance", { x: one, shape: [1, 3, 1] });
        throws({ name: "BatchNormError", status: 1 }, () => bn.forwardInference({ x, shape }));
    },

    "arrays that do not go together": ({ bn }) => {
        const x = batch(0);
        const wrong = (name, message, given) => {
            throws({ name, message }, () => bn.forwardTraining({ x, shape, ...given }));
        };
        wrong("RangeError", "x.length is 71; expected 72", { x: x.subarray(1) });
        wrong("RangeError", "gamma.length is 2; expected 3", { gamma: new Float32Array(2) });
        wrong("RangeError", "y.length is 71; expected 72", { y: x.subarray(1) });
        wrong("TypeError", "y is Float64Array; expected Float32Array", { y: new Float64Array(size) });
        wrong("TypeError", "y is null; expected Float32Array", { y: null });
        wrong("TypeError", "residual is Float64Array; expected Float32Array", { residual: new Float64Array(size) });
        wrong("TypeError", "beta is Float32Array; expected Float64Array",
            { gamma: new Float64Array(3), beta: new Float32Array(3) });
        wrong("TypeError", "x is Float32Array; expected Uint16Array", { dtype: "bfloat16" });
        wrong("TypeError", 'x is Float32Array; expected Float16Array, or Uint16Array and dtype "float16"',
            { dtype: "float16" });
        const any = "Float32Array, Float64Array or Float16Array, or Uint16Array and a dtype";
        wrong("TypeError", `gamma is Uint16Array; expected ${any}`, { gamma: new Uint16Array(3) });
        const buffer = new ArrayBuffer(4 * size);
        for (const x of [new Uint16Array(size), new Int32Array(size), new DataView(buffer), buffer, [1], () => 1]) {
            const message = `x is ${Object.prototype.toString.call(x).slice(8, -1)}; expected ${any}`;
            throws({ name: "TypeError", message }, () => bn.moments({ x, shape }));
        }
        throws({ name: "TypeError", message: `x is null; expected ${any}` }, () => bn.moments({ x: null, shape }));
        const backward = (name, message, given) => {
            const [mean, invstd] = [new Float64Array(3), new Float64Array(3)];
            throws({ name, message }, () => bn.backward({ dy: x, x, shape, mean, invstd, ...given }));
        };
        backward("TypeError", "mean is undefined; expected Float64Array", { mean: undefined });
        backward("TypeError", "mean is Array; expected Float64Array", { mean: [1, 2, 3] });
        backward("TypeError", "invstd is Float32Array; expected Float64Array", { invstd: new Float32Array(3) });
        backward("TypeError", "dx is Float64Array; expected Float32Array", { dx: new Float64Array(size) });
        backward("RangeError", "dx.length is 73; expected 72", { dx: new Float32Array(size + 1) });
    },

    "options that are none": ({ bn }) => {
        const x = batch(0);
        const wrong = (message, given) => {
            throws({ name: "TypeError", message }, () => bn.forwardTraining({ x, shape, ...given }));
        };
        wrong('eps is "1e-5"; expected a number', { eps: "1e-5" });
        wrong("eps is null; expected a number", { eps: null });
        wrong("momentum is Symbol(m); expected a number", { momentum: Symbol("m") });
        wrong("slope is Object; expected a number", { activation: "leakyRelu", slope: Object.create(null) });
        wrong("biasedRunningVar is 1; expected a boolean", { biasedRunningVar: 1 });
        const activations = "identity, relu, leakyRelu, clip, hardSwish, silu";
        wrong(`activation is "gelu"; expected ${activations}`, { activation: "gelu" });
        wrong(`activation is Array; expected ${activations}`, { activation: ["relu"] });
        wrong(`activation is Symbol(relu); expected ${activations}`, { activation: Symbol("relu") });
        const dtypes = [["bogus", '"bogus"'], ["float32", '"float32"'], [null, "null"], [["float16"], "Array"]];
        for (const [dtype, found] of dtypes) {
            wrong(`dtype is ${found}; expected "float16" or "bfloat16", or none`, { dtype, x: null });
        }
        wrong('shape is "436"; expected [outer, channels, inner]', { shape: "436" });
        wrong("shape.length is 2; expected 3", { shape: [4, 3] });
        const extents = [[NaN, "NaN"], [6.5, "6.5"], [-6, "-6"], [2 ** 31, "2147483648"], ["6", '"6"']];
        for (const [extent, found] of extents) {
            wrong(`shape[2] is ${found}; expected a whole number from 0 to 2147483647`, { shape: [4, 3, extent] });
        }
        wrong("shape[1] is undefined; expected a whole number from 0 to 2147483647", { shape: [4, , 6] });
        throws({ message: "eps is no argument; expected x, shape, dtype" }, () => bn.moments({ x, shape, eps: 1 }));
        const message = "call is undefined; expected an object of arguments";
        throws({ name: "TypeError", message }, () => bn.moments());
    },

    "defaults are those of the header": ({ bn }) => {
        // Of a gamma that takes values beyond every bound.
        const given = { x: batch(0), shape, gamma: Float32Array.of(8, 8, 8) };
        const forward = (options) => {
            const running = { runningMean: Float32Array.of(1, 2, 3), runningVar: Float32Array.of(3, 2, 1) };
            const { y, mean, invstd } = bn.forwardTraining({ ...given, ...running, ...options });
            const { dx, dgamma } = bn.backward({ ...given, dy: batch(1), mean, invstd, ...epilogueOf(options) });
            return { y, mean, invstd, dx, dgamma, ...running };
        };
        const epilogueOf = ({ eps, momentum, biasedRunningVar, ...epilogue }) => epilogue;
        for (const [sparse, full] of [
            [{}, { eps: 1e-5, momentum: 0.1, biasedRunningVar: false, activation: "identity" }],
            [{ activation: "leakyRelu" }, { activation: "leakyRelu", slope: 0.01 }],
            [{ activation: "clip" }, { activation: "clip", low: 0, high: 6 }],
        ]) {
            const [found, expected] = [forward(sparse), forward(full)];
            const { activation } = full;
            for (const name in expected) checkSame(found[name], expected[name], undefined, `${activation}: ${name}`);
        }
        const saved = { mean: new Float64Array(3), invstd: Float64Array.of(1, 1, 1) };
        const gradients = { ...given, dy: batch(1), ...saved };
        checkSame(bn.backward(gradients).dx, bn.backward({ ...gradients, frozen: false }).dx, undefined, "frozen");
    },
};
