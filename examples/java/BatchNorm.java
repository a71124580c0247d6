// SPDX-License-Identifier: Apache-2.0
import com.sun.jna.Library;
import com.sun.jna.Native;
import java.lang.ref.Reference;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import java.util.Map;

/**
 * libbatchnorm for Java, by JNA. The arguments are those of batchnorm.h, in its order; null stands for NULL.
 *
 * <p>A buffer's elements are those from its position to its limit, neither of which a call moves. Direct buffers
 * ({@link #floats}, {@link #doubles}) are read and written where they are; of an array ({@code FloatBuffer.wrap}) JNA
 * makes a copy for the call, and copies all of it back: an output has an array of its own then. Each has as many
 * elements as the shape says, or the call is an IllegalArgumentException: C would go past its end.
 */
public final class BatchNorm {
    /** A refusal of the library, in its own sentence; or the reason why there is no library. */
    public static final class BatchNormException extends RuntimeException {
        private static final long serialVersionUID = 1;

        /** The bn_status; 0 if there is no library. */
        public final int status;

        BatchNormException(int status, String message) {
            super(message);
            this.status = status;
        }
    }

    private final Functions library;

    /** The library that BATCHNORM_LIBRARY names, or the system's. */
    public BatchNorm() {
        String chosen = System.getenv("BATCHNORM_LIBRARY");
        String name = chosen == null || chosen.isEmpty() ? "libbatchnorm.so.2" : chosen;
        String needed = "libbatchnorm 2.0 or a later 2.x is needed, but ";
        try {
            library = Native.load(name, Functions.class, Map.of(Library.OPTION_STRING_ENCODING, "UTF-8"));
        } catch (UnsatisfiedLinkError error) {
            // A line of JNA's own, then the system's.
            String reason = error.getMessage().lines().skip(1).findFirst().orElse(error.getMessage());
            throw new BatchNormException(0, needed + "cannot be loaded: " + reason);
        }
        int version;
        try {
            version = library.bn_version();
        } catch (UnsatisfiedLinkError error) {
            throw new BatchNormException(0, needed + name + " has no bn_version");
        }
        if (version / 10000 != 2 || version < 20000) {
            throw new BatchNormException(0, String.format("%s%s is %d.%d.%d", needed, name, version / 10000,
                version / 100 % 100, version % 100));
        }
    }

    /** A direct buffer, which calls take without a copy. */
    public static FloatBuffer floats(int size) {
        return ByteBuffer.allocateDirect(Math.multiplyExact(size, 4)).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    /** A direct buffer, which calls take without a copy. */
    public static DoubleBuffer doubles(int size) {
        return ByteBuffer.allocateDirect(Math.multiplyExact(size, 8)).order(ByteOrder.nativeOrder()).asDoubleBuffer();
    }

    /** A direct buffer for the bits of 16-bit elements. */
    public static ShortBuffer shorts(int size) {
        return ByteBuffer.allocateDirect(Math.multiplyExact(size, 2)).order(ByteOrder.nativeOrder()).asShortBuffer();
    }

    /**
     * Normalizes x into y with the statistics of the batch, and moves the running statistics. y may be x, if it is a
     * direct buffer. Returns what backward needs.
     */
    public Saved forwardTraining(Tensor x, Buffer gamma, Buffer beta, Buffer runningMean, Buffer runningVar, Tensor y,
            Options options) {
        return forward(x, gamma, beta, runningMean, runningVar, y, options, false);
    }

    /**
     * Like forwardTraining, but normalizes with the running statistics, which stay as they are, and are constants to
     * the gradient.
     */
    public Saved forwardInference(Tensor x, Buffer gamma, Buffer beta, Buffer runningMean, Buffer runningVar, Tensor y,
            Options options) {
        return forward(x, gamma, beta, runningMean, runningVar, y, options, true);
    }

    private Saved forward(Tensor x, Buffer gamma, Buffer beta, Buffer runningMean, Buffer runningVar, Tensor y,
            Options given, boolean frozen) {
        Options options = given == null ? Options.DEFAULT : given;
        Call call = new Call(this, options, false, x, y, null, options.residual());
        call.tensor("x", x, 0).row("gamma", gamma, PerGroup.PARAMETERS).row("beta", beta, PerGroup.PARAMETERS);
        if (!frozen) {
            call.writable();
        }
        call.row("running mean", runningMean, PerGroup.RUNNING).row("running var", runningVar, PerGroup.RUNNING);
        call.writable().tensor("y", y, 1);
        int statistics = Math.toIntExact(call.rows(PerGroup.STATISTICS));
        Saved saved = new Saved(x, options, gamma, beta, statistics, (int) ((call.elements() + 7) / 8), frozen);
        call.epilogue(options.residual(), null, saved.mask);
        Buffer out = y == null ? null : y.data();
        int dtype = x.element().dtype();
        check(frozen
            ? library.bn_forward_inference(call.shape, dtype, x.data(), gamma, beta, runningMean, runningVar, out,
                saved.mean, saved.invstd, call.options)
            : library.bn_forward_training(call.shape, dtype, x.data(), gamma, beta, runningMean, runningVar, out,
                saved.mean, saved.invstd, call.options));
        Reference.reachabilityFence(call);
        return saved;
    }

    /** What backward is to write, as far as it is not null; dz is with respect to the residual, in a direct buffer. */
    public record Gradients(Tensor dx, Buffer dgamma, Buffer dbeta, Tensor dz) {}

    /**
     * The gradients of a loss whose gradient with respect to y is dy. x is that of the forward call that gave saved, as
     * it was then: if y took its place, a copy. dx may be dy, if it is a direct buffer.
     */
    public void backward(Tensor dy, Tensor x, Saved saved, Gradients gradients) {
        if (!x.isLike(saved.x) || !dy.isLike(saved.x)) {
            throw new IllegalArgumentException("dy or x is of another type or shape than x of the forward call");
        }
        Tensor dx = gradients.dx, z = saved.options.residual();
        Call call = new Call(this, saved.options, saved.frozen, x, dy, dx, z, gradients.dz);
        call.tensor("dy", dy, 1).tensor("x", x, 0);
        call.writable().tensor("dx", dx, 2).row("dgamma", gradients.dgamma, PerGroup.PARAMETERS);
        call.row("dbeta", gradients.dbeta, PerGroup.PARAMETERS);
        call.epilogue(z, gradients.dz, saved.mask);
        Buffer ofX = dx == null ? null : dx.data();
        check(library.bn_backward(call.shape, x.element().dtype(), dy.data(), x.data(), saved.gamma, saved.beta,
            saved.mean, saved.invstd, ofX, gradients.dgamma, gradients.dbeta, call.options));
        Reference.reachabilityFence(call);
    }

    /** The number of values, the mean, and the sum of squared deviations from it, per channel. */
    public void moments(Tensor x, DoubleBuffer count, DoubleBuffer mean, DoubleBuffer m2) {
        Call call = new Call(this, Options.DEFAULT, false, x).tensor("x", x, 0);
        call.writable().doubles("count", count).doubles("mean", mean).doubles("m2", m2);
        check(library.bn_moments(call.shape, x.element().dtype(), x.data(), count, mean, m2, 0, null));
    }

    void shapeFromStrides(long[] sizes, int axis, long[] rows, boolean ordered, Structs.Shape shape, long[] strides) {
        check(library.bn_shape_from_strides(sizes.length, sizes, axis, 1, strides.length, rows, ordered ? 1 : 0, shape,
            strides));
    }

    /** The number of threads that later calls may use: 1 to 1024, or 0 for the default. */
    public void setNumThreads(int threads) {
        check(library.bn_set_num_threads(threads));
    }

    /** major * 10000 + minor * 100 + patch of the library that was loaded. */
    public int version() {
        return library.bn_version();
    }

    private void check(int status) {
        if (status != 0) {
            throw new BatchNormException(status, library.bn_last_error());
        }
    }
}
