import Foundation

/// What this example asks of an artifact: that all the files which its manifest lists are in the bundle.
public struct ArtifactCheck: Decodable {
    /// The files, with paths relative to the artifact.
    public let files: [File]

    /// A file of the artifact.
    public struct File: Decodable {
        /// Its path.
        public let path: String
        /// Its size.
        public let bytes: Int
    }

    /// Reads the manifest of the artifact in a folder, and sees that its files are there.
    ///
    /// A package that Xcode has compiled lies there as `NAME.mlmodelc` in place of `NAME.mlpackage`.
    ///
    /// - Throws: when there is no manifest, or a file is missing or of another size.
    public init(folder: URL) throws {
        let manifest = try Data(contentsOf: folder.appendingPathComponent("snap.json"))
        self = try JSONDecoder().decode(ArtifactCheck.self, from: manifest)
        for file in files {
            let parts = file.path.split(separator: "/")
            if let package = parts.first, package.hasSuffix(".mlpackage") {
                let compiled = package.dropLast(".mlpackage".count) + ".mlmodelc"
                let path = folder.appendingPathComponent(String(compiled)).path
                if FileManager.default.fileExists(atPath: path) { continue }
            }
            let path = folder.appendingPathComponent(file.path).path
            let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
            guard size == file.bytes else { throw WrongSize(path: path) }
        }
    }
}

/// A file that is not as long as the manifest says.
public struct WrongSize: Error {
    /// The file.
    public let path: String
}
