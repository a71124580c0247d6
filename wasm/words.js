// SPDX-License-Identifier: Apache-2.0
// Part of batchnorm.js: what an argument may be, and errors in words of JavaScript.
const SINGLE_VALUE = 20;
const OUT_OF_MEMORY = 41;
const STRIDES_REFUSED = 2;
const DTYPES = { float32: 1, float64: 2, float16: 3, bfloat16: 4 };
const ELEMENTS = {
    Float32Array: "float32", Float64Array: "float64", Float16Array: "float16", Uint8Array: "uint8", Int32Array: "int32",
};
const ARRAYS = {
    float32: "Float32Array",
    float64: "Float64Array",
    float16: 'Float16Array, or Uint16Array and dtype "float16"',
    bfloat16: "Uint16Array",
    uint8: "Uint8Array",
    int32: "Int32Array",
};
const ANY_ARRAY = "Float32Array, Float64Array or Float16Array, or Uint16Array and a dtype";
const ACTIVATIONS = { identity: 0, relu: 1, leakyRelu: 2, clip: 3, hardSwish: 4, silu: 5 };
const LARGEST = 2 ** 31 - 1; // more is no size in the module's memory
const FORWARD_CALLS = "what forwardTraining or forwardInference gave as saved";
const LINE = 64;
const NONE = { at: 0 }; // stands for NULL

/** The constructor of this realm, whatever the array's. */
const typeOf = (array) => globalThis[array[Symbol.toStringTag]];
const bytesOf = ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength);

/** A value in a message; of an object it tells the type alone. */
function described(value) {
    if (typeof value === "string") return JSON.stringify(value);
    return Object(value) === value ? Object.prototype.toString.call(value).slice(8, -1) : String(value);
}

/** An error in the manner of the library's own sentences. */
function unlike(Kind, name, found, expected) {
    return new Kind(`${name} is ${described(found)}; expected ${expected}`);
}

// The library's sentences name what C calls the arguments.
const WORDS = [
    [/^bn_(\w+)/, (_, name) => camelCase(name)],
    [/\b(?:epilogue|options)->/g, ""],
    [/\b(?:shape->)?outer is\b/g, "shape[0] is"],
    [/\b(?:shape->)?channels is\b/g, "shape[1] is"],
    [/\b(?:shape->)?inner is\b/g, "shape[2] is"],
    [/\bPTRDIFF_MAX\b/g, String(LARGEST)],
    [/\bis (-?)(nan|inf)\b/g, (_, sign, value) => `is ${value === "nan" ? "NaN" : `${sign}Infinity`}`],
    [/\bz\b/g, "residual"],
    [/\b[a-z]+(?:_[a-z]+)+\b/g, (name) => camelCase(name)],
];
const camelCase = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

/** The one object that a function takes, read once: what is checked is what is used. */
function only(name, given, names) {
    const expected = `one object, ${name}({ ${names.slice(0, 3).join(", ")}, ... })`;
    if (given.length !== 1) throw new TypeError(`${name} is given ${given.length} arguments; expected ${expected}`);
    const [object] = given;
    const isObject = Object(object) === object && typeof object !== "function";
    if (!isObject || Array.isArray(object) || ArrayBuffer.isView(object)) {
        throw unlike(TypeError, `the argument of ${name}`, object, expected);
    }
    const copy = { ...object };
    const unknown = Object.keys(copy).find((key) => !names.includes(key));
    if (unknown === undefined) return copy;
    throw new TypeError(`${unknown} is no argument of ${name}; expected ${names.join(", ")}`);
}
