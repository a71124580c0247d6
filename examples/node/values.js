// SPDX-License-Identifier: Apache-2.0
// Three steps of training and one inference, on the data that values/make.py describes, compared with its results.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");

const shape = { outer: 4, channels: 3, inner: 6 };
const size = 4 * 3 * 6;

const tensor = (value) => Float32Array.from({ length: size }, (_, i) => value(i));
const batch = (k) => tensor((i) => ((i * 37 + k * 11) % 101) / 8 - 5);
const near = (a, b) => Math.abs(a - b) <= 1e-4 * Math.max(1, Math.abs(b)); // false for NaN, too

function descend(parameters, gradients) {
    parameters.forEach((_, c) => (parameters[c] -= 0.01 * gradients[c]));
}

function train(bn) {
    const dy = tensor((i) => ((i * 53 + 7) % 17) / 4 - 2);
    const gamma = Float32Array.of(1, 2, 0.5), beta = Float32Array.of(0, -1, 3);
    const running = { runningMean: Float32Array.of(0, 0, 0), runningVar: Float32Array.of(1, 1, 1) };
    const gradients = { dx: new Float32Array(size), dgamma: new Float32Array(3), dbeta: new Float32Array(3) };
    const y = new Float32Array(size);

    for (let k = 0; k < 3; k++) {
        const x = batch(k);
        const saved = bn.forwardTraining({ ...shape, x, y, gamma, beta, ...running });
        bn.backward({ dy, x, saved, ...gradients });
        descend(gamma, gradients.dgamma);
        descend(beta, gradients.dbeta);
    }
    const inferred = batch(0); // in place
    bn.forwardInference({ ...shape, x: inferred, y: inferred, gamma, beta, ...running });

    const { runningMean: running_mean, runningVar: running_var } = running;
    return { y, ...gradients, gamma, beta, running_mean, running_var, inferred };
}

/** A line of the file is a name, a number of values, and the values. Returns how many were compared. */
function compare(results, file) {
    const lines = fs.readFileSync(file, "utf8").trim().split("\n");
    let compared = 0;
    for (const line of lines) {
        const [name, , ...words] = line.split(" ");
        assert(results[name]?.length === words.length, `${name}: another number of values`);
        words.forEach((word, i) =>
            assert(near(results[name][i], Number(word)), `${name}[${i}] is ${results[name][i]}, expected ${word}`));
        compared += words.length;
    }
    assert(lines.length === Object.keys(results).length, "results are missing");
    return compared;
}

/** Missing from values.txt: at momentum 1 the running statistics are the batch's, which are its moments. */
function checkOptions(bn) {
    const x = batch(1), dy = batch(2), dx = new Float32Array(size), gamma = Float32Array.of(1.5, 2, 0.5);
    const running = { runningMean: new Float32Array(3), runningVar: new Float32Array(3) };
    const moments = { count: new Float64Array(3), mean: new Float64Array(3), m2: new Float64Array(3) };
    const { invstd } = bn.forwardTraining({ ...shape, x, ...running, eps: 0.5, momentum: 1, biasedRunningVar: true });
    bn.moments({ ...shape, x, ...moments });
    const saved = bn.forwardInference({ ...shape, x, gamma, ...running, eps: 0.5 });
    bn.backward({ dy, x, saved, dx });

    for (let c = 0; c < 3; c++) {
        const variance = moments.m2[c] / moments.count[c];
        assert(near(running.runningMean[c], moments.mean[c]), "momentum");
        assert(near(running.runningVar[c], variance), "biasedRunningVar");
        assert(near(invstd[c], 1 / Math.sqrt(variance + 0.5)), "eps");
    }
    dx.forEach((value, i) => {
        const c = Math.floor(i / shape.inner) % shape.channels;
        assert(near(value, gamma[c] * dy[i] * saved.invstd[c]), "frozen");
    });
}

/** The values that backward has from the forward call: gamma and beta as they were, and their number. */
function checkSaved(bn) {
    const x = batch(1), dy = batch(2), gamma = Float32Array.of(1.5, 2, 0.5), beta = Float32Array.of(1, 2, 3);
    const [before, after] = [new Float32Array(size), new Float32Array(size)];
    const saved = bn.forwardTraining({ ...shape, x, gamma, beta });
    bn.backward({ dy, x, saved, dx: before });
    gamma.fill(-7);
    beta.fill(7);
    bn.backward({ dy, x, saved, dx: after });
    assert.deepStrictEqual(before, after);
    const refuses = (name, message, given) =>
        assert.throws(() => bn.backward({ dy, x, saved, dx: after, ...given }), { name, message });
    refuses("TypeError", "gamma: expected none, as saved has it", { gamma });
    refuses("TypeError", "frozen: expected none, as saved has it", { frozen: true });
    refuses("TypeError", "epsilon: expected no argument of that name", { epsilon: 1 });
    for (const other of [undefined, null, 1, { ...saved }, structuredClone(saved)]) {
        refuses("TypeError", "saved: expected what forwardTraining or forwardInference returned", { saved: other });
    }
    refuses("RangeError", "dy has 71 elements, expected 72", { dy: dy.subarray(1) });
    refuses("TypeError", "dy: expected a Float32Array", { dy: new Float64Array(size) });
    assert.throws(() => { "use strict"; saved.gamma = gamma; }, TypeError);
    // An array whose memory is elsewhere by now.
    structuredClone(saved.mean.buffer, { transfer: [saved.mean.buffer] });
    refuses("RangeError", "mean has 0 elements, expected 3", {});
    assert.throws(() => bn.forwardTraining({ ...shape, x, mean: new Float64Array(3) }),
        { name: "TypeError", message: "mean: expected no argument of that name" });
    const empty = { outer: 0, channels: 2 ** 50, inner: 1, x: new Float32Array(0) };
    assert.throws(() => bn.forwardTraining(empty), { name: "RangeError" });
}

/** A call that the library has to refuse, in its words, and one that it must not see. */
function checkErrors(bn) {
    const rows = (n) => ({ count: new Float64Array(n), mean: new Float64Array(n), m2: new Float64Array(n) });
    assert.throws(() => bn.moments({ ...shape, channels: 0, x: new Float32Array(0), ...rows(0) }),
        { name: "Error", message: /channels/, code: "2" });
    assert.throws(() => bn.moments({ ...shape, x: batch(0).subarray(1), ...rows(3) }),
        { name: "RangeError", message: "x has 71 elements, expected 72" });
    assert.throws(() => bn.setNumThreads(2 ** 32), { name: "TypeError", message: /^threads: / });
}

try {
    const bn = require("batchnorm"); // batchnorm.node, of a folder in NODE_PATH
    const compared = compare(train(bn), process.argv[2] ?? path.join(__dirname, "../values/values.txt"));
    checkOptions(bn);
    checkSaved(bn);
    checkErrors(bn);
    bn.setNumThreads(0);
    console.log(`node: ${compared} values agree`);
} catch (error) {
    console.error(`node: ${error.message}`);
    process.exitCode = 1;
}
