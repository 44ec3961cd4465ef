// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "BuildStep",
    platforms: [.iOS(.v16), .macOS(.v13)],
    dependencies: [.package(name: "SnapRuntime", path: "../..")],
    targets: [
        // Converted by `swift package snapc-convert`, whenever that is called.
        .executableTarget(
            name: "CommandStep",
            dependencies: ["ArtifactCheck"],
            exclude: ["snapc.toml"],
            resources: [.copy("Models/Tiny")]),
        // Converted by the build itself.
        .executableTarget(
            name: "PrebuildStep",
            dependencies: ["ArtifactCheck"],
            exclude: ["snapc.toml"],
            plugins: [.plugin(name: "SnapcPrebuild", package: "SnapRuntime")]),
        .target(name: "ArtifactCheck"),
    ]
)
