/// One match of CLIP's pattern.
enum Piece: Equatable {
    /// The start token, spelled out in a prompt in any case.
    case start
    /// The end token, spelled out in a prompt in any case.
    case end
    /// Text to be encoded byte by byte; never empty.
    case text(ArraySlice<Unicode.Scalar>)
}

/// The matches in a text in lower case, in order. The pattern, without regard to case, is
/// `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`.
struct Pieces: Sequence, IteratorProtocol {
    private var rest: ArraySlice<Unicode.Scalar>

    init(_ text: [Unicode.Scalar]) {
        rest = text[...]
    }

    mutating func next() -> Piece? {
        rest = rest.drop { CharacterClass($0) == .gap }
        guard let first = rest.first else {
            return nil
        }
        if let part = Self.fixedParts.first(where: { starts(with: $0) }) {
            let piece = take(part.count)
            // Only the exact spelling is the special token.
            switch piece {
            case .text(let text) where text.elementsEqual(SpecialToken.start): return .start
            case .text(let text) where text.elementsEqual(SpecialToken.end): return .end
            default: return piece
            }
        }
        let kind = CharacterClass(first)
        if kind == .number {
            return take(1)
        }
        return take(rest.prefix { CharacterClass($0) == kind }.count)
    }

    /// Special tokens and contractions, in the order in which the pattern tries them.
    private static let fixedParts =
        [SpecialToken.start, SpecialToken.end]
        + ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map { Array($0.unicodeScalars) }

    private mutating func take(_ count: Int) -> Piece {
        let piece = rest.prefix(count)
        rest = rest.dropFirst(count)
        return .text(piece)
    }

    /// Whether the rest starts with a part of the pattern, without regard to case. The long s is the only other form of a
    /// letter of those parts that lower case keeps.
    private func starts(with part: [Unicode.Scalar]) -> Bool {
        guard rest.count >= part.count else {
            return false
        }
        let longS: Unicode.Scalar = "\u{17f}"
        for (found, expected) in zip(rest, part) where found != expected {
            guard found == longS, expected == "s" else {
                return false
            }
        }
        return true
    }
}

/// What the pattern takes a character for.
private enum CharacterClass {
    case letter
    case number
    case other
    /// Matched by no alternative.
    case gap

    init(_ scalar: Unicode.Scalar) {
        // Without regard to case U+0345 is the letter iota: the last alternative excludes it, and the one for letters,
        // where case plays no part, does not take it.
        if scalar.properties.isWhitespace || scalar == "\u{345}" {
            self = .gap
            return
        }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: self = .letter
        case .decimalNumber, .letterNumber, .otherNumber: self = .number
        default: self = .other
        }
    }
}
