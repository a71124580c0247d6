// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The structures of a call. They live as long as the call of `make` does, as do the pointers that it is given.
struct Call {
    let extents: Extents
    let options: Options
    let frozen: Bool
    let samples: Int

    init(_ form: Form, _ options: Options, frozen: Bool, isBackward: Bool) throws(BatchNormError) {
        extents = try Extents(form, isBackward: isBackward, isGrouped: options.groups != nil)
        (self.options, self.frozen) = (options, frozen)
        if case .strided(let strides) = form { samples = strides.sizes[0] } else { samples = extents.shape.outer }
        guard let groups = options.groups else { return }
        if groups.count < 1 || extents.rows(of: groups, groups.perGroup) < 0 {
            throw .length(argument: "groups", actual: groups.count, expected: 1)
        }
        if let index = groups.index, index.count != groups.samples ?? samples {
            throw .length(argument: "index", actual: index.count, expected: groups.samples ?? samples)
        }
    }

    /// Throws unless an array has an element for each position.
    func checkWeights(_ count: Int?) throws(BatchNormError) {
        let (expected, overflow) = extents.shape.outer.multipliedReportingOverflow(by: extents.shape.inner)
        guard let count, overflow || count != expected else { return }
        throw .length(argument: "weights", actual: count, expected: overflow ? -1 : expected)
    }

    func make(
        z: UnsafeRawPointer?, dz: UnsafeMutableRawPointer?, mask: UnsafeMutablePointer<UInt8>?,
        weights: UnsafeRawPointer?, index: UnsafePointer<Int32>?,
        _ function: (UnsafePointer<bn_shape>, UnsafePointer<bn_options>) -> bn_status
    ) throws(BatchNormError) {
        let strides = extents.strides
        var epilogue = bn_epilogue(options.activation)
        (epilogue.z, epilogue.z_stride, epilogue.dz, epilogue.dz_stride) = (z, strides[3], dz, strides[4])
        epilogue.mask = mask
        var ofPositions = bn_weights(
            struct_size: MemoryLayout<bn_weights>.size, values: weights,
            masked: bn_masked(rawValue: options.masked.rawValue), reserved: 0)
        var groups = bn_groups()
        if let given = options.groups {
            groups = bn_groups(
                struct_size: MemoryLayout<bn_groups>.size, samples: given.samples ?? samples, groups: given.count,
                index: index, interleaved: given.interleaved ? 1 : 0, per_group: given.perGroup.rawValue,
                averaged: given.averaged ? 1 : 0, reserved: 0)
        }
        let isGrouped = options.groups != nil
        try call {
            withUnsafePointer(to: &epilogue) { epilogue in
                withUnsafePointer(to: &ofPositions) { ofPositions in
                    withUnsafePointer(to: &groups) { groups in
                        var shape = bn_shape(extents.shape, strides)
                        shape.weights = weights == nil ? nil : ofPositions
                        var inC = bn_options(options, frozen: frozen)
                        inC.epilogue = epilogue
                        inC.groups = isGrouped ? groups : nil
                        return function(&shape, &inC)
                    }
                }
            }
        }
    }
}

extension bn_shape {
    init(_ shape: Shape, _ strides: [Int]) {
        self.init()  // all zero
        struct_size = MemoryLayout<bn_shape>.size
        (outer, channels, inner) = (shape.outer, shape.channels, shape.inner)
        (x_stride, y_stride, dx_stride) = (strides[0], strides[1], strides[2])
    }
}

extension bn_epilogue {
    fileprivate init(_ activation: Activation) {
        self.init()
        struct_size = MemoryLayout<bn_epilogue>.size
        (slope, low, high) = (0.01, 0, 6)
        switch activation {
        case .identity: self.activation = BN_IDENTITY
        case .relu: self.activation = BN_RELU
        case .leakyRelu(let slope): (self.activation, self.slope) = (BN_LEAKY_RELU, slope)
        case .clip(let low, let high): (self.activation, self.low, self.high) = (BN_CLIP, low, high)
        case .hardSwish: self.activation = BN_HARD_SWISH
        case .silu: self.activation = BN_SILU
        }
    }
}

extension bn_options {
    fileprivate init(_ options: Options, frozen: Bool) {
        self.init()
        struct_size = MemoryLayout<bn_options>.size
        (eps, momentum) = (options.eps, options.momentum)
        biased_running_var = options.biasedRunningVar ? 1 : 0
        self.frozen = frozen ? 1 : 0
    }
}
