import Foundation

/// Texts of the tokens around a sequence.
enum SpecialToken {
    static let start = Array("<|startoftext|>".unicodeScalars)
    static let end = Array("<|endoftext|>".unicodeScalars)
}

/// CLIP's tokens. Ids follow from the merges: 256 bytes, 256 bytes that end a word, one token per merge, the start token,
/// the end token.
///
/// Tokens are compared as the UTF-8 bytes of their spelling, because equality of Swift's strings is canonical equivalence.
struct Vocabulary: Sendable {
    /// Id of the token that the first merge makes.
    private static let firstMerge = 512

    /// Merges that CLIP uses of a longer list; with the bytes and the special tokens these are 49,408 tokens.
    private static let maxMerges = 48_894

    /// What ends the spelling of a token that ends a word.
    private static let wordEnd = Array("</w>".utf8)

    /// Ids of the tokens of single bytes inside a word, by byte.
    private let byteIDs: [Int32]
    /// Rank of the merge that joins two tokens, by ``pairKey(_:_:)``.
    private let ranks: [UInt64: Int32]
    /// Spelling of every token, by id.
    private let spellings: [[UInt8]]

    /// Reads `merges.txt`: a version line, then one merge a line.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` with the given path when the bytes are no such file.
    init(merges: Data, path: String) throws {
        func refused(_ reason: String) -> SnapError { .artifact(path: path, reason: reason) }
        let lines = trimmed([UInt8](merges)).split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        guard let first = lines.first, String(decoding: first, as: UTF8.self).contains("#version") else {
            throw refused("does not start with a line that holds '#version'; take the file that came with the checkpoint")
        }
        let alphabet = byteAlphabet()
        var spellings = alphabet.map(\.spelling)
        spellings += alphabet.map { $0.spelling + Self.wordEnd }
        var ids = Dictionary(uniqueKeysWithValues: zip(spellings, Int32(0)...))
        var ranks: [UInt64: Int32] = [:]
        for (index, line) in lines.dropFirst().prefix(Self.maxMerges).enumerated() {
            // Lines are counted from 1, and the first is the version.
            let number = index + 2
            let parts = line.split(whereSeparator: isASCIISpace).map(Array.init)
            guard parts.count == 2 else {
                throw refused("line \(number) has \(parts.count) tokens instead of two")
            }
            let pair = try parts.map { part in
                guard let id = ids[part] else {
                    let text = String(decoding: part, as: UTF8.self)
                    throw refused("line \(number): '\(text)' is neither a byte nor made by an earlier line")
                }
                return id
            }
            let token = parts[0] + parts[1]
            guard ids.updateValue(Int32(spellings.count), forKey: token) == nil else {
                throw refused("line \(number): '\(String(decoding: token, as: UTF8.self))' exists already")
            }
            ranks[Self.pairKey(pair[0], pair[1])] = Int32(index)
            spellings.append(token)
        }
        for special in [SpecialToken.start, SpecialToken.end] {
            spellings.append(special.flatMap { Array($0.utf8) })
        }
        var byteIDs = [Int32](repeating: 0, count: 256)
        for (id, entry) in zip(Int32(0)..., alphabet) {
            byteIDs[Int(entry.byte)] = id
        }
        self.byteIDs = byteIDs
        self.ranks = ranks
        self.spellings = spellings
    }

    /// Compares the ids with those of a checkpoint's `vocab.json`.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` with the given path when it is no such file or gives other ids.
    func check(vocabulary: Data, path: String) throws {
        func refused(_ reason: String) -> SnapError { .artifact(path: path, reason: reason) }
        let entries: [String: Int]
        do {
            entries = try JSONDecoder().decode([String: Int].self, from: vocabulary)
        } catch {
            throw refused("is not a JSON object of tokens with their ids; take the file that came with the checkpoint")
        }
        // The smallest id, so that the same file always gives the same error.
        let wrong = entries.filter { token, id in
            !spellings.indices.contains(id) || spellings[id] != Array(token.utf8)
        }
        if let (token, id) = wrong.min(by: { $0.value < $1.value }) {
            throw refused(
                "'\(token)' has the id \(id), which does not follow from merges.txt; the two do not belong together")
        }
        guard entries.count == spellings.count else {
            throw refused(
                "has \(entries.count) tokens, but \(spellings.count) follow from merges.txt; the two do not belong together")
        }
    }

    /// Number of tokens.
    var count: Int { spellings.count }

    /// Id of the token that starts a sequence.
    var start: Int32 { Int32(spellings.count - 2) }

    /// Id of the token that ends a sequence.
    var end: Int32 { Int32(spellings.count - 1) }

    /// Id of a byte, at the end of a word or inside it.
    func id(of byte: UInt8, endsWord: Bool) -> Int32 {
        byteIDs[Int(byte)] + (endsWord ? 256 : 0)
    }

    /// Rank of the merge that joins two tokens, if there is one.
    func rank(of left: Int32, _ right: Int32) -> Int32? {
        ranks[Self.pairKey(left, right)]
    }

    /// Id of the token that the merge of a rank makes.
    func merged(_ rank: Int32) -> Int32 {
        Int32(Self.firstMerge) + rank
    }

    /// A token as `vocab.json` spells it, if it exists.
    func text(of id: Int32) -> [Unicode.Scalar]? {
        guard spellings.indices.contains(Int(id)) else {
            return nil
        }
        return Array(String(decoding: spellings[Int(id)], as: UTF8.self).unicodeScalars)
    }

    private static func pairKey(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }
}

/// The bytes in the order of their ids, with their spelling (GPT-2's byte-to-unicode rule): those that Latin-1 prints come
/// first and spell themselves, the others take the characters from U+0100 on.
private func byteAlphabet() -> [(byte: UInt8, spelling: [UInt8])] {
    let isPrintable = { (byte: UInt8) in
        switch byte {
        case 0x21...0x7e, 0xa1...0xac, 0xae...0xff: return true
        default: return false
        }
    }
    let bytes = UInt8.min...UInt8.max
    let printable = bytes.filter(isPrintable).map { (byte: $0, spelling: Array(Unicode.Scalar($0).utf8)) }
    let hidden = zip(UInt16(0x100)..., bytes.filter { !isPrintable($0) }).map { code, byte in
        (byte: byte, spelling: Unicode.Scalar(code).map { Array($0.utf8) } ?? [])
    }
    return printable + hidden
}

private func isASCIISpace(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: " ") || (0x09...0x0d).contains(byte)
}

private func trimmed(_ bytes: [UInt8]) -> ArraySlice<UInt8> {
    let behind = bytes.lastIndex { !isASCIISpace($0) }.map { $0 + 1 } ?? 0
    return bytes[..<behind].drop(while: isASCIISpace)
}
