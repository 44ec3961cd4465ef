import Foundation
import XCTest

@testable import SnapCore

/// The tokenizer against transformers' `CLIPTokenizer`: `fixtures/tokenizer/corpus.jsonl`, made by
/// `fixtures/make_tokenizer_corpus.py`.
final class TokenizerTests: XCTestCase {
    private static let end: Int32 = 49407
    private static let exclamationMark: Int32 = 0

    private static let tokens = Result {
        try Vocabulary(merges: Fixtures.data("clip/merges.txt"), path: "merges.txt")
    }

    private func tokenizer(pad: Int32 = end, length: Int = 77) throws -> Tokenizer {
        try Tokenizer(Self.tokens.get(), length: length, padTokenID: pad)
    }

    /// A line of the corpus: text, padding token, ids without the padding at the end.
    private struct Line: Decodable {
        let text: String
        let pad: String
        let ids: [Int32]

        init(from decoder: any Decoder) throws {
            var list = try decoder.unkeyedContainer()
            text = try list.decode(String.self)
            pad = try list.decode(String.self)
            ids = try list.decode([Int32].self)
        }
    }

    func testIDsAreThoseOfTransformers() throws {
        let tokenizers = [
            "<|endoftext|>": (pad: Self.end, tokenizer: try tokenizer()),
            "!": (pad: Self.exclamationMark, tokenizer: try tokenizer(pad: Self.exclamationMark)),
        ]
        let corpus = try Fixtures.data("tokenizer/corpus.jsonl")
        var texts: Set<[UInt8]> = []
        var wrong: [String] = []
        for line in corpus.split(separator: UInt8(ascii: "\n")) {
            let line = try JSONDecoder().decode(Line.self, from: line)
            let (pad, tokenizer) = try XCTUnwrap(tokenizers[line.pad])
            var expected: [Int32] = line.ids
            expected += [Int32](repeating: pad, count: 77 - line.ids.count)
            let found = tokenizer.encode(line.text)
            if found != expected {
                wrong.append("\(line.text.debugDescription), padded with \(line.pad):\n  \(found)\n  \(expected)")
            }
            texts.insert(Array(line.text.utf8))
        }
        XCTAssertGreaterThanOrEqual(texts.count, 2000, "strings of the corpus")
        XCTAssert(wrong.isEmpty, "\(wrong.count) differ:\n\(wrong.joined(separator: "\n"))")
    }

    func testTheEndTokenSurvivesAtEveryLength() throws {
        for length in [2, 3, 16, 77] {
            let ids = try tokenizer(length: length).encode(String(repeating: "word ", count: 100))
            var expected = [Int32](repeating: 2653, count: length)
            expected[0] = 49406
            expected[length - 1] = Self.end
            XCTAssertEqual(ids, expected)
        }
    }

    // Counts and last ids are those of transformers' `CLIPTokenizer.tokenize`.
    func testLongWordsHaveTheTokensOfTransformers() throws {
        let tokenizer = try tokenizer()
        let marks = tokenizer.tokenize(String(repeating: "!", count: 10_000))
        XCTAssertEqual(marks.count, 626)
        XCTAssertEqual(marks.suffix(3), [30146, 11281, 21622])
        let letters = tokenizer.tokenize(String(repeating: "ab", count: 5_000))
        XCTAssertEqual(letters.count, 5_000)
        XCTAssertEqual(letters.suffix(3), [596, 596, 3937])
    }
}

/// Files that are wrong, with a vocabulary small enough to be written down.
final class TokenizerFileTests: FolderTestCase {
    private static let merges = "#version: 0.2\nc a\nca t</w>\n"

    /// The vocabulary of merges, by transformers' rule: bytes, bytes that end a word, merges, special tokens.
    private static func vocabulary(of merges: String) -> [String: Int] {
        let ranges: [ClosedRange<UInt32>] = [0x21...0x7e, 0xa1...0xac, 0xae...0xff, 0x100...0x143]
        let symbols: [String] = ranges.joined().compactMap { code in Unicode.Scalar(code).map { String($0) } }
        var tokens = symbols + symbols.map { $0 + "</w>" }
        tokens += merges.split(separator: "\n").dropFirst().map { $0.replacingOccurrences(of: " ", with: "") }
        tokens += ["<|startoftext|>", "<|endoftext|>"]
        return Dictionary(zip(tokens, 0...)) { _, last in last }
    }

    private func tokenizer(
        merges: Data = Data(TokenizerFileTests.merges.utf8), vocabulary: [String: Int]? = nil, pad: Int32 = 515,
        length: Int = 6
    ) throws -> Tokenizer {
        let json = try JSONEncoder().encode(vocabulary ?? Self.vocabulary(of: Self.merges))
        return try Tokenizer(vocabulary: json, merges: merges, length: length, padTokenID: pad)
    }

    /// The error of a call that has to fail.
    private func error(_ make: () throws -> Tokenizer) -> SnapError? {
        do {
            _ = try make()
            return nil
        } catch {
            return error as? SnapError
        }
    }

    // The merges join "c" and "a", then "ca" and the "t" that ends a word; the ids follow from their places.
    func testIDsFollowFromTheMerges() throws {
        XCTAssertEqual(try tokenizer().encode("Cat"), [514, 513, 515, 515, 515, 515])
        XCTAssertEqual(try tokenizer().tokenize("cat ca"), [513, 66, 320])
    }

    func testFilesThatAreNotMergesAreRefused() {
        var notText = Array("#version\na ".utf8)
        notText.append(0xff)
        let cases: [(merges: [UInt8], reason: String)] = [
            ([], "#version"),
            (Array("c a\nca t</w>\n".utf8), "#version"),
            (Array("#version\nc a t\n".utf8), "line 2 has 3 tokens"),
            (Array("#version\nc a\n\nca t".utf8), "line 3 has 0 tokens"),
            (Array("#version\nca t\n".utf8), "line 2: 'ca' is neither"),
            (Array("#version\na a\naa a\na aa\n".utf8), "line 4: 'aaa' exists already"),
            (notText, "line 2: '\u{fffd}' is neither"),
        ]
        for (merges, reason) in cases {
            guard case .artifact("merges.txt", let found) = error({ try tokenizer(merges: Data(merges)) }) else {
                XCTFail("expected: \(reason)")
                continue
            }
            XCTAssert(found.contains(reason), "\(found), expected: \(reason)")
        }
    }

    func testAForeignVocabularyIsRefused() {
        let own = Self.vocabulary(of: Self.merges)
        let cases: [(vocabulary: [String: Int], reason: String)] = [
            (["!": 0, "ca": 513], "'ca' has the id 513"),
            (["!": 0, "ca": 1 << 40], "'ca' has the id 1099511627776"),
            (["!": 0, "ca": -1], "'ca' has the id -1"),
            (own.filter { $0.key != "ca" }, "has 515 tokens, but 516 follow"),
        ]
        for (vocabulary, reason) in cases {
            guard case .artifact("vocab.json", let found) = error({ try tokenizer(vocabulary: vocabulary) }) else {
                XCTFail("expected: \(reason)")
                continue
            }
            XCTAssert(found.contains(reason), "\(found), expected: \(reason)")
        }
        let damaged = error {
            try Tokenizer(
                vocabulary: Data("{\"a\": 0".utf8), merges: Data(Self.merges.utf8), length: 6, padTokenID: 0)
        }
        guard case .artifact("vocab.json", _) = damaged else {
            return XCTFail("found \(String(describing: damaged))")
        }
    }

    func testImpossiblePaddingAndLengthAreRefused() {
        for pad: Int32 in [516, -1] {
            guard case .request(let reason) = error({ try tokenizer(pad: pad) }) else {
                return XCTFail("a padding token of \(pad)")
            }
            XCTAssert(reason.contains("padding token \(pad) does not exist"), reason)
        }
        guard case .request(let reason) = error({ try tokenizer(length: 1) }) else {
            return XCTFail("a length of 1")
        }
        XCTAssert(reason.contains("a sequence of 1 tokens"), reason)
    }

    func testTheTokenizerOfAnArtifactTakesItsManifest() throws {
        let artifact = try Fixtures.artifact("plain")
        var manifest = try Manifest.read(folder: artifact)
        let tokenizer = try Tokenizer(folder: artifact, manifest: manifest)
        let reference = try Safetensors(contentsOf: Fixtures.file("tiny/reference.safetensors"))
        XCTAssertEqual(tokenizer.encode("blurry"), Array(try reference.ints("input_ids").values.prefix(77)))

        manifest.padTokenID = 1 << 20
        guard case .artifact(let path, _) = error({ try Tokenizer(folder: artifact, manifest: manifest) }) else {
            return XCTFail("a padding token beyond the vocabulary")
        }
        XCTAssert(path.hasSuffix("snap.json"), path)
        manifest.padTokenID = nil
        guard case .unsupported = error({ try Tokenizer(folder: artifact, manifest: manifest) }) else {
            return XCTFail("no padding token")
        }
        manifest.padTokenID = 49407
        guard case .artifact(let missing, _) = error({ try Tokenizer(folder: folder, manifest: manifest) }) else {
            return XCTFail("no files")
        }
        XCTAssertEqual(missing, folder.appendingPathComponent("vocab.json").path)
    }
}
