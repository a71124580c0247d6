// SPDX-License-Identifier: Apache-2.0
// Assertions about values, and the tensor that most tests take.

export const size = 4 * 3 * 6;
export const shape = [4, 3, 6];
export const tensor = (value) => Float32Array.from({ length: size }, (_, i) => value(i));
export const batch = (k) => tensor((i) => ((i * 37 + k * 11) % 101) / 8 - 5);

export function check(condition, message) {
    if (!condition) throw new Error(message);
}

export function throws(expected, body) {
    let found;
    try {
        body();
    } catch (error) {
        found = error;
    }
    check(found, `nothing is thrown, expected ${JSON.stringify(expected)}`);
    for (const [name, value] of Object.entries(expected)) {
        check(found[name] === value, `${name} is ${found[name]}, expected ${value}`);
    }
    return found;
}

const INTEGERS = { 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array };

/** Checks that two arrays are equal to the bit, but for the payloads of NaNs. */
export function checkSame(found, expected, dtype, what) {
    check(found?.constructor === expected.constructor && found.length === expected.length, `${what}: another array`);
    const infinity = { float16: 0x7c00, bfloat16: 0x7f80 }[dtype];
    const isBits = expected instanceof Uint16Array;
    const isNaN = isBits ? (bits) => (bits & 0x7fff) > infinity : Number.isNaN;
    const Integers = INTEGERS[expected.BYTES_PER_ELEMENT];
    const [a, b] = [found, expected].map((array) => new Integers(array.buffer, array.byteOffset, array.length));
    const place = a.findIndex((bits, i) => bits !== b[i] && !(isNaN(found[i]) && isNaN(expected[i])));
    check(place < 0, `${what}[${place}] is ${found[place]}, expected ${expected[place]}`);
}
