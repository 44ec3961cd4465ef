import XCTest

@testable import SnapCore

final class TextCleaningTests: XCTestCase {
    // Python: unicodedata.normalize("NFC", text). Marks beyond U+FFFF, marks that are themselves decomposed, Hangul, a
    // composition exclusion, marks in the wrong order, blocked marks, singletons.
    func testCompositionIsThatOfPython() {
        let cases = [
            "\u{10041}\u{301}": "\u{10041}\u{301}",
            "a\u{f73}\u{301}": "\u{e1}\u{f71}\u{f72}",
            "\u{1112}\u{1161}\u{11ab}": "\u{d55c}",
            "\u{ac00}\u{11a8}\u{11a8}": "\u{ac01}\u{11a8}",
            "\u{915}\u{93c}": "\u{915}\u{93c}",
            "q\u{307}\u{323}": "q\u{323}\u{307}",
            "\u{344}": "\u{308}\u{301}",
            "a\u{315}\u{300}\u{5ae}\u{301}b": "\u{e0}\u{5ae}\u{301}\u{315}b",
            "A\u{327}\u{30a}": "\u{c5}\u{327}",
            "\u{2126}": "\u{3a9}",
            "\u{1d15e}": "\u{1d157}\u{1d165}",
        ]
        // As strings both sides would be equal, because canonically equivalent strings are.
        for (text, expected) in cases {
            XCTAssertEqual(composed(Array(text.unicodeScalars)), Array(expected.unicodeScalars))
        }
    }

    // transformers' BasicTokenizer on "a" + c + U+0301 + "b" + c for every code point c below U+20000 that Unicode 14
    // assigns, but for ideographs, Hangul syllables and Tangut: the code points of all results, times 31 before each
    // addition, modulo 1000000007.
    func testEveryCharacterIsCleanedAsByTransformers() {
        let largeScripts: [ClosedRange<UInt32>] = [0x3400...0x9fff, 0xac00...0xd7a3, 0x17000...0x18cff]
        var count = 0
        var sum: UInt64 = 0
        for scalar in (UInt32(0)..<0x20000).compactMap(Unicode.Scalar.init) {
            guard isAssigned(scalar), !largeScripts.contains(where: { $0.contains(scalar.value) }) else {
                continue
            }
            count += 1
            for found in clean(["a", scalar, "\u{301}", "b", scalar]) {
                sum = (sum * 31 + UInt64(found.value)) % 1_000_000_007
            }
        }
        XCTAssertEqual(count, 32_420)
        XCTAssertEqual(sum, 382_317_164)
    }

    /// Whether Unicode 14 has the character.
    private func isAssigned(_ scalar: Unicode.Scalar) -> Bool {
        guard let age = scalar.properties.age, age.major <= 14 else {
            return false
        }
        switch scalar.properties.generalCategory {
        case .unassigned, .surrogate, .privateUse: return false
        default: return true
        }
    }

    // Python's str.lower of the words.
    func testLowerCaseIsThatOfPython() {
        let cases = [
            "\u{39f}\u{394}\u{39f}\u{3a3}'\u{3a3}": "\u{3bf}\u{3b4}\u{3bf}\u{3c3}'\u{3c2}",
            "\u{3a3}": "\u{3c3}",
            "\u{391}\u{3a3}.": "\u{3b1}\u{3c2}.",
            "\u{391}\u{3a3}\u{391}": "\u{3b1}\u{3c3}\u{3b1}",
            "\u{391}\u{3a3}\u{329}\u{391}": "\u{3b1}\u{3c3}\u{329}\u{3b1}",
            "\u{391}\u{3a3}:": "\u{3b1}\u{3c2}:",
            "\u{2b0}\u{3a3}": "\u{2b0}\u{3c3}",
            "1\u{3a3} \u{3a3}\u{3a3}": "1\u{3c3} \u{3c3}\u{3c2}",
            "\u{130}I": "i\u{307}i",
            "\u{1e9e}": "\u{df}",
        ]
        for (text, expected) in cases {
            XCTAssertEqual(clean(text.unicodeScalars), Array(expected.unicodeScalars), text)
        }
    }
}
