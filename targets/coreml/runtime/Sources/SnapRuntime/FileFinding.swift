import Foundation

/// How a file of an artifact compares with the manifest.
public struct FileFinding: Sendable, Equatable {
    /// Path relative to the artifact.
    public let path: String
    /// What was found.
    public let state: State
    private let location: URL

    /// State of a file.
    public enum State: Sendable, Equatable {
        /// As the manifest says.
        case intact
        /// Not there, or not to be read.
        case missing
        /// Of another size, in bytes.
        case size(found: Int, expected: Int)
        /// Of other contents; SHA-256 of those found.
        case contents(sha256: String)
    }

    /// Looks at a file in an artifact.
    ///
    /// - Parameters:
    ///   - file: Entry of the manifest.
    ///   - folder: The artifact.
    ///   - hashing: Whether to read the file and compare its SHA-256, or only its size.
    public init(_ file: Manifest.File, in folder: URL, hashing: Bool) {
        path = file.path
        location = folder.appendingPathComponent(file.path)
        guard let handle = try? FileHandle(forReadingFrom: location), let end = try? handle.seekToEnd() else {
            state = .missing
            return
        }
        defer { try? handle.close() }
        guard end == UInt64(file.bytes) else {
            state = .size(found: Int(clamping: end), expected: file.bytes)
            return
        }
        guard hashing else {
            state = .intact
            return
        }
        guard let found = try? SHA256.hexadecimal(of: handle) else {
            state = .missing
            return
        }
        state = found == file.sha256 ? .intact : .contents(sha256: found)
    }

    /// The error about the file; nil when it is intact.
    public var problem: SnapError? {
        let reason: String
        switch state {
        case .intact:
            return nil
        case .missing:
            reason = "is missing or cannot be read; copy the whole artifact folder"
        case .size(let found, let expected):
            reason = "has \(found) bytes, but the manifest says \(expected); copy the artifact again"
        case .contents:
            reason = "is damaged: its SHA-256 is not the manifest's; copy the artifact again"
        }
        return .artifact(path: location.path, reason: reason)
    }
}
