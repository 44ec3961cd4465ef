// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "SnapExample",
    platforms: [.iOS(.v16), .macOS(.v13)],
    dependencies: [.package(name: "SnapRuntime", path: "../..")],
    targets: [
        .executableTarget(name: "SnapExample", dependencies: [.product(name: "SnapRuntime", package: "SnapRuntime")])
    ]
)
