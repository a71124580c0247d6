// SPDX-License-Identifier: Apache-2.0
import java.nio.Buffer;
import java.nio.ShortBuffer;

/** Outer x channels x inner, dense: NCHW is (N, C, H * W), NHWC is (N * H * W, C, 1). */
public record Shape(long outer, long channels, long inner) {
    public Shape {
        if (outer < 0 || channels < 0 || inner < 0) {
            throw new IllegalArgumentException("negative shape: " + outer + ", " + channels + ", " + inner);
        }
    }

    /** A tensor of this shape; null for no buffer. */
    public Tensor of(Buffer data) {
        return data == null ? null : new Tensor(data, Element.of(data), this, new long[0], new long[0], 0);
    }

    /** A tensor of this shape, of the bits of FLOAT16 or BFLOAT16. */
    public Tensor of(ShortBuffer data, Element element) {
        return new Tensor(data, element.ofBits(), this, new long[0], new long[0], 0);
    }

    /** The elements of a tensor from its first to its last. One that overflows is more than any buffer has. */
    long span(long stride) {
        long slice = multiply(channels, inner);
        if (outer == 0 || slice == 0) {
            return 0;
        }
        long before = multiply(outer - 1, stride == 0 ? slice : stride);
        return before + slice < 0 ? Long.MAX_VALUE : before + slice;
    }

    static long multiply(long a, long b) {
        return Math.multiplyHigh(a, b) == 0 && a * b >= 0 ? a * b : Long.MAX_VALUE;
    }
}
