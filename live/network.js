// SPDX-License-Identifier: Apache-2.0
// The network that the live page trains, small enough to read in one go: dense layers, activations, softmax and
// gradient descent in plain JavaScript, batch norm by batchnorm.wasm. Rows are images; arrays are flat Float32Arrays.
//
// A script, not a module, as a worker of a page that was opened from disk cannot be one: its names are global to what
// stands after it. `bn` is what batchnorm.load gives.

const CLASSES = 10;
const PIXELS = 64;

/** Random numbers of a seed: mulberry32; normal ones by Box and Muller. */
function randomOf(seed) {
    let state = seed >>> 0;
    const uniform = () => {
        state = (state + 0x6d2b79f5) | 0;
        let t = Math.imul(state ^ (state >>> 15), 1 | state);
        t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
        return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    const permutation = (length) => {
        const order = Uint32Array.from({ length }, (_, i) => i);
        for (let i = length - 1; i > 0; i--) {
            const j = Math.floor(uniform() * (i + 1));
            [order[i], order[j]] = [order[j], order[i]];
        }
        return order;
    };
    return { uniform, normal, permutation };
}

/** y = x weight + bias, with the first weights of He et al. (2015) times `scale`. */
class Dense {
    constructor(inputs, outputs, random, scale) {
        Object.assign(this, { inputs, outputs });
        const deviation = scale * Math.sqrt(2 / inputs);
        this.weight = Float32Array.from({ length: inputs * outputs }, () => deviation * random.normal());
        this.bias = new Float32Array(outputs);
        this.gradWeight = new Float32Array(inputs * outputs);
        this.gradBias = new Float32Array(outputs);
    }

    /** Four rows of the weights at a time, of inputs that are not 0: with ReLU half of them are. */
    forward(x, rows) {
        this.x = x;
        const { inputs, outputs, weight, bias } = this;
        const y = new Float32Array(rows * outputs);
        const inUse = new Uint32Array(inputs + 3);
        for (let row = 0; row < rows; row++) {
            const [at, to] = [row * inputs, row * outputs];
            y.set(bias, to);
            let count = 0;
            for (let i = 0; i < inputs; i++) if (x[at + i] !== 0) inUse[count++] = i;
            for (let k = 0; k < count; k += 4) {
                const [i, j, l, m] = [inUse[k], inUse[k + 1], inUse[k + 2], inUse[k + 3]];
                // Beyond the last of them the factor is 0.
                const a = x[at + i];
                const b = k + 1 < count ? x[at + j] : 0;
                const c = k + 2 < count ? x[at + l] : 0;
                const d = k + 3 < count ? x[at + m] : 0;
                const [p, q, r, s] = [i * outputs, j * outputs, l * outputs, m * outputs];
                for (let o = 0; o < outputs; o++) {
                    y[to + o] += a * weight[p + o] + b * weight[q + o] + c * weight[r + o] + d * weight[s + o];
                }
            }
        }
        return y;
    }

    /** The gradient with respect to x, or null where nobody wants it: below the first layer. Four images at a time. */
    backward(dy, rows, isWanted) {
        const { inputs, outputs, weight, x, gradWeight, gradBias } = this;
        gradWeight.fill(0);
        gradBias.fill(0);
        for (let k = 0; k < dy.length; k++) gradBias[k % outputs] += dy[k];
        const dx = new Float32Array(rows * inputs);
        for (let row = 0; row < rows; row += 4) {
            const t = row * inputs;
            // Images beyond the last one have its place, and the factor 0; what is written for them is ignored.
            const place = (offset) => Math.min(row + offset, rows - 1) * outputs;
            const [p, q, r, s] = [place(0), place(1), place(2), place(3)];
            for (let i = 0; i < inputs; i++) {
                const a = x[t + i];
                const b = row + 1 < rows ? x[t + inputs + i] : 0;
                const c = row + 2 < rows ? x[t + 2 * inputs + i] : 0;
                const d = row + 3 < rows ? x[t + 3 * inputs + i] : 0;
                let first = 0, second = 0, third = 0, fourth = 0;
                for (let o = 0, f = i * outputs; o < outputs; o++, f++) {
                    const value = weight[f], dp = dy[p + o], dq = dy[q + o], dr = dy[r + o], ds = dy[s + o];
                    gradWeight[f] += a * dp + b * dq + c * dr + d * ds;
                    first += value * dp;
                    second += value * dq;
                    third += value * dr;
                    fourth += value * ds;
                }
                dx[t + i] = first;
                dx[t + inputs + i] = second;
                dx[t + 2 * inputs + i] = third;
                dx[t + 3 * inputs + i] = fourth;
            }
        }
        return isWanted ? dx : null;
    }

    parameters() {
        return [[this.weight, this.gradWeight], [this.bias, this.gradBias]];
    }
}

/** Batch norm by the library. `milliseconds` adds up the time in it, copies to its memory and back included. */
class Norm {
    static milliseconds = 0;

    constructor(bn, channels, { bnMomentum, eps }) {
        Object.assign(this, { bn, channels, momentum: bnMomentum, eps });
        this.gamma = new Float32Array(channels).fill(1);
        this.beta = new Float32Array(channels);
        this.runningMean = new Float32Array(channels);
        this.runningVar = new Float32Array(channels).fill(1);
        this.gradGamma = new Float32Array(channels);
        this.gradBeta = new Float32Array(channels);
    }

    /**
     * In mode "train" with the batch's statistics, which go into the running ones; "eval": with the running ones;
     * "batch": with the batch's, and nothing is remembered: evaluation by a network whose eval mode was forgotten;
     * "recalibrate": the running ones are replaced by those of these rows, exactly, and taken.
     */
    forward(x, rows, mode) {
        const start = performance.now();
        const { bn, gamma, beta, runningMean, runningVar, momentum, eps } = this;
        const given = { x, shape: [rows, this.channels, 1], gamma, beta, eps };
        if (mode === "recalibrate") this.recalibrate(x, rows);
        let result;
        if (mode === "batch") result = bn.forwardTraining(given);
        else if (mode !== "train") result = bn.forwardInference({ ...given, runningMean, runningVar });
        else result = bn.forwardTraining({ ...given, runningMean, runningVar, momentum });
        if (mode === "train") Object.assign(this, { x, saved: result.saved });
        Norm.milliseconds += performance.now() - start;
        return result.y;
    }

    backward(dy) {
        const start = performance.now();
        const { dx, dgamma, dbeta } = this.bn.backward({ dy, x: this.x, saved: this.saved });
        this.gradGamma.set(dgamma);
        this.gradBeta.set(dbeta);
        Norm.milliseconds += performance.now() - start;
        return dx;
    }

    recalibrate(x, rows) {
        const { count, mean, m2 } = this.bn.moments({ x, shape: [rows, this.channels, 1] });
        this.runningMean.set(mean);
        this.runningVar.set(m2.map((sum, c) => sum / (count[c] - 1)));
    }

    /** The mean of the last batch in mode "train", and its variance divided by count - 1, as in the running one. */
    batchStatistics() {
        const { mean, invstd, shape } = this.saved;
        const unbiased = shape[0] / (shape[0] - 1);
        return { mean, variance: invstd.map((value) => Math.max(0, 1 / value ** 2 - this.eps) * unbiased) };
    }

    parameters() {
        return [[this.gamma, this.gradGamma], [this.beta, this.gradBeta]];
    }
}

// Each with its derivative, of the input and the output.
const ACTIVATIONS = {
    relu: { value: (x) => (x > 0 ? x : 0), slope: (x) => (x > 0 ? 1 : 0) },
    tanh: { value: Math.tanh, slope: (_, y) => 1 - y * y },
    sigmoid: { value: (x) => 1 / (1 + Math.exp(-x)), slope: (_, y) => y * (1 - y) },
};

class Activation {
    constructor(name) {
        Object.assign(this, ACTIVATIONS[name]);
    }

    forward(x) {
        const { value } = this;
        const y = new Float32Array(x.length);
        for (let i = 0; i < x.length; i++) y[i] = value(x[i]);
        Object.assign(this, { x, y });
        return y;
    }

    backward(dy) {
        const { x, y, slope } = this;
        const dx = new Float32Array(dy.length);
        for (let i = 0; i < dy.length; i++) dx[i] = dy[i] * slope(x[i], y[i]);
        return dx;
    }
}

/** A hidden layer: dense, activation, and batch norm before or after the activation, or none. Remembers what passed. */
class Hidden {
    constructor(bn, inputs, random, settings) {
        const { units, activation, placement, weightScale } = settings;
        this.dense = new Dense(inputs, units, random, weightScale);
        this.activation = new Activation(activation);
        this.norm = placement === "none" ? null : new Norm(bn, units, settings);
        this.steps = [this.dense, this.activation];
        if (this.norm) this.steps.splice(placement === "before" ? 1 : 2, 0, this.norm);
    }

    forward(x, rows, mode) {
        for (const step of this.steps) {
            if (step === this.norm) this.intoNorm = x;
            if (step === this.activation) this.intoActivation = x;
            x = step.forward(x, rows, mode);
        }
        this.out = x;
        return x;
    }

    backward(dy, rows, isWanted) {
        for (let i = this.steps.length - 1; i >= 0; i--) dy = this.steps[i].backward(dy, rows, isWanted);
        return dy;
    }
}

/** Hidden layers and one dense layer to the classes, after a batch norm of the pixels if `firstLayer` says so. */
class Network {
    constructor(bn, settings) {
        const { seed, depth, units, firstLayer } = settings;
        const random = randomOf(seed);
        this.first = firstLayer ? new Norm(bn, PIXELS, settings) : null;
        this.hidden = Array.from({ length: depth }, (_, i) => new Hidden(bn, i ? units : PIXELS, random, settings));
        // Its weights are not scaled: with large ones the very first loss would be thousands, whatever is before them.
        this.last = new Dense(units, CLASSES, random, 1);
        this.layers = [...(this.first ? [this.first] : []), ...this.hidden, this.last];
        this.dense = [...this.hidden.map((layer) => layer.dense), this.last];
        this.norms = [this.first, ...this.hidden.map((layer) => layer.norm)].filter((norm) => norm !== null);
        this.parameters = [...this.dense, ...this.norms].flatMap((layer) => layer.parameters());
        this.velocities = null;
    }

    forward(x, rows, mode) {
        for (const layer of this.layers) x = layer.forward(x, rows, mode);
        return x;
    }

    backward(dy, rows) {
        for (let i = this.layers.length - 1; i >= 0; i--) dy = this.layers[i].backward(dy, rows, i > 0);
    }

    /** The loss of a batch in mode "train", with the gradient of every parameter left beside it. */
    learn(x, labels) {
        const { loss, gradient } = softmaxLoss(this.forward(x, labels.length, "train"), labels);
        this.backward(gradient, labels.length);
        return loss;
    }

    /** One step of gradient descent; with momentum, its velocity is momentum * velocity + gradient. */
    descend(rate, momentum) {
        if (momentum > 0) this.velocities ??= this.parameters.map(([value]) => new Float32Array(value.length));
        this.parameters.forEach(([value, gradient], p) => {
            const velocity = momentum > 0 ? this.velocities[p] : gradient;
            for (let i = 0; i < value.length; i++) {
                if (momentum > 0) velocity[i] = momentum * velocity[i] + gradient[i];
                value[i] -= rate * velocity[i];
            }
        });
    }
}

/** Mean cross-entropy of softmax, and its gradient with respect to the logits. */
function softmaxLoss(logits, labels) {
    const gradient = new Float32Array(logits.length);
    let loss = 0;
    labels.forEach((label, row) => {
        const at = row * CLASSES;
        let [largest, sum] = [-Infinity, 0];
        for (let k = 0; k < CLASSES; k++) largest = Math.max(largest, logits[at + k]);
        for (let k = 0; k < CLASSES; k++) sum += gradient[at + k] = Math.exp(logits[at + k] - largest);
        loss += Math.log(sum) + largest - logits[at + label];
        for (let k = 0; k < CLASSES; k++) {
            gradient[at + k] = (gradient[at + k] / sum - (k === label ? 1 : 0)) / labels.length;
        }
    });
    return { loss: loss / labels.length, gradient };
}
