import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#endif

/// SHA-256 (FIPS 180-4) in lower-case hexadecimal, by CryptoKit where there is one.
enum SHA256 {
    /// Bytes read at a time from a file.
    private static let chunk = 1 << 20

    static func hexadecimal(of data: Data) -> String {
        var hasher = Hasher()
        hasher.update(data)
        return hasher.hexadecimal()
    }

    /// The hash of a whole file, from its start.
    static func hexadecimal(of file: FileHandle) throws -> String {
        var hasher = Hasher()
        try file.seek(toOffset: 0)
        while try drained({ try take(file, into: &hasher) }) {}
        return hasher.hexadecimal()
    }

    /// Hashes the next bytes of a file; false at its end.
    private static func take(_ file: FileHandle, into hasher: inout Hasher) throws -> Bool {
        guard let data = try file.read(upToCount: chunk), !data.isEmpty else {
            return false
        }
        hasher.update(data)
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

    #if canImport(CryptoKit)
        struct Hasher {
            private var hasher = CryptoKit.SHA256()

            mutating func update(_ data: Data) {
                hasher.update(data: data)
            }

            func hexadecimal() -> String {
                SHA256.text(of: hasher.finalize())
            }
        }
    #else
        struct Hasher {
            private var digest = SHA256Digest()
            /// Fewer bytes than a block.
            private var rest: [UInt8] = []
            private var count: UInt64 = 0

            mutating func update(_ data: Data) {
                count &+= UInt64(data.count)
                rest += data
                let whole = rest.count / SHA256Digest.block * SHA256Digest.block
                rest.withUnsafeBytes { digest.update(blocks: UnsafeRawBufferPointer(rebasing: $0[..<whole])) }
                rest.removeFirst(whole)
            }

            func hexadecimal() -> String {
                var (digest, tail) = (digest, rest)
                tail.append(0x80)
                let filled = (tail.count + 8) % SHA256Digest.block
                tail += [UInt8](repeating: 0, count: filled == 0 ? 0 : SHA256Digest.block - filled)
                withUnsafeBytes(of: (count &* 8).bigEndian) { tail += $0 }
                tail.withUnsafeBytes { digest.update(blocks: $0) }
                return SHA256.text(of: digest.bytes)
            }
        }
    #endif

    private static func text(of bytes: some Sequence<UInt8>) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
