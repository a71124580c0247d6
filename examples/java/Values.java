// SPDX-License-Identifier: Apache-2.0
import java.nio.Buffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.function.IntToDoubleFunction;

/** Three steps of training and one inference, on the data that values/make.py describes, compared with its results. */
public final class Values {
    private static final Shape SHAPE = new Shape(4, 3, 6);
    private static final int SIZE = 4 * 3 * 6;

    private static FloatBuffer tensor(IntToDoubleFunction value) {
        FloatBuffer buffer = BatchNorm.floats(SIZE);
        for (int i = 0; i < SIZE; i++) {
            buffer.put(i, (float) value.applyAsDouble(i));
        }
        return buffer;
    }

    private static FloatBuffer batch(int k) {
        return tensor(i -> (i * 37 + k * 11) % 101 / 8.0 - 5);
    }

    private static FloatBuffer row(float... values) {
        return BatchNorm.floats(values.length).put(values).flip();
    }

    /** False for NaN, too. */
    private static boolean near(double a, double b) {
        return Math.abs(a - b) <= 1e-4 * Math.max(1, Math.abs(b));
    }

    private static void require(boolean condition, String message) {
        if (!condition) {
            throw new IllegalStateException(message);
        }
    }

    /** Goes along the gradients, in place. */
    private static void descend(FloatBuffer parameters, FloatBuffer gradients) {
        for (int c = 0; c < 3; c++) {
            parameters.put(c, parameters.get(c) - 0.01f * gradients.get(c));
        }
    }

    private static void back(BatchNorm bn, Buffer dy, Buffer x, Saved saved, Buffer dx) {
        bn.backward(SHAPE.of(dy), SHAPE.of(x), saved, new BatchNorm.Gradients(SHAPE.of(dx), null, null, null));
    }

    private static Map<String, FloatBuffer> train(BatchNorm bn) {
        FloatBuffer dy = tensor(i -> (i * 53 + 7) % 17 / 4.0 - 2);
        FloatBuffer gamma = row(1, 2, 0.5f), beta = row(0, -1, 3);
        FloatBuffer runningMean = row(0, 0, 0), runningVar = row(1, 1, 1);
        FloatBuffer y = BatchNorm.floats(SIZE), dx = BatchNorm.floats(SIZE);
        FloatBuffer dgamma = BatchNorm.floats(3), dbeta = BatchNorm.floats(3);
        Options options = Options.DEFAULT;

        for (int k = 0; k < 3; k++) {
            FloatBuffer x = batch(k);
            Saved saved =
                bn.forwardTraining(SHAPE.of(x), gamma, beta, runningMean, runningVar, SHAPE.of(y), options);
            bn.backward(SHAPE.of(dy), SHAPE.of(x), saved, new BatchNorm.Gradients(SHAPE.of(dx), dgamma, dbeta, null));
            descend(gamma, dgamma);
            descend(beta, dbeta);
        }
        FloatBuffer inferred = batch(0); // in place
        bn.forwardInference(SHAPE.of(inferred), gamma, beta, runningMean, runningVar, SHAPE.of(inferred), options);
        return Map.of("y", y, "dx", dx, "dgamma", dgamma, "dbeta", dbeta, "gamma", gamma, "beta", beta,
            "running_mean", runningMean, "running_var", runningVar, "inferred", inferred);
    }

    /** A line of the file is a name, a number of values, and the values. Returns how many were compared. */
    private static int compare(Map<String, FloatBuffer> results, Path file) throws Exception {
        List<String> lines = Files.readAllLines(file);
        require(lines.size() == results.size(), file + " has another number of lines than there are results");
        int compared = 0;
        for (String line : lines) {
            String[] words = line.split(" ");
            FloatBuffer result = results.get(words[0]);
            require(result != null && result.remaining() == words.length - 2, words[0] + ": another number of values");
            for (int i = 0; i < result.remaining(); i++, compared++) {
                double wanted = Double.parseDouble(words[i + 2]);
                float value = result.get(i);
                require(near(value, wanted), words[0] + "[" + i + "] is " + value + ", expected " + wanted);
            }
        }
        return compared;
    }

    /**
     * Checks options that values.txt lacks: at momentum 1 the running statistics are the moments of the batch.
     * Buffers over arrays do as well.
     */
    private static void checkOptions(BatchNorm bn) {
        FloatBuffer x = batch(1), dy = batch(2), dx = FloatBuffer.allocate(SIZE), gamma = row(1.5f, 2, 0.5f);
        FloatBuffer runningMean = FloatBuffer.allocate(3), runningVar = FloatBuffer.allocate(3);
        DoubleBuffer count = DoubleBuffer.allocate(3), batchMean = DoubleBuffer.allocate(3);
        DoubleBuffer m2 = DoubleBuffer.allocate(3);
        Options options = Options.DEFAULT.eps(0.5).momentum(1).biasedRunningVar(true);

        DoubleBuffer invstd =
            bn.forwardTraining(SHAPE.of(x), null, null, runningMean, runningVar, null, options).invstd();
        bn.moments(SHAPE.of(x), count, batchMean, m2);
        Saved inferred =
            bn.forwardInference(SHAPE.of(x), gamma, null, runningMean, runningVar, null, options);
        back(bn, dy, x, inferred, dx);
        for (int c = 0; c < 3; c++) {
            double variance = m2.get(c) / count.get(c);
            require(near(runningMean.get(c), batchMean.get(c)), "momentum");
            require(near(runningVar.get(c), variance), "biasedRunningVar");
            require(near(invstd.get(c), 1 / Math.sqrt(variance + options.eps())), "eps");
        }
        for (int i = 0; i < SIZE; i++) {
            int c = i / 6 % 3;
            require(near(dx.get(i), gamma.get(c) * dy.get(i) * invstd.get(c)), "frozen");
        }
    }

    /** The values that backward has from the forward call: gamma and beta as they were, and their number. */
    private static void checkSaved(BatchNorm bn) {
        FloatBuffer x = batch(1), dy = batch(2), gamma = row(1.5f, 2, 0.5f), beta = row(1, 2, 3);
        FloatBuffer before = BatchNorm.floats(SIZE), after = BatchNorm.floats(SIZE);
        Saved saved = bn.forwardTraining(SHAPE.of(x), gamma, beta, null, null, null, null);
        back(bn, dy, x, saved, before);
        for (int c = 0; c < 3; c++) {
            gamma.put(c, -7);
            beta.put(c, 7);
        }
        back(bn, dy, x, saved, after);
        require(before.equals(after), "saved has changed");
        FloatBuffer part = batch(2).position(1);
        refuses("dy has 71 elements, expected 72", () -> back(bn, part, x, saved, after));
        refuses("dy or x is of another type or shape than x of the forward call",
            () -> back(bn, BatchNorm.doubles(SIZE), BatchNorm.doubles(SIZE), saved, null));
    }

    /** Buffers over arrays: JNA copies whole arrays back and forth, from wherever the buffer begins in them. */
    private static void checkArrays(BatchNorm bn) {
        float[] array = new float[SIZE + 5];
        FloatBuffer x = batch(1), expected = BatchNorm.floats(SIZE), y = FloatBuffer.allocate(SIZE);
        bn.forwardTraining(SHAPE.of(x), null, null, null, null, SHAPE.of(expected), null);
        x.get(0, array, 3, SIZE);
        for (FloatBuffer part : List.of(FloatBuffer.wrap(array, 3, SIZE), FloatBuffer.wrap(array, 3, SIZE).slice())) {
            bn.forwardTraining(SHAPE.of(part), null, null, null, null, SHAPE.of(y), null);
            require(y.equals(expected), "a part of an array");
        }
        FloatBuffer all = FloatBuffer.allocate(2 * SIZE);
        FloatBuffer first = all.slice(0, SIZE), last = all.slice(SIZE, SIZE);
        String message = " are parts of one array; expected an array of its own for an output, or direct buffers";
        for (FloatBuffer part : List.of(first, last)) {
            refuses("y and x" + message,
                () -> bn.forwardTraining(SHAPE.of(first), null, null, null, null, SHAPE.of(part), null));
        }
        FloatBuffer mean = all.slice(0, 3), var = all.slice(3, 3);
        refuses("running var and running mean" + message,
            () -> bn.forwardTraining(SHAPE.of(x), null, null, mean, var, null, null));
        refuses("dx and dy" + message, () -> back(bn, first, x,
            bn.forwardTraining(SHAPE.of(x), null, null, null, null, null, null), last));
        back(bn, first, last, bn.forwardTraining(SHAPE.of(last), null, null, null, null, SHAPE.of(y), null), y);
    }

    private static void refuses(String message, Runnable call) {
        try {
            call.run();
        } catch (IllegalArgumentException error) {
            require(error.getMessage().equals(message), error.getMessage());
            return;
        }
        throw new IllegalStateException("accepted: " + message);
    }

    /** A call that the library has to refuse, in its words, and one that it must not see. */
    private static void checkErrors(BatchNorm bn) {
        DoubleBuffer none = BatchNorm.doubles(0);
        try {
            bn.moments(new Shape(4, 0, 6).of(BatchNorm.floats(0)), none, none, none);
            throw new IllegalStateException("0 channels were accepted");
        } catch (BatchNorm.BatchNormException error) {
            require(error.status == 2 && error.getMessage().contains("channels"), "0 channels: " + error.getMessage());
        }
        DoubleBuffer row = BatchNorm.doubles(3);
        refuses("x has 71 elements, expected 72", () -> bn.moments(SHAPE.of(batch(0).position(1)), row, row, row));
    }

    public static void main(String[] arguments) {
        try {
            BatchNorm bn = new BatchNorm();
            Path file = Path.of(arguments.length > 0 ? arguments[0] : "../values/values.txt");
            int compared = compare(train(bn), file);
            checkOptions(bn);
            checkSaved(bn);
            checkArrays(bn);
            checkErrors(bn);
            bn.setNumThreads(0);
            System.out.println("java: " + compared + " values agree");
        } catch (Exception error) {
            System.err.println("java: " + error.getMessage());
            System.exit(1);
        }
    }
}
