import CryptoKit
import Foundation

/// SHA-256 (FIPS 180-4) in lower-case hexadecimal.
enum SHA256 {
    /// Bytes read at a time from a file.
    private static let chunk = 1 << 20

    static func hexadecimal(of data: Data) -> String {
        text(of: CryptoKit.SHA256.hash(data: data))
    }

    /// The hash of a whole file, from its start.
    static func hexadecimal(of file: FileHandle) throws -> String {
        var hasher = CryptoKit.SHA256()
        try file.seek(toOffset: 0)
        while try drained({ try take(file, into: &hasher) }) {}
        return text(of: hasher.finalize())
    }

    /// Hashes the next bytes of a file; false at its end.
    private static func take(_ file: FileHandle, into hasher: inout CryptoKit.SHA256) throws -> Bool {
        guard let data = try file.read(upToCount: chunk), !data.isEmpty else {
            return false
        }
        hasher.update(data: data)
        return true
    }

    /// Frees what Foundation keeps for later, which would be the whole file by its end.
    private static func drained<T>(_ call: () throws -> T) rethrows -> T {
        #if canImport(ObjectiveC)
            return try autoreleasepool(invoking: call)
        #else
            return try call()
        #endif
    }

    private static func text(of bytes: some Sequence<UInt8>) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
