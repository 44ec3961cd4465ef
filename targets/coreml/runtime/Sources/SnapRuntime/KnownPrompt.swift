import Foundation
import SnapCore

/// A prompt that snapc encoded when it made the artifact: the empty one, which most runs have as their negative prompt. Runs
/// with it need no call of the text encoder for it.
struct KnownPrompt: Sendable {
    /// Name of the file in artifacts of ``Manifest/Interface/snap`` with a whole UNet: words of 4 bytes, little-endian; the
    /// number of ids, the ids, and in f32 what the text encoder gives for them, the embeddings first, then the outputs that
    /// the UNet takes, in the order of its inputs.
    static let fileName = "empty_prompt.bin"

    /// Token ids, padded.
    let ids: [Int32]
    /// Elements of the embeddings and the outputs behind them.
    let values: [Float]

    /// The known prompt of an artifact, nil if it has none.
    ///
    /// - Parameters:
    ///   - tokens: Number of ids of a prompt.
    ///   - outputs: What the values are of.
    /// - Throws: ``SnapError/artifact(path:reason:)`` when the file cannot be read or does not fit.
    init?(of artifact: Artifact, tokens: Int, outputs: [Manifest.Feature]) throws {
        guard artifact.manifest.files.contains(where: { $0.path == Self.fileName }) else {
            return nil
        }
        let file = artifact.folder.appendingPathComponent(Self.fileName)
        let data: Data
        do {
            data = try Data(contentsOf: file)
        } catch {
            throw SnapError.artifact(path: file.path, reason: "cannot be read: \(error.localizedDescription)")
        }
        let count = outputs.reduce(0) { $0 + $1.count }
        let words = data.withUnsafeBytes { bytes in
            stride(from: 0, to: bytes.count - bytes.count % 4, by: 4).map {
                UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: UInt32.self))
            }
        }
        guard data.count == 4 * (1 + tokens + count), words.first == UInt32(exactly: tokens) else {
            throw SnapError.artifact(
                path: file.path,
                reason: "has \(data.count) bytes, not the \(tokens) ids and \(count) values of a prompt; copy the artifact again")
        }
        ids = words[1...tokens].map { Int32(bitPattern: $0) }
        values = words[(1 + tokens)...].map { Float(bitPattern: $0) }
        guard values.allSatisfy(\.isFinite) else {
            throw SnapError.artifact(path: file.path, reason: "holds a value that is not finite; convert the checkpoint again")
        }
    }
}
