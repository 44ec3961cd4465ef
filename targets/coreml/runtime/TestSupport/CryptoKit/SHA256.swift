import Foundation

/// SHA-256 (FIPS 180-4).
///
/// This module stands in for Apple's framework where there is none, in tests.
public struct SHA256 {
    private var compression = Compression()
    /// Fewer bytes than a block.
    private var rest: [UInt8] = []
    private var count: UInt64 = 0

    /// The hash of no bytes yet.
    public init() {}

    /// The hash of these bytes.
    public static func hash<D: DataProtocol>(data: D) -> SHA256Digest {
        var hasher = SHA256()
        hasher.update(data: data)
        return hasher.finalize()
    }

    /// Takes in the next bytes.
    public mutating func update<D: DataProtocol>(data: D) {
        count &+= UInt64(data.count)
        rest += data
        let whole = rest.count / Compression.block * Compression.block
        rest.withUnsafeBytes { compression.update(blocks: UnsafeRawBufferPointer(rebasing: $0[..<whole])) }
        rest.removeFirst(whole)
    }

    /// The hash of all that was taken in.
    public func finalize() -> SHA256Digest {
        var (compression, tail) = (compression, rest)
        tail.append(0x80)
        let filled = (tail.count + 8) % Compression.block
        tail += [UInt8](repeating: 0, count: filled == 0 ? 0 : Compression.block - filled)
        withUnsafeBytes(of: (count &* 8).bigEndian) { tail += $0 }
        tail.withUnsafeBytes { compression.update(blocks: $0) }
        return SHA256Digest(bytes: compression.bytes)
    }
}

/// The 32 bytes of a hash.
public struct SHA256Digest: Sequence, Sendable {
    let bytes: [UInt8]

    public func makeIterator() -> IndexingIterator<[UInt8]> {
        bytes.makeIterator()
    }
}
