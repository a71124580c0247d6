// SPDX-License-Identifier: Apache-2.0
// Three steps of training and one inference, on the data that values/make.py describes, compared with its results.
import BatchNorm
import Foundation

struct Difference: Error, CustomStringConvertible {
    let description: String
}

let shape = Shape(outer: 4, channels: 3, inner: 6)
let size = 4 * 3 * 6

func batch(_ k: Int) -> [Float] {
    (0..<size).map { i in Float((i * 37 + k * 11) % 101) / 8 - 5 }
}

/// False for NaN, too.
func near(_ a: Double, _ b: Double) -> Bool {
    abs(a - b) <= 1e-4 * max(1, abs(b))
}

func require(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    if !condition { throw Difference(description: message()) }
}

func descend(_ parameters: inout [Float], along gradients: [Float]) {
    for c in parameters.indices { parameters[c] -= 0.01 * gradients[c] }
}

func train() throws -> [String: [Float]] {
    let dy: [Float] = (0..<size).map { i in Float((i * 53 + 7) % 17) / 4 - 2 }
    var (gamma, beta): ([Float], [Float]) = ([1, 2, 0.5], [0, -1, 3])
    var (runningMean, runningVar): ([Float], [Float]) = ([0, 0, 0], [1, 1, 1])
    var (y, dx, inferred) = ([Float](repeating: 0, count: size), dy, dy)
    var (dgamma, dbeta) = (gamma, beta)

    for k in 0..<3 {
        let x = batch(k)
        let saved = try forwardTraining(
            shape, x: x, gamma: gamma, beta: beta, runningMean: &runningMean, runningVar: &runningVar, y: &y)
        try backward(dy: dy, x: x, saved: saved, dx: &dx, dgamma: &dgamma, dbeta: &dbeta)
        descend(&gamma, along: dgamma)
        descend(&beta, along: dbeta)
    }
    try forwardInference(
        shape, x: batch(0), gamma: gamma, beta: beta, runningMean: runningMean, runningVar: runningVar, y: &inferred)
    return [
        "y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta, "gamma": gamma, "beta": beta,
        "running_mean": runningMean, "running_var": runningVar, "inferred": inferred,
    ]
}

/// A line of the file is a name, a number of values, and the values. Returns how many were compared.
func compare(_ results: [String: [Float]], with path: String) throws -> Int {
    let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
    try require(lines.count == results.count, "\(path) has another number of lines than there are results")
    var compared = 0
    for line in lines {
        let words = line.split(separator: " ")
        let (name, wanted) = (String(words[0]), words.dropFirst(2).map { word in Double(word) ?? .nan })
        let result = results[name] ?? []
        try require(result.count == wanted.count, "\(name) has \(result.count) values, expected \(wanted.count)")
        for i in result.indices {
            try require(near(Double(result[i]), wanted[i]), "\(name)[\(i)] is \(result[i]), expected \(wanted[i])")
        }
        compared += wanted.count
    }
    return compared
}

/// Missing from values.txt: at momentum 1 the running statistics are the batch's, which are its moments.
func checkOptions() throws {
    let (x, dy, gamma): ([Float], [Float], [Float]) = (batch(1), batch(2), [1.5, 2, 0.5])
    var (runningMean, runningVar, y, dx) = (gamma, gamma, x, x)
    var (count, batchMean, m2) = ([0.0, 0, 0], [0.0, 0, 0], [0.0, 0, 0])
    var (dgamma, dbeta) = (gamma, gamma)
    var options = Options()
    options.eps = 0.5
    options.momentum = 1
    options.biasedRunningVar = true

    let trained = try forwardTraining(
        shape, x: x, runningMean: &runningMean, runningVar: &runningVar, y: &y, options: options)
    try moments(shape, x: x, count: &count, mean: &batchMean, m2: &m2)
    let inferred = try forwardInference(
        shape, x: x, gamma: gamma, runningMean: runningMean, runningVar: runningVar, y: &y, options: options)
    try backward(dy: dy, x: x, saved: inferred, dx: &dx, dgamma: &dgamma, dbeta: &dbeta)
    let invstd = trained.invstd
    for c in 0..<shape.channels {
        let variance = m2[c] / count[c]
        try require(near(Double(runningMean[c]), batchMean[c]), "momentum")
        try require(near(Double(runningVar[c]), variance), "biasedRunningVar")
        try require(near(invstd[c], 1 / (variance + options.eps).squareRoot()), "eps")
    }
    for i in 0..<size {
        let c = i / shape.inner % shape.channels
        try require(near(Double(dx[i]), Double(gamma[c] * dy[i]) * invstd[c]), "frozen")
    }
}

/// The values that `backward` has from the forward call: gamma and beta as they were, and their number.
func checkSaved() throws {
    let (x, dy) = (batch(1), batch(2))
    var (gamma, beta): ([Float], [Float]) = ([1.5, 2, 0.5], [1, 2, 3])
    var (runningMean, runningVar, dgamma, dbeta) = (gamma, gamma, gamma, gamma)
    var (y, before, after) = (x, x, dy)
    let saved = try forwardTraining(
        shape, x: x, gamma: gamma, beta: beta, runningMean: &runningMean, runningVar: &runningVar, y: &y)
    try backward(dy: dy, x: x, saved: saved, dx: &before, dgamma: &dgamma, dbeta: &dbeta)
    for c in gamma.indices { (gamma[c], beta[c]) = (-7, 7) }
    try backward(dy: dy, x: x, saved: saved, dx: &after, dgamma: &dgamma, dbeta: &dbeta)
    try require(before == after, "saved has changed")
    do {
        try backward(dy: Array(dy.dropFirst()), x: x, saved: saved, dx: &after, dgamma: &dgamma, dbeta: &dbeta)
        throw Difference(description: "dy of another shape was accepted")
    } catch BatchNormError.length(let argument, _, _) {
        try require(argument == "dy", "dy of another shape: \(argument)")
    }
}

/// A call that the library has to refuse, in its words, and one that it must not see.
func checkErrors() throws {
    var (count, mean, m2): ([Double], [Double], [Double]) = ([], [], [])
    do {
        let nothing = Shape(outer: 4, channels: 0, inner: 6)
        try moments(nothing, x: [Float](), count: &count, mean: &mean, m2: &m2)
        throw Difference(description: "0 channels were accepted")
    } catch BatchNormError.library(_, let message) {
        try require(message.contains("channels"), "0 channels: \(message)")
    }
    do {
        try moments(shape, x: Array(batch(0).dropFirst()), count: &count, mean: &mean, m2: &m2)
        throw Difference(description: "a short array was accepted")
    } catch BatchNormError.length(let argument, _, _) {
        try require(argument == "x", "a short array: \(argument)")
    }
}

do {
    let path = CommandLine.arguments.dropFirst().first ?? "../values/values.txt"
    let compared = try compare(train(), with: path)
    try checkOptions()
    try checkSaved()
    try checkErrors()
    try setNumThreads(0)
    print("swift: \(compared) values agree")
} catch {
    FileHandle.standardError.write(Data("swift: \(error)\n".utf8))
    exit(1)
}
