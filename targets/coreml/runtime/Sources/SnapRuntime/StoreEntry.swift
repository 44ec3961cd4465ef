import Foundation

/// The place of a package in a ``ModelStore``: a folder `NAME-DIGEST` with the compiled model, and a list of the packages
/// that it was compiled of.
///
/// The list tells which places are stale. A package that is installed gives up the places of its earlier contents; a place
/// that no existing package holds is removed.
struct StoreEntry: Sendable {
    /// Folder of the entry.
    let folder: URL
    /// The compiled model.
    let model: URL
    private let store: URL
    private let stage: Stage
    private let name: String
    private let package: URL

    private static let holdersFile = "packages.txt"
    private static let stagingPrefix = ".staging-"
    /// What an interrupted installation left is removed after a day, when no other process can still be at it.
    private static let stagingLifetime: TimeInterval = 24 * 60 * 60

    init(_ package: Artifact.Package, in store: URL) {
        self.store = store
        self.package = package.location.standardizedFileURL
        stage = package.stage
        name = package.name
        folder = store.appendingPathComponent("\(package.name)-\(package.digest)", isDirectory: true)
        model = folder.appendingPathComponent("\(package.name).mlmodelc", isDirectory: true)
    }

    /// Whether the compiled model is there.
    var exists: Bool { FileManager.default.fileExists(atPath: model.path) }

    /// Makes the package a holder of its place, if that is filled, and of no other one.
    ///
    /// - Returns: Whether the compiled model is there.
    func claim() throws -> Bool {
        guard exists else {
            return false
        }
        try writing { try hold() }
        return true
    }

    /// Moves a compiled model to its place.
    func fill(with compiled: URL) throws {
        try writing {
            let files = FileManager.default
            try files.createDirectory(at: store, withIntermediateDirectories: true)
            let staging = store.appendingPathComponent(Self.stagingPrefix + UUID().uuidString, isDirectory: true)
            try files.createDirectory(at: staging, withIntermediateDirectories: true)
            defer { try? files.removeItem(at: staging) }
            try files.moveItem(at: compiled, to: staging.appendingPathComponent(model.lastPathComponent))
            if !exists {
                // What the system has emptied is in the way of the rename.
                try? files.removeItem(at: folder)
                do {
                    try files.moveItem(at: staging, to: folder)
                } catch where exists {
                    // Another process was faster, with the same model.
                }
            }
            try hold()
        }
    }

    private func writing(_ change: () throws -> Void) throws {
        do {
            try change()
        } catch {
            throw SnapError.model(
                stage: stage,
                reason: "the compiled model cannot be kept in \(store.path): \(describe(error)); "
                    + "free some space, or give another cache folder")
        }
    }

    private func hold() throws {
        try write(holders: holders(of: folder).union([package.path]), of: folder)
        let entries = try FileManager.default.contentsOfDirectory(
            at: store, includingPropertiesForKeys: [.contentModificationDateKey])
        for entry in entries where entry.lastPathComponent != folder.lastPathComponent {
            if entry.lastPathComponent.hasPrefix(Self.stagingPrefix) {
                removeAbandoned(entry)
            } else if isOfSameName(entry) {
                try giveUp(entry)
            }
        }
    }

    /// Whether an entry is of a package of this name: the digest behind it has no hyphen.
    private func isOfSameName(_ entry: URL) -> Bool {
        let parts = entry.lastPathComponent.split(separator: "-", omittingEmptySubsequences: false)
        return parts.dropLast().joined(separator: "-") == name
    }

    private func giveUp(_ entry: URL) throws {
        let before = holders(of: entry)
        let after = before.filter { $0 != package.path && FileManager.default.fileExists(atPath: $0) }
        if after.isEmpty {
            try FileManager.default.removeItem(at: entry)
        } else if after != before {
            try write(holders: after, of: entry)
        }
    }

    private func removeAbandoned(_ staging: URL) {
        let values = try? staging.resourceValues(forKeys: [.contentModificationDateKey])
        if let changed = values?.contentModificationDate, changed.timeIntervalSinceNow < -Self.stagingLifetime {
            try? FileManager.default.removeItem(at: staging)
        }
    }

    /// Paths of the packages that an entry was compiled of; none when the list cannot be read.
    private func holders(of entry: URL) -> Set<String> {
        let list = try? String(contentsOf: entry.appendingPathComponent(Self.holdersFile), encoding: .utf8)
        return Set((list ?? "").split(separator: "\n").map(String.init))
    }

    private func write(holders: Set<String>, of entry: URL) throws {
        let list = holders.sorted().map { $0 + "\n" }.joined()
        try Data(list.utf8).write(to: entry.appendingPathComponent(Self.holdersFile), options: .atomic)
    }
}
