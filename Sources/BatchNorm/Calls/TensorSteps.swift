// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The building blocks that work on tensors: the layer's steps one by one.
extension Call {
    func moments(
        _ geometry: Geometry, x: UnsafeRawPointer?, count: UnsafeMutablePointer<Double>?,
        mean: UnsafeMutablePointer<Double>?, m2: UnsafeMutablePointer<Double>?, stride: Int, options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .running, .source])
        let arguments = try options.arguments(self, geometry)
        let x = try arguments.tensor("x", x, stride: geometry.xStride)
        try geometry.enterWeights(arguments)
        try options.groups?.enter(arguments)
        let rows = arguments.statisticsRows
        let stride = try arguments.stride(stride, rows: rows)
        let outputs = (
            count: try arguments.needed(rows: "count", count, rows, stride: stride, .written),
            mean: try arguments.needed(rows: "mean", mean, rows, stride: stride, .written),
            m2: try arguments.needed(rows: "m2", m2, rows, stride: stride, .written)
        )
        var geometry = geometry
        try geometry.weigh()
        let batches = try GroupMoments(rows, geometry.channels, self)
        var slices = (options.groups ?? Groups()).slicesOfStatistics(geometry.outer)
        while let slice = slices.next() { try reduce(x, geometry, slice, into: batches.moments(slice.group)) }
        for row in 0..<rows {
            for channel in 0..<geometry.channels {
                let batch = batches.moments(row)[channel]
                outputs.count[row, channel] = batch.count
                outputs.mean[row, channel] = batch.mean
                outputs.m2[row, channel] = batch.m2
            }
        }
    }

    /// Puts the moments of a slice with those of the slices before it.
    @inline(never)
    func reduce(_ x: Operand, _ geometry: Geometry, _ slice: Slice, into batch: MomentsArray) throws(Failure) {
        let sweep = sweep(geometry.slice(slice))
        sweep.pointee.x = x.slice(slice, geometry.elementSize)
        sweep.pointee.reduction = .moments
        sweep.pointee.finalize = finalize(ForwardFinalize(statistics: .batch(eps: 0, nil), merged: batch))
        try sweep.pointee.run(self)
    }

    func normalize(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, y: UnsafeMutableRawPointer?, options: Options
    ) throws(Failure) {
        try options.refuse([.source])
        let geometry = options.geometry(geometry)
        let arguments = try options.arguments(self, geometry)
        var forward = try Forward(geometry, x: x, gamma: gamma, beta: beta, options, arguments)
        let mean = try arguments.needed(statistics: "mean", mean)
        let inverseStd = try arguments.needed(statistics: "invstd", invstd)
        try forward.enterOutputs(y: y, isNeeded: true, options, arguments)
        if geometry.weights != nil { try forward.geometry.weigh() }
        let groups = options.groups ?? Groups()
        try run(groups.slices(geometry.outer)) { slice in
            let part = forward.slice(slice, groups)
            let row = groups.statisticsRow(slice.group) * geometry.channels
            let sweep = part.sweep(self)
            sweep.pointee.finalize = finalize(part.finalize(.given(mean: mean + row, inverseStd: inverseStd + row)))
            return sweep
        }
        try forward.writeMask(self)
    }

    func backwardReduce(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, mean: UnsafePointer<Double>?,
        invstd: UnsafePointer<Double>?, sumDy: UnsafeMutablePointer<Double>?, sumDyXHat: UnsafeMutablePointer<Double>?,
        stride: Int, options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .running, .source])
        let arguments = try options.arguments(self, geometry)
        var backward = Backward(
            geometry: geometry, dy: try arguments.tensor("dy", dy, stride: geometry.yStride),
            x: try arguments.tensor("x", x, stride: geometry.xStride),
            mean: try arguments.needed(statistics: "mean", mean),
            inverseStd: try arguments.needed(statistics: "invstd", invstd))
        try geometry.enterWeights(arguments)
        try options.groups?.enter(arguments)
        let groups = options.groups ?? Groups()
        let stride = try arguments.stride(stride, rows: groups.count)
        let outputs = (
            dy: try arguments.needed(rows: "sum_dy", sumDy, groups.count, stride: stride, .written),
            dyXHat: try arguments.needed(rows: "sum_dy_x_hat", sumDyXHat, groups.count, stride: stride, .written)
        )
        backward.setWeights(wantsDx: false)
        try backward.geometry.weigh()
        let grouped = try GroupedBackward(backward, groups.havingParameters, call: self)
        try grouped.reduce()
        for row in 0..<groups.count {
            for channel in 0..<geometry.channels {
                (outputs.dy[row, channel], outputs.dyXHat[row, channel]) = grouped.sums(row, channel)
            }
        }
    }

    func backwardApply(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, count: UnsafePointer<Double>?,
        sumDy: UnsafePointer<Double>?, sumDyXHat: UnsafePointer<Double>?, dx: UnsafeMutableRawPointer?,
        options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .source])
        let geometry = options.geometry(geometry)
        let arguments = try options.arguments(self, geometry)
        let dyOperand = try arguments.tensor("dy", dy, stride: geometry.yStride)
        let placeOfDy = arguments.latest
        let x = try arguments.tensor("x", x, stride: geometry.xStride)
        let gamma = try arguments.parameter("gamma", gamma)
        var backward = Backward(
            geometry: geometry, dy: dyOperand, x: x, gamma: gamma,
            mean: try arguments.needed(statistics: "mean", mean),
            inverseStd: try arguments.needed(statistics: "invstd", invstd))
        let count = try arguments.needed(statistics: "count", count)
        let sumDy = try arguments.needed(statistics: "sum_dy", sumDy)
        let sumDyXHat = try arguments.needed(statistics: "sum_dy_x_hat", sumDyXHat)
        try geometry.enterWeights(arguments)
        try options.groups?.enter(arguments)
        backward.dx = try arguments.tensor("dx", dx, stride: geometry.dxStride, .writtenOver(placeOfDy))
        backward.setWeights(wantsDx: dx != nil)
        let groups = options.groups ?? Groups()
        try check(count, arguments.statisticsRows, geometry, groups)
        try backward.geometry.weigh()
        if groups.gains { backward.hasEpilogue = true }
        try run(groups.slices(geometry.outer)) { slice in
            let part = backward.slice(slice, groups)
            let row = groups.statisticsRow(slice.group) * geometry.channels
            let sweep = part.sweep(self, reduces: false, maps: true)
            sweep.pointee.finalize = finalize(
                part.finalize(
                    .given(count: count + row, dy: sumDy + row, dyXHat: sumDyXHat + row, gains: groups.gains)))
            return sweep
        }
    }

    /// A group without samples has no values to be divided by.
    @inline(never)
    private func check(
        _ count: UnsafePointer<Double>, _ rows: Int, _ geometry: Geometry, _ groups: Groups
    ) throws(Failure) {
        let channels = geometry.channels
        let isOne = rows == 1 || geometry.outer == 0
        try checkCounts("count", count, rows: 0..<rows, channels, least: isOne ? Weights.least : 0)
        if isOne { return }
        var slices = groups.slices(geometry.outer)
        while let slice = slices.next() {
            let row = groups.statisticsRow(slice.group)
            try checkCounts("count", count, rows: row..<row + 1, channels, least: Weights.least)
        }
    }
}
