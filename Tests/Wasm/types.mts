// SPDX-License-Identifier: Apache-2.0
// Compiles if the declarations are as they should be; an error that is expected and does not come is one.
import { BatchNormError, load, type BatchNorm } from "./batchnorm.mjs";

export async function train(bytes: ArrayBuffer): Promise<number> {
    const bn: BatchNorm = await load(bytes);
    const x = new Float32Array(24);
    const gamma = new Float64Array(3);
    const { y, saved } = bn.forwardTraining({ x, shape: [2, 3, 4], gamma, activation: "relu", eps: 1e-3 });
    const first: Float32Array = y;
    const { dx, dgamma, dz } = bn.backward({ dy: y, x, saved });
    bn.backward({ dy: y, x, saved, gamma, shape: [2, 3, 4], activation: "relu", residual: x });
    const second: Float32Array = dx;
    const third: Float64Array = dgamma;
    const fourth: Float32Array | undefined = dz;
    const bits = new Uint16Array(24);
    const { m2 }: { m2: Float64Array } = bn.moments({ x: bits, shape: [2, 3, 4], dtype: "bfloat16" });
    const running = { runningMean: gamma, runningVar: gamma };
    bn.forwardInference({ x, shape: [2, 3, 4], ...running });
    const view = { data: x, shape: [2, 3, 4], strides: [12, 1, 3] };
    const groups = { count: 2, index: Int32Array.of(0, 1), perGroup: ["statistics"] } as const;
    const strided = bn.forwardTraining({ x: view, gamma, residual: x, activation: "relu", saveMask: true, groups });
    const back = bn.backward({ dy: x, x: view, saved: strided.saved });
    const [fifth, mask]: [Float32Array, Uint8Array | null] = [back.dx.data, strided.saved.mask];
    bn.forwardTraining({ x, shape: [2, 3, 4], weights: new Float32Array(8), masked: "zero", groups: { count: 2 } });

    // @ts-expect-error: a view has a shape
    bn.forwardTraining({ x: view, shape: [2, 3, 4] });
    // @ts-expect-error: a view's strides are missing
    bn.forwardTraining({ x: { data: x, shape: [2, 3, 4] } });
    // @ts-expect-error: groups have a count
    bn.forwardTraining({ x, shape: [2, 3, 4], groups: {} });
    // @ts-expect-error: needs running statistics
    bn.forwardInference({ x, shape: [2, 3, 4] });
    // @ts-expect-error: not an option
    bn.forwardTraining({ x, shape: [2, 3, 4], epsilon: 1e-3 });
    // @ts-expect-error: an extent is missing
    bn.forwardTraining({ x, shape: [2, 3] });
    // @ts-expect-error: not an activation
    bn.forwardTraining({ x, shape: [2, 3, 4], activation: "gelu" });
    // @ts-expect-error: the type of a Float32Array is known
    bn.forwardTraining({ x, shape: [2, 3, 4], dtype: "float16" });
    // @ts-expect-error: tensors are of a type
    bn.forwardTraining({ x, shape: [2, 3, 4], residual: gamma });
    // @ts-expect-error: what the forward call was told is needed
    bn.backward({ dy: y, x, gamma, mean: saved.mean, invstd: saved.invstd });
    // @ts-expect-error: saved is of float32 tensors
    bn.backward({ dy: gamma, x: gamma, saved });
    // @ts-expect-error: what backward reads is as it was
    saved.activation = "identity";
    // @ts-expect-error: not an array of the language's own
    bn.moments({ x: [1, 2, 3, 4], shape: [1, 1, 4] });

    try {
        bn.moments({ x, shape: [0, 0, 0] });
    } catch (error) {
        if (error instanceof BatchNormError) return error.status;
    }
    const lengths = [first, second, third, m2, fifth].reduce((sum, array) => sum + array.length, 0);
    return lengths + (fourth?.length ?? 0) + (mask?.length ?? 0);
}
