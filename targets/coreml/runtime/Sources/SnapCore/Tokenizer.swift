import Foundation

/// CLIP's tokenizer with a padding token and a length: prompts to token ids.
///
/// The ids are those of transformers' `CLIPTokenizer` without `ftfy`, the class that diffusers' Stable Diffusion pipelines
/// load. In order:
///
/// 1. The special tokens and the padding token are cut out wherever they stand verbatim. The padding token takes part
///    because transformers registers it with the special ones: with SD v2.x, which pads with `!`, every `!` is id 0.
/// 2. What lies between is cleaned, split into words at whitespace, put into NFC and lower case.
/// 3. Words are cut into pieces by CLIP's pattern: contractions, runs of letters, single digits, runs of everything else.
/// 4. The UTF-8 bytes of a piece are joined to tokens by the merges (byte-pair encoding).
///
/// Which code points are unassigned, and so dropped, follows the Unicode version of the Swift library that runs it.
public struct Tokenizer: Sendable {
    /// Number of ids that ``encode(_:)`` gives.
    public let length: Int
    private let vocabulary: Vocabulary
    private let padTokenID: Int32
    /// Texts that are one token wherever they stand, longest first, with their ids.
    private let verbatim: [(text: [Unicode.Scalar], id: Int32)]

    /// A tokenizer from the contents of its two files.
    ///
    /// - Parameters:
    ///   - vocabulary: Contents of `vocab.json`; its ids have to be those that follow from the merges.
    ///   - merges: Contents of `merges.txt`. As in transformers, at most 48,894 merges are read.
    ///   - length: Number of ids of a sequence, at least 2 (77 for Stable Diffusion).
    ///   - padTokenID: The token that fills a sequence up (49407 for SD v1.x, 0 for SD v2.x).
    /// - Throws: ``SnapError/artifact(path:reason:)`` when a file is damaged or the two do not belong together,
    ///   ``SnapError/request(reason:)`` when the length or the padding token is impossible.
    public init(vocabulary: Data, merges: Data, length: Int, padTokenID: Int32) throws {
        let (vocabularyFile, mergesFile) = ((vocabulary, "vocab.json"), (merges, "merges.txt"))
        try self.init(vocabulary: vocabularyFile, merges: mergesFile, length: length, padTokenID: padTokenID)
    }

    /// The tokenizer of an artifact, from its `vocab.json` and `merges.txt`.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` when a file is missing or damaged, or the padding token of the
    ///   manifest does not exist; ``SnapError/unsupported(reason:)`` when the artifact has no tokenizer.
    public init(folder: URL, manifest: Manifest) throws {
        guard let padTokenID = manifest.padTokenID else {
            throw SnapError.unsupported(
                reason: "\(folder.path) has no tokenizer; convert a checkpoint with a tokenizer folder, or give token ids")
        }
        func file(_ name: String) throws -> (data: Data, path: String) {
            let url = folder.appendingPathComponent(name)
            return (try readArtifactFile(url), url.path)
        }
        do {
            let (vocabulary, merges) = (try file("vocab.json"), try file("merges.txt"))
            try self.init(
                vocabulary: vocabulary, merges: merges, length: manifest.tokens, padTokenID: padTokenID)
        } catch SnapError.request(let reason) {
            let path = folder.appendingPathComponent(Manifest.fileName).path
            throw SnapError.artifact(path: path, reason: reason)
        }
    }

    private init(
        vocabulary: (data: Data, path: String), merges: (data: Data, path: String), length: Int, padTokenID: Int32
    ) throws {
        let tokens = try Vocabulary(merges: merges.data, path: merges.path)
        try tokens.check(vocabulary: vocabulary.data, path: vocabulary.path)
        try self.init(tokens, length: length, padTokenID: padTokenID)
    }

    /// A tokenizer of these tokens.
    ///
    /// - Throws: ``SnapError/request(reason:)`` when the length or the padding token is impossible.
    init(_ tokens: Vocabulary, length: Int, padTokenID: Int32) throws {
        guard length >= 2 else {
            throw SnapError.request(
                reason: "a sequence of \(length) tokens has no room for the start and end tokens; the length is at least 2")
        }
        guard let padText = tokens.text(of: padTokenID) else {
            throw SnapError.request(
                reason: "padding token \(padTokenID) does not exist; the vocabulary has \(tokens.count) tokens")
        }
        var verbatim = [(text: SpecialToken.start, id: tokens.start), (text: SpecialToken.end, id: tokens.end)]
        if padTokenID < tokens.start {
            verbatim.append((text: padText, id: padTokenID))
        }
        self.length = length
        self.vocabulary = tokens
        self.padTokenID = padTokenID
        self.verbatim = verbatim.sorted { $0.text.count > $1.text.count }
    }

    /// Id of the token that starts a sequence.
    public var startTokenID: Int32 { vocabulary.start }

    /// Id of the token that ends a sequence.
    public var endTokenID: Int32 { vocabulary.end }

    /// The sequence of a prompt, ``length`` ids: start token, the prompt's tokens as far as they fit, end token, padding.
    public func encode(_ text: String) -> [Int32] {
        var ids = [startTokenID] + tokenize(text).prefix(length - 2) + [endTokenID]
        ids += repeatElement(padTokenID, count: length - ids.count)
        return ids
    }

    /// The tokens of a prompt alone: without start and end token, not cut, not padded. What exceeds ``length`` - 2 is what
    /// ``encode(_:)`` leaves out.
    public func tokenize(_ text: String) -> [Int32] {
        let scalars = Array(text.unicodeScalars)
        var ids: [Int32] = []
        var (from, at) = (0, 0)
        while at < scalars.count {
            if let token = verbatim.first(where: { scalars[at...].starts(with: $0.text) }) {
                appendTokens(between: scalars[from..<at], to: &ids)
                ids.append(token.id)
                at += token.text.count
                from = at
            } else {
                at += 1
            }
        }
        appendTokens(between: scalars[from...], to: &ids)
        return ids
    }

    /// Appends the tokens of a text that lies between verbatim ones.
    private func appendTokens(between text: ArraySlice<Unicode.Scalar>, to ids: inout [Int32]) {
        for piece in Pieces(clean(text)) {
            switch piece {
            case .start: ids.append(startTokenID)
            case .end: ids.append(endTokenID)
            case .text(let text): vocabulary.appendTokens(of: text, to: &ids)
            }
        }
    }
}
