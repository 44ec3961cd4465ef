import CoreML
import Foundation

/// Compiled models on the device.
///
/// Core ML loads only compiled packages. Compiling takes a while, and the Neural Engine's own cache belongs to the path of
/// the compiled model, so each package is compiled once and stays where it is. A place in the store is named by the SHA-256
/// of the package's files; a package that changed gets another one, and the old one is removed.
///
/// Stores of several processes may share a folder: a compiled model appears by one rename.
public struct ModelStore: Sendable {
    /// The folder of the store.
    public let folder: URL
    private let worker = Worker(label: "snapc.ModelStore")

    /// A store. It creates the folder when it installs something.
    ///
    /// - Parameter folder: By default `SnapRuntime` in the user's folder of caches, which the system may empty: the next
    ///   run compiles again. An app that would rather keep the models gives a folder in Application Support. On Apple's
    ///   systems the models are left out of backups.
    public init(folder: URL? = nil) {
        let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask).first
        let parent = caches ?? FileManager.default.temporaryDirectory
        self.folder = folder ?? parent.appendingPathComponent("SnapRuntime", isDirectory: true)
    }

    /// Compiles the packages that are not in the store yet.
    ///
    /// - Parameters:
    ///   - artifact: Where the packages are. Those that are compiled already are taken from there.
    ///   - onProgress: Told of each package, in the order in which they run.
    /// - Returns: The compiled models, in the order of ``Artifact/packages``.
    /// - Throws: ``SnapError/artifact(path:reason:)`` when a file is damaged, ``SnapError/model(stage:reason:)`` when Core
    ///   ML does not compile a package or the store cannot be written, ``SnapError/cancelled``.
    public func install(
        _ artifact: Artifact, onProgress: (@Sendable (InstallProgress) -> Void)? = nil
    ) async throws -> [URL] {
        var models: [URL] = []
        for (index, package) in artifact.packages.enumerated() {
            try checkCancellation()
            func tell(_ state: InstallProgress.State) {
                onProgress?(
                    InstallProgress(
                        package: package.graph.file, index: index, count: artifact.packages.count, state: state))
            }
            if package.isCompiled {
                models.append(package.location)
                tell(.ready(.compiledBefore))
                continue
            }
            let entry = StoreEntry(package, in: folder)
            let isThere = try await worker.run { try entry.claim() }
            if isThere {
                tell(.ready(.reused))
            } else {
                tell(.compiling)
                try await compile(package, of: artifact, into: entry)
                tell(.ready(.compiled))
            }
            models.append(entry.model)
        }
        return models
    }

    /// Whether ``install(_:onProgress:)`` would compile nothing.
    public func isInstalled(_ artifact: Artifact) -> Bool {
        artifact.packages.allSatisfy { $0.isCompiled || StoreEntry($0, in: folder).exists }
    }

    /// Removes the models of an artifact that are in the store; those that other artifacts have too are compiled again
    /// when they are needed.
    ///
    /// - Throws: What the file system throws.
    public func remove(_ artifact: Artifact) throws {
        for package in artifact.packages where !package.isCompiled {
            let entry = StoreEntry(package, in: folder)
            if FileManager.default.fileExists(atPath: entry.folder.path) {
                try FileManager.default.removeItem(at: entry.folder)
            }
        }
    }

    private func compile(_ package: Artifact.Package, of artifact: Artifact, into entry: StoreEntry) async throws {
        try await worker.run {
            for file in package.files {
                if let problem = FileFinding(file, in: artifact.folder, hashing: true).problem {
                    throw problem
                }
            }
        }
        let compiled: URL
        do {
            compiled = try await MLModel.compileModel(at: package.location)
        } catch {
            // Core ML's own error does not say that the system is too old.
            let systems = artifact.manifest.minIOS.map { "; the artifact is for iOS \($0) and later, and Macs of that time" }
            throw SnapError.model(
                stage: package.stage,
                reason: "Core ML cannot compile \(package.location.path): \(describe(error))\(systems ?? "")")
        }
        try await worker.run {
            // Nothing is left of it when it has been moved.
            defer { try? FileManager.default.removeItem(at: compiled) }
            try entry.fill(with: compiled)
        }
    }
}

/// How far an installation is.
public struct InstallProgress: Sendable, Equatable {
    /// The package, as the manifest names it.
    public let package: String
    /// Its number, from 0.
    public let index: Int
    /// Number of packages.
    public let count: Int
    /// What happens to it.
    public let state: State

    /// What happens to a package.
    public enum State: Sendable, Equatable {
        /// It is checked and compiled, which may take minutes for a UNet.
        case compiling
        /// It can be loaded.
        case ready(Origin)
    }

    /// Where a compiled model comes from.
    public enum Origin: Sendable, Equatable {
        /// It was compiled just now.
        case compiled
        /// It was in the store.
        case reused
        /// It lay compiled beside the manifest.
        case compiledBefore
    }
}

/// What an error of the system says.
func describe(_ error: any Error) -> String {
    (error as? SnapError)?.description ?? (error as NSError).localizedDescription
}

/// - Throws: ``SnapError/cancelled`` when the current task is cancelled.
func checkCancellation() throws {
    if Task.isCancelled {
        throw SnapError.cancelled
    }
}
