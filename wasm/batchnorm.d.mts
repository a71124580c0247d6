// SPDX-License-Identifier: Apache-2.0

/** Float16Array, where the language has it. */
type Halves = typeof globalThis extends { Float16Array: { prototype: infer T } } ? T : never;

/** The elements of a tensor; those of a Uint16Array are bits, and `dtype` says of what. */
export type Tensor = Float32Array | Float64Array | Uint16Array | Halves;

/**
 * An array of an element per channel, in a row for each group that has its own. All of a call are of one type, whatever
 * the tensors'.
 */
export type Parameter = Tensor;

/** A refusal of the library, in its own sentence. */
export declare class BatchNormError extends Error {
    /** A bn_status of batchnorm.h: 1 to 8 for the arguments, 20 and 21 for the data, 41 for memory. */
    readonly status: number;
    constructor(message: string, status: number);
}

/**
 * A tensor as it lies in memory: one element of `data` for each index of its axes. Its axes may have any order in
 * memory, the same for all tensors of a call, and slices along the outermost may lie apart; the library refuses what has
 * to be copied. `data` begins with the first element, and may be longer than what the view reaches.
 */
export interface View<T extends Tensor> {
    data: T;
    shape: readonly number[];
    /** In elements, one for each axis. */
    strides: readonly number[];
    /** That of the channels (default 1; that of x, for other tensors). */
    axis?: number;
}

/** What x may be. */
export type Input = Tensor | View<Tensor>;
type Elements<X extends Input> = X extends View<infer T> ? T : X;
/** The other tensors of a call: beside a view, an array of the elements alone lies as x does. */
type Other<X extends Input> = X extends View<infer T> ? T | View<T> : X;
/** The extents of arrays: [N, C, H * W] for NCHW, [N * H * W, C, 1] for NHWC, [N, C, 1] for NC. */
export type Shape = readonly [outer: number, channels: number, inner: number];

export type Of<X extends Input> = {
    x: X;
    /** The type of the bits in a Uint16Array. Its parameters are float32 as a rule. */
    dtype?: Elements<X> extends Uint16Array ? "float16" | "bfloat16" : never;
} & (X extends View<Tensor> ? { shape?: never } : { shape: Shape });

/** Samples in groups: ghost batches, segments, or a class for each sample. */
export interface Groups {
    count: number;
    /** The group of each sample, from 0 (default: groups of equal size, of neighbours). */
    index?: Int32Array | null;
    /** (default: those of index, else x's first extent) */
    samples?: number;
    /** Each group has rows of its own of statistics (the default), of running statistics, of gamma and beta. */
    perGroup?: readonly ("statistics" | "running" | "parameters")[];
    /** Without index: sample i is in group i % count (default false). */
    interleaved?: boolean;
    /** The running statistics move once, to the average of the groups' (default false: once for each group). */
    averaged?: boolean;
}

/** y = activation(u), where u = gamma * x_hat + beta + residual. */
export interface Epilogue {
    /** (default "identity") */
    activation?: "identity" | "relu" | "leakyRelu" | "clip" | "hardSwish" | "silu";
    /** For "leakyRelu" (default 0.01). */
    slope?: number;
    /** For "clip" (default 0 and 6). */
    low?: number;
    high?: number;
}

export type Forward<X extends Input, P extends Parameter> = Of<X> & Epilogue & {
    /** Added before the activation (default none). */
    residual?: Other<X>;
    /** A bit per element is saved for `backward`, which then needs no residual. Not for "hardSwish" and "silu". */
    saveMask?: boolean;
    /** Scale and shift (default 1 and 0). */
    gamma?: P;
    beta?: P;
    /** Takes the result: memory that no other array of the call has, or exactly that of x (default: a new array). */
    y?: Other<X>;
    /** Added to the variance (default 1e-5). */
    eps?: number;
    groups?: Groups;
    /** Of each position, outer x inner: Float64Array beside float64, else Float32Array (default: 1). */
    weights?: Float32Array | Float64Array;
    /** y at positions of weight 0: as anywhere, 0, or x (default "normalize"). */
    masked?: "normalize" | "zero" | "keep";
};

export type Training<X extends Input, P extends Parameter> = Forward<X, P> & {
    /** Updated in place, each in memory that no other array of the call has; both or neither (default none). */
    runningMean?: P;
    runningVar?: P;
    /** Weight of this batch in the running statistics (default 0.1). */
    momentum?: number;
    /** True if runningVar takes the variance / M, and not / (M - 1) (default false). */
    biasedRunningVar?: boolean;
};

export type Inference<X extends Input, P extends Parameter> = Forward<X, P> & { runningMean: P; runningVar: P };

/**
 * The state of a forward call that `backward` needs: its arguments, and the statistics that x was normalized with. It
 * may be cloned and sent to a worker. The residual is the array that was given: like x, it has to stay as it was until
 * backward is called, unless there is a mask.
 */
export interface Saved<X extends Input, P extends Parameter> {
    readonly shape: Shape;
    /** How x lay in memory, if it was a view. */
    readonly layout: Omit<View<Tensor>, "data"> | null;
    /** The type of the tensors' elements. */
    readonly dtype: "float32" | "float64" | "float16" | "bfloat16";
    readonly mean: Float64Array;
    readonly invstd: Float64Array;
    /** Copies of what the forward call was given: changing gamma or beta before `backward` does no harm. */
    readonly gamma: P | null;
    readonly beta: P | null;
    readonly weights: Float32Array | Float64Array | null;
    readonly groups: Required<Groups> | null;
    readonly masked: "normalize" | "zero" | "keep";
    /** Whether the gradient passes at an element, a bit each, if saveMask was true. */
    readonly mask: Uint8Array | null;
    readonly eps: number;
    /** True if mean and invstd are constants to the gradient: after `forwardInference`. */
    readonly frozen: boolean;
    readonly activation: "identity" | "relu" | "leakyRelu" | "clip" | "hardSwish" | "silu";
    readonly slope: number;
    readonly low: number;
    readonly high: number;
    readonly hasResidual: boolean;
    readonly residual: Other<X> | null;
    /** x, if y took its place: `backward` then needs a copy that was made before. */
    readonly overwritten?: Elements<X>;
}

export interface Result<X extends Input, P extends Parameter> {
    /** A view that lies as x does, or the given one, if x is a view. */
    y: X;
    saved: Saved<X, P>;
}

/** Values of `saved` may be given again; it is an error if they are not the same. */
export interface Backward<X extends Input, P extends Parameter>
    extends Partial<Omit<Saved<X, P>, "dtype" | "residual" | "overwritten">> {
    /** The gradient of the loss with respect to y. */
    dy: Other<X>;
    /** That of the forward call, as it was then. */
    x: Other<X>;
    /** As the forward call returned it. */
    saved: Saved<X, P>;
    dtype?: "float16" | "bfloat16";
    /** That of the forward call, if it is in another array by now (default: `saved.residual`). */
    residual?: Other<X>;
    /**
     * Takes the gradient with respect to x: memory that no other array has, or exactly that of dy (default: a new
     * array).
     */
    dx?: Other<X>;
}

export interface Gradients<X extends Input, P extends Parameter> {
    /** They lie as dy does, unless dx was given. */
    dx: X;
    /** The gradient with respect to the residual, where there is one. */
    dz?: X;
    /** They have gamma's type, or beta's. */
    dgamma: P;
    dbeta: P;
}

export interface Moments {
    count: Float64Array;
    mean: Float64Array;
    /** Sums of squared deviations from the mean. */
    m2: Float64Array;
}

/**
 * Every function takes one object. It throws a TypeError for an argument of another kind, a RangeError for an array of
 * another length, one that overlaps what it may not and what is not as in `saved`, and a BatchNormError for what the
 * library refuses. Each names the argument, what was found there and what was expected. After an error all arrays are
 * as they were.
 */
export interface BatchNorm {
    /** major * 10000 + minor * 100 + patch. */
    readonly version: number;
    /** Normalizes x with the statistics of this batch, and moves the running statistics towards them. */
    forwardTraining<X extends Input, P extends Parameter>(call: Training<X, P>): Result<X, P>;
    /** Normalizes x with the running statistics, which are constants to the gradient. */
    forwardInference<X extends Input, P extends Parameter>(call: Inference<X, P>): Result<X, P>;
    /** Gradients of a loss with respect to x, gamma, beta and the residual of the forward call that `saved` is from. */
    backward<X extends Input, P extends Parameter>(call: Backward<X, P>): Gradients<X, P>;
    /** Number of values, mean and sum of squared deviations, per channel. */
    moments<X extends Input>(call: Of<X>): Moments;
}

export type Source = Response | BufferSource | WebAssembly.Module;

/**
 * Instantiates batchnorm.wasm: the one beside this module, or that of a URL (in Node also a path), of a Response, of
 * its bytes; or a module. It imports nothing.
 */
export declare function load(
    source?: string | URL | Source | PromiseLike<Source>,
): Promise<BatchNorm>;
