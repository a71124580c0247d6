// SPDX-License-Identifier: Apache-2.0
import CKernels
import Foundation

/// Every loop, with its formula.
extension Tile {
    /// A loop and its formula, element by element; `near` is for elements that take more than the formula's operations.
    struct Loop {
        let name: String
        let pointer: KeyPath<kernel_table, kernel_loop?>
        /// The loop that does the same on an instruction set that lacks this one.
        let other: KeyPath<kernel_table, kernel_loop?>
        var epilogue = kernel_epilogue()
        let outputs: Outputs
        let formula: (Tile<T>) -> [T]
        /// True if the loop also runs with weights, which the formula ignores.
        var weighs = true

        init(
            _ name: String, _ pointer: KeyPath<kernel_table, kernel_loop?>, _ outputs: Outputs,
            or other: KeyPath<kernel_table, kernel_loop?>? = nil, _ formula: @escaping (Tile<T>) -> [T]
        ) {
            self.name = name
            self.pointer = pointer
            self.other = other ?? pointer
            self.outputs = outputs
            self.formula = formula
        }

        func with(
            _ activation: kernel_activation, _ masked: kernel_masked = .normalize, frozen: Bool = false
        ) -> Loop {
            var loop = self
            loop.epilogue = kernel_epilogue(
                activation: activation, masked: masked, slope: 0.25, low: -0.5, high: 0.75, top: 0.75.nextDown,
                from_output: 0, zeros: nil, frozen: frozen ? 1 : 0)
            return loop
        }
    }
    /// Loops for clips, which an instruction set may leave to those for all activations.
    private static var clips: [Loop] {
        func g(_ v: Values) -> T { v.argument > -0.5 && v.argument < 0.75 ? v.dy : 0 }
        let clips = [
            Loop("clipped", \.clipped, .elements, or: \.activated) {
                $0.values { v in min(max(v.normalized + v.z, -0.5), 0.75) }
            },
            Loop("clipped_gradient", \.clipped_gradient, .elements, or: \.activated_gradient) {
                $0.values { v in v.gradient(g(v)) }
            },
            Loop("clipped_products", \.clipped_products, .sums, or: \.activated_sums) {
                $0.sums { v in (Double(g(v)), Double(g(v)) * Double(v.x)) }
            },
        ]
        return clips.map { clip in
            var clip = clip.with(.clip)
            clip.weighs = false
            return clip
        }
    }

    enum Outputs { case sums, elements, near }

    /// Sums about 0 are float32's alone.
    static var loops: [Loop] {
        common + epilogues + clips.filter { T.self == Float.self || $0.outputs != .sums }
            + (T.self == Float.self ? aboutZero : [])
    }

    /// True if the loop has a way by panels, on one instruction set at least.
    static func hasPanels(_ loop: Loop) -> Bool { loop.pointer == \.normalize || loop.pointer == \.gradient }

    static func isLong(_ loop: Loop) -> Bool {
        ["activated", "clipped", "weighted", "combination"].contains { loop.name.hasPrefix($0) }
    }

    private static var aboutZero: [Loop] {
        [
            Loop("power_sums", \.power_sums, .sums) { $0.sums { (Double($0.x), Double($0.x) * Double($0.x)) } },
            Loop("product_sums", \.product_sums, .sums) {
                $0.sums { (Double($0.dy), Double($0.dy) * Double($0.x)) }
            },
        ]
    }

    private static var common: [Loop] {
        [
            Loop("deviation_sums", \.deviation_sums, .sums) { $0.sums { ($0.d, $0.d * $0.d) } },
            Loop("gradient_sums", \.gradient_sums, .sums) { $0.sums { (Double($0.dy), Double($0.dy) * $0.d) } },
            Loop("weighted_sums", \.weighted_sums, .sums) {
                $0.sums { (Double($0.w) * $0.d, Double($0.w) * $0.d * $0.d) }
            },
            Loop("normalize", \.normalize, .elements) { $0.values { $0.normalized } },
            Loop("gradient", \.gradient, .elements) {
                $0.values { $0.gradient($0.dy) }
            },
            Loop("combination", \.combination, .elements) {
                $0.values { v in
                    let c = v.wide
                    let gradients = (Double(v.dy) - c[.dyMean]) * c[.scale] + (Double(v.z) - c[.zMean]) * c[.gain]
                    return T(gradients + ((Double(v.x) - c[.mean]) * c[.invstd] * c[.slope] + c[.shift]))
                }
            },
        ]
    }

    private static var epilogues: [Loop] {
        func u(_ v: Values) -> T { v.normalized + v.z }
        func clip(_ u: T) -> T { min(max(u, -0.5), 0.75) }
        func leaky(_ u: T) -> T { u > 0 ? u : u * 0.25 }
        /// g = dy * activation'(u), where u comes from the coefficients that a gradient has for it.
        func g(_ v: Values, _ derivative: (T) -> T) -> T { v.dy * derivative(v.argument) }
        func leakyStep(_ u: T) -> T { u > 0 ? 1 : 0.25 }
        func clipStep(_ u: T) -> T { u > -0.5 && u < 0.75 ? 1 : 0 }
        func dx(_ v: Values, _ g: T) -> T {
            let (dy, weighted) = (g * v.c[.gain] - v.w * v.c[.dyMean], v.w * v.c[.slope])
            return ((dy - v.centred * weighted) + v.w * v.c[.shift]) * v.c[.scale]
        }
        func sigmoid(_ u: T) -> T { T(1 / (1 + exp(-Double(u)))) }
        let activated = { (outputs: Outputs, formula: @escaping (Values) -> T) in
            Loop("activated", \.activated, outputs) { $0.values(formula) }
        }
        let gradient = { (outputs: Outputs, formula: @escaping (Values) -> T) in
            Loop("activated_gradient", \.activated_gradient, outputs) { $0.values(formula) }
        }
        return [
            activated(.elements) { leaky(u($0)) }.with(.leaky),
            activated(.elements) { $0.w > 0 ? clip(u($0)) : $0.x }.with(.clip, .keep),
            activated(.elements) { $0.w > 0 ? u($0) : 0 }.with(.identity, .zero),
            activated(.near) { u($0) * min(max(u($0) + 3, 0), 6) / 6 }.with(.hardSwish),
            activated(.near) { u($0) * sigmoid(u($0)) }.with(.silu),
            gradient(.elements) { dx($0, g($0, leakyStep)) }.with(.leaky),
            gradient(.elements) { $0.w > 0 ? dx($0, g($0, clipStep)) : $0.dy }.with(.clip, .keep),
            gradient(.elements) { $0.w > 0 ? g($0, leakyStep) * $0.c[.scale] : 0 }
                .with(.leaky, .zero, frozen: true),
            gradient(.near) { v in
                dx(v, g(v) { u in sigmoid(u) * (1 + u * (1 - sigmoid(u))) })
            }.with(.silu),
            Loop("activated_sums", \.activated_sums, .sums) {
                $0.sums { v in (Double(g(v, leakyStep)), Double(g(v, leakyStep)) * v.d) }
            }.with(.leaky),
            Loop("activated_sums", \.activated_sums, .sums) {
                $0.sums { v in v.w > 0 ? (Double(g(v, clipStep)), Double(g(v, clipStep)) * v.d) : (0, 0) }
            }.with(.clip, .zero),
        ]
    }
}
