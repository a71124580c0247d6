// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
import PackageDescription

let package = Package(
    name: "batchnorm-swift",
    products: [.library(name: "BatchNorm", targets: ["BatchNorm"])],
    targets: [
        // batchnorm.h and libbatchnorm.so, where the build's -I and -L say.
        .systemLibrary(name: "CBatchNorm"),
        .target(name: "BatchNorm", dependencies: ["CBatchNorm"]),
        .executableTarget(name: "Values", dependencies: ["BatchNorm"]),
        .executableTarget(name: "Cases", dependencies: ["BatchNorm"]),
    ]
)
