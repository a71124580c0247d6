// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Every loop of this module. A loop that is missing here does not compile for any instruction set.
func fillTable(_ table: UnsafeMutablePointer<kernel_table>) {
    table.pointee = kernel_table(
        power_sums: { run(PowerSumsLoop.self, $0!.pointee, $1!.pointee) },
        deviation_sums: { run(DeviationSumsLoop.self, $0!.pointee, $1!.pointee) },
        product_sums: { run(ProductSumsLoop.self, $0!.pointee, $1!.pointee) },
        gradient_sums: { run(GradientSumsLoop.self, $0!.pointee, $1!.pointee) },
        has_panels: hasPanels ? 1 : 0,
        normalize: { run(NormalizeLoop.self, $0!.pointee, $1!.pointee) },
        gradient: { run(GradientLoop.self, $0!.pointee, $1!.pointee) },
        combination: { run(CombinationLoop.self, $0!.pointee, $1!.pointee) },
        weighted_sums: { run(WeightedSumsLoop.self, $0!.pointee, $1!.pointee) },
        activated_sums: { run(ActivatedSumsLoop.self, $0!.pointee, $1!.pointee) },
        activated: { run(ActivatedLoop.self, $0!.pointee, $1!.pointee) },
        activated_gradient: { run(ActivatedGradientLoop.self, $0!.pointee, $1!.pointee) },
        clipped_products: hasLoopForEach ? { run(ClippedProductsLoop.self, $0!.pointee, $1!.pointee) } : nil,
        clipped: hasLoopForEach ? { run(ClippedLoop.self, $0!.pointee, $1!.pointee) } : nil,
        clipped_gradient: hasLoopForEach ? { run(ClippedGradientLoop.self, $0!.pointee, $1!.pointee) } : nil,
        write_bits: { tile, bits in
            switch tile!.pointee.element {
            case .float32: writeBits(Float.self, tile!.pointee, bits!)
            case .float64: writeBits(Double.self, tile!.pointee, bits!)
            case .float16: writeBits(Float16Bits.self, tile!.pointee, bits!)
            case .bfloat16: writeBits(BFloat16Bits.self, tile!.pointee, bits!)
            }
        },
        repeat_each: { element, source, channels, columns, target in
            switch element {
            case .float32: repeatEach(Float.self, source!, channels, columns, target!)
            case .float64: repeatEach(Double.self, source!, channels, columns, target!)
            case .float16, .bfloat16: preconditionFailure("coefficients are float32 or float64")
            }
        },
        forward_step: hasLoopForEach ? { forwardStep($0!.pointee, $1) } : nil,
        backward_step: hasLoopForEach ? { backwardStep($0!.pointee, $1) } : nil,
        fold_moments: hasLoopForEach ? { foldMoments($0!.pointee, $1) } : nil,
        fold_gradient: hasLoopForEach ? { foldGradient($0!.pointee, $1) } : nil,
        choose_pivots: hasLoopForEach ? { choosePivots($0!.pointee, $1) } : nil,
        gradient_pivots: hasLoopForEach ? { gradientPivots($0!.pointee, $1) } : nil,
        lose_digits: hasLoopForEach ? { loseDigits($0!.pointee, $1, $2) } : nil)
}
