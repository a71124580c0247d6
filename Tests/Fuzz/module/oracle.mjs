// SPDX-License-Identifier: Apache-2.0
// The results of calls, by the formulas and in float64.
import { numbers } from "./calls.mjs";

const TOLERANCE = { float64: 1e-9, float32: 2e-5, float16: 4e-3, bfloat16: 3e-2 };

const KINKS = { relu: [0], leakyRelu: [0], clip: ["low", "high"], hardSwish: [-3, 3] };
const activate = {
    identity: (u) => [u, 1],
    relu: (u) => [Math.max(u, 0), u > 0 ? 1 : 0],
    leakyRelu: (u, { slope }) => (u > 0 ? [u, 1] : [slope * u, slope]),
    clip: (u, { low, high }) => [Math.min(Math.max(u, low), high), u > low && u < high ? 1 : 0],
    hardSwish: (u) => (u <= -3 ? [0, 0] : u >= 3 ? [u, 1] : [(u * (u + 3)) / 6, (2 * u + 3) / 6]),
    silu: (u) => {
        const s = 1 / (1 + Math.exp(-u));
        return [u * s, s * (1 + u * (1 - s))];
    },
};

/** The expected results by name, each with a scale for what is near; nothing where a derivative jumps. */
export function expected(call, given, shape) {
    const [outer, channels, inner] = shape;
    const count = outer * inner;
    const places = Array.from({ length: channels }, (_, c) => {
        const rows = Array.from({ length: outer }, (_, o) => (o * channels + c) * inner);
        return rows.flatMap((at) => Array.from({ length: inner }, (_, i) => at + i));
    });
    const x = numbers(given.x, call.dtype);
    const mean = places.map((of) => of.reduce((sum, i) => sum + x[i], 0) / count);
    const m2 = places.map((of, c) => of.reduce((sum, i) => sum + (x[i] - mean[c]) ** 2, 0));
    if (call.name === "moments") return { count: mean.map(() => count), mean, m2 };

    const { eps = 1e-5, momentum = 0.1, activation = "identity", slope = 0.01, low = 0, high = 6 } = given;
    const frozen = call.name === "forwardInference" || call.isFrozen;
    const running = given.runningMean && [numbers(given.runningMean), numbers(given.runningVar)];
    const [centre, variance] = frozen ? running : [mean, m2.map((sum) => sum / count)];
    const invstd = Array.from(variance, (value) => 1 / Math.sqrt(value + eps));
    const [gamma, beta] = [given.gamma ?? mean.map(() => 1), given.beta ?? mean.map(() => 0)];
    const z = given.residual && numbers(given.residual, call.dtype);
    const [y, xHat, passes] = [new Float64Array(x.length), new Float64Array(x.length), new Float64Array(x.length)];
    let atKink = false;
    for (const [c, of] of places.entries()) {
        for (const i of of) {
            xHat[i] = (x[i] - centre[c]) * invstd[c];
            const u = gamma[c] * xHat[i] + beta[c] + (z ? z[i] : 0);
            [y[i], passes[i]] = activate[activation](u, { slope, low, high });
            const kinks = (KINKS[activation] ?? []).map((kink) => ({ low, high })[kink] ?? kink);
            atKink ||= kinks.some((kink) => Math.abs(u - kink) < 0.05);
        }
    }
    if (call.name !== "backward") {
        const results = { y };
        if (call.name === "forwardTraining" && running) {
            const unbiased = given.biasedRunningVar ? count : count - 1;
            results.runningMean = running[0].map((old, c) => (1 - momentum) * old + momentum * mean[c]);
            results.runningVar = running[1].map((old, c) => (1 - momentum) * old + (momentum * m2[c]) / unbiased);
        }
        return results;
    }
    if (atKink) return undefined;
    const dz = numbers(given.dy, call.dtype).map((value, i) => value * passes[i]);
    const dbeta = places.map((of) => of.reduce((sum, i) => sum + dz[i], 0));
    const dgamma = places.map((of) => of.reduce((sum, i) => sum + dz[i] * xHat[i], 0));
    const dx = new Float64Array(x.length);
    for (const [c, of] of places.entries()) {
        for (const i of of) {
            const inner = frozen ? dz[i] : dz[i] - dbeta[c] / count - (xHat[i] * dgamma[c]) / count;
            dx[i] = gamma[c] * invstd[c] * inner;
        }
    }
    // Where all values are equal, or nearly, a gradient is a difference of large numbers.
    const steep = !frozen && Math.max(...invstd) > 20;
    return { dbeta, ...(steep ? {} : { dgamma, dx }), ...(z ? { dz } : {}) };
}

/** The first place where a result is not what it should be. */
export function difference(call, found, wanted) {
    for (const [name, values] of Object.entries(wanted)) {
        const array = found[name];
        if (array?.length !== values.length) return `${name} has ${array?.length} elements, expected ${values.length}`;
        const given = numbers(array, call.dtype);
        const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
        // Sums and statistics of a 16-bit tensor are float32 or float64.
        const near = 4 * TOLERANCE[call.dtype] * largest + 4 * TOLERANCE.float32 * (array instanceof Float32Array) * largest;
        const place = given.findIndex((value, i) => !(Math.abs(value - values[i]) <= near));
        if (place >= 0) return `${name}[${place}] is ${given[place]}, expected ${values[place]}`;
    }
}
