/// The words of a text in NFC and lower case, with one space between them: transformers' `BasicTokenizer` with
/// `strip_accents` and `do_split_on_punc` off.
///
/// Control, format, private-use and unassigned characters and U+FFFD go, so that text on both sides of them meets; every
/// CJK ideograph is a word. Everything here works on Unicode scalars: Swift's characters and its equality of strings
/// follow canonical equivalence, which transformers' rules do not.
func clean(_ text: some Sequence<Unicode.Scalar>) -> [Unicode.Scalar] {
    var spaced: [Unicode.Scalar] = []
    for scalar in text {
        if isSpace(scalar) {
            spaced.append(" ")
        } else if isDropped(scalar) {
            continue
        } else if isIdeograph(scalar) {
            spaced += [" ", scalar, " "]
        } else {
            spaced.append(scalar)
        }
    }
    let words = composed(spaced).split { $0.properties.isWhitespace }
    return Array(words.map(lowercased).joined(separator: [" "]))
}

private func isSpace(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar {
    case "\t", "\n", "\r": return true
    default: return scalar.properties.generalCategory == .spaceSeparator
    }
}

private func isDropped(_ scalar: Unicode.Scalar) -> Bool {
    if scalar == "\u{fffd}" {
        return true
    }
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned: return true
    default: return false
    }
}

/// The ranges that BERT's tokenizer takes for Chinese; later extensions are not among them.
private func isIdeograph(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0x3400...0x4dbf, 0x4e00...0x9fff, 0xf900...0xfaff, 0x20000...0x2a6df, 0x2a700...0x2ceaf, 0x2f800...0x2fa1f:
        return true
    default:
        return false
    }
}

/// A word in lower case, as Python's `str.lower` gives it. Swift's own lower case knows no final sigma.
private func lowercased(_ word: ArraySlice<Unicode.Scalar>) -> [Unicode.Scalar] {
    var lower: [Unicode.Scalar] = []
    lower.reserveCapacity(word.count)
    for index in word.indices {
        if word[index] == "\u{3a3}" {
            lower.append(isFinalSigma(at: index, in: word) ? "\u{3c2}" : "\u{3c3}")
        } else {
            lower.append(contentsOf: word[index].properties.lowercaseMapping.unicodeScalars)
        }
    }
    return lower
}

/// The condition `Final_Sigma` of the Unicode Standard, section 3.13: a cased letter before and none behind, past what
/// case ignores.
private func isFinalSigma(at index: Int, in word: ArraySlice<Unicode.Scalar>) -> Bool {
    let before = word[..<index].last { !$0.properties.isCaseIgnorable }
    let behind = word[(index + 1)...].first { !$0.properties.isCaseIgnorable }
    return before?.properties.isCased == true && behind?.properties.isCased != true
}
