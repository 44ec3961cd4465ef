// swift-tools-version:5.9
import PackageDescription

// Linux has none of Apple's frameworks. There the tests use modules of the same names (TestSupport).
#if os(Linux)
    let frameworks: [Target.Dependency] = ["Accelerate", "CoreML", "CoreVideo", "CryptoKit"]
    let frameworkTargets: [Target] = [
        .systemLibrary(name: "CSnapCoreML", path: "TestSupport/CSnapCoreML"),
        .target(name: "Accelerate", path: "TestSupport/Accelerate"),
        .target(name: "CoreVideo", path: "TestSupport/CoreVideo"),
        .target(name: "CryptoKit", path: "TestSupport/CryptoKit"),
        .target(name: "CoreML", dependencies: ["CSnapCoreML", "CoreVideo"], path: "TestSupport/CoreML"),
        .testTarget(name: "CoreMLTests", dependencies: ["CoreML"], path: "TestSupport/CoreMLTests"),
    ]
#else
    let frameworks: [Target.Dependency] = []
    let frameworkTargets: [Target] = []
#endif

let package = Package(
    name: "SnapRuntime",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "SnapRuntime", targets: ["SnapCore", "SnapRuntime"]),
        .executable(name: "snap-run", targets: ["snap-run"]),
        .plugin(name: "SnapcConvert", targets: ["SnapcConvert"]),
        .plugin(name: "SnapcPrebuild", targets: ["SnapcPrebuild"]),
    ],
    targets: [
        .target(name: "SnapCore"),
        .target(name: "SnapRuntime", dependencies: ["SnapCore"] + frameworks),
        .executableTarget(name: "snap-run", dependencies: ["SnapRuntime"]),
        .plugin(
            name: "SnapcConvert",
            capability: .command(
                intent: .custom(
                    verb: "snapc-convert",
                    description: "Convert the checkpoints that the targets' snapc.toml files name"),
                permissions: [
                    .writeToPackageDirectory(reason: "The Core ML packages are written into the package")
                ])),
        .plugin(name: "SnapcPrebuild", capability: .buildTool()),
        .testTarget(name: "SnapCoreTests", dependencies: ["SnapCore"]),
        .testTarget(name: "SnapRuntimeTests", dependencies: ["SnapRuntime", "snap-run"] + frameworks),
    ] + frameworkTargets
)
