// swift-tools-version: 6.0
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

/// One manifest, two builds of the same sources. Release is what ships: Embedded Swift, where generics are specialised
/// away and no runtime is linked. Debug is what `swift test` checks: ordinary Swift with bounds, overflow and
/// exclusivity checks, under a sanitizer if one is asked for.
///
/// -Ounchecked: every argument is checked at the boundary, so nothing past it has a trap to reach. No path of the machine
/// that builds is in the library, nor a digest in which one has a part: the same sources give the same bytes anywhere.
/// Functions have sections of their own, so that the linker leaves out those that were inlined everywhere: 24 KB.
let shipped: [SwiftSetting] = [
    .swiftLanguageMode(.v5),
    .enableExperimentalFeature("Embedded", .when(configuration: .release)),
    .unsafeFlags(
        [
            "-Ounchecked", "-wmo", "-file-prefix-map", "\(Context.packageDirectory)=.",
            "-Xfrontend", "-no-clang-module-breadcrumbs", "-Xfrontend", "-disable-incremental-llvm-codegen",
            "-Xfrontend", "-function-sections",
        ],
        .when(configuration: .release)),
]

/// The loops of `Sources/Kernels`, compiled once more for an instruction set. Each folder holds its own `Lanes.swift`
/// and a link to the shared sources. No other Swift module may import one of these: in Embedded Swift the importer
/// would re-specialise the loops with its own flags. They are reached through the C table of `CKernels` alone.
func kernels(_ name: String, _ flags: [String]) -> Target {
    .target(
        name: "Kernels\(name)",
        dependencies: ["CKernels"],
        swiftSettings: shipped + [.unsafeFlags(flags.flatMap { ["-Xcc", $0] })])
}

/// Targets that only x86-64 has.
#if arch(x86_64)
    let wider = [
        // Haswell and Zen or newer. FMA is for products that are exact: nothing else may be contracted, for its bits.
        kernels("AVX2", ["-mavx2", "-mfma", "-mf16c"]),
        // Skylake-X and Zen 4 or newer; without the preference LLVM splits every vector into ymm halves.
        kernels("AVX512", ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mprefer-vector-width=512"]),
    ]
#else
    let wider: [Target] = []
#endif

/// The soname carries the major version of the ABI; the version script exports `bn_*` alone (without one, some forty
/// weak runtime symbols leave the library); nodelete keeps the code of parked worker threads mapped after dlclose; now
/// and defs leave no symbol to be looked up, or missed, in the middle of a call. Before glibc 2.34 threads were a library of
/// their own, which is empty since then.
let linked: [LinkerSetting] = [
    .unsafeFlags(
        [
            "-soname=libbatchnorm.so.2", "--version-script=Sources/BatchNorm/ABI/batchnorm.map", "-znodelete", "-znow",
            "-zdefs", "--gc-sections", "--no-as-needed", "-l:libpthread.so.0", "--as-needed",
        ]
        .flatMap { ["-Xlinker", $0] },
        .when(configuration: .release))
]

let package = Package(
    name: "batchnorm",
    products: [
        // The shared library that C, Python and every other runtime loads.
        .library(name: "batchnorm", type: .dynamic, targets: ["BatchNorm"])
    ],
    targets: [
        // The public header, so that the engine is compiled against what a C client sees.
        .systemLibrary(name: "CBatchNorm", path: "Include"),
        // C headers only: the kernel table, and what Swift has no word for.
        .systemLibrary(name: "CKernels", path: "Sources/CKernels"),
        // For every x86-64 (SSE2) and every arm64 (NEON).
        kernels("Baseline", []),
        // The engine and the C ABI. It depends on the kernels to have them linked, and imports none of them.
        .target(
            name: "BatchNorm",
            dependencies: ["CBatchNorm", "CKernels", "KernelsBaseline"] + wider.map { .init(stringLiteral: $0.name) },
            exclude: ["ABI/batchnorm.map"],
            swiftSettings: shipped,
            linkerSettings: linked),
        .testTarget(
            name: "BatchNormTests",
            dependencies: ["BatchNorm", "CBatchNorm", "CKernels"],
            swiftSettings: [.swiftLanguageMode(.v5)]),
    ] + wider
)
