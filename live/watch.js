// SPDX-License-Identifier: Apache-2.0
// Watches of an epoch. A watch sees every step, after its gradients are there and before it is made; all that it has
// seen becomes part of the epoch's message (worker.js says which part is which).

const BINS = 80;
const RANGE = 8; // of asinh(value), from -8 to 8: values up to 1,490, even near 0 and logarithmic far from it
const SINGLE_UNITS = 4;
const SEEN_IMAGES = 512; // at least, in an epoch
const SEEN_STEPS = 4; // of statistics

/** A histogram of all units, and one of each of the first units. */
class Histogram {
    constructor(units) {
        this.units = units;
        this.singles = Math.min(SINGLE_UNITS, units);
        this.counts = new Float32Array(BINS);
        this.single = new Float32Array(this.singles * BINS);
    }

    add(values) {
        const { units, singles, counts, single } = this;
        for (let i = 0; i < values.length; i++) {
            const place = Math.floor(((Math.asinh(values[i]) + RANGE) / (2 * RANGE)) * BINS);
            const bin = place > 0 ? Math.min(place, BINS - 1) : 0;
            counts[bin]++;
            const unit = i % units;
            if (unit < singles) single[unit * BINS + bin]++;
        }
    }

    /** Shares of the values instead of counts. */
    shares() {
        const all = this.counts.reduce((a, b) => a + b, 0) || 1;
        const each = all / this.units;
        return { all: this.counts.map((n) => n / all), single: this.single.map((n) => n / each) };
    }
}

// A unit passes no gradient on where its activation is as good as flat.
const FLAT = { relu: (x) => !(x > 0), tanh: (x) => Math.abs(x) > 2, sigmoid: (x) => Math.abs(x) > 4 };

/** Distributions, gradients, statistics and dead units, by layer. */
class LayerWatch {
    constructor({ network, settings }, steps) {
        this.network = network;
        this.flat = FLAT[settings.activation];
        this.steps = steps;
        this.every = Math.max(1, Math.floor(steps / Math.ceil(SEEN_IMAGES / settings.batch)));
        this.spacing = Math.max(1, Math.floor(steps / SEEN_STEPS));
        this.layers = network.hidden.map(({ norm, dense: { outputs } }) => ({
            intoNorm: norm && new Histogram(outputs),
            intoActivation: new Histogram(outputs),
            out: new Histogram(outputs),
            alive: new Uint8Array(outputs),
        }));
        this.gradients = new Float64Array(network.dense.length);
        this.statistics = network.norms.map((norm) => ({ norm, samples: [] }));
        this.at = [];
    }

    see(step) {
        this.network.dense.forEach(({ gradWeight }, layer) => (this.gradients[layer] += norm(gradWeight) / this.steps));
        if ((step + 1) % this.spacing === 0) {
            this.at.push((step + 1) / this.steps);
            for (const { norm, samples } of this.statistics) {
                const { mean, variance } = norm.batchStatistics();
                samples.push([mean, variance, norm.runningMean.slice(), norm.runningVar.slice()]);
            }
        }
        if (step % this.every === 0) this.network.hidden.forEach((layer, i) => this.#layer(layer, this.layers[i]));
    }

    #layer({ intoNorm, intoActivation, out }, seen) {
        seen.intoNorm?.add(intoNorm);
        seen.intoActivation.add(intoActivation);
        seen.out.add(out);
        const units = seen.alive.length;
        intoActivation.forEach((value, i) => {
            if (!this.flat(value)) seen.alive[i % units] = 1;
        });
    }

    seen() {
        const shares = (histogram) => histogram && histogram.shares();
        const joined = (samples, k) => Float32Array.from(samples.flatMap((sample) => [...sample[k]]));
        return {
            layers: this.layers.map(({ intoNorm, intoActivation, out, alive }) => ({
                intoNorm: shares(intoNorm), intoActivation: shares(intoActivation), out: shares(out),
                dead: 1 - alive.reduce((a, b) => a + b, 0) / alive.length,
            })),
            gradients: this.gradients,
            statistics: {
                at: this.at,
                norms: this.statistics.map(({ norm, samples }) => ({
                    channels: norm.channels,
                    batchMean: joined(samples, 0), batchVar: joined(samples, 1),
                    runningMean: joined(samples, 2), runningVar: joined(samples, 3),
                })),
            },
        };
    }
}

/** Euclidean norm. */
function norm(values) {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
    return Math.sqrt(sum);
}

const PROBES = [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]; // times the step
const PROBED_STEPS = 4; // every fourth

/**
 * Along the negative gradient of the batch, on the same batch: its loss, and how far its gradient moves. It has to be
 * the last watch: when it is through, the layers hold the values of the last place that it looked at.
 */
class LandscapeWatch {
    constructor({ network, settings }, steps) {
        Object.assign(this, { network, rate: settings.rate, steps });
        this.found = { at: [], loss: [], smallest: [], largest: [], move: [], beta: [] };
    }

    /** Leaves the network as it was, its running statistics and gradients too. */
    see(step, { x, labels }, loss) {
        if (step % PROBED_STEPS !== 0) return;
        const { network, rate, steps, found } = this;
        const kept = network.parameters.map((arrays) => arrays.map((array) => array.slice()));
        const running = network.norms.map(({ runningMean, runningVar }) => [runningMean.slice(), runningVar.slice()]);
        const length = Math.hypot(...kept.map(([, gradient]) => norm(gradient)));
        let smallest = Infinity, largest = 0, move = 0, beta = 0;
        for (const probe of PROBES) {
            const distance = probe * rate;
            network.parameters.forEach(([value], p) => {
                const [start, gradient] = kept[p];
                for (let i = 0; i < value.length; i++) value[i] = start[i] - distance * gradient[i];
            });
            const there = network.learn(x, labels);
            const change = Math.hypot(...network.parameters.map(([, gradient], p) => distanceOf(gradient, kept[p][1])));
            // A loss that is not a number is beyond all numbers.
            smallest = Math.min(smallest, Number.isNaN(there) ? Infinity : there);
            largest = Math.max(largest, Number.isNaN(there) ? Infinity : there);
            move = Math.max(move, change / length);
            beta = Math.max(beta, change / (distance * length));
        }
        network.parameters.forEach((arrays, p) => arrays.forEach((array, k) => array.set(kept[p][k])));
        network.norms.forEach(({ runningMean, runningVar }, n) => {
            runningMean.set(running[n][0]);
            runningVar.set(running[n][1]);
        });
        const values = { at: (step + 1) / steps, loss, smallest, largest, move, beta };
        for (const [name, value] of Object.entries(values)) found[name].push(value);
    }

    seen() {
        return { landscape: this.found };
    }
}

/** Euclidean distance. */
function distanceOf(a, b) {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
    return Math.sqrt(sum);
}
