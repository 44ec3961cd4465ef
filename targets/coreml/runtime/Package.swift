// swift-tools-version:5.9
import PackageDescription

// Linux has neither Core ML nor Core Video. There the tests run the packages with modules of these names (TestSupport).
#if os(Linux)
    let coreML: [Target.Dependency] = ["CoreML", "CoreVideo"]
    let coreMLTargets: [Target] = [
        .systemLibrary(name: "CSnapCoreML", path: "TestSupport/CSnapCoreML"),
        .target(name: "CoreVideo", path: "TestSupport/CoreVideo"),
        .target(name: "CoreML", dependencies: ["CSnapCoreML", "CoreVideo"], path: "TestSupport/CoreML"),
        .testTarget(name: "CoreMLTests", dependencies: ["CoreML"], path: "TestSupport/CoreMLTests"),
    ]
#else
    let coreML: [Target.Dependency] = []
    let coreMLTargets: [Target] = []
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
        .target(name: "SnapRuntime", dependencies: ["SnapCore"] + coreML),
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
        .testTarget(name: "SnapRuntimeTests", dependencies: ["SnapRuntime", "snap-run"] + coreML),
    ] + coreMLTargets
)
