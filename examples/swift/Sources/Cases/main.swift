// SPDX-License-Identifier: Apache-2.0
// The cases of values/cases.txt, which values/cases.py describes: every option, compared with its results.
import BatchNorm
import Foundation

struct Difference: Error, CustomStringConvertible {
    let description: String
}

/// An element of the file: a value, or the bits of one, which are to be met exactly.
protocol Number: Element where Parameter: Number {
    static var tolerance: Double { get }
    init(word: Double)
    var number: Double { get }
}

extension Float: Number {
    static var tolerance: Double { 2e-5 }
    init(word: Double) { self.init(word) }
    var number: Double { Double(self) }
}

extension Double: Number {
    static var tolerance: Double { 1e-11 }
    init(word: Double) { self = word }
    var number: Double { self }
}

extension Float16: Number {
    static var tolerance: Double { 0 }
    init(word: Double) { self.init(bitPattern: UInt16(word)) }
    var number: Double { Double(bitPattern) }
}

extension BFloat16: Number {
    static var tolerance: Double { 0 }
    init(word: Double) { self.init(bits: UInt16(word)) }
    var number: Double { Double(bits) }
}

/// The words of each line by its name, where expect and strides have an array's name as well.
struct Case {
    var name = ""
    var words: [String: [String]] = [:]

    func numbers(_ name: String) -> [Double]? { words[name]?.map { Double($0) ?? .nan } }
    func integers(_ name: String) -> [Int]? { words[name]?.map { Int($0) ?? -1 } }
    func number(_ name: String, _ otherwise: Double) -> Double { numbers(name)?[0] ?? otherwise }
    func array<T: Number>(_ name: String) -> [T]? { numbers(name)?.map(T.init(word:)) }

    /// Outputs begin as 7.
    func room<T: Number>(_ name: String) -> [T] {
        Array(repeating: T(word: 7), count: (words["expect \(name)"] ?? words["x"] ?? []).count)
    }

    func compare<T: Number>(_ name: String, _ found: [T]?) throws {
        guard let wanted = numbers("expect \(name)") else { return }
        guard let found, found.count == wanted.count else {
            throw Difference(description: "\(name) has \(found?.count ?? 0) values, expected \(wanted.count)")
        }
        for (i, value) in wanted.enumerated() {
            // False for NaN, too.
            let isNear = abs(found[i].number - value) <= T.tolerance * max(1, abs(value))
            if !isNear { throw Difference(description: "\(name)[\(i)] is \(found[i].number), expected \(value)") }
        }
    }
}

func parse(_ text: String) -> [Case] {
    var cases: [Case] = []
    for line in text.split(separator: "\n") {
        let words = line.split(separator: " ").map(String.init)
        let taken = ["expect", "strides"].contains(words[0]) ? 2 : 1
        let (name, others) = (words[..<taken].joined(separator: " "), Array(words[taken...]))
        if name == "case" {
            cases.append(Case(name: others.joined(separator: " ")))
        } else {
            cases[cases.count - 1].words[name] = others
        }
    }
    return cases
}

func activation(_ given: Case) -> Activation {
    switch given.words["activation"]?[0] {
    case "relu": .relu
    case "leaky_relu": .leakyRelu(slope: given.number("slope", 0.01))
    case "clip" where given.words["high"] == nil: .clip()
    case "clip": .clip(low: given.number("low", 0), high: given.number("high", 6))
    case "hard_swish": .hardSwish
    case "silu": .silu
    default: .identity
    }
}

func options(_ given: Case) -> Options {
    var options = Options()
    options.eps = given.number("eps", options.eps)
    options.momentum = given.number("momentum", options.momentum)
    options.biasedRunningVar = given.words["biased"] != nil
    options.activation = activation(given)
    options.saveMask = given.words["mask"] != nil
    options.masked = ["zero": Masked.zero, "keep": .keep][given.words["masked"]?[0] ?? ""] ?? .normalize
    if let count = given.integers("groups")?[0] {
        let kinds: [String: PerGroup] = ["statistics": .statistics, "running": .running, "parameters": .parameters]
        let perGroup = (given.words["per_group"] ?? ["statistics"]).map { kinds[$0] ?? [] }
        options.groups = Groups(
            count, index: given.integers("index")?.map(Int32.init), perGroup: perGroup.reduce([]) { $0.union($1) })
    }
    return options
}

func check<T: Number>(_ given: Case, as _: T.Type) throws where T.Parameter: Number {
    let sizes = given.integers("sizes") ?? []
    guard let x = given.integers("strides x") else {
        return try check(
            given, Shape(outer: sizes[0], channels: sizes[1], inner: sizes[2...].reduce(1, *)), as: T.self)
    }
    var strides = Strides(sizes: sizes, x: x, axis: given.integers("axis")?[0] ?? 1)
    (strides.y, strides.residual) = (given.integers("strides y"), given.integers("strides residual"))
    (strides.dy, strides.dx) = (given.integers("strides dy"), given.integers("strides dx"))
    strides.dz = strides.dy
    try check(given, strides, as: T.self)
}

func check<T: Number>(_ given: Case, _ layout: some Layout, as _: T.Type) throws where T.Parameter: Number {
    let (x, dy): ([T], [T]) = (given.array("x") ?? [], given.array("dy") ?? [])
    var (gamma, beta): ([T.Parameter]?, [T.Parameter]?) = (given.array("gamma"), given.array("beta"))
    let residual: [T]? = given.array("residual")
    // Running statistics are there in every call of this binding.
    let rows = given.integers("sizes")?[1] ?? 0
    var mean: [T.Parameter] = given.array("running_mean") ?? Array(repeating: T.Parameter(word: 0), count: rows)
    var variance: [T.Parameter] = given.array("running_var") ?? Array(repeating: T.Parameter(word: 1), count: rows)
    var (y, dx, dz): ([T], [T], [T]) = (given.room("y"), given.room("dx"), given.room("dz"))
    let saved: Saved<T>
    do {
        if given.words["call"] == ["training"] {
            saved = try forwardTraining(
                layout, x: x, gamma: gamma, beta: beta, runningMean: &mean, runningVar: &variance, y: &y,
                residual: residual, weights: given.array("weights"), options: options(given))
        } else {
            saved = try forwardInference(
                layout, x: x, gamma: gamma, beta: beta, runningMean: mean, runningVar: variance, y: &y,
                residual: residual, weights: given.array("weights"), options: options(given))
        }
    } catch {
        // A pattern of the error here is more than the compiler of Swift 6.3 can do.
        if let word = given.words["refused"]?[0], error.description.contains(word) { return }
        throw Difference(description: error.description)
    }
    if given.words["refused"] != nil { throw Difference(description: "nothing is thrown") }
    (gamma, beta) = (gamma?.map { _ in T.Parameter(word: 77) }, beta?.map { _ in T.Parameter(word: 77) })
    var (dgamma, dbeta): ([T.Parameter], [T.Parameter]) = (given.room("dgamma"), given.room("dbeta"))
    if residual == nil {
        try backward(dy: dy, x: x, saved: saved, dx: &dx, dgamma: &dgamma, dbeta: &dbeta)
    } else {
        try backward(dy: dy, x: x, saved: saved, dx: &dx, dz: &dz, dgamma: &dgamma, dbeta: &dbeta)
    }
    try given.compare("y", y)
    try given.compare("dx", dx)
    try given.compare("dz", dz)
    try given.compare("dgamma", dgamma)
    try given.compare("dbeta", dbeta)
    try given.compare("running_mean", mean)
    try given.compare("running_var", variance)
    try given.compare("mean", saved.mean)
    try given.compare("invstd", saved.invstd)
    try given.compare("mask", saved.mask?.map(Double.init))
}

/// Arguments that the library must not see.
func checkErrors() throws {
    let x = (0..<24).map(Float.init)
    var (mean, variance, y): ([Float], [Float], [Float]) = ([0, 0, 0], [1, 1, 1], x)
    func refuses(
        _ expected: String, x: [Float], strides: [Int] = [12, 1, 3], weights: [Float]? = nil,
        _ change: (inout Options) -> Void = { _ in }
    ) throws {
        var options = Options()
        change(&options)
        do {
            try forwardTraining(
                Strides(sizes: [2, 3, 4], x: strides), x: x, runningMean: &mean, runningVar: &variance, y: &y,
                weights: weights, options: options)
        } catch {
            if error.description == expected { return }
            throw Difference(description: "\(error), expected \(expected)")
        }
        throw Difference(description: "accepted, expected \(expected)")
    }
    try refuses("x has 23 elements, expected 24", x: Array(x.dropLast()))
    try refuses("strides has 2 elements, expected 3", x: x, strides: [12, 1])
    try refuses("weights has 9 elements, expected 8", x: x, weights: Array(x[..<9]))
    try refuses("index has 3 elements, expected 2", x: x) { $0.groups = Groups(2, index: [0, 1, 0]) }
    try refuses("groups has 0 elements, expected 1", x: x) { $0.groups = Groups(0) }
}

do {
    let path = CommandLine.arguments.dropFirst().first ?? "../values/cases.txt"
    let cases = try parse(String(contentsOfFile: path, encoding: .utf8))
    for given in cases {
        do {
            switch given.words["dtype"]?[0] {
            case "float32": try check(given, as: Float.self)
            case "float64": try check(given, as: Double.self)
            case "float16": try check(given, as: Float16.self)
            default: try check(given, as: BFloat16.self)
            }
        } catch {
            throw Difference(description: "\(given.name): \(error)")
        }
    }
    try checkErrors()
    print("swift: \(cases.count) cases agree")
} catch {
    FileHandle.standardError.write(Data("swift: \(error)\n".utf8))
    exit(1)
}
