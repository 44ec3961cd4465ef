import Foundation

/// An artifact of `snapc convert --target coreml`: a folder with `snap.json`, the Core ML packages and the tokenizer.
///
/// The packages may be as snapc wrote them (`Unet.mlpackage`), or already compiled and beside the manifest
/// (`Unet.mlmodelc`), which is what Xcode makes of the packages among the resources of an app. Where both lie there, the
/// compiled one is taken.
public struct Artifact: Sendable {
    /// The folder that holds `snap.json`.
    public let folder: URL
    /// What `snap.json` says; its latents are those of the size that ``at(_:)`` has chosen.
    public internal(set) var manifest: Manifest
    /// The packages, in the order in which they run.
    public internal(set) var packages: [Package]

    /// A Core ML package, which holds one network or one of the chunks of the UNet.
    public struct Package: Sendable {
        /// Features of the package: of the function that runs, where it has several.
        public internal(set) var graph: Manifest.Graph
        /// The network that it belongs to.
        public let stage: Stage
        /// The `.mlpackage` or `.mlmodelc`.
        public let location: URL
        /// Whether the package is compiled already.
        public let isCompiled: Bool
        /// The files of the package, by path relative to the artifact; empty when it is compiled.
        public let files: [Manifest.File]
        /// The function that runs; nil for the default one, which is that of the first picture size.
        public internal(set) var function: String?

        /// Name without extension.
        public var name: String { location.deletingPathExtension().lastPathComponent }

        /// SHA-256 over paths, sizes and hashes of the files: equal for equal packages.
        var digest: String {
            let lines = files.map { "\($0.path)\n\($0.bytes)\n\($0.sha256)\n" }
            return SHA256.hexadecimal(of: Data(lines.sorted().joined().utf8))
        }
    }

    /// Opens an artifact: reads the manifest and looks for each of ``files``, at its size. ``verify()`` also reads them.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` with the path of a file that is missing, has another size, or is a
    ///   manifest of another version.
    public init(folder: URL) throws {
        manifest = try Manifest.read(folder: folder)
        self.folder = folder
        packages = try Self.packages(of: manifest, in: folder)
        for file in files {
            let finding = FileFinding(file, in: folder, hashing: false)
            if let problem = finding.problem {
                throw problem
            }
        }
    }

    /// The files of the manifest that have to be there: all but the sources of this runtime and those of packages that are
    /// compiled already.
    public var files: [Manifest.File] {
        let others = packages.filter(\.isCompiled).map { $0.graph.file + "/" } + [Manifest.runtimeFolder + "/"]
        return manifest.files.filter { file in !others.contains { file.path.hasPrefix($0) } }
    }

    /// Reads each of ``files`` and compares its SHA-256 with the manifest.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` for the first file that differs.
    public func verify() throws {
        for file in files {
            if let problem = FileFinding(file, in: folder, hashing: true).problem {
                throw problem
            }
        }
    }

    /// Path of the manifest, for errors about what it says.
    var manifestPath: String { folder.appendingPathComponent(Manifest.fileName).path }

    private static func packages(of manifest: Manifest, in folder: URL) throws -> [Package] {
        var packages: [Package] = []
        for graph in manifest.graphs {
            guard let stage = Stage(graph: graph.name) else {
                continue
            }
            let location = folder.appendingPathComponent(graph.file)
            let compiled = location.deletingPathExtension().appendingPathExtension("mlmodelc")
            let isCompiled = isFolder(compiled)
            let files = isCompiled ? [] : manifest.files.filter { $0.path.hasPrefix(graph.file + "/") }
            guard isCompiled || isFolder(location) else {
                throw SnapError.artifact(
                    path: location.path,
                    reason: "does not exist, and neither does \(compiled.lastPathComponent); copy the whole artifact folder")
            }
            guard isCompiled || !files.isEmpty else {
                throw SnapError.artifact(
                    path: folder.appendingPathComponent(Manifest.fileName).path,
                    reason: "lists no file of \(graph.file); convert the checkpoint again")
            }
            packages.append(
                Package(
                    graph: graph, stage: stage, location: isCompiled ? compiled : location, isCompiled: isCompiled,
                    files: files))
        }
        return packages
    }

    private static func isFolder(_ url: URL) -> Bool {
        var isDirectory: ObjCBool = false
        return FileManager.default.fileExists(atPath: url.path, isDirectory: &isDirectory) && isDirectory.boolValue
    }
}

extension Stage {
    /// The network of a graph; nil for graphs that a run does not need.
    init?(graph: String) {
        switch graph {
        case "unet_chunk1", "unet_chunk2": self = .unet
        default: self.init(rawValue: graph)
        }
    }
}
