// SPDX-License-Identifier: Apache-2.0
// Runs and what is seen of them: counted once more from the arrays that pass through the network.
import assert from "node:assert/strict";

import { train } from "./engine.mjs";

function near(found, expected, tolerance, what) {
    const off = Math.abs(found - expected);
    assert.ok(off <= tolerance * Math.max(1, Math.abs(expected)), `${what} is ${found}, expected ${expected}`);
}

/** A watch that keeps what it sees, of every step. */
function keeper(kept) {
    return class {
        constructor({ network }) {
            this.network = network;
        }

        see(step, { x, labels }, loss) {
            const { hidden, dense, norms, parameters } = this.network;
            kept.push({
                loss, x: x.slice(), labels: labels.slice(),
                layers: hidden.map((layer) => ({
                    intoNorm: layer.norm && layer.intoNorm.slice(), intoActivation: layer.intoActivation.slice(),
                    out: layer.out.slice(),
                })),
                gradients: dense.map((layer) => layer.gradWeight.slice()),
                running: norms.map(({ runningMean, runningVar }) => [runningMean.slice(), runningVar.slice()]),
                parameters: parameters.map(([value, gradient]) => [value.slice(), gradient.slice()]),
            });
        }

        seen() {
            return {};
        }
    };
}

/** The edges of 80 bins of equal width in asinh(value), from -8 to 8. */
const EDGES = Array.from({ length: 81 }, (_, bin) => Math.sinh(-8 + bin / 5));

/** Shares in the bins, of the values whose number `isWanted`. */
function counted(values, isWanted = () => true) {
    const bins = new Array(80).fill(0);
    const wanted = [...values].filter((_, i) => isWanted(i));
    for (const value of wanted) {
        const above = EDGES.findIndex((edge) => edge > value);
        bins[above < 0 ? 79 : Math.max(0, above - 1)] += 1 / wanted.length;
    }
    return bins;
}

/** Rounding may put a value that lies on an edge beside it. */
function sameBins(found, expected, what) {
    const difference = expected.reduce((sum, share, bin) => sum + Math.abs(share - found[bin]), 0);
    assert.ok(difference <= 0.002, `${what}: ${difference} of the values are in other bins`);
}

const FLAT = { relu: (x) => x <= 0, tanh: (x) => Math.abs(x) > 2, sigmoid: (x) => Math.abs(x) > 4 };

function checkSeen(it, settings, epochs = 1) {
    const kept = [];
    const run = new it.Run(it.bn, it.digits, settings, [keeper(kept), it.LayerWatch]);
    for (let before = 1; before < epochs; before++) run.next();
    kept.length = 0;
    const epoch = run.next();
    assert.equal(epoch.epoch, epochs);
    const { batch, depth, units, activation } = run.settings;
    const steps = Math.floor(1349 / batch);
    assert.equal(kept.length, steps);
    const losses = kept.map(({ loss }) => loss);
    near(epoch.loss.mean, losses.reduce((a, b) => a + b, 0) / steps, 1e-9, "mean loss");
    assert.equal(epoch.loss.smallest, Math.min(...losses));
    assert.equal(epoch.loss.largest, Math.max(...losses));

    // The run looks at 512 images or more, evenly spread, or at all there are.
    const every = Math.max(1, Math.floor(steps / Math.ceil(512 / batch)));
    const looked = kept.filter((_, step) => step % every === 0);
    assert.ok(looked.length * batch >= 512 || looked.length === steps);
    epoch.layers.forEach((layer, l) => {
        for (const place of ["intoNorm", "intoActivation", "out"]) {
            if (layer[place] === null) {
                assert.equal(kept[0].layers[l][place], null);
                continue;
            }
            const values = looked.flatMap(({ layers }) => [...layers[l][place]]);
            sameBins(layer[place].all, counted(values), `layer ${l} ${place}`);
            assert.equal(layer[place].single.length, 80 * Math.min(4, units));
            for (let unit = 0; unit < Math.min(4, units); unit++) {
                const expected = counted(values, (i) => i % units === unit);
                const single = layer[place].single.subarray(80 * unit, 80 * (unit + 1));
                sameBins(single, expected, `layer ${l} ${place} ${unit}`);
            }
        }
        let dead = 0;
        for (let unit = 0; unit < units; unit++) {
            const isFlat = FLAT[activation];
            const passes = ({ layers }) => layers[l].intoActivation.some((x, i) => i % units === unit && !isFlat(x));
            if (!looked.some(passes)) dead++;
        }
        near(layer.dead, dead / units, 1e-12, "dead");
    });

    assert.equal(epoch.gradients.length, depth + 1);
    epoch.gradients.forEach((found, l) => {
        const norms = kept.map(({ gradients }) => Math.hypot(...gradients[l]));
        near(found, norms.reduce((a, b) => a + b, 0) / steps, 1e-5, `gradient ${l}`);
    });
    checkStatistics(epoch, kept, run);
    return epoch;
}

function checkStatistics({ statistics: { at, norms } }, kept, { network, settings: { batch } }) {
    const steps = kept.length;
    at.forEach((place) => assert.ok(place > 0 && place <= 1));
    const given = (step) => [
        ...(network.first ? [step.x] : []),
        ...step.layers.flatMap(({ intoNorm }) => (intoNorm ? [intoNorm] : [])),
    ];
    assert.equal(norms.length, network.norms.length);
    norms.forEach(({ channels, batchMean, batchVar, runningMean, runningVar }, n) => at.forEach((place, s) => {
        const step = kept[Math.round(place * steps) - 1];
        for (let c = 0; c < channels; c++) {
            const values = [...given(step)[n]].filter((_, i) => i % channels === c);
            const mean = values.reduce((a, b) => a + b, 0) / batch;
            const variance = values.reduce((a, x) => a + (x - mean) ** 2, 0) / (batch - 1);
            near(batchMean[s * channels + c], mean, 1e-4, "batch mean");
            near(batchVar[s * channels + c], variance, 1e-3, "batch variance");
            assert.equal(runningMean[s * channels + c], step.running[n][0][c]);
            assert.equal(runningVar[s * channels + c], step.running[n][1][c]);
        }
    }));
}

/** The loss and the gradients of a network with other parameters, on a batch. */
function lossOf({ Network, bn }, settings, parameters, { x, labels }) {
    const network = new Network(bn, settings);
    network.parameters.forEach(([value], p) => value.set(parameters[p]));
    return { loss: network.learn(x, labels), gradients: network.parameters.flatMap(([, gradient]) => [...gradient]) };
}

export const runTests = {
    "images: the split of a seed": ({ split, digits }) => {
        const { train, test, sorted } = split(digits, 2, 1 / 16);
        const keys = (set) => Array.from(set.labels, (label, i) => `${label} ${set.x.subarray(64 * i, 64 * (i + 1))}`);
        assert.equal(train.labels.length, 1349);
        assert.equal(test.labels.length, 448);
        const all = Array.from(digits.labels, (label, i) =>
            `${label} ${Float32Array.from(digits.pixels.subarray(64 * i, 64 * (i + 1)), (pixel) => pixel / 16)}`);
        assert.deepEqual([...keys(train), ...keys(test)].sort(), all.sort());
        assert.deepEqual(keys(sorted).sort(), keys(test).sort());
        sorted.labels.forEach((label, i) => assert.ok(i === 0 || label >= sorted.labels[i - 1]));
        assert.ok(test.labels.some((label, i) => i > 0 && label < test.labels[i - 1]));
        assert.notDeepEqual(split(digits, 3, 1).test.labels, test.labels);
        assert.equal(Math.max(...split(digits, 2, 1).train.x), 16);
    },

    "runs of a seed have the same batches, another order in each epoch": (it) => {
        const batches = [{ placement: "none" }, { placement: "after", rate: 0.5 }].map((settings) => {
            const kept = [];
            train(it, { ...settings, units: 8, depth: 1 }, 2, [keeper(kept)]);
            return kept.map(({ x, labels }) => [x, labels]);
        });
        assert.deepEqual(batches[0], batches[1]);
        assert.notDeepEqual(batches[0][0], batches[0][21]);
        const numbers = batches[0].slice(0, 21).flatMap(([, labels]) => [...labels]);
        assert.equal(numbers.length, 21 * 64);
    },

    "seen: ReLU, batch norm before": (it) => checkSeen(it, { depth: 2, units: 16 }),
    "seen: tanh, batch norm after and of the pixels, raw": (it) =>
        checkSeen(it, { depth: 2, units: 16, activation: "tanh", placement: "after", firstLayer: true, pixels: "raw" }),
    "seen: sigmoid, no batch norm, large weights, 3 units": (it) =>
        checkSeen(it, { depth: 2, units: 3, activation: "sigmoid", placement: "none", weightScale: 20, batch: 512 }),
    "seen: dead units are there": (it) => {
        const { layers } = checkSeen(it, { placement: "none", rate: 1 }, 2);
        assert.ok(layers.some(({ dead }) => dead > 0.3));
    },

    "along the gradient": (it) => {
        const settings = { ...it.DEFAULTS, depth: 3, units: 16, rate: 0.3 };
        const kept = [];
        const watched = train(it, settings, 2, [keeper(kept), it.LayerWatch, it.LandscapeWatch]);
        const alone = train(it, settings, 2, [it.LayerWatch]);
        const without = ({ landscape: _, time: __, ...epoch }) => epoch;
        assert.deepEqual(watched.epochs.map(without), alone.epochs.map(without), "looking changes nothing");
        const { at, loss, smallest, largest, move, beta } = watched.epochs[0].landscape;
        assert.equal(at.length, 6);
        at.forEach((place, k) => {
            const step = kept[4 * k];
            near(place, (4 * k + 1) / 21, 1e-12, "at");
            assert.equal(loss[k], step.loss);
            const here = step.parameters.flatMap(([, gradient]) => [...gradient]);
            const found = [1, 2, 3, 4, 5, 6, 7, 8].map((half) => {
                const distance = (half / 2) * settings.rate;
                const moved = step.parameters.map(([value, slope]) => value.map((v, i) => v - distance * slope[i]));
                const there = lossOf(it, settings, moved, step);
                const change = Math.hypot(...there.gradients.map((g, i) => g - here[i])) / Math.hypot(...here);
                return { loss: there.loss, move: change, beta: change / distance };
            });
            near(smallest[k], Math.min(...found.map((one) => one.loss)), 1e-4, "smallest");
            near(largest[k], Math.max(...found.map((one) => one.loss)), 1e-4, "largest");
            near(move[k], Math.max(...found.map((one) => one.move)), 1e-3, "move");
            near(beta[k], Math.max(...found.map((one) => one.beta)), 1e-3, "beta");
        });
    },

    "accuracy: eval mode, training mode, by class": (it) => {
        const run = new it.Run(it.bn, it.digits, { batch: 32, depth: 2, units: 16 });
        const { accuracy } = run.next();
        const share = (set, mode, size) => {
            let hits = 0;
            for (let start = 0; start < 448; start += size) {
                const end = Math.min(448, start + size);
                const logits = run.network.forward(set.x.slice(64 * start, 64 * end), end - start, mode);
                for (let i = start; i < end; i++) {
                    const row = [...logits.slice(10 * (i - start), 10 * (i - start + 1))];
                    if (row.every((z, k) => z < row[set.labels[i]] || k === set.labels[i])) hits++;
                }
            }
            return hits / 448;
        };
        const { test, sorted } = run.sets;
        const [batch, byClass] = [share(test, "batch", 32), share(sorted, "batch", 32)];
        assert.deepEqual(accuracy, { eval: share(test, "eval", 1), batch, sorted: byClass });
        assert.ok(new Set(Object.values(accuracy)).size === 3);
        // 448 = 3 * 149 + 1: the last one goes with those before it.
        const odd = train(it, { batch: 149, depth: 1, units: 8 }, 1).epochs[0].accuracy;
        assert.ok(Object.values(odd).every((value) => value > 0 && value < 1));
    },

    "recalibrated: as with all training images in one batch": (it) => {
        const run = new it.Run(it.bn, it.digits, { bnMomentum: 0.001, depth: 3, units: 32, firstLayer: true });
        for (let epoch = 0; epoch < 3; epoch++) run.next();
        const { x, labels } = run.sets.train;
        const [before, exact] = ["eval", "batch"].map((mode) => run.network.forward(x, labels.length, mode));
        const found = run.recalibrate();
        const after = run.network.forward(x, labels.length, "eval");
        const off = (logits) => Math.max(...logits.map((z, i) => Math.abs(z - exact[i])));
        assert.ok(off(after) < 0.02 && off(before) > 1, `${off(after)}, before ${off(before)}`);
        assert.ok(found.after > found.before + 0.1, JSON.stringify(found));
        assert.equal(run.recalibrate().before, found.after);
    },

    "ends: a batch of one image, a rate that is too large": (it) => {
        const single = train(it, { batch: 1, depth: 1, units: 8 }, 2);
        assert.match(single.ended, /forwardTraining: .*; expected/);
        assert.equal(single.epochs.length, 0);
        const { ended, epochs } = train(it, { batch: 1, depth: 1, units: 8, placement: "none" }, 1);
        assert.equal(ended, null);
        assert.equal(epochs[0].accuracy.batch, epochs[0].accuracy.eval);
        const diverged = train(it, { rate: 1e6, placement: "none" }, 5, [it.LayerWatch, it.LandscapeWatch]);
        assert.match(diverged.ended, /^diverged/);
    },

    "limits: 20 layers, 512 images, one unit": (it) => {
        for (const settings of [{ depth: 20, units: 16 }, { batch: 512 }, { units: 1 }, { units: 130, depth: 1 }]) {
            const { epochs, ended } = train(it, { descentMomentum: 0.9, ...settings }, 1, [it.LayerWatch]);
            assert.equal(ended, null);
            assert.equal(epochs[0].layers.length, settings.depth ?? 5);
            assert.ok(epochs[0].loss.mean < 4 && epochs[0].statistics.at.length > 0);
        }
    },
};
