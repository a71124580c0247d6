// SPDX-License-Identifier: Apache-2.0
// These tests hold wherever the module runs: node.mjs and page.html pass its exports, and a function that reads a file.
import { argumentChecks } from "./arguments.mjs";
import { arrayChecks } from "./arrays.mjs";
import { batch, check, checkSame, shape, tensor } from "./assertions.mjs";
import { moduleChecks } from "./module.mjs";
import { savedChecks } from "./saved.mjs";
import { casesOf, checkCase } from "./values.mjs";
import { viewChecks } from "./views.mjs";

const checks = { ...argumentChecks, ...arrayChecks, ...moduleChecks, ...savedChecks, ...viewChecks };

/** The ES module, and the script whose names are in the global `batchnorm`: the same holds for both. */
export async function runBoth(module, folder, read) {
    const results = [await run(module, folder, read, true), await run(globalThis.batchnorm, folder, read, false)];
    const failures = results.flatMap(({ failures }, i) => failures.map((text) => `${i ? "script" : "module"}: ${text}`));
    return { passed: results[0].passed + results[1].passed, failures };
}

/** `read` gives the bytes of a URL, and `folder` is that of the files. Returns how many passed, and what failed. */
async function run({ load, BatchNormError }, folder, read, isModule) {
    const url = new URL("batchnorm.wasm", folder);
    const bytes = await read(url);
    const bn = await load(bytes);
    const text = async (name) => new TextDecoder().decode(await read(new URL(name, folder)));
    let passed = 0;
    const failures = [];
    const test = async (name, body) => {
        try {
            await body();
            passed++;
        } catch (error) {
            failures.push(`${name}: ${error.stack}`);
        }
    };

    await test("the values of the examples", async () => compare(train(bn), await text("values.txt")));
    for (const [name, given] of Object.entries(casesOf(await text("cases.txt")))) {
        await test(name, () => checkCase(bn, given));
    }
    for (const line of (await text("cases.jsonl")).trim().split("\n")) {
        const layer = JSON.parse(line);
        await test(`bits of ${layer.dtype ?? layer.arrays.x[0]} ${layer.shape}`, () => checkBits(bn, layer));
    }
    for (const [name, body] of Object.entries(checks)) {
        await test(name, () => body({ bn, url, bytes, load, BatchNormError, isModule }));
    }
    return { passed, failures };
}

/** Three steps of training and one inference, as examples/values/make.py describes them. */
function train(bn) {
    const dy = tensor((i) => ((i * 53 + 7) % 17) / 4 - 2);
    const [gamma, beta] = [Float32Array.of(1, 2, 0.5), Float32Array.of(0, -1, 3)];
    const running = { runningMean: Float32Array.of(0, 0, 0), runningVar: Float32Array.of(1, 1, 1) };
    const descend = (parameters, gradients) => parameters.forEach((_, c) => (parameters[c] -= 0.01 * gradients[c]));
    let y, gradients;
    for (let k = 0; k < 3; k++) {
        const x = batch(k);
        const { y: output, saved } = bn.forwardTraining({ x, shape, gamma, beta, ...running });
        gradients = bn.backward({ dy, x, saved });
        descend(gamma, gradients.dgamma);
        descend(beta, gradients.dbeta);
        y = output;
    }
    const inferred = bn.forwardInference({ x: batch(0), shape, gamma, beta, ...running }).y;
    const { runningMean: running_mean, runningVar: running_var } = running;
    return { y, ...gradients, gamma, beta, running_mean, running_var, inferred };
}

function compare(results, expected) {
    const lines = expected.trim().split("\n");
    for (const line of lines) {
        const [name, , ...words] = line.split(" ");
        check(results[name]?.length === words.length, `${name}: another number of values`);
        words.forEach((word, i) => {
            const [value, wanted] = [results[name][i], Number(word)];
            const isNear = Math.abs(value - wanted) <= 1e-4 * Math.max(1, Math.abs(wanted)); // false for NaN, too
            check(isNear, `${name}[${i}] is ${value}, expected ${word}`);
        });
    }
    check(lines.length === Object.keys(results).length, "results are missing");
}

function unpack([type, base64]) {
    return new globalThis[type](Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
}

/** The calls on a layer, in order: what a forward call saved goes to the backward call that follows it. */
function checkBits(bn, layer) {
    const arrays = Object.fromEntries(Object.entries(layer.arrays).map(([name, array]) => [name, unpack(array)]));
    let saved;
    for (const { function: name, options, takes, results } of layer.calls) {
        const given = Object.fromEntries(takes.map((name) => [name, arrays[name].slice()]));
        const own = { shape: layer.shape, ...(layer.dtype && { dtype: layer.dtype }) };
        const found = bn[name](name === "backward" ? { ...given, saved } : { ...own, ...options, ...given });
        if (name.startsWith("forward")) saved = found.saved;
        for (const [result, packed] of Object.entries(results)) {
            const expected = unpack(packed);
            const what = `${name} ${JSON.stringify(options)}: ${result}`;
            const isSaved = name.startsWith("forward") && ["mean", "invstd"].includes(result);
            checkSame((isSaved ? saved : found)[result] ?? given[result], expected, layer.dtype, what);
        }
    }
}
