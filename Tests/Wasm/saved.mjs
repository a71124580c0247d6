// SPDX-License-Identifier: Apache-2.0
// The record of a forward call that backward takes, and the errors where an argument differs from it.
import { batch, check, checkSame, shape, size, tensor, throws } from "./assertions.mjs";

const doubles = (array) => Float64Array.from(array);
const dy = doubles(tensor((i) => ((i * 53 + 7) % 17) / 4 - 2));
const told = () => ({ gamma: Float64Array.of(1, 2, -0.5), beta: Float64Array.of(0.75, -1, 0.5) });

/** The gradients of sum(dy * y), by differences of the forward call's results. */
function differences(forward, arrays) {
    const loss = () => forward(arrays).y.reduce((sum, value, i) => sum + value * dy[i], 0);
    const derivative = (array, i) => {
        const [kept, step] = [array[i], 1e-6];
        array[i] = kept + step;
        const above = loss();
        array[i] = kept - step;
        const below = loss();
        array[i] = kept;
        return (above - below) / (2 * step);
    };
    const of = (array) => array?.map((_, i) => derivative(array, i));
    const { x, gamma, beta, residual } = arrays;
    return { dx: of(x), dgamma: of(gamma), dbeta: of(beta), dz: of(residual) };
}

function checkNear(found, expected, what) {
    check(found?.length === expected.length, `${what}: another number of values`);
    found.forEach((value, i) => {
        const isNear = Math.abs(value - expected[i]) <= 1e-6 * Math.max(1, Math.abs(expected[i])); // false for NaN, too
        check(isNear, `${what}[${i}] is ${value}, expected ${expected[i]}`);
    });
}

export const savedChecks = {
    "gradients of all that a forward call is told": ({ bn }) => {
        const running = () => ({ runningMean: Float64Array.of(1, -2, 0.5), runningVar: Float64Array.of(3, 2, 30) });
        const clip = { activation: "clip", low: -0.5, high: 1.5 };
        const activations = [{}, { activation: "relu" }, { activation: "leakyRelu", slope: 0.25 }, clip,
            { activation: "hardSwish" }, { activation: "silu" }];
        for (const epilogue of activations) {
            for (const residual of [undefined, doubles(batch(3))]) {
                for (const name of ["forwardTraining", "forwardInference"]) {
                    const arrays = { x: doubles(batch(0)), ...told(), ...(residual && { residual }) };
                    const forward = (arrays) => bn[name]({ ...arrays, shape, ...epilogue, eps: 0.5, ...running() });
                    const gradients = bn.backward({ dy, x: arrays.x, saved: forward(arrays).saved });
                    const expected = differences(forward, arrays);
                    for (const result of residual ? ["dx", "dgamma", "dbeta", "dz"] : ["dx", "dgamma", "dbeta"]) {
                        checkNear(gradients[result], expected[result], `${name} ${epilogue.activation}: ${result}`);
                    }
                    check("dz" in gradients === (residual !== undefined), "dz");
                }
            }
        }
    },

    "saved is what the forward call was told": ({ bn }) => {
        const [x, y] = [batch(0), new Float32Array(size)];
        const [gamma, beta] = [Float32Array.of(1, 2, 3), Float32Array.of(4, 5, 6)];
        const given = { x, y, shape: [...shape], gamma, beta, activation: "clip", low: -1, high: 2, eps: 0.25 };
        const { saved, ...others } = bn.forwardTraining(given);
        check(Object.keys(others).join() === "y", Object.keys(others).join());
        const activation = { activation: "clip", slope: 0.01, low: -1, high: 2 };
        const expected = { dtype: "float32", eps: 0.25, frozen: false, ...activation };
        for (const name in expected) check(saved[name] === expected[name], `${name} is ${saved[name]}`);
        check(saved.shape.join() === "4,3,6" && Object.isFrozen(saved.shape) && Object.isFrozen(saved), "shape");
        const added = bn.forwardTraining({ ...given, residual: y, y: undefined }).saved;
        check(saved.residual === null && added.residual === y, "residual");
        const none = bn.forwardTraining({ x, shape }).saved;
        check(none.gamma === null && none.beta === null && none.activation === "identity", "none");
        const row = Float32Array.of(1, 1, 1);
        check(bn.forwardInference({ x, shape, runningMean: row, runningVar: row }).saved.frozen === true, "frozen");
    },

    "gamma and beta may change before backward": ({ bn }) => {
        const x = doubles(batch(0));
        const { gamma, beta } = told();
        const { saved } = bn.forwardTraining({ x, shape: [...shape], gamma, beta, activation: "relu" });
        const expected = bn.backward({ dy, x, saved });
        gamma.fill(7);
        beta.fill(-7);
        // A clone is as good, as from a worker.
        for (const other of [saved, structuredClone(saved)]) {
            const found = bn.backward({ dy, x, saved: other });
            for (const name in expected) checkSame(found[name], expected[name], undefined, name);
        }
    },

    "what is given again": ({ bn }) => {
        const x = doubles(batch(0));
        const given = { shape, ...told(), activation: "leakyRelu", slope: 0.5, eps: 0.125 };
        const { saved } = bn.forwardTraining({ x, ...given });
        const { residual, dtype, ...again } = saved;
        const expected = bn.backward({ dy, x, saved });
        for (const more of [given, again]) {
            const found = bn.backward({ dy, x, saved, ...more });
            for (const name in expected) checkSame(found[name], expected[name], undefined, name);
        }
        const differs = (sentence, more, other = saved) => {
            const [found, name, kept] = sentence;
            const message = `${name} is ${found}; expected ${kept}, which is saved.${name}`;
            throws({ name: "RangeError", message }, () => bn.backward({ dy, x, saved: other, ...more }));
        };
        differs([8, "gamma[1]", 2], { gamma: Float64Array.of(1, 8, -0.5) });
        differs([0, "beta[0]", 0.75], { beta: new Float64Array(3) });
        differs(["Float32Array", "beta", "Float64Array"], { beta: new Float32Array(3) });
        differs([2, "gamma.length", 3], { gamma: new Float64Array(2) });
        differs([0, "mean[0]", saved.mean[0]], { mean: new Float64Array(3) });
        const [first, second, last] = saved.invstd;
        differs([NaN, "invstd[2]", last], { invstd: Float64Array.of(first, second, NaN) });
        differs([6, "shape[1]", 3], { shape: [4, 6, 3] });
        differs(['"relu"', "activation", '"leakyRelu"'], { activation: "relu" });
        differs([0.25, "slope", 0.5], { slope: 0.25 });
        differs([true, "frozen", false], { frozen: true });
        differs([1e-5, "eps", 0.125], { eps: 1e-5 });
        differs(['"bfloat16"', "dtype", '"float64"'], { dtype: "bfloat16" });
        const none = bn.forwardTraining({ x, shape }).saved;
        differs(["Float64Array", "gamma", "null"], { gamma: given.gamma }, none);
        differs(["null", "beta", "Float64Array"], { beta: null });
        bn.backward({ dy, x, saved: none, gamma: null, beta: null });
    },

    "a saved that is none": ({ bn }) => {
        const [x, row] = [doubles(batch(0)), new Float64Array(3)];
        const { saved } = bn.forwardTraining({ x, shape, ...told() });
        const expected = "what forwardTraining or forwardInference gave as saved";
        const wrong = (name, found, given, what = expected) => {
            const message = `${name} is ${found}; expected ${what}`;
            throws({ name: "TypeError", message }, () => bn.backward({ dy, x, ...given }));
        };
        // These are calls as version 1 had them.
        wrong("saved", "undefined", { shape, ...told(), mean: row, invstd: row });
        wrong("saved", "null", { saved: null });
        wrong("saved.shape", "undefined", { saved: { mean: row, invstd: row } });
        for (const name in saved) wrong(`saved.${name}`, "undefined", { saved: { ...saved, [name]: undefined } });
        wrong("saved.dtype", '"int8"', { saved: { ...saved, dtype: "int8" } });
        wrong("saved.dtype", '"constructor"', { saved: { ...saved, dtype: "constructor" } });
        wrong("saved.mean", "Array", { saved: { ...saved, mean: [1, 2, 3] } }, "Float64Array");
        wrong("saved.beta", "Float32Array", { saved: { ...saved, beta: new Float32Array(3) } }, "Float64Array");
        const message = "saved.invstd.length is 2; expected 3";
        const short = { ...saved, invstd: row.slice(1) };
        throws({ name: "RangeError", message }, () => bn.backward({ dy, x, saved: short }));
    },

    "x that y was written over": ({ bn }) => {
        const x = doubles(batch(0));
        const kept = x.slice();
        const { saved } = bn.forwardTraining({ x, shape, y: x, ...told(), activation: "relu" });
        const message = "x is the array that y was written over; expected x as it was, in memory of its own";
        for (const again of [x, new Float64Array(x.buffer)]) {
            throws({ name: "RangeError", message }, () => bn.backward({ dy, x: again, saved }));
        }
        const found = bn.backward({ dy, x: kept, saved });
        const { saved: other } = bn.forwardTraining({ x: kept, shape, ...told(), activation: "relu" });
        checkSame(found.dx, bn.backward({ dy, x: kept, saved: other }).dx, undefined, "dx");
        const empty = new Float64Array(0);
        const nothing = bn.forwardTraining({ x: empty, shape: [0, 3, 6], y: empty }).saved;
        bn.backward({ dy: empty, x: empty, saved: nothing });
    },

    "a residual that was forgotten, or is in another array": ({ bn }) => {
        const [x, residual] = [doubles(batch(0)), doubles(batch(3))];
        const given = { x, shape, residual, ...told(), activation: "silu" };
        const { saved } = bn.forwardTraining(given);
        const found = bn.backward({ dy, x, saved });
        const expected = bn.backward({ dy, x, saved, residual: residual.slice() });
        for (const name in expected) checkSame(found[name], expected[name], undefined, name);
        const message = "residual is Float32Array; expected Float64Array";
        throws({ name: "TypeError", message }, () => bn.backward({ dy, x, saved, residual: batch(3) }));
        const none = bn.forwardTraining({ ...given, residual: undefined }).saved;
        const unknown = "residual is Float64Array; expected none, as the forward call had none";
        throws({ name: "RangeError", message: unknown }, () => bn.backward({ dy, x, saved: none, residual }));
    },
};
