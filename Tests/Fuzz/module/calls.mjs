// SPDX-License-Identifier: Apache-2.0
// Calls that are right, in arrays with guards on both sides, whose buffers are of all kinds there are.
import { decoded, encoded } from "./draws.mjs";

const GUARD = 24; // bytes, in front and behind
const TYPES = [
    ["float32", Float32Array],
    ["float64", Float64Array],
    ["float16", Uint16Array],
    ["bfloat16", Uint16Array],
];
const BUFFERS = ["plain", "plain", "plain", "shared", "resizable"];

/** Node 18 has no `detached`. */
function bytesOf(buffer) {
    try {
        return new Uint8Array(buffer);
    } catch {
        return new Uint8Array(0);
    }
}

/** A call: the function's name, what it is given, and all buffers that may not change, but where it writes. */
export class Call {
    buffers = [];
    written = []; // arrays that a call that succeeds may change

    constructor(draws, bn, exports) {
        this.draws = draws;
        this.exports = exports;
        const [outer, channels, inner] = [draws.below(5) + 1, draws.below(5) + 1, draws.below(6) + 1];
        this.shape = [outer, channels, inner];
        [this.dtype, this.Type] = draws.of(TYPES);
        this.Parameter = this.Type === Uint16Array ? Float32Array : draws.of([this.Type, Float32Array, Float64Array]);
        this.name = draws.of(["forwardTraining", "forwardTraining", "forwardInference", "backward", "moments"]);
        this.given = { x: this.tensor(), shape: this.shape };
        if (this.Type === Uint16Array) this.given.dtype = this.dtype;
        if (this.name === "moments") return;
        this.#forward();
        if (this.name === "backward") this.#backward(bn);
    }

    get size() {
        return this.shape[0] * this.shape[1] * this.shape[2];
    }

    /** Multiples of 1/8, so that all types hold the same. */
    array(Type, length, dtype) {
        const bytes = length * Type.BYTES_PER_ELEMENT;
        const kind = this.draws.of(BUFFERS);
        let buffer;
        if (kind === "shared") buffer = new SharedArrayBuffer(GUARD + bytes + GUARD);
        else if (kind === "resizable") buffer = new ArrayBuffer(GUARD + bytes + GUARD, { maxByteLength: bytes + 4096 });
        else buffer = new ArrayBuffer(GUARD + bytes + GUARD);
        new Uint8Array(buffer).fill(0xa5);
        this.buffers.push(buffer);
        const array = new Type(buffer, GUARD, length);
        for (let i = 0; i < length; i++) {
            const value = (this.draws.below(128) - 64) / 8;
            array[i] = Type === Uint16Array ? encoded(value, dtype) : value;
        }
        return array;
    }

    tensor() {
        return this.array(this.Type, this.size, this.dtype);
    }

    row(value = (x) => x) {
        const row = this.array(this.Parameter, this.shape[1]);
        return row.forEach((x, c) => (row[c] = value(x))), row;
    }

    #forward() {
        const { draws, given } = this;
        if (draws.is(0.7)) given.gamma = this.row();
        if (draws.is(0.7)) given.beta = this.row();
        if (this.name === "forwardInference" || draws.is(0.5)) {
            given.runningMean = this.row();
            given.runningVar = this.row((x) => Math.abs(x) + 0.5);
            if (this.name !== "forwardInference") this.written.push(given.runningMean, given.runningVar);
        }
        if (draws.is(0.3)) given.y = draws.is(0.5) && this.name !== "backward" ? given.x : this.tensor();
        if (given.y) this.written.push(given.y);
        if (draws.is(0.5)) given.eps = draws.of([1e-5, 0.25, 1e-3]);
        if (this.name === "forwardTraining" && draws.is(0.5)) given.momentum = draws.of([0, 0.1, 0.5, 1]);
        if (this.name === "forwardTraining" && draws.is(0.3)) given.biasedRunningVar = draws.is(0.5);
        if (draws.is(0.5)) {
            given.activation = draws.of(["identity", "relu", "leakyRelu", "clip", "hardSwish", "silu"]);
            if (draws.is(0.3)) given.slope = 0.25;
            if (draws.is(0.3)) [given.low, given.high] = [-1, 2];
        }
        if (draws.is(0.3)) given.residual = this.tensor();
    }

    /** Backward after a forward call that is made here, and has to succeed; or after one that is only prepared. */
    #backward(bn) {
        const { x, residual, y, runningMean, runningVar, ...forward } = this.given;
        const isFrozen = this.draws.is(0.3) || this.shape[0] * this.shape[2] < 2;
        const running = { runningMean: this.row(), runningVar: this.row((x) => Math.abs(x) + 0.5) };
        const call = { x, residual, ...forward };
        if (residual === undefined) delete call.residual;
        const { saved } = isFrozen ? bn.forwardInference({ ...call, ...running }) : bn.forwardTraining(call);
        this.forward = isFrozen ? { ...call, ...running } : call;
        this.isFrozen = isFrozen;
        this.given = { dy: this.tensor(), x, saved };
        this.written = [];
        if (this.draws.is(0.3)) {
            this.given.dx = this.draws.is(0.5) ? this.given.dy : this.tensor();
            this.written.push(this.given.dx);
        }
        if (this.draws.is(0.2)) this.given.shape = [...this.shape];
        if (this.draws.is(0.2) && residual) this.given.residual = residual;
    }

    /** All bytes as they are; a buffer that is gone has none. */
    snapshot() {
        return this.buffers.map((buffer) => bytesOf(buffer).slice());
    }

    /** The first place, outside of `allowed` arrays, where bytes have changed since; or nothing. */
    changed(before, allowed) {
        for (const [index, buffer] of this.buffers.entries()) {
            const bytes = bytesOf(buffer);
            const inside = allowed.filter((array) => array.buffer === buffer);
            for (let i = 0; i < Math.min(bytes.length, before[index].length); i++) {
                if (bytes[i] === before[index][i]) continue;
                if (inside.some(({ byteOffset, byteLength }) => i >= byteOffset && i < byteOffset + byteLength)) continue;
                return `byte ${i} of buffer ${index}`;
            }
        }
    }
}

/** The numbers of an array in float64. */
export function numbers(array, dtype) {
    return Float64Array.from(array, (value) => (array instanceof Uint16Array ? decoded(value, dtype) : value));
}
