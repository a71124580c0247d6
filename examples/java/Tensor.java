// SPDX-License-Identifier: Apache-2.0
import java.nio.Buffer;
import java.nio.ByteOrder;
import java.nio.ShortBuffer;
import java.util.Arrays;

/**
 * A buffer, and how its elements lie: {@link Shape#of} makes dense ones. With strides, the buffer's position is at the
 * first element, and it may go on behind the last. The library refuses what has to be copied.
 *
 * @param dense the shape of one without strides; null beside strides
 * @param sizes the length of each axis
 * @param strides the distance of neighbours along each axis, in elements
 * @param axis that of the channels
 */
public record Tensor(Buffer data, Element element, Shape dense, long[] sizes, long[] strides, int axis) {
    public Tensor {
        sizes = sizes.clone();
        strides = strides.clone();
        if (sizes.length != strides.length) {
            throw new IllegalArgumentException(strides.length + " strides; expected " + sizes.length);
        }
        if (dense == null && (axis < 0 || axis >= sizes.length)) {
            throw new IllegalArgumentException("axis " + axis + " is none of " + sizes.length);
        }
        boolean isBits = data instanceof ShortBuffer s && s.order() == ByteOrder.nativeOrder();
        if (isBits ? element.ofBits() != element : Element.of(data) != element) {
            throw new IllegalArgumentException("a buffer of another type than " + element);
        }
    }

    public static Tensor strided(Buffer data, long[] sizes, long[] strides, int axis) {
        return new Tensor(data, Element.of(data), null, sizes, strides, axis);
    }

    /** That all but data and strides are the same. */
    boolean isLike(Tensor other) {
        boolean isOfShape = dense == null ? other.dense == null : dense.equals(other.dense);
        return isOfShape && element == other.element && axis == other.axis && Arrays.equals(sizes, other.sizes);
    }

    boolean isStrided() {
        return dense == null;
    }
}
