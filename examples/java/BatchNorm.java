// SPDX-License-Identifier: Apache-2.0
import com.sun.jna.Library;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.Structure.FieldOrder;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Map;
import java.util.Set;

/**
 * libbatchnorm for Java, by JNA. The arguments are those of batchnorm.h, in its order; null stands for NULL.
 *
 * <p>A buffer's elements are those from its position to its limit, neither of which a call moves. Direct buffers
 * ({@link #floats}, {@link #doubles}) are read and written where they are; of an array ({@code FloatBuffer.wrap}) JNA
 * makes a copy for the call, and copies all of it back: an output has an array of its own then. Each has as many
 * elements as the shape says, or the call is an IllegalArgumentException: C would go past its end.
 */
public final class BatchNorm {
    /** Outer x channels x inner, dense: NCHW is (N, C, H * W), NHWC is (N * H * W, C, 1). */
    public record Shape(long outer, long channels, long inner) {
        public Shape {
            if (outer < 0 || channels < 0 || inner < 0) {
                throw new IllegalArgumentException("negative shape: " + outer + ", " + channels + ", " + inner);
            }
        }
    }

    /**
     * @param eps added to the variance
     * @param momentum the weight of the new batch in the running statistics
     * @param biasedRunningVar whether the running variance takes the sum of squares / M in place of / (M - 1)
     */
    public record Options(double eps, double momentum, boolean biasedRunningVar) {
        public static final Options DEFAULT = new Options(1e-5, 0.1, false);
    }

    /**
     * The record of a forward call that backward needs: its shape, copies of gamma and beta as they were, what x was
     * normalized with, and whether that was of the batch. Only a forward call makes one.
     */
    public static final class Saved {
        private final Shape shape;
        private final int dtype;
        private final Buffer gamma, beta;
        private final DoubleBuffer mean, invstd;
        private final boolean frozen;

        private Saved(Shape shape, int dtype, Buffer gamma, Buffer beta, boolean frozen) {
            this.shape = shape;
            this.dtype = dtype;
            this.gamma = copy(gamma);
            this.beta = copy(beta);
            this.frozen = frozen;
            mean = doubles(Math.toIntExact(shape.channels));
            invstd = doubles(Math.toIntExact(shape.channels));
        }

        private static Buffer copy(Buffer buffer) {
            if (buffer instanceof FloatBuffer f) {
                return floats(f.remaining()).put(f.duplicate()).flip();
            }
            return buffer instanceof DoubleBuffer d ? doubles(d.remaining()).put(d.duplicate()).flip() : null;
        }

        /** The means that x was normalized with, read-only. */
        public DoubleBuffer mean() {
            return mean.asReadOnlyBuffer();
        }

        /** The factors that x was normalized with, 1 / sqrt(variance + eps), read-only. */
        public DoubleBuffer invstd() {
            return invstd.asReadOnlyBuffer();
        }
    }

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

    private interface Functions extends Library {
        int bn_forward_training(ShapeStruct shape, int dtype, Buffer x, Buffer gamma, Buffer beta, Buffer runningMean,
            Buffer runningVar, Buffer y, DoubleBuffer mean, DoubleBuffer invstd, OptionsStruct options);

        int bn_forward_inference(ShapeStruct shape, int dtype, Buffer x, Buffer gamma, Buffer beta, Buffer runningMean,
            Buffer runningVar, Buffer y, DoubleBuffer mean, DoubleBuffer invstd, OptionsStruct options);

        int bn_backward(ShapeStruct shape, int dtype, Buffer dy, Buffer x, Buffer gamma, Buffer beta,
            DoubleBuffer mean, DoubleBuffer invstd, Buffer dx, Buffer dgamma, Buffer dbeta, OptionsStruct options);

        int bn_moments(ShapeStruct shape, int dtype, Buffer x, DoubleBuffer count, DoubleBuffer mean, DoubleBuffer m2);

        int bn_version();

        String bn_last_error();

        int bn_set_num_threads(int threads);
    }

    @FieldOrder({"structSize", "outer", "channels", "inner", "xStride", "yStride", "dxStride", "weights"})
    public static final class ShapeStruct extends Structure {
        public long structSize, outer, channels, inner, xStride, yStride, dxStride;
        public Pointer weights;

        ShapeStruct(Shape shape) {
            structSize = size();
            outer = shape.outer;
            channels = shape.channels;
            inner = shape.inner;
        }
    }

    @FieldOrder({"structSize", "eps", "momentum", "biasedRunningVar", "frozen", "paramDtype", "reserved", "epilogue",
        "running", "source", "groups"})
    public static final class OptionsStruct extends Structure {
        public long structSize;
        public double eps, momentum;
        public int biasedRunningVar, frozen, paramDtype, reserved;
        public Pointer epilogue, running, source, groups;

        OptionsStruct(Options given, boolean frozen) {
            Options options = given == null ? Options.DEFAULT : given;
            structSize = size();
            eps = options.eps;
            momentum = options.momentum;
            biasedRunningVar = options.biasedRunningVar ? 1 : 0;
            this.frozen = frozen ? 1 : 0;
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

    /**
     * Normalizes x into y with the statistics of the batch, and moves the running statistics. y may be x, if it is a
     * direct buffer. Returns what backward needs.
     */
    public Saved forwardTraining(Shape shape, Buffer x, Buffer gamma, Buffer beta, Buffer runningMean,
            Buffer runningVar, Buffer y, Options options) {
        Checks checks = new Checks(shape, x);
        checks.tensor("x", x).row("gamma", gamma).row("beta", beta);
        checks.writable().row("running mean", runningMean).row("running var", runningVar).tensor("y", y);
        Saved saved = new Saved(shape, checks.dtype, gamma, beta, false);
        check(library.bn_forward_training(new ShapeStruct(shape), checks.dtype, x, gamma, beta, runningMean, runningVar,
            y, saved.mean, saved.invstd, new OptionsStruct(options, false)));
        return saved;
    }

    /**
     * Like forwardTraining, but normalizes with the running statistics, which stay as they are, and are constants to
     * the gradient.
     */
    public Saved forwardInference(Shape shape, Buffer x, Buffer gamma, Buffer beta, Buffer runningMean,
            Buffer runningVar, Buffer y, Options options) {
        Checks checks = new Checks(shape, x);
        checks.tensor("x", x).row("gamma", gamma).row("beta", beta);
        checks.row("running mean", runningMean).row("running var", runningVar);
        checks.writable().tensor("y", y);
        Saved saved = new Saved(shape, checks.dtype, gamma, beta, true);
        check(library.bn_forward_inference(new ShapeStruct(shape), checks.dtype, x, gamma, beta, runningMean,
            runningVar, y, saved.mean, saved.invstd, new OptionsStruct(options, false)));
        return saved;
    }

    /**
     * The gradients with respect to x, gamma and beta, those that are not null, of a loss whose gradient with respect
     * to y is dy. x is that of the forward call that gave saved, as it was then: if y took its place, a copy. dx may be
     * dy, if it is a direct buffer.
     */
    public void backward(Buffer dy, Buffer x, Saved saved, Buffer dx, Buffer dgamma, Buffer dbeta) {
        Checks checks = new Checks(saved.shape, dy);
        if (checks.dtype != saved.dtype) {
            throw new IllegalArgumentException("dy is of another type than the buffers of the forward call");
        }
        checks.tensor("dy", dy).tensor("x", x);
        checks.writable().tensor("dx", dx).row("dgamma", dgamma).row("dbeta", dbeta);
        check(library.bn_backward(new ShapeStruct(saved.shape), saved.dtype, dy, x, saved.gamma, saved.beta, saved.mean,
            saved.invstd, dx, dgamma, dbeta, new OptionsStruct(null, saved.frozen)));
    }

    /** The number of values, the mean, and the sum of squared deviations from it, per channel. */
    public void moments(Shape shape, Buffer x, DoubleBuffer count, DoubleBuffer mean, DoubleBuffer m2) {
        Checks checks = new Checks(shape, x).tensor("x", x);
        checks.writable().doubles("count", count).doubles("mean", mean).doubles("m2", m2);
        check(library.bn_moments(new ShapeStruct(shape), checks.dtype, x, count, mean, m2));
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

    /** Checks of the arguments that C cannot make. */
    private static final class Checks {
        final int dtype;
        private final Shape shape;
        private final Map<Object, String> arrays = new IdentityHashMap<>();
        private final Set<Object> outputs = Collections.newSetFromMap(new IdentityHashMap<>());
        private boolean writable = false;

        /** The first tensor says what the others are made of. */
        Checks(Shape shape, Buffer first) {
            this.shape = shape;
            dtype = dtype(first);
        }

        /** The arguments from here on are outputs. */
        Checks writable() {
            writable = true;
            return this;
        }

        Checks tensor(String name, Buffer buffer) {
            // A number of elements that overflows is more than any buffer has.
            long slice = multiply(shape.channels, shape.inner);
            return check(name, buffer, multiply(shape.outer, slice), dtype);
        }

        Checks row(String name, Buffer buffer) {
            return check(name, buffer, shape.channels, dtype);
        }

        Checks doubles(String name, DoubleBuffer buffer) {
            return check(name, buffer, shape.channels, 2);
        }

        private Checks check(String name, Buffer buffer, long size, int type) {
            if (buffer == null) {
                return this;
            }
            if (dtype(buffer) != type) {
                throw new IllegalArgumentException(name + " is of another type than the buffers before it");
            }
            if (buffer.remaining() != size) {
                throw new IllegalArgumentException(name + " has " + buffer.remaining() + " elements, expected " + size);
            }
            if (writable && buffer.isReadOnly()) {
                throw new IllegalArgumentException(name + " is read-only");
            }
            if (buffer.hasArray() && buffer.array() != null) {
                checkArray(name, buffer.array());
            }
            return this;
        }

        /** JNA's copies of one array would be copied back one over the other, the whole array each time. */
        private void checkArray(String name, Object array) {
            String other = arrays.put(array, name);
            if (other != null && (writable || outputs.contains(array))) {
                throw new IllegalArgumentException(name + " and " + other
                    + " are parts of one array; expected an array of its own for an output, or direct buffers");
            }
            if (writable) {
                outputs.add(array);
            }
        }

        private static long multiply(long a, long b) {
            return Math.multiplyHigh(a, b) == 0 && a * b >= 0 ? a * b : Long.MAX_VALUE;
        }

        /** The bn_dtype of a buffer. A direct one may have its bytes in the other order. */
        private static int dtype(Buffer buffer) {
            if (buffer instanceof FloatBuffer f && f.order() == ByteOrder.nativeOrder()) {
                return 1;
            }
            if (buffer instanceof DoubleBuffer d && d.order() == ByteOrder.nativeOrder()) {
                return 2;
            }
            String type = buffer == null ? "null" : buffer.getClass().getSimpleName();
            throw new IllegalArgumentException("expected a FloatBuffer or DoubleBuffer in native order, not " + type);
        }
    }
}
