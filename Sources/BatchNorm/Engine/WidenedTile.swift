// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A part of one run of a tile, its elements widened to double, in buffers; and its outputs on their way back.
struct WidenedTile {
    static var capacity: Int { 128 }
    private static var elements: Int { 6 * capacity }
    /// All that a worker has: the buffers, a channel's coefficients, and two sums. They are in the sweep's memory, as a loop
    /// that asked for memory could not say that there was none.
    static var doubles: Int { (elements + Coefficients.count + 2 + 7) / 8 * 8 }

    static func coefficients(_ memory: UnsafeMutablePointer<Double>) -> Coefficients {
        Coefficients(memory + elements, elements: 1, size: MemoryLayout<Double>.size)
    }

    static func sums(_ memory: UnsafeMutablePointer<Double>) -> UnsafeMutablePointer<Double> {
        memory + elements + Coefficients.count
    }

    private(set) var tile: kernel_tile
    private let source: kernel_tile
    private let run: Int
    private let start: Int

    /// In memory for six buffers.
    init(_ source: kernel_tile, run: Int, start: Int, count: Int, _ memory: UnsafeMutablePointer<Double>) {
        self.source = source
        self.run = run
        self.start = start
        tile = source
        tile.element = .float64
        tile.runs = 1
        tile.length = count
        tile.streams = 0
        tile.bits.first += run * source.bits.stride + start
        tile.x = widened(source.x, memory)
        tile.dy = widened(source.dy, memory + WidenedTile.capacity)
        tile.z = widened(source.z, memory + 2 * WidenedTile.capacity)
        tile.out = buffer(source.out, memory + 3 * WidenedTile.capacity)
        tile.dz = buffer(source.dz, memory + 4 * WidenedTile.capacity)
        if source.z.base == nil {
            // −0 stands for no residual: it changes nothing that it is added to.
            let zeros = memory + 2 * WidenedTile.capacity
            zeros.update(repeating: -0.0, count: count)
            tile.z = kernel_operand(base: zeros, stride: 0, prefetch: 0, prefetch_last: 0)
        }
        tile.weights = widened(source.weights, memory + 5 * WidenedTile.capacity, type: source.element.number)
    }

    func narrow() {
        narrow(tile.out, source.out)
        narrow(tile.dz, source.dz)
    }

    private func widened(
        _ operand: kernel_operand, _ target: UnsafeMutablePointer<Double>, type: kernel_element? = nil
    ) -> kernel_operand {
        guard let elements = elements(operand, type ?? source.element) else { return operand }
        for index in 0..<tile.length { target[index] = elements[index] }
        return buffer(operand, target)
    }

    private func narrow(_ buffer: kernel_operand, _ operand: kernel_operand) {
        guard let elements = elements(operand, source.element) else { return }
        let values = buffer.base.assumingMemoryBound(to: Double.self)
        for index in 0..<tile.length { elements[index] = values[index] }
    }

    private func buffer(_ operand: kernel_operand, _ memory: UnsafeMutablePointer<Double>) -> kernel_operand {
        operand.base == nil ? operand : kernel_operand(base: memory, stride: 0, prefetch: 0, prefetch_last: 0)
    }

    private func elements(_ operand: kernel_operand, _ type: kernel_element) -> Elements? {
        operand.base.map { Elements($0 + (run * operand.stride + start) * type.size, type) }
    }
}
