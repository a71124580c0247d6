// SPDX-License-Identifier: Apache-2.0
// Random numbers from a seed, and numbers of 16 bits.

/** mulberry32, with what a fuzzer asks of it. */
export class Draws {
    #state;

    constructor(seed, number) {
        this.#state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)) >>> 0;
    }

    uniform() {
        this.#state = (this.#state + 0x6d2b79f5) >>> 0;
        let t = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
        return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    }

    below(end) {
        return Math.floor(this.uniform() * end);
    }

    is(share) {
        return this.uniform() < share;
    }

    of(list) {
        return list[this.below(list.length)];
    }
}

/** The number that 16 bits stand for. */
export function decoded(bits, dtype) {
    if (dtype === "bfloat16") return new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
    const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
}

/** Bits of a number that is a multiple of 1/8 below 16 in size, which both formats hold. */
export function encoded(value, dtype) {
    const word = new Uint32Array(Float32Array.of(value).buffer)[0];
    if (dtype === "bfloat16") return word >>> 16;
    if (value === 0) return word >>> 16;
    return ((word >>> 16) & 0x8000) | ((((word >>> 23) & 255) - 112) << 10) | ((word >>> 13) & 1023);
}
