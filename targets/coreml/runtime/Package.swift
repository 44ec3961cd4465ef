// swift-tools-version:5.9
import PackageDescription

// Linux has no Core ML. There the tests run the packages with a module of the same name (TestSupport).
#if os(Linux)
    let coreML: [Target.Dependency] = ["CoreML"]
    let coreMLTargets: [Target] = [
        .systemLibrary(name: "CSnapCoreML", path: "TestSupport/CSnapCoreML"),
        .target(name: "CoreML", dependencies: ["CSnapCoreML"], path: "TestSupport/CoreML"),
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
    ],
    targets: [
        .target(name: "SnapCore"),
        .target(name: "SnapRuntime", dependencies: ["SnapCore"] + coreML),
        .executableTarget(name: "snap-run", dependencies: ["SnapRuntime"]),
        .testTarget(name: "SnapCoreTests", dependencies: ["SnapCore"]),
        .testTarget(name: "SnapRuntimeTests", dependencies: ["SnapRuntime", "snap-run"] + coreML),
    ] + coreMLTargets
)
