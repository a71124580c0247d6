// SPDX-License-Identifier: Apache-2.0
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;

/**
 * The record of a forward call that backward needs: its shape and options, copies of gamma and beta as they were, what
 * x was normalized with, and whether that was of the batch. It refers to the residual, unless it has a mask. Only a
 * forward call makes one.
 */
public final class Saved {
    final Tensor x; // for its layout; its buffer is no longer looked at
    final Options options;
    final Buffer gamma, beta;
    final DoubleBuffer mean, invstd;
    final ByteBuffer mask;
    final boolean frozen;

    Saved(Tensor x, Options options, Buffer gamma, Buffer beta, int statistics, int mask, boolean frozen) {
        this.x = x;
        this.options = options.saveMask() ? options.residual(null) : options;
        this.gamma = copy(gamma);
        this.beta = copy(beta);
        this.mean = BatchNorm.doubles(statistics);
        this.invstd = BatchNorm.doubles(statistics);
        this.mask = options.saveMask() ? ByteBuffer.allocateDirect(mask) : null;
        this.frozen = frozen;
    }

    private static Buffer copy(Buffer buffer) {
        if (buffer instanceof FloatBuffer f) {
            return BatchNorm.floats(f.remaining()).put(f.duplicate()).flip();
        }
        return buffer instanceof DoubleBuffer d ? BatchNorm.doubles(d.remaining()).put(d.duplicate()).flip() : null;
    }

    /** The means that x was normalized with, read-only. */
    public DoubleBuffer mean() {
        return mean.asReadOnlyBuffer();
    }

    /** The factors that x was normalized with, 1 / sqrt(variance + eps), read-only. */
    public DoubleBuffer invstd() {
        return invstd.asReadOnlyBuffer();
    }

    /** A bit for each element that tells if the gradient passes, read-only; null without saveMask. */
    public ByteBuffer mask() {
        return mask == null ? null : mask.asReadOnlyBuffer();
    }
}
