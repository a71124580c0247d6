// SPDX-License-Identifier: Apache-2.0

/// Batch normalization as the formulas have it, in double, one loop after the other. It shares nothing with the library.
struct ReferenceBatchNorm {
    let outer: Int
    let channels: Int
    let inner: Int

    private func forEach(_ channel: Int, _ body: (Int) -> Void) {
        for n in 0..<outer {
            for i in 0..<inner { body((n * channels + channel) * inner + i) }
        }
    }

    var count: Double { Double(outer * inner) }

    func mean(_ x: [Double]) -> [Double] {
        (0..<channels).map { channel in
            var sum = 0.0
            forEach(channel) { sum += x[$0] }
            let mean = sum / count
            // One correction takes out the rounding of the sum: the deviations are small.
            var rest = 0.0
            forEach(channel) { rest += x[$0] - mean }
            return mean + rest / count
        }
    }

    /// Σ(x − mean)²
    func m2(_ x: [Double]) -> [Double] {
        let mean = mean(x)
        return (0..<channels).map { channel in
            var sum = 0.0
            forEach(channel) { sum += (x[$0] - mean[channel]) * (x[$0] - mean[channel]) }
            return sum
        }
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
            var dgamma = 0.0
            var dbeta = 0.0
            forEach(channel) {
                dgamma += dy[$0] * xHat[$0]
                dbeta += dy[$0]
            }
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
