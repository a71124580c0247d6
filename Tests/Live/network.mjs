// SPDX-License-Identifier: Apache-2.0
// The network against the same in float64 (oracle.mjs): values, statistics, gradients of every parameter, descent.
import assert from "node:assert/strict";

import { crossEntropy, logits, pairs, parametersOf } from "./oracle.mjs";

const BATCH = 6; // no multiple of four
const SMALL = { depth: 2, units: 7, bnMomentum: 0.3, eps: 1e-3, weightScale: 1, seed: 3 };

/** Every activation, with batch norm in every place, of the pixels too and not. */
const CONFIGURATIONS = ["relu", "tanh", "sigmoid"].flatMap((activation) =>
    ["none", "before", "after"].flatMap((placement) =>
        [false, true].map((firstLayer) => ({ ...SMALL, activation, placement, firstLayer }))));

function example({ randomOf }, seed, rows = BATCH) {
    const random = randomOf(seed);
    // Some are exactly 0, as pixels are.
    const x = Float32Array.from({ length: rows * 64 }, () => Math.max(0, random.normal()));
    const labels = Uint8Array.from({ length: rows }, () => Math.floor(10 * random.uniform()));
    return { x, labels, rows: Array.from({ length: rows }, (_, i) => Array.from(x.subarray(64 * i, 64 * (i + 1)))) };
}

/** A network whose gamma and beta have left 1 and 0, and its biases 0. */
function network({ Network, bn, randomOf }, settings) {
    const it = new Network(bn, settings);
    const random = randomOf(settings.seed + 77);
    for (const [value] of it.parameters) {
        const isConstant = value.every((each) => each === value[0]);
        if (isConstant) value.forEach((_, i) => (value[i] += 0.3 * random.normal()));
    }
    return it;
}

const near = (found, expected, tolerance, what) =>
    assert.ok(Math.abs(found - expected) <= tolerance, `${what} is ${found}, expected ${expected} to ${tolerance}`);
const allNear = (found, expected, tolerance, what) => {
    assert.equal(found.length, expected.length, `${what}: length`);
    found.forEach((value, i) => near(value, expected[i], tolerance, `${what}[${i}]`));
};

function checkGradients(it, settings) {
    const net = network(it, settings);
    const { x, labels, rows } = example(it, 5);
    const parameters = parametersOf(net);
    const loss = () => crossEntropy(logits(parameters, rows, settings), labels);
    near(net.learn(x, labels), loss(), 1e-5, "loss");
    const all = pairs(parameters, net);
    const largest = Math.max(...all.flatMap(([, , gradient]) => Array.from(gradient, Math.abs)));
    for (const [name, values, gradient] of all) {
        const scale = 1e-4 * Math.max(...Array.from(gradient, Math.abs)) + 1e-5 * largest;
        for (let i = 0; i < values.length; i += 1 + Math.floor(values.length / 150)) {
            // A step may cross the kink of a ReLU, or meet a unit that hardly fires and is divided by a tiny deviation,
            // where the loss is bent sharply: the smaller the step, the rarer.
            const errors = [1e-4, 1e-5, 1e-6, 1e-7].map((step) => {
                const value = values[i];
                const at = (moved) => ((values[i] = moved), loss());
                const slope = (at(value + step) - at(value - step)) / (2 * step);
                values[i] = value;
                return Math.abs(slope - gradient[i]);
            });
            const least = Math.min(...errors);
            assert.ok(least <= scale, `${name}[${i}] is ${gradient[i]}, off by ${errors.join(", ")} of ${scale}`);
        }
    }
}

function checkModes(it, settings) {
    const net = network(it, settings);
    const norms = net.norms;
    const { x, rows } = example(it, 6);
    const parameters = parametersOf(net);
    const seen = [];
    const own = logits(parameters, rows, { ...settings, seen }).flat();
    const before = norms.map(({ runningMean, runningVar }) => [runningMean.slice(), runningVar.slice()]);
    allNear([...net.forward(x, BATCH, "batch")], own, 1e-4, "logits, batch");
    norms.forEach(({ runningMean, runningVar }, n) => assert.deepEqual([runningMean, runningVar], before[n]));
    allNear([...net.forward(x, BATCH, "train")], own, 1e-4, "logits, train");
    const running = norms.map((norm, n) => {
        const unbiased = seen[n].map(({ variance, count }) => (variance * count) / (count - 1));
        const mean = seen[n].map((found) => found.mean);
        const { bnMomentum: m } = settings;
        const tolerance = 1e-5 * Math.max(1, ...unbiased);
        allNear([...norm.runningMean], mean.map((value) => m * value), 1e-5, "running mean");
        allNear([...norm.runningVar], unbiased.map((value) => 1 - m + m * value), tolerance, "running var");
        const statistics = norm.batchStatistics();
        allNear([...statistics.mean], mean, 1e-5, "batch mean");
        allNear([...statistics.variance], unbiased, tolerance, "batch variance");
        return { mean: [...norm.runningMean], variance: [...norm.runningVar] };
    });
    const others = example(it, 7, 3);
    const evaluated = logits(parameters, others.rows, { ...settings, running }).flat();
    allNear([...net.forward(others.x, 3, "eval")], evaluated, 1e-4, "logits, eval");
    // Recalibrated: as in training mode on the same images, but for the variance by count - 1.
    const exact = [];
    logits(parameters, rows, { ...settings, seen: exact });
    net.forward(x, BATCH, "recalibrate");
    if (norms.length === 0) return;
    allNear([...norms[0].runningMean], exact[0].map(({ mean }) => mean), 1e-5, "recalibrated mean");
    const variances = exact[0].map(({ variance }) => (variance * BATCH) / (BATCH - 1));
    allNear([...norms[0].runningVar], variances, 1e-5 * Math.max(1, ...variances), "recalibrated variance");
}

const title = ({ activation, placement, firstLayer }) =>
    `${activation}, batch norm ${placement}${firstLayer ? " and of the pixels" : ""}`;

const forEachConfiguration = (what, check) =>
    Object.fromEntries(CONFIGURATIONS.map((each) => [`${what}: ${title(each)}`, (it) => check(it, each)]));

export const networkTests = {
    ...forEachConfiguration("gradients", checkGradients),
    ...forEachConfiguration("modes", checkModes),

    "gradients: of 1 to 5 images": (it) => {
        for (let rows = 1; rows <= 5; rows++) {
            const settings = { ...SMALL, activation: "tanh", placement: "none", firstLayer: false };
            const net = network(it, settings);
            const { x, labels, rows: list } = example(it, 5, rows);
            const parameters = parametersOf(net);
            near(net.learn(x, labels), crossEntropy(logits(parameters, list, settings), labels), 1e-5, "loss");
            const { gradWeight, gradBias } = net.last;
            // The gradient of a bias of the last layer: softmax less the label's one, in the mean.
            const expected = gradBias.map((_, k) => {
                const shares = logits(parameters, list, settings).map((row, i) => {
                    const sum = row.reduce((a, z) => a + Math.exp(z), 0);
                    return Math.exp(row[k]) / sum - (labels[i] === k ? 1 : 0);
                });
                return shares.reduce((a, b) => a + b, 0) / rows;
            });
            allNear([...gradBias], [...expected], 1e-6, `bias, ${rows} images`);
            assert.ok(gradWeight.some((value) => value !== 0));
        }
    },

    "descent: with and without momentum": (it) => {
        for (const momentum of [0, 0.9]) {
            const net = network(it, { ...SMALL, activation: "relu", placement: "before", firstLayer: false });
            const expected = net.parameters.map(([value]) => Float64Array.from(value));
            const velocity = expected.map((value) => new Float64Array(value.length));
            for (let step = 0; step < 3; step++) {
                const { x, labels } = example(it, 20 + step);
                net.learn(x, labels);
                net.parameters.forEach(([, gradient], p) => gradient.forEach((g, i) => {
                    velocity[p][i] = momentum * velocity[p][i] + g;
                    expected[p][i] -= 0.2 * velocity[p][i];
                }));
                net.descend(0.2, momentum);
            }
            net.parameters.forEach(([value], p) => allNear([...value], [...expected[p]], 1e-5, `parameter ${p}`));
        }
    },

    "first weights": ({ Network, bn, DEFAULTS }) => {
        const deviation = (values) => Math.sqrt(values.reduce((a, b) => a + b * b, 0) / values.length);
        const [plain, tenth] = [1, 0.1].map((weightScale) => new Network(bn, { ...DEFAULTS, weightScale, seed: 1 }));
        // He et al.: the variance is 2 / inputs. 4,096 numbers tell it to about 1 percent.
        for (const { weight } of plain.hidden.map((layer) => layer.dense)) {
            near(deviation(weight) / Math.sqrt(2 / 64), 1, 0.05, "deviation");
        }
        plain.hidden.forEach(({ dense }, i) => {
            allNear([...tenth.hidden[i].dense.weight], [...dense.weight].map((w) => w / 10), 1e-7, "a tenth");
        });
        assert.deepEqual(tenth.last.weight, plain.last.weight);
        // The seed alone tells them, whatever batch norm is there.
        const normed = new Network(bn, { ...DEFAULTS, placement: "none", firstLayer: true, seed: 1 });
        normed.dense.forEach(({ weight }, i) => assert.deepEqual(weight, plain.dense[i].weight));
        const other = new Network(bn, { ...DEFAULTS, seed: 2 });
        assert.notDeepEqual(other.last.weight, plain.last.weight);
    },
};
