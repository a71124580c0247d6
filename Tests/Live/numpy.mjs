// SPDX-License-Identifier: Apache-2.0
// An epoch as the NumPy network of python/batchnorm/demo has it (reference.py): same first weights, same batches.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

async function repeat({ Network, DEFAULTS, bn, digits, folder }, batchNorm) {
    const expected = JSON.parse(await readFile(new URL("numpy.json", folder), "utf8"))[Number(batchNorm)];
    assert.equal(expected.running_var.length > 0, batchNorm);
    const { rate, ...settings } = expected.settings;
    const network = new Network(bn, { ...DEFAULTS, ...settings });
    network.dense.forEach(({ weight }, layer) => weight.set(expected.weights[layer].flat()));
    const images = Float32Array.from(digits.pixels, (value) => value / 16);
    expected.batches.forEach((batch, step) => {
        const x = Float32Array.from(batch.flatMap((number) => [...images.subarray(64 * number, 64 * (number + 1))]));
        const loss = network.learn(x, Uint8Array.from(batch, (number) => digits.labels[number]));
        network.descend(rate, 0);
        const off = Math.abs(loss - expected.losses[step]);
        assert.ok(off <= 1e-4, `step ${step}: loss ${loss}, expected ${expected.losses[step]}`);
    });
    network.norms.forEach(({ runningVar }, n) => runningVar.forEach((value, c) => {
        const wanted = expected.running_var[n][c];
        assert.ok(Math.abs(value - wanted) <= 1e-3 * Math.max(1, wanted), `running_var ${n} ${c}: ${value}, ${wanted}`);
    }));
    // All images in eval mode; one or two may lie on the border.
    const logits = network.forward(images, digits.labels.length, "eval");
    let correct = 0;
    digits.labels.forEach((label, i) => {
        const scores = [...logits.subarray(10 * i, 10 * (i + 1))];
        if (scores.indexOf(Math.max(...scores)) === label) correct++;
    });
    assert.ok(Math.abs(correct - expected.correct) <= 2, `${correct} correct, expected ${expected.correct}`);
}

export const numpyTests = {
    "an epoch of the NumPy network, without batch norm": (it) => repeat(it, false),
    "an epoch of the NumPy network, with batch norm": (it) => repeat(it, true),
};
