// SPDX-License-Identifier: Apache-2.0
// The same network once more in float64, by the formulas, slow and without a gradient: for the values of
// live/network.js, and by finite differences for its gradients.

const ACTIVATIONS = {
    relu: (x) => Math.max(x, 0),
    tanh: (x) => (Math.exp(2 * x) - 1) / (Math.exp(2 * x) + 1),
    sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const transposed = (rows) => rows[0].map((_, c) => rows.map((row) => row[c]));

/** Rows of the arrays of a Dense. */
function dense(rows, { weight, bias }, outputs) {
    const value = (row, o) => row.reduce((sum, x, i) => sum + x * weight[i * outputs + o], bias[o]);
    return rows.map((row) => Array.from({ length: outputs }, (_, o) => value(row, o)));
}

/** With the statistics of the rows, or those of `running`; tells `seen` which they were. */
function batchNorm(rows, { gamma, beta }, eps, running, seen) {
    const columns = transposed(rows).map((values, c) => {
        const m = running ? running.mean[c] : mean(values);
        const v = running ? running.variance[c] : mean(values.map((x) => (x - m) ** 2));
        seen?.push({ mean: m, variance: v, count: values.length });
        return values.map((x) => ((x - m) / Math.sqrt(v + eps)) * gamma[c] + beta[c]);
    });
    return transposed(columns);
}

/** The arrays of a network as lists of numbers, by layer. */
export function parametersOf(network) {
    const copy = (layer, names) => Object.fromEntries(names.map((name) => [name, Array.from(layer[name])]));
    const dense = (layer) => copy(layer, ["weight", "bias"]);
    const norm = (layer) => layer && copy(layer, ["gamma", "beta"]);
    return {
        first: norm(network.first),
        hidden: network.hidden.map((layer) => ({ dense: dense(layer.dense), norm: norm(layer.norm) })),
        last: dense(network.last),
    };
}

/** Every list of parametersOf with the gradient that a network has for it: [name, values, gradient]. */
export function pairs(parameters, network) {
    const dense = (name, values, layer) => [
        [`${name} weight`, values.weight, layer.gradWeight], [`${name} bias`, values.bias, layer.gradBias],
    ];
    const norm = (name, values, layer) =>
        values ? [[`${name} gamma`, values.gamma, layer.gradGamma], [`${name} beta`, values.beta, layer.gradBeta]] : [];
    return [
        ...norm("pixels", parameters.first, network.first),
        ...parameters.hidden.flatMap((values, i) => [
            ...dense(`hidden ${i}`, values.dense, network.hidden[i].dense),
            ...norm(`hidden ${i}`, values.norm, network.hidden[i].norm),
        ]),
        ...dense("last", parameters.last, network.last),
    ];
}

/**
 * The logits of these rows, whose own statistics are taken, unless `running` has { mean, variance } of each batch norm.
 * `seen` is filled with those that each batch norm took, first to last.
 */
export function logits(parameters, rows, { activation, placement, eps, running = null, seen = [] }) {
    const normalize = (rows, norm) => {
        const statistics = [];
        const result = batchNorm(rows, norm, eps, running?.[seen.length], statistics);
        seen.push(statistics);
        return result;
    };
    if (parameters.first) rows = normalize(rows, parameters.first);
    for (const layer of parameters.hidden) {
        rows = dense(rows, layer.dense, layer.dense.bias.length);
        if (placement === "before") rows = normalize(rows, layer.norm);
        rows = rows.map((row) => row.map(ACTIVATIONS[activation]));
        if (placement === "after") rows = normalize(rows, layer.norm);
    }
    return dense(rows, parameters.last, parameters.last.bias.length);
}

/** Mean cross-entropy. */
export function crossEntropy(rows, labels) {
    return mean(rows.map((row, i) => {
        const largest = Math.max(...row);
        const sum = row.reduce((a, x) => a + Math.exp(x - largest), 0);
        return Math.log(sum) + largest - row[labels[i]];
    }));
}
