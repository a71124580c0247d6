// SPDX-License-Identifier: Apache-2.0
import CKernels
import Synchronization

/// One pass of the engine over tensors: reduce each channel to two numbers, finalize them, which gives outputs and
/// coefficients, and map every value with these coefficients. Each of the three may be absent. Schedule.swift runs it.
struct Sweep: ~Copyable {
    /// Has the structure go by address: one without an atomic is copied to the stack for each of its methods.
    private let byAddress = Atomic<Bool>(false)
    let geometry: Geometry
    let kernels: UnsafePointer<kernel_table>
    var x = Operand()
    var dy = Operand()
    var out = Operand()
    /// Tensors and bits that an epilogue reads and writes besides, and the epilogue itself.
    var z = Operand()
    var dz = Operand()
    var bits = kernel_bits()
    var epilogue: UnsafePointer<kernel_epilogue>?
    /// True if the map is of a clip and nothing else, which has loops of its own.
    var isClip = false
    var reduction: Reduction?
    var finalize: Finalize?
    var map: kernel_loop?
    /// True if the map combines three tensors, which is computed in double.
    var combines = false
    /// True if dy is mapped, and not x.
    var mapsDy = false
    var plan = Plan()
    /// The arrays per channel, in the thread's memory, from `reserve` on.
    var channels: UnsafePointer<ChannelStep>?

    init(_ geometry: Geometry, _ kernels: UnsafePointer<kernel_table>) {
        self.geometry = geometry
        self.kernels = kernels
    }

    var arrays: ChannelArrays { channels.unsafelyUnwrapped.pointee.arrays }

    /// Bytes of a coefficient.
    var coefficientSize: Int { combines ? MemoryLayout<Double>.size : geometry.number.size }

    /// True if the reduction is of dy after an activation or a mask.
    var reducesActivated: Bool {
        if epilogue == nil { return false }
        if case .gradientSums = reduction { return true }
        return false
    }

    /// True if the loop of the map streams the end of a plane and the start of the next as one vector.
    var writesSeams: Bool {
        let isShort = epilogue == nil ? !combines : isClip && dy.base == nil
        return isShort && geometry.element == .float32 && kernels.pointee.clipped != nil
    }

    /// True if all rows of the output begin at the same offset of a page.
    var hasPagedRows: Bool {
        out.base != nil && plan.mapsRows && out.stride * geometry.elementSize % PageOffsets.page == 0
    }

    /// Sets the epilogue of its loops.
    mutating func setEpilogue(_ kernel: kernel_epilogue, _ call: Call) {
        call.thread.pointee.setEpilogue(kernel, geometry.element)
        epilogue = UnsafePointer(call.thread.pointee.epilogue)
    }
}

/// The two numbers that a sweep reduces each channel to.
enum Reduction {
    /// first = mean(x), second = Σ(x − mean)²
    case moments
    /// first = Σdy, second = Σdy · (x − mean), about the means given
    case gradientSums(mean: UnsafePointer<Double>, inverseStd: UnsafePointer<Double>)
}

extension Call {
    /// A new sweep in the thread's memory. One at a time.
    @inline(never)
    func sweep(_ geometry: Geometry) -> UnsafeMutablePointer<Sweep> {
        let sweep = thread.pointee.slot(.sweep, Sweep.self)
        sweep.initialize(to: Sweep(geometry, library.pointee.kernels))
        return sweep
    }
}
