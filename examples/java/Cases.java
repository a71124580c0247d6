// SPDX-License-Identifier: Apache-2.0
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** The cases of values/cases.txt, which values/cases.py describes: every option, compared with its results. */
public final class Cases {
    /** The words of each line by its name, where expect and strides have an array's name as well. */
    private final Map<String, String[]> words = new LinkedHashMap<>();

    private static Map<String, Cases> parse(Path file) throws Exception {
        Map<String, Cases> cases = new LinkedHashMap<>();
        Cases last = null;
        for (String line : Files.readAllLines(file)) {
            String[] words = line.split(" ");
            int taken = words[0].equals("expect") || words[0].equals("strides") ? 2 : 1;
            String[] others = Arrays.copyOfRange(words, taken, words.length);
            if (words[0].equals("case")) {
                cases.put(String.join(" ", others), last = new Cases());
            } else {
                last.words.put(String.join(" ", Arrays.copyOf(words, taken)), others);
            }
        }
        return cases;
    }

    private boolean has(String name) {
        return words.containsKey(name);
    }

    private String word(String name, String otherwise) {
        return has(name) ? words.get(name)[0] : otherwise;
    }

    private double number(String name, double otherwise) {
        return has(name) ? Double.parseDouble(words.get(name)[0]) : otherwise;
    }

    private double[] numbers(String name) {
        return has(name) ? Arrays.stream(words.get(name)).mapToDouble(Double::parseDouble).toArray() : null;
    }

    private long[] longs(String name) {
        return has(name) ? Arrays.stream(words.get(name)).mapToLong(Long::parseLong).toArray() : null;
    }

    private Element element() {
        return Element.valueOf(word("dtype", "").toUpperCase(Locale.ROOT));
    }

    private static Buffer filled(Element element, double... values) {
        Buffer buffer = switch (element) {
            case FLOAT32 -> BatchNorm.floats(values.length);
            case FLOAT64 -> BatchNorm.doubles(values.length);
            default -> BatchNorm.shorts(values.length);
        };
        for (int i = 0; i < values.length; i++) {
            put(buffer, i, values[i]);
        }
        return buffer;
    }

    private static void put(Buffer buffer, int i, double value) {
        if (buffer instanceof FloatBuffer f) {
            f.put(i, (float) value);
        } else if (buffer instanceof DoubleBuffer d) {
            d.put(i, value);
        } else {
            ((ShortBuffer) buffer).put(i, (short) (int) value);
        }
    }

    private static double get(Buffer buffer, int i) {
        if (buffer instanceof FloatBuffer f) {
            return f.get(i);
        }
        if (buffer instanceof DoubleBuffer d) {
            return d.get(i);
        }
        return buffer instanceof ShortBuffer s ? Short.toUnsignedInt(s.get(i)) : ((ByteBuffer) buffer).get(i) & 255;
    }

    private Buffer parameter(String name) {
        return has(name) ? filled(element().ofParameters(), numbers(name)) : null;
    }

    private Buffer input(String name) {
        return has(name) ? filled(element(), numbers(name)) : null;
    }

    private Buffer room(String name) {
        double[] values = new double[words.get(has("expect " + name) ? "expect " + name : "x").length];
        Arrays.fill(values, 7);
        return filled(element(), values);
    }

    private Tensor tensor(String name, Buffer data) {
        if (data == null) {
            return null;
        }
        long[] sizes = longs("sizes");
        if (has("strides x")) {
            long[] strides = longs(has("strides " + name) ? "strides " + name : "strides x");
            return Tensor.strided(data, sizes, strides, (int) number("axis", 1));
        }
        Shape shape = new Shape(sizes[0], sizes[1], Arrays.stream(sizes, 2, sizes.length).reduce(1, (a, b) -> a * b));
        return data instanceof ShortBuffer bits ? shape.of(bits, element()) : shape.of(data);
    }

    private Options options(Tensor residual, int[] index) {
        Options.Activation activation = switch (word("activation", "")) {
            case "relu" -> Options.Activation.RELU;
            case "leaky_relu" -> Options.Activation.leakyRelu(number("slope", 0.01));
            case "clip" -> has("high") ? Options.Activation.clip(number("low", 0), number("high", 6))
                : Options.Activation.RELU6;
            case "hard_swish" -> Options.Activation.HARD_SWISH;
            case "silu" -> Options.Activation.SILU;
            default -> Options.Activation.IDENTITY;
        };
        Options options = Options.DEFAULT.eps(number("eps", 1e-5)).momentum(number("momentum", 0.1))
            .biasedRunningVar(has("biased")).activation(activation).residual(residual).saveMask(has("mask"))
            .weights(numbers("weights"), Options.Masked.valueOf(word("masked", "normalize").toUpperCase(Locale.ROOT)));
        if (!has("groups")) {
            return options;
        }
        String[] own = has("per_group") ? words.get("per_group") : new String[] {"statistics"};
        return options.groups(new Options.Groups((int) number("groups", 1), 0, index, false, false,
            Arrays.stream(own).map(word -> PerGroup.valueOf(word.toUpperCase(Locale.ROOT)))
                .toArray(PerGroup[]::new)));
    }

    private void check(BatchNorm bn) {
        Tensor x = tensor("x", input("x")), y = tensor("y", room("y"));
        Tensor residual = tensor("residual", input("residual"));
        Buffer gamma = parameter("gamma"), beta = parameter("beta");
        Buffer mean = parameter("running_mean"), var = parameter("running_var");
        int[] index = has("index") ? Arrays.stream(words.get("index")).mapToInt(Integer::parseInt).toArray() : null;
        Options options = options(residual, index);
        Saved saved;
        try {
            saved = word("call", "").equals("training") ? bn.forwardTraining(x, gamma, beta, mean, var, y, options)
                : bn.forwardInference(x, gamma, beta, mean, var, y, options);
            require(!has("refused"), "nothing is thrown");
        } catch (BatchNorm.BatchNormException error) {
            require(has("refused") && error.getMessage().contains(word("refused", "")), error.getMessage());
            return;
        }
        spoil(gamma);
        spoil(beta);
        if (index != null) {
            Arrays.fill(index, 77);
        }
        if (options.saveMask() && residual != null) {
            spoil(residual.data());
        }
        Tensor dx = tensor("dx", room("dx")), dz = residual == null ? null : tensor("dy", room("dz"));
        Element ofParameters = element().ofParameters();
        Buffer dgamma = filled(ofParameters, new double[words.get("expect dgamma").length]);
        Buffer dbeta = filled(ofParameters, new double[words.get("expect dbeta").length]);
        bn.backward(tensor("dy", input("dy")), x, saved, new BatchNorm.Gradients(dx, dgamma, dbeta, dz));
        compare("y", y.data());
        compare("dx", dx.data());
        compare("dz", dz == null ? null : dz.data());
        compare("dgamma", dgamma);
        compare("dbeta", dbeta);
        compare("running_mean", mean);
        compare("running_var", var);
        compare("mean", saved.mean());
        compare("invstd", saved.invstd());
        compare("mask", saved.mask());
    }

    private static void spoil(Buffer buffer) {
        for (int i = 0; buffer != null && i < buffer.limit(); i++) {
            put(buffer, i, 77);
        }
    }

    /** Bits are to be met exactly. */
    private void compare(String name, Buffer found) {
        double[] wanted = numbers("expect " + name);
        if (wanted == null) {
            return;
        }
        require(found != null && found.remaining() == wanted.length, name + ": another number of values");
        double tolerance = found instanceof FloatBuffer ? 2e-5 : found instanceof DoubleBuffer ? 1e-11 : 0;
        for (int i = 0; i < wanted.length; i++) {
            double value = get(found, i);
            // False for NaN, too.
            boolean isNear = Math.abs(value - wanted[i]) <= tolerance * Math.max(1, Math.abs(wanted[i]));
            require(isNear, name + "[" + i + "] is " + value + ", expected " + wanted[i]);
        }
    }

    private static void require(boolean condition, String message) {
        if (!condition) {
            throw new IllegalStateException(message);
        }
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

    /** Arguments that the library must not see. */
    private static void checkErrors(BatchNorm bn) {
        long[] sizes = {2, 3, 4}, strides = {12, 1, 3};
        FloatBuffer data = BatchNorm.floats(24);
        Tensor x = Tensor.strided(data, sizes, strides, 1);
        Options plain = Options.DEFAULT;
        refuses("x has 23 elements, expected 24", () -> bn.forwardTraining(
            Tensor.strided(data.slice(1, 23), sizes, strides, 1), null, null, null, null, null, plain));
        Tensor other = Tensor.strided(data, new long[] {2, 4, 3}, strides, 1);
        refuses("the tensors of a call have several types or shapes",
            () -> bn.forwardTraining(x, null, null, null, null, other, plain));
        refuses("2 strides; expected 3", () -> Tensor.strided(data, sizes, new long[2], 1));
        refuses("axis 3 is none of 3", () -> Tensor.strided(data, sizes, strides, 3));
        refuses("a buffer of another type than FLOAT16",
            () -> new Tensor(data, Element.FLOAT16, null, sizes, strides, 1));
        refuses("weights has 9 elements, expected 8", () -> bn.forwardTraining(x, null, null, null, null, null,
            plain.weights(new double[9], Options.Masked.ZERO)));
        refuses("index has 3 elements, expected 2", () -> bn.forwardTraining(x, null, null, null, null, null,
            plain.groups(new Options.Groups(2, 0, new int[3], false, false, PerGroup.STATISTICS))));
        refuses("groups are 0; expected at least 1", () -> Options.Groups.of(0));
        Options ofArray = plain.residual(Tensor.strided(FloatBuffer.allocate(24), sizes, strides, 1));
        refuses("residual is an array; expected a direct buffer",
            () -> bn.forwardTraining(x, null, null, null, null, null, ofArray));
        // The buffer's position is that of the first element, for buffers in structures, too.
        FloatBuffer longer = BatchNorm.floats(27), y = BatchNorm.floats(24), expected = BatchNorm.floats(24);
        for (int i = 0; i < 24; i++) {
            data.put(i, i * i % 7);
            longer.put(i + 2, i * i % 5);
        }
        Tensor residual = Tensor.strided(longer.duplicate().position(2), sizes, strides, 1);
        bn.forwardTraining(x, null, null, null, null, Tensor.strided(y, sizes, strides, 1), plain.residual(residual));
        FloatBuffer shifted = BatchNorm.floats(27).position(3).put(data.duplicate()).position(3);
        Tensor later = Tensor.strided(shifted, sizes, strides, 1);
        bn.forwardTraining(later, null, null, null, null, Tensor.strided(expected, sizes, strides, 1), plain);
        for (int i = 0; i < 24; i++) {
            require(Math.abs(y.get(i) - expected.get(i) - i * i % 5) < 1e-5, "a buffer's position");
        }
    }

    public static void main(String[] arguments) {
        try {
            BatchNorm bn = new BatchNorm();
            Map<String, Cases> cases = parse(Path.of(arguments.length > 0 ? arguments[0] : "../values/cases.txt"));
            for (Map.Entry<String, Cases> named : cases.entrySet()) {
                try {
                    named.getValue().check(bn);
                } catch (RuntimeException error) {
                    throw new IllegalStateException(named.getKey() + ": " + error.getMessage(), error);
                }
            }
            checkErrors(bn);
            System.out.println("java: " + cases.size() + " cases agree");
        } catch (Exception error) {
            System.err.println("java: " + error.getMessage());
            System.exit(1);
        }
    }
}
