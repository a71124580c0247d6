// SPDX-License-Identifier: Apache-2.0
import java.nio.Buffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;

/** What tensors are made of; those of 16 bits are the bits in a ShortBuffer, and have parameters of FLOAT32. */
public enum Element {
    FLOAT32, FLOAT64, FLOAT16, BFLOAT16;

    int dtype() {
        return ordinal() + 1;
    }

    Element ofParameters() {
        return this == FLOAT64 ? FLOAT64 : FLOAT32;
    }

    Element ofBits() {
        if (this == FLOAT16 || this == BFLOAT16) {
            return this;
        }
        throw new IllegalArgumentException(this + " is not of 16 bits");
    }

    /** That of a buffer of numbers. A direct one may have its bytes in the other order. */
    static Element of(Buffer buffer) {
        if (buffer instanceof FloatBuffer f && f.order() == ByteOrder.nativeOrder()) {
            return FLOAT32;
        }
        if (buffer instanceof DoubleBuffer d && d.order() == ByteOrder.nativeOrder()) {
            return FLOAT64;
        }
        String type = buffer == null ? "null" : buffer.getClass().getSimpleName();
        throw new IllegalArgumentException("expected a FloatBuffer or DoubleBuffer in native order, not " + type);
    }
}
