// SPDX-License-Identifier: Apache-2.0
/**
 * The options of a call. {@link #DEFAULT} has none; a method for each option gives a copy that has it.
 *
 * @param eps added to the variance
 * @param momentum the weight of the new batch in the running statistics
 * @param biasedRunningVar whether the running variance takes the sum of squares / M in place of / (M - 1)
 * @param activation what follows normalization
 * @param residual added before the activation, in a direct buffer; or null
 * @param saveMask whether a bit for each element is kept in place of the residual; not for hardSwish and silu
 * @param groups of samples, or null
 * @param weights of the positions, outer x inner, in the statistics; or null
 * @param masked y at positions of weight 0
 */
public record Options(double eps, double momentum, boolean biasedRunningVar, Activation activation, Tensor residual,
        boolean saveMask, Groups groups, double[] weights, Masked masked) {
    public static final Options DEFAULT =
        new Options(1e-5, 0.1, false, Activation.IDENTITY, null, false, null, null, Masked.NORMALIZE);

    /** y = activation(gamma * x_hat + beta + residual). */
    public record Activation(int kind, double slope, double low, double high) {
        public static final Activation IDENTITY = of(0), RELU = of(1), RELU6 = clip(0, 6);
        public static final Activation HARD_SWISH = of(4), SILU = of(5);

        private static Activation of(int kind) {
            return new Activation(kind, 0.01, 0, 6);
        }

        public static Activation leakyRelu(double slope) {
            return new Activation(2, slope, 0, 6);
        }

        public static Activation clip(double low, double high) {
            return new Activation(3, 0.01, low, high);
        }
    }

    /** y where a position has no weight: as anywhere, 0, or x. */
    public enum Masked { NORMALIZE, ZERO, KEEP }

    /**
     * Ghost batches, segments, or a class for each sample.
     *
     * @param samples 0 for the number of outer indices, or the length of the first axis
     * @param index the group of each sample; null for groups of equal size
     * @param interleaved without index: sample i is in group i % count
     * @param averaged whether the running statistics move once, to the average of the groups'
     */
    public record Groups(int count, int samples, int[] index, boolean interleaved, boolean averaged, PerGroup... own) {
        public Groups {
            if (count < 1) {
                throw new IllegalArgumentException("groups are " + count + "; expected at least 1");
            }
            index = index == null ? null : index.clone();
            own = own.clone();
        }

        public static Groups of(int count) {
            return new Groups(count, 0, null, false, false, PerGroup.STATISTICS);
        }

        /** The bits of batchnorm.h. */
        int perGroup() {
            int bits = 0;
            for (PerGroup one : own) {
                bits |= 1 << one.ordinal();
            }
            return bits;
        }
    }

    public Options {
        weights = weights == null ? null : weights.clone();
    }

    public Options eps(double value) {
        return new Options(value, momentum, biasedRunningVar, activation, residual, saveMask, groups, weights, masked);
    }

    public Options momentum(double value) {
        return new Options(eps, value, biasedRunningVar, activation, residual, saveMask, groups, weights, masked);
    }

    public Options biasedRunningVar(boolean value) {
        return new Options(eps, momentum, value, activation, residual, saveMask, groups, weights, masked);
    }

    public Options activation(Activation value) {
        return new Options(eps, momentum, biasedRunningVar, value, residual, saveMask, groups, weights, masked);
    }

    public Options residual(Tensor value) {
        return new Options(eps, momentum, biasedRunningVar, activation, value, saveMask, groups, weights, masked);
    }

    public Options saveMask(boolean value) {
        return new Options(eps, momentum, biasedRunningVar, activation, residual, value, groups, weights, masked);
    }

    public Options groups(Groups value) {
        return new Options(eps, momentum, biasedRunningVar, activation, residual, saveMask, value, weights, masked);
    }

    public Options weights(double[] values, Masked of) {
        return new Options(eps, momentum, biasedRunningVar, activation, residual, saveMask, groups, values, of);
    }
}
