// SPDX-License-Identifier: Apache-2.0
// Part of batchnorm.js: one call, and its arrays in the module's memory.
/** The arguments of one call, checked as far as memory depends on them, and their places in one block of it. */
class Call {
    #exports;
    #name;
    #arrays = [];
    #size = LINE;
    #extents;
    #layouts; // of tensors by their names, if they are views
    #whole; // arguments, before arrays of views are cut to what the view reaches
    #strides = {}; // of their outer slices; 0 is dense
    #groups;
    #index = NONE;
    #weights = NONE;
    #tensors;
    #parameters;
    #Parameter;

    /** `saved` is that of the forward call that this one goes back from. */
    constructor(exports, name, given, saved = { layout: null }) {
        this.#exports = exports;
        this.#name = name;
        const { layouts, arrays } = tensorsOf(given, saved.layout);
        this.#layouts = layouts;
        this.given = arrays;
        this.#whole = { ...arrays };
        this.#tensors = saved.dtype;
        const { dtype } = given;
        if (layouts === null) this.#takeExtents(given.shape);
        this.#groups = groupsOf(given.groups, layouts === null ? this.#extents[0] : layouts.x.shape[0]);
        if (layouts !== null) this.#findExtents(saved.shape);
        const index = this.#groups?.index;
        if (index) this.#index = this.room(Int32Array, index.length, { given: index, bytes: bytesOf(index) });
        if (![undefined, "float16", "bfloat16"].includes(dtype)) {
            throw unlike(TypeError, "dtype", dtype, '"float16" or "bfloat16", or none');
        }
    }

    #takeExtents(shape) {
        if (!Array.isArray(shape)) throw unlike(TypeError, "shape", shape, "[outer, channels, inner]");
        if (shape.length !== 3) throw unlike(TypeError, "shape.length", shape.length, 3);
        this.#extents = [...shape];
        this.#extents.forEach((extent, i) => {
            if (Number.isInteger(extent) && extent >= 0 && extent <= LARGEST) return;
            throw unlike(TypeError, `shape[${i}]`, extent, `a whole number from 0 to ${LARGEST}`);
        });
    }

    /** By the library, of the views; a forward call's extents are those of backward. */
    #findExtents(extents) {
        const found = extentsOf(this.#exports, this.#layouts, TENSORS, this.#groups !== null);
        if (found === null) throw this.#refusal(STRIDES_REFUSED);
        if (extents !== undefined) checkSame("shape", found.extents, extents);
        this.#extents = found.extents;
        this.#strides = found.strides;
    }

    get #isEmpty() {
        return this.#extents.includes(0);
    }

    /** The elements from the first to the last of a tensor: all that there are, unless it has gaps. */
    #lengthOf(name) {
        const [outer, channels, inner] = this.#extents;
        const slice = channels * inner;
        return this.#isEmpty ? 0 : (outer - 1) * (this.#strides[name] || slice) + slice;
    }

    /** A tensor, of the type of those before it. */
    tensor(name, { optional = false } = {}) {
        if (optional && this.given[name] === undefined) return NONE;
        this.#tensors ??= this.given.dtype ?? this.#floatOf(name);
        const length = this.#lengthOf(name);
        this.#trim(name, length);
        return this.#copied(name, this.#tensors, length);
    }

    /** Leaves of a view's array what the view reaches. */
    #trim(name, length) {
        const array = this.given[name];
        if (this.#layouts === null || this.#elementOf(name) === undefined || array.length <= length) return;
        this.given[name] = new (typeOf(array))(...(length === 0 ? [0] : [array.buffer, array.byteOffset, length]));
    }

    /** The array of an output: where `like` is in the module's memory, unless one of them has gaps. */
    output(name, like) {
        const length = this.#lengthOf(name);
        this.#trim(name, length);
        const [target, source] = [this.given[name], like.given];
        const isArray = this.#elementOf(name) !== undefined;
        const hasGaps = Math.max(length, like.length) > this.#extents[0] * this.#extents[1] * this.#extents[2];
        const isInPlace = isArray && target.buffer === source.buffer && target.byteOffset === source.byteOffset;
        let array = like;
        if (hasGaps && !(isInPlace && length === like.length)) {
            array = target === undefined ? this.tensorRoom(name, like) : this.#copied(name, like.element, length);
        }
        this.target(name, array);
        return Object.assign(array, { layout: this.#layouts?.[name] });
    }

    /** Room for a tensor whose gaps, if it has any, are 0. */
    tensorRoom(name, { name: of, Type, element }) {
        const layout = this.#layouts?.[name] ?? this.#layouts?.[of];
        const length = this.#lengthOf(name in this.#strides ? name : of);
        return this.room(Type, length, { name, element, layout, isZero: layout !== undefined });
    }

    /** Arrays of an element per channel, of the type of those before; each may be absent. */
    parameters(...names) {
        return names.map((name) => {
            if (this.given[name] === undefined) return NONE;
            this.#parameters ??= this.#floatOf(name);
            const kind = name.startsWith("running") ? "running" : "parameters";
            const array = this.#copied(name, this.#parameters, this.#extents[1] * rowsOf(this.#groups, kind));
            this.#Parameter ??= array.Type;
            return array;
        });
    }

    /** That there are running statistics, or neither of the two where they are `optional`. */
    checkRunning({ optional }) {
        const names = ["runningMean", "runningVar"];
        const missing = names.filter((name) => this.given[name] === undefined);
        if (missing.length === 0 || (optional && missing.length === 2)) return;
        const pair = "both runningMean and runningVar, or neither";
        const length = this.#extents[1] * rowsOf(this.#groups, "running");
        throw unlike(TypeError, missing[0], undefined, optional ? pair : `an array of ${length} elements`);
    }

    /** The facts about a forward call that backward needs besides its arrays of channels. */
    settings(frozen) {
        const { residual, x, y, saveMask } = this.given;
        const { activation, slope, low, high } = this.#epilogueOptions();
        const isInPlace = y?.buffer === x.buffer && y.byteOffset === x.byteOffset;
        const z = residual === undefined || saveMask ? null : this.#viewOf("residual", residual);
        return {
            shape: Object.freeze([...this.#extents]), dtype: this.#tensors, eps: this.#option("eps", 1e-5), frozen,
            activation, slope, low, high, residual: z, hasResidual: residual !== undefined, groups: this.#groups,
            masked: maskedOf(this.given.masked), layout: this.#layouts?.x ?? null, ...(isInPlace && { overwritten: x }),
        };
    }

    /** An array as the caller knows it. */
    #viewOf(name, data) {
        const layout = this.#layouts?.[name];
        return layout ? { data, ...layout } : data;
    }

    statistic(name) {
        return this.#copied(name, "float64", this.#extents[1] * rowsOf(this.#groups, "statistics"));
    }

    statisticRoom() {
        return this.room(Float64Array, this.#extents[1] * rowsOf(this.#groups, "statistics"));
    }

    /** Room for the gradient of a parameter. */
    parameterRoom() {
        const Type = this.#Parameter ?? (this.#tensors === "float64" ? Float64Array : Float32Array);
        return this.room(Type, this.#extents[1] * rowsOf(this.#groups, "parameters"));
    }

    /** The weights of the positions, one for each of outer and inner. */
    weights() {
        const name = "saved.weights" in this.given ? "saved.weights" : "weights";
        if (this.given[name] === undefined) return (this.#weights = NONE);
        const element = this.#tensors === "float64" ? "float64" : "float32";
        return (this.#weights = this.#copied(name, element, this.#extents[0] * this.#extents[2]));
    }

    /** Room for the bits of a mask, if the caller wants it saved. */
    maskRoom() {
        return this.#option("saveMask", false) ? this.room(Uint8Array, this.#maskLength) : NONE;
    }

    savedMask() {
        return this.given["saved.mask"] === undefined ? NONE : this.#copied("saved.mask", "uint8", this.#maskLength);
    }

    get #maskLength() {
        return Math.ceil((this.#extents[0] * this.#extents[1] * this.#extents[2]) / 8);
    }

    /** Room for a result; per channel, unless a length is given. */
    room(Type, length = this.#extents[1], argument = {}) {
        const array = { ...argument, Type, length, offset: this.#size, at: 0 };
        this.#size += Math.ceil((length * Type.BYTES_PER_ELEMENT) / LINE) * LINE;
        this.#arrays.push(array);
        return array;
    }

    /**
     * Has what takes the place of an array written to the argument of that name, if there is one: an array like it,
     * whose memory is no other argument's.
     */
    target(name, array) {
        const target = this.given[name];
        if (target === undefined) return;
        const bytes = this.#check(name, array.element, array.length);
        const end = ({ byteOffset, byteLength }) => byteOffset + byteLength;
        for (const { name: other, given } of this.#arrays) {
            const isSame = other === array.name && given.byteOffset === target.byteOffset;
            if (isSame || given?.buffer !== target.buffer) continue;
            if (Math.max(given.byteOffset, target.byteOffset) >= Math.min(end(given), end(target))) continue;
            const exception = name === array.name ? "" : `, or that of ${array.name}`;
            throw new RangeError(`${name} overlaps ${other}; expected memory of its own${exception}`);
        }
        Object.assign(array, { target: this.#whole[name], targetBytes: bytes });
    }

    #copied(name, element, length) {
        const bytes = this.#check(name, element, length);
        const given = this.given[name];
        return this.room(typeOf(given), length, { name, element, given, bytes });
    }

    /** Its bytes. There are none where it has no elements, and its buffer may be a detached one. */
    #check(name, element, length) {
        const given = this.given[name];
        if (element === undefined || this.#elementOf(name) !== element) {
            throw unlike(TypeError, name, given, ARRAYS[element] ?? ANY_ARRAY);
        }
        if (given.length !== length) throw unlike(RangeError, `${name}.length`, given.length, length);
        if (length === 0) return new Uint8Array(0);
        // The array's own properties may lie. The bytes that are checked here are those that are written later.
        const [bytes, size] = [bytesOf(given), length * typeOf(given).BYTES_PER_ELEMENT];
        if (bytes.length !== size) throw unlike(RangeError, `${name}.byteLength`, bytes.length, size);
        return bytes;
    }

    /** The element type of a typed array. For the bits of 16-bit numbers, `dtype` tells it. */
    #elementOf(name) {
        const array = this.given[name];
        const type = ArrayBuffer.isView(array) ? array[Symbol.toStringTag] : undefined;
        return type === "Uint16Array" ? this.given.dtype : ELEMENTS[type];
    }

    #floatOf(name) {
        const element = this.#elementOf(name);
        return element in DTYPES ? element : undefined;
    }

    /** bn_options; its bn_epilogue with these arrays, if the call has one. */
    options(z, dz, mask) {
        const isNeeded = dz !== NONE || EPILOGUE.some((name) => this.given[name] !== undefined);
        const epilogue = isNeeded ? this.#epilogue(z, dz, mask) : 0;
        const groups = this.#groups === null ? 0 : this.#groupsInC(this.#groups);
        return this.#exports.module_options(
            this.#option("eps", 1e-5), this.#option("momentum", 0.1), Number(this.#option("biasedRunningVar", false)),
            Number(this.#option("frozen", false)), DTYPES[this.#parameters] ?? 0, epilogue, groups);
    }

    #epilogue(z, dz, mask) {
        const { activation, slope, low, high } = this.#epilogueOptions();
        const strides = [this.#strides.residual, this.#strides.dy];
        return this.#exports.module_epilogue(
            ACTIVATIONS[activation], slope, low, high, z.at, strides[0], dz.at, strides[1], mask.at);
    }

    #groupsInC({ count, samples, interleaved, perGroup, averaged }) {
        const kinds = perGroup.reduce((sum, kind) => sum | PER_GROUP[kind], 0);
        const [isInterleaved, isAveraged] = [Number(interleaved), Number(averaged)];
        return this.#exports.module_groups(samples, count, this.#index.at, isInterleaved, kinds, isAveraged);
    }

    #shapeInC() {
        const masked = MASKED[maskedOf(this.given.masked)];
        const weights = this.#weights === NONE ? 0 : this.#exports.module_weights(this.#weights.at, masked);
        const { x, y, dy, dx } = this.#strides;
        return this.#exports.module_shape(...this.#extents, x, this.given.dy === undefined ? y : dy, dx, weights);
    }

    #epilogueOptions() {
        const { activation = "identity" } = this.given;
        const names = Object.keys(ACTIVATIONS);
        if (!names.includes(activation)) throw unlike(TypeError, "activation", activation, names.join(", "));
        const [slope, low, high] = [this.#option("slope", 0.01), this.#option("low", 0), this.#option("high", 6)];
        return { activation, slope, low, high };
    }

    #option(name, otherwise) {
        const { [name]: value = otherwise } = this.given;
        if (typeof value !== typeof otherwise) throw unlike(TypeError, name, value, `a ${typeof otherwise}`);
        return value;
    }

    /**
     * Takes the memory, copies the arrays there, and calls `compute` with a bn_shape and a bn_dtype. Gives `results`,
     * each in its target or in a new array, and null for none. No target is written before all that can fail is done.
     */
    run(compute, results) {
        const exports = this.#exports;
        const block = this.#size > LARGEST ? 0 : exports.aligned_alloc(LINE, this.#size);
        if (block === 0) {
            const message = `${this.#name}: memory for arrays is ${this.#size}; expected that many bytes to be free`;
            throw new BatchNormError(message, OUT_OF_MEMORY);
        }
        // Made anew each time: the buffer is another one when the memory has grown.
        const view = ({ Type, at, length }) => new Type(exports.memory.buffer, at, length);
        try {
            for (const array of this.#arrays) {
                array.at = block + array.offset;
                if (array.given !== undefined) bytesOf(view(array)).set(array.bytes);
                else if (array.isZero) bytesOf(view(array)).fill(0);
            }
            const status = compute(this.#shapeInC(), DTYPES[this.#tensors]);
            if (status !== 0) throw this.#refusal(status);
            const take = (array) => (array === NONE ? null : (array.target ?? view(array).slice()));
            const shaped = (array) => (array.layout ? { data: take(array), ...array.layout } : take(array));
            const taken = Object.entries(results).map(([name, array]) => [name, shaped(array)]);
            for (const array of this.#arrays) array.targetBytes?.set(bytesOf(view(array)));
            return Object.fromEntries(taken);
        } finally {
            exports.free(block);
        }
    }

    /** One value per channel has no variance, and is most often met where evaluation was meant. */
    #refusal(status) {
        const hint = status === SINGLE_VALUE ? " (forwardInference takes one)" : "";
        const sentence = this.#sentence(this.#exports.bn_last_error()).replace(/^shapeFromStrides/, this.#name);
        return new BatchNormError(sentence + hint, status);
    }

    #sentence(start) {
        const bytes = new Uint8Array(this.#exports.memory.buffer, start);
        const text = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
        return WORDS.reduce((text, [words, replacement]) => text.replace(words, replacement), text);
    }
}
