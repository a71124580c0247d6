// SPDX-License-Identifier: Apache-2.0

/// Batch normalization as the formulas have it, in double, one loop after the other. It shares nothing with the
/// library.
struct ReferenceBatchNorm {
    let outer: Int
    let channels: Int
    let inner: Int

    /// Σ over a channel, with what each addition rounds away added in the end (Neumaier).
    private func sum(_ channel: Int, _ term: (Int) -> Double) -> Double {
        var sum = 0.0
        var lost = 0.0
        forEach(channel) {
            let value = term($0)
            let next = sum + value
            lost += abs(sum) >= abs(value) ? (sum - next) + value : (value - next) + sum
            sum = next
        }
        return sum + lost
    }

    private func forEach(_ channel: Int, _ body: (Int) -> Void) {
        for n in 0..<outer {
            for i in 0..<inner { body((n * channels + channel) * inner + i) }
        }
    }

    var count: Double { Double(outer * inner) }

    func mean(_ x: [Double]) -> [Double] {
        (0..<channels).map { channel in sum(channel) { x[$0] } / count }
    }

    /// Σ(x − mean)²
    func m2(_ x: [Double]) -> [Double] {
        let mean = mean(x)
        return (0..<channels).map { channel in sum(channel) { (x[$0] - mean[channel]) * (x[$0] - mean[channel]) } }
    }

    func inverseStd(_ x: [Double], eps: Double) -> [Double] {
        m2(x).map { $0 / count + eps == 0 ? 0 : 1 / ($0 / count + eps).squareRoot() }
    }

    func xHat(_ x: [Double], mean: [Double], inverseStd: [Double]) -> [Double] {
        var result = x
        for channel in 0..<channels { forEach(channel) { result[$0] = (x[$0] - mean[channel]) * inverseStd[channel] } }
        return result
    }

    func forward(_ x: [Double], gamma: [Double], beta: [Double], mean: [Double], inverseStd: [Double]) -> [Double] {
        var y = xHat(x, mean: mean, inverseStd: inverseStd)
        for channel in 0..<channels { forEach(channel) { y[$0] = gamma[channel] * y[$0] + beta[channel] } }
        return y
    }

    struct Gradients {
        var dx: [Double]
        var dgamma: [Double]
        var dbeta: [Double]
    }

    func backward(
        dy: [Double], x: [Double], gamma: [Double], mean: [Double], inverseStd: [Double], frozen: Bool
    ) -> Gradients {
        let xHat = xHat(x, mean: mean, inverseStd: inverseStd)
        var result = Gradients(dx: dy, dgamma: [], dbeta: [])
        for channel in 0..<channels {
            let dgamma = sum(channel) { dy[$0] * xHat[$0] }
            let dbeta = sum(channel) { dy[$0] }
            forEach(channel) {
                let through = frozen ? 0 : dbeta / count + xHat[$0] * dgamma / count
                result.dx[$0] = gamma[channel] * inverseStd[channel] * (dy[$0] - through)
            }
            result.dgamma.append(dgamma)
            result.dbeta.append(dbeta)
        }
        return result
    }
}
