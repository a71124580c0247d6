// SPDX-License-Identifier: Apache-2.0
// A run: one network, its images and its batches, an epoch at a time, with those who watch (watch.js). Runs of one seed
// have the same first weights, images and batches.

const TEST_IMAGES = 448;

const DEFAULTS = {
    seed: 0, // 0, 1, ...: of the first weights, of the split, and of the order of the images
    rate: 0.1, // learning rate, above 0
    descentMomentum: 0, // of gradient descent, from 0 to below 1
    batch: 64, // images, 1 to 512
    depth: 5, // hidden layers, 1 to 20
    units: 64, // of each hidden layer
    activation: "relu", // or "tanh", "sigmoid"
    weightScale: 1, // the first weights of the hidden layers, times those of He et al.
    placement: "before", // of batch norm: before the activation, "after" it, or "none"
    firstLayer: false, // batch norm of the pixels
    bnMomentum: 0.1, // the weight of a new batch in the running statistics, 0 to 1
    eps: 1e-5,
    pixels: "scaled", // to 0 ... 1; or "raw", 0 ... 16
};

/** Images of a set, by their numbers. */
function take({ labels, pixels }, numbers, scale) {
    const set = { x: new Float32Array(numbers.length * PIXELS), labels: new Uint8Array(numbers.length) };
    numbers.forEach((number, i) => {
        for (let p = 0; p < PIXELS; p++) set.x[i * PIXELS + p] = scale * pixels[number * PIXELS + p];
        set.labels[i] = labels[number];
    });
    return set;
}

/** Training and test images of a seed, the latter once more sorted by class. */
function split(digits, seed, scale) {
    const order = randomOf(seed + 1000).permutation(digits.labels.length);
    const test = order.slice(0, TEST_IMAGES);
    const sorted = test.slice().sort((a, b) => digits.labels[a] - digits.labels[b] || a - b);
    return {
        train: take(digits, order.slice(TEST_IMAGES), scale),
        test: take(digits, test, scale),
        sorted: take(digits, sorted, scale),
    };
}

/** The share of a set that the network names correctly, in batches of this size. */
function accuracy(network, { x, labels }, mode, size) {
    let hits = 0;
    for (let start = 0, end; start < labels.length; start = end) {
        end = Math.min(start + size, labels.length);
        if (labels.length - end === 1) end++; // none is left alone: one image has no variance
        const logits = network.forward(x.subarray(start * PIXELS, end * PIXELS), end - start, mode);
        for (let row = 0; row < end - start; row++) {
            const scores = logits.subarray(row * CLASSES, (row + 1) * CLASSES);
            if (scores.indexOf(Math.max(...scores)) === labels[start + row]) hits++;
        }
    }
    return hits / labels.length;
}

class Run {
    /** `watches` are classes: each epoch has a new one of each (watch.js). */
    constructor(bn, digits, given, watches = []) {
        this.settings = { ...DEFAULTS, ...given };
        const { seed, pixels } = this.settings;
        this.network = new Network(bn, this.settings);
        this.sets = split(digits, seed, pixels === "raw" ? 1 : 1 / 16);
        this.random = randomOf(seed + 2000);
        this.watches = watches;
        this.epoch = 0;
        this.ended = null; // why there is no further epoch
    }

    /** Trains for an epoch; null if the run ended in it, or before. */
    next() {
        if (this.ended !== null) return null;
        try {
            const found = this.#train();
            if (Number.isFinite(found.loss.mean)) return found;
            this.ended = "diverged: the loss is not a number any more";
        } catch (error) {
            if (error.name !== "BatchNormError") throw error;
            this.ended = error.message;
        }
        return null;
    }

    #train() {
        const { network, settings, sets } = this;
        const { labels, x } = sets.train;
        const { batch: size, rate, descentMomentum } = settings;
        const order = this.random.permutation(labels.length);
        // The remainder is left out: statistics of a last batch of three images would be no statistics.
        const steps = Math.floor(labels.length / size);
        const batch = { x: new Float32Array(size * PIXELS), labels: new Uint8Array(size) };
        const watches = this.watches.map((Watch) => new Watch(this, steps));
        const loss = { mean: 0, smallest: Infinity, largest: -Infinity };
        let milliseconds = 0;
        Norm.milliseconds = 0;
        for (let step = 0; step < steps; step++) {
            let start = performance.now();
            for (let i = 0; i < size; i++) {
                const number = order[step * size + i];
                batch.x.set(x.subarray(number * PIXELS, (number + 1) * PIXELS), i * PIXELS);
                batch.labels[i] = labels[number];
            }
            const found = network.learn(batch.x, batch.labels);
            loss.mean += found / steps;
            loss.smallest = Math.min(loss.smallest, found);
            loss.largest = Math.max(loss.largest, found);
            milliseconds += performance.now() - start;
            for (const watch of watches) watch.see(step, batch, found);
            start = performance.now();
            network.descend(rate, descentMomentum);
            milliseconds += performance.now() - start;
            if (!Number.isFinite(found)) break;
        }
        this.epoch++;
        const time = { training: milliseconds, batchNorm: Norm.milliseconds };
        const seen = Number.isFinite(loss.mean) ? watches.map((watch) => watch.seen()) : [];
        return Object.assign({ epoch: this.epoch, loss, accuracy: this.score(), time }, ...seen);
    }

    /** The accuracy on the test images: in eval mode, as it should be; and in training mode, shuffled and by class. */
    score() {
        const { network, sets, settings } = this;
        const right = accuracy(network, sets.test, "eval", TEST_IMAGES);
        if (network.norms.length === 0) return { eval: right, batch: right, sorted: right };
        if (settings.batch === 1) return { eval: right, batch: null, sorted: null };
        return {
            eval: right,
            batch: accuracy(network, sets.test, "batch", settings.batch),
            sorted: accuracy(network, sets.sorted, "batch", settings.batch),
        };
    }

    /** Replaces the running statistics by those of all training images, exactly. */
    recalibrate() {
        const { network, sets } = this;
        const before = accuracy(network, sets.test, "eval", TEST_IMAGES);
        const start = performance.now();
        if (network.norms.length > 0) network.forward(sets.train.x, sets.train.labels.length, "recalibrate");
        const milliseconds = performance.now() - start;
        return { before, after: accuracy(network, sets.test, "eval", TEST_IMAGES), milliseconds };
    }
}
