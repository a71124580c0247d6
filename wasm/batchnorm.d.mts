// SPDX-License-Identifier: Apache-2.0

/** Float16Array, where the language has it. */
type Halves = typeof globalThis extends { Float16Array: { prototype: infer T } } ? T : never;

/** The elements of a tensor; those of a Uint16Array are bits, and `dtype` says of what. */
export type Tensor = Float32Array | Float64Array | Uint16Array | Halves;

/** An array of an element per channel. All of a call are of one type, whatever the tensors'. */
export type Parameter = Tensor;

/** A refusal of the library, in its own sentence. */
export declare class BatchNormError extends Error {
    /** A bn_status of batchnorm.h: 1 to 8 for the arguments, 20 and 21 for the data, 41 for memory. */
    readonly status: number;
    constructor(message: string, status: number);
}

export interface Shape<T extends Tensor> {
    /** A tensor's extents: [N, C, H * W] for NCHW, [N * H * W, C, 1] for NHWC, [N, C, 1] for NC. */
    shape: readonly [outer: number, channels: number, inner: number];
    /** The type of the bits in a Uint16Array. Its parameters are float32 as a rule. */
    dtype?: T extends Uint16Array ? "float16" | "bfloat16" : never;
}

/** y = activation(u), where u = gamma * x_hat + beta + residual. */
export interface Epilogue<T extends Tensor> {
    /** (default "identity") */
    activation?: "identity" | "relu" | "leakyRelu" | "clip" | "hardSwish" | "silu";
    /** For "leakyRelu" (default 0.01). */
    slope?: number;
    /** For "clip" (default 0 and 6). */
    low?: number;
    high?: number;
    /** Added before the activation (default none). */
    residual?: T;
}

export interface Forward<T extends Tensor, P extends Parameter> extends Shape<T>, Epilogue<T> {
    x: T;
    /** Scale and shift (default 1 and 0). */
    gamma?: P;
    beta?: P;
    /** Takes the result: memory that no other array of the call has, or exactly that of x (default: a new array). */
    y?: T;
    /** Added to the variance (default 1e-5). */
    eps?: number;
}

export interface Training<T extends Tensor, P extends Parameter> extends Forward<T, P> {
    /** Updated in place, each in memory that no other array of the call has; both or neither (default none). */
    runningMean?: P;
    runningVar?: P;
    /** Weight of this batch in the running statistics (default 0.1). */
    momentum?: number;
    /** True if runningVar takes the variance / M, and not / (M - 1) (default false). */
    biasedRunningVar?: boolean;
}

export interface Inference<T extends Tensor, P extends Parameter> extends Forward<T, P> {
    runningMean: P;
    runningVar: P;
}

/**
 * The state of a forward call that `backward` needs: its arguments, and the statistics that x was normalized with. It
 * may be cloned and sent to a worker. The residual is the array that was given: like x, it has to stay as it was until
 * backward is called.
 */
export interface Saved<T extends Tensor, P extends Parameter> {
    readonly shape: readonly [outer: number, channels: number, inner: number];
    /** The type of the tensors' elements. */
    readonly dtype: "float32" | "float64" | "float16" | "bfloat16";
    readonly mean: Float64Array;
    readonly invstd: Float64Array;
    /** Copies of what the forward call was given: changing gamma or beta before `backward` does no harm. */
    readonly gamma: P | null;
    readonly beta: P | null;
    readonly eps: number;
    /** True if mean and invstd are constants to the gradient: after `forwardInference`. */
    readonly frozen: boolean;
    readonly activation: "identity" | "relu" | "leakyRelu" | "clip" | "hardSwish" | "silu";
    readonly slope: number;
    readonly low: number;
    readonly high: number;
    readonly residual: T | null;
    /** x, if y took its place: `backward` then needs a copy that was made before. */
    readonly overwritten?: T;
}

export interface Result<T extends Tensor, P extends Parameter> {
    y: T;
    saved: Saved<T, P>;
}

/** Values of `saved` may be given again; it is an error if they are not the same. */
export interface Backward<T extends Tensor, P extends Parameter>
    extends Partial<Omit<Saved<T, P>, "dtype" | "residual" | "overwritten">> {
    /** The gradient of the loss with respect to y. */
    dy: T;
    /** That of the forward call, as it was then. */
    x: T;
    /** As the forward call returned it. */
    saved: Saved<T, P>;
    dtype?: "float16" | "bfloat16";
    /** That of the forward call, if it is in another array by now (default: `saved.residual`). */
    residual?: T;
    /**
     * Takes the gradient with respect to x: memory that no other array has, or exactly that of dy (default: a new
     * array).
     */
    dx?: T;
}

export interface Gradients<T extends Tensor, P extends Parameter> {
    dx: T;
    /** They have gamma's type, or beta's. */
    dgamma: P;
    dbeta: P;
    /** The gradient with respect to the residual, where there is one. */
    dz?: T;
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
    forwardTraining<T extends Tensor, P extends Parameter>(call: Training<T, P>): Result<T, P>;
    /** Normalizes x with the running statistics, which are constants to the gradient. */
    forwardInference<T extends Tensor, P extends Parameter>(call: Inference<T, P>): Result<T, P>;
    /** Gradients of a loss with respect to x, gamma, beta and the residual of the forward call that `saved` is from. */
    backward<T extends Tensor, P extends Parameter>(call: Backward<T, P>): Gradients<T, P>;
    /** Number of values, mean and sum of squared deviations, per channel. */
    moments<T extends Tensor>(call: Shape<T> & { x: T }): Moments;
}

export type Source = Response | BufferSource | WebAssembly.Module;

/**
 * Instantiates batchnorm.wasm: the one beside this module, or that of a URL (in Node also a path), of a Response, of
 * its bytes; or a module. It imports nothing.
 */
export declare function load(
    source?: string | URL | Source | PromiseLike<Source>,
): Promise<BatchNorm>;
