import Foundation

/// The place of a package in a ``ModelStore``: a folder `NAME-DIGEST` with the compiled model, a list of its files, and a
/// list of the packages that it was compiled of.
///
/// The first list tells whether the model is whole: a system that needs space takes files of caches away one by one. The
/// second tells which places are stale. A package that is installed gives up the places of its earlier contents; a place that
/// no existing package holds is removed.
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
    private static let contentsFile = "files.txt"
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

    /// Whether the compiled model is there, with all its files.
    var exists: Bool {
        let list = try? String(contentsOf: folder.appendingPathComponent(Self.contentsFile), encoding: .utf8)
        let files = (list ?? "").split(separator: "\n")
        return !files.isEmpty && files.allSatisfy { line in
            let parts = line.split(separator: " ", maxSplits: 1)
            guard parts.count == 2, let size = UInt64(parts[0]) else {
                return false
            }
            return Self.size(of: String(parts[1]), in: model) == size
        }
    }

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
            let staging = store.appendingPathComponent(Self.stagingName(at: Date()), isDirectory: true)
            try files.createDirectory(at: staging, withIntermediateDirectories: true)
            defer { try? files.removeItem(at: staging) }
            let staged = staging.appendingPathComponent(model.lastPathComponent)
            try files.moveItem(at: compiled, to: staged)
            try list(staged, in: staging.appendingPathComponent(Self.contentsFile))
            setAttributes(of: staging)
            try place(staging)
            try hold()
        }
    }

    /// Gives a folder that is complete the name of the entry.
    private func place(_ staging: URL) throws {
        let files = FileManager.default
        do {
            try files.moveItem(at: staging, to: folder)
        } catch {
            // Another process was faster, with the same model.
            if exists {
                return
            }
            guard files.fileExists(atPath: folder.path) else {
                throw error
            }
            // What the system has left of an earlier one is in the way. Its list of holders still holds.
            try write(holders: holders(of: folder), of: staging)
            try files.removeItem(at: folder)
            try files.moveItem(at: staging, to: folder)
        }
    }

    /// Writes the list of a model's files: size and path, a line each.
    private func list(_ model: URL, in file: URL) throws {
        let paths = try FileManager.default.subpathsOfDirectory(atPath: model.path).sorted()
        let lines = paths.compactMap { path in Self.size(of: path, in: model).map { "\($0) \(path)\n" } }
        try Data(lines.joined().utf8).write(to: file)
    }

    /// Bytes of a file; nil for what is no file.
    private static func size(of path: String, in folder: URL) -> UInt64? {
        let attributes = try? FileManager.default.attributesOfItem(atPath: folder.appendingPathComponent(path).path)
        guard let attributes, attributes[.type] as? FileAttributeType == .typeRegular else {
            return nil
        }
        return (attributes[.size] as? NSNumber)?.uint64Value
    }

    /// What can be compiled again stays out of backups. On a phone the files stay readable while it is locked, also in an app
    /// that protects its files by default: weights are mapped, and reading them would end the app. Both are a gain, not a need.
    private func setAttributes(of staging: URL) {
        #if canImport(Darwin)
            var values = URLResourceValues()
            values.isExcludedFromBackup = true
            var excluded = staging
            try? excluded.setResourceValues(values)
        #endif
        #if os(iOS)
            let files = FileManager.default
            for path in (try? files.subpathsOfDirectory(atPath: staging.path)) ?? [] {
                try? files.setAttributes(
                    [.protectionKey: FileProtectionType.completeUntilFirstUserAuthentication],
                    ofItemAtPath: staging.appendingPathComponent(path).path)
            }
        #endif
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
        // Other processes may be at it too. What is left over now is removed the next time.
        let entries = try? FileManager.default.contentsOfDirectory(at: store, includingPropertiesForKeys: nil)
        for entry in entries ?? [] where entry.lastPathComponent != folder.lastPathComponent {
            if entry.lastPathComponent.hasPrefix(Self.stagingPrefix) {
                removeAbandoned(entry)
            } else if isOfSameName(entry) {
                giveUp(entry)
            }
        }
    }

    /// Whether an entry is of a package of this name: the digest behind it has no hyphen.
    private func isOfSameName(_ entry: URL) -> Bool {
        let parts = entry.lastPathComponent.split(separator: "-", omittingEmptySubsequences: false)
        return parts.dropLast().joined(separator: "-") == name
    }

    private func giveUp(_ entry: URL) {
        let before = holders(of: entry)
        let after = before.filter { $0 != package.path && FileManager.default.fileExists(atPath: $0) }
        if after.isEmpty {
            try? FileManager.default.removeItem(at: entry)
        } else if after != before {
            try? write(holders: after, of: entry)
        }
    }

    /// Says in its name when it was made: to ask for the times of files, an app has to state a reason in its privacy manifest.
    private static func stagingName(at time: Date) -> String {
        "\(stagingPrefix)\(Int(time.timeIntervalSince1970))-\(UUID().uuidString)"
    }

    private func removeAbandoned(_ staging: URL) {
        let time = staging.lastPathComponent.dropFirst(Self.stagingPrefix.count).prefix { $0 != "-" }
        let age = Date().timeIntervalSince1970 - (TimeInterval(time) ?? 0)
        if age > Self.stagingLifetime {
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
