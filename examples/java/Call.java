// SPDX-License-Identifier: Apache-2.0
import com.sun.jna.Memory;
import com.sun.jna.Native;
import com.sun.jna.Pointer;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The structures of a call, and checks of its arguments that C cannot make. */
final class Call {
    final Structs.Shape shape = new Structs.Shape();
    final Structs.Options options = new Structs.Options();
    final Shape extents;
    private final Tensor x;
    private final Options given;
    private final long[] strides = new long[5]; // of x, y or dy, dx, the residual and dz
    private final Map<Object, String> arrays = new IdentityHashMap<>();
    private final Set<Object> outputs = Collections.newSetFromMap(new IdentityHashMap<>());
    private final List<Object> held = new ArrayList<>(); // memory that structures point to
    private boolean writable = false;

    /** The tensors are x, y or dy, dx, the residual and dz. One that is null lies as x does. */
    Call(BatchNorm library, Options given, boolean frozen, Tensor... tensors) {
        this.given = given;
        x = tensors[0];
        for (Tensor tensor : tensors) {
            if (tensor != null && !tensor.isLike(x)) {
                throw new IllegalArgumentException("the tensors of a call have several types or shapes");
            }
        }
        extents = x.isStrided() ? fromStrides(library, tensors) : x.dense();
        shape.outer = extents.outer();
        shape.channels = extents.channels();
        shape.inner = extents.inner();
        shape.xStride = strides[0];
        shape.yStride = strides[1];
        shape.dxStride = strides[2];
        options.eps = given.eps();
        options.momentum = given.momentum();
        options.biasedRunningVar = given.biasedRunningVar() ? 1 : 0;
        options.frozen = frozen ? 1 : 0;
        options.groups = groups(given.groups());
        shape.weights = weights(given.weights());
    }

    private Shape fromStrides(BatchNorm library, Tensor[] tensors) {
        int rank = x.sizes().length;
        long[] rows = new long[5 * rank];
        for (int i = 0; i < 5; i++) {
            Tensor tensor = i < tensors.length && tensors[i] != null ? tensors[i] : x;
            System.arraycopy(tensor.strides(), 0, rows, i * rank, rank);
        }
        library.shapeFromStrides(x.sizes(), x.axis(), rows, given.groups() != null, shape, strides);
        return new Shape(shape.outer, shape.channels, shape.inner);
    }

    private Structs.Groups.ByReference groups(Options.Groups groups) {
        if (groups == null) {
            return null;
        }
        Structs.Groups.ByReference made = new Structs.Groups.ByReference();
        long samples = x.isStrided() ? x.sizes()[0] : extents.outer();
        made.samples = groups.samples() == 0 ? samples : groups.samples();
        made.groups = groups.count();
        made.interleaved = groups.interleaved() ? 1 : 0;
        made.averaged = groups.averaged() ? 1 : 0;
        made.perGroup = groups.perGroup();
        if (groups.index() != null) {
            checkLength("index", groups.index().length, made.samples);
            Memory index = memory(4L * groups.index().length);
            index.write(0, groups.index(), 0, groups.index().length);
            made.index = index;
        }
        return made;
    }

    private Structs.Weights.ByReference weights(double[] weights) {
        if (weights == null) {
            return null;
        }
        checkLength("weights", weights.length, Shape.multiply(extents.outer(), extents.inner()));
        Structs.Weights.ByReference made = new Structs.Weights.ByReference();
        made.masked = given.masked().ordinal();
        Memory values = memory(8L * weights.length);
        for (int i = 0; i < weights.length; i++) {
            if (x.element() == Element.FLOAT64) {
                values.setDouble(8L * i, weights[i]);
            } else {
                values.setFloat(4L * i, (float) weights[i]);
            }
        }
        made.values = values;
        return made;
    }

    private Memory memory(long bytes) {
        Memory memory = new Memory(Math.max(bytes, 8));
        held.add(memory);
        return memory;
    }

    /** The activation, and the direct buffers that go with it. */
    void epilogue(Tensor residual, Tensor dz, ByteBuffer mask) {
        Options.Activation activation = given.activation();
        Structs.Epilogue.ByReference made = new Structs.Epilogue.ByReference();
        made.activation = activation.kind();
        made.slope = activation.slope();
        made.low = activation.low();
        made.high = activation.high();
        made.z = address("residual", residual, 3);
        made.zStride = strides[3];
        writable();
        made.dz = address("dz", dz, 4);
        made.dzStride = strides[4];
        if (mask != null) {
            checkLength("mask", mask.remaining(), (elements() + 7) / 8);
            held.add(mask);
            made.mask = mask.remaining() == 0 ? memory(8) : Native.getDirectBufferPointer(mask);
        }
        options.epilogue = made;
    }

    private Pointer address(String name, Tensor tensor, int place) {
        if (tensor == null) {
            return null;
        }
        tensor(name, tensor, place);
        if (!tensor.data().isDirect()) {
            throw new IllegalArgumentException(name + " is an array; expected a direct buffer");
        }
        Buffer slice = tensor.data().slice();
        held.add(slice);
        return slice.remaining() == 0 ? memory(8) : Native.getDirectBufferPointer(slice);
    }

    /** The elements of a tensor without its gaps. It fits in memory, if x was checked. */
    long elements() {
        return Shape.multiply(extents.outer(), Shape.multiply(extents.channels(), extents.inner()));
    }

    /** The elements of an array that has a row for each group if it is one of these. */
    long rows(PerGroup kind) {
        boolean isOwn = given.groups() != null && (given.groups().perGroup() >> kind.ordinal() & 1) == 1;
        return isOwn ? Shape.multiply(extents.channels(), given.groups().count()) : extents.channels();
    }

    /** The arguments from here on are outputs. */
    Call writable() {
        writable = true;
        return this;
    }

    /** One with strides may be longer than what they reach. */
    Call tensor(String name, Tensor tensor, int place) {
        if (tensor == null) {
            return this;
        }
        long span = extents.span(strides[place]);
        long actual = tensor.data().remaining();
        checkLength(name, tensor.isStrided() ? Math.min(actual, span) : actual, span);
        return check(name, tensor.data());
    }

    Call row(String name, Buffer buffer, PerGroup kind) {
        return row(name, buffer, rows(kind), x.element().ofParameters());
    }

    Call doubles(String name, DoubleBuffer buffer) {
        return row(name, buffer, extents.channels(), Element.FLOAT64);
    }

    private Call row(String name, Buffer buffer, long size, Element element) {
        if (buffer == null) {
            return this;
        }
        if (Element.of(buffer) != element) {
            throw new IllegalArgumentException(name + " is of another type than the buffers before it");
        }
        checkLength(name, buffer.remaining(), size);
        return check(name, buffer);
    }

    private static void checkLength(String name, long actual, long expected) {
        if (actual != expected) {
            throw new IllegalArgumentException(name + " has " + actual + " elements, expected " + expected);
        }
    }

    private Call check(String name, Buffer buffer) {
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
}
