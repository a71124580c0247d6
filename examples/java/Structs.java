// SPDX-License-Identifier: Apache-2.0
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import com.sun.jna.Structure.FieldOrder;

/** The structures of batchnorm.h. JNA needs them public. */
public final class Structs {
    private Structs() {}

    @FieldOrder({"structSize", "outer", "channels", "inner", "xStride", "yStride", "dxStride", "weights"})
    public static final class Shape extends Structure {
        public long structSize = size(), outer, channels, inner, xStride, yStride, dxStride;
        public Weights.ByReference weights;
    }

    @FieldOrder({"structSize", "values", "masked", "reserved"})
    public static class Weights extends Structure {
        public long structSize = size();
        public Pointer values;
        public int masked, reserved;

        public static final class ByReference extends Weights implements Structure.ByReference {}
    }

    @FieldOrder({"structSize", "activation", "fromOutput", "slope", "low", "high", "z", "zStride", "dz", "dzStride",
        "mask"})
    public static class Epilogue extends Structure {
        public long structSize = size();
        public int activation, fromOutput;
        public double slope, low, high;
        public Pointer z;
        public long zStride;
        public Pointer dz;
        public long dzStride;
        public Pointer mask;

        public static final class ByReference extends Epilogue implements Structure.ByReference {}
    }

    @FieldOrder({"structSize", "samples", "groups", "index", "interleaved", "perGroup", "averaged", "reserved"})
    public static class Groups extends Structure {
        public long structSize = size(), samples, groups;
        public Pointer index;
        public int interleaved, perGroup, averaged, reserved;

        public static final class ByReference extends Groups implements Structure.ByReference {}
    }

    @FieldOrder({"structSize", "eps", "momentum", "biasedRunningVar", "frozen", "paramDtype", "reserved", "epilogue",
        "running", "source", "groups"})
    public static final class Options extends Structure {
        public long structSize = size();
        public double eps, momentum;
        public int biasedRunningVar, frozen, paramDtype, reserved;
        public Epilogue.ByReference epilogue;
        public Pointer running, source;
        public Groups.ByReference groups;
    }
}
