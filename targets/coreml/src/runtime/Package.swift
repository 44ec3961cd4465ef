// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "SnapRuntime",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "SnapRuntime", targets: ["SnapCore", "SnapRuntime"]),
        .executable(name: "snap-run", targets: ["snap-run"]),
    ],
    targets: [
        .target(name: "SnapCore"),
        .target(name: "SnapRuntime", dependencies: ["SnapCore"]),
        .executableTarget(name: "snap-run", dependencies: ["SnapRuntime"]),
    ]
)
