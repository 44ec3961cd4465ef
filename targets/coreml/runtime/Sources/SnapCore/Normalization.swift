/// Normalization form C (Unicode Standard Annex 15).
///
/// Foundation's own drops the upper half of code points beyond U+FFFF where a mark follows: it takes a Linear B syllable
/// with an acute accent for a Latin letter with one.
func composed(_ text: [Unicode.Scalar]) -> [Unicode.Scalar] {
    // Nothing before the first combining mark is changed by itself.
    guard text.contains(where: { $0.value >= 0x300 }) else {
        return text
    }
    var decomposed: [Unicode.Scalar] = []
    for scalar in text {
        appendDecomposition(of: scalar, to: &decomposed)
    }
    orderMarks(&decomposed)
    return composePairs(decomposed)
}

/// Mappings of Unicode, but for Hangul.
private enum Mappings {
    /// One or two code points by the one that they are the decomposition of.
    static let decompositions: [Unicode.Scalar: [Unicode.Scalar]] = entries.mapValues(\.parts)

    /// Code points by the two that they are composed of.
    static let compositions: [[Unicode.Scalar]: Unicode.Scalar] = {
        let pairs = entries.filter { $0.value.composes }.map { ($0.value.parts, $0.key) }
        return Dictionary(uniqueKeysWithValues: pairs)
    }()

    private static let entries: [Unicode.Scalar: (parts: [Unicode.Scalar], composes: Bool)] = {
        var entries: [Unicode.Scalar: (parts: [Unicode.Scalar], composes: Bool)] = [:]
        var point: UInt32 = 0
        for entry in decompositionData.split(whereSeparator: \.isWhitespace) {
            let sides = entry.split(separator: "=")
            point = sides.count == 2 ? UInt32(sides[0], radix: 16) ?? 0 : point + 1
            let mapping = sides[sides.count - 1]
            let parts = mapping.split { $0 == "+" || $0 == "-" }.compactMap {
                UInt32($0, radix: 16).flatMap(Unicode.Scalar.init)
            }
            if let scalar = Unicode.Scalar(point) {
                entries[scalar] = (parts, mapping.contains("+"))
            }
        }
        return entries
    }()
}

/// Hangul syllables, which are composed by arithmetic (Unicode Standard, section 3.12).
private enum Hangul {
    static let syllables: UInt32 = 0xac00
    static let leading: UInt32 = 0x1100
    static let vowels: UInt32 = 0x1161
    /// One before the first trailing consonant: a syllable may have none.
    static let trailing: UInt32 = 0x11a7
    static let leadingCount: UInt32 = 19
    static let vowelCount: UInt32 = 21
    static let trailingCount: UInt32 = 28

    static func decomposition(of scalar: Unicode.Scalar) -> [UInt32]? {
        guard scalar.value >= syllables, scalar.value < syllables + leadingCount * vowelCount * trailingCount else {
            return nil
        }
        let index = scalar.value - syllables
        let (pair, tail) = index.quotientAndRemainder(dividingBy: trailingCount)
        let (lead, vowel) = pair.quotientAndRemainder(dividingBy: vowelCount)
        return [leading + lead, vowels + vowel] + (tail == 0 ? [] : [trailing + tail])
    }

    static func composition(of first: Unicode.Scalar, _ second: Unicode.Scalar) -> UInt32? {
        let (first, second) = (first.value, second.value)
        if (leading..<(leading + leadingCount)).contains(first), (vowels..<(vowels + vowelCount)).contains(second) {
            return syllables + ((first - leading) * vowelCount + (second - vowels)) * trailingCount
        }
        let isOpenSyllable =
            (syllables..<(syllables + leadingCount * vowelCount * trailingCount)).contains(first)
            && (first - syllables) % trailingCount == 0
        if isOpenSyllable, ((trailing + 1)..<(trailing + trailingCount)).contains(second) {
            return first + (second - trailing)
        }
        return nil
    }
}

/// Appends a code point, or what it is the full decomposition of.
private func appendDecomposition(of scalar: Unicode.Scalar, to text: inout [Unicode.Scalar]) {
    if let parts = Hangul.decomposition(of: scalar) {
        text += parts.compactMap(Unicode.Scalar.init)
    } else if let parts = Mappings.decompositions[scalar] {
        // Mappings are nested a few levels deep at most.
        for part in parts {
            appendDecomposition(of: part, to: &text)
        }
    } else {
        text.append(scalar)
    }
}

/// Sorts the marks behind each starter by their combining class, those of one class in their order.
private func orderMarks(_ text: inout [Unicode.Scalar]) {
    var start = 0
    while start < text.count {
        let marks = text[start...].prefix { combiningClass($0) != 0 }
        if marks.count > 1 {
            let sorted = marks.enumerated().sorted { left, right in
                (combiningClass(left.element), left.offset) < (combiningClass(right.element), right.offset)
            }
            text.replaceSubrange(marks.indices, with: sorted.map(\.element))
        }
        // The marks, and the starter behind them.
        start += marks.count + 1
    }
}

/// Composes each starter with what follows it and is not blocked.
private func composePairs(_ text: [Unicode.Scalar]) -> [Unicode.Scalar] {
    var composed: [Unicode.Scalar] = []
    var starter: Int?
    for scalar in text {
        let ownClass = combiningClass(scalar)
        if let starter, let last = composed.last {
            let isAdjacent = starter == composed.count - 1
            if isAdjacent || combiningClass(last) < ownClass,
                let composite = composition(of: composed[starter], scalar)
            {
                composed[starter] = composite
                continue
            }
        }
        if ownClass == 0 {
            starter = composed.count
        }
        composed.append(scalar)
    }
    return composed
}

private func composition(of first: Unicode.Scalar, _ second: Unicode.Scalar) -> Unicode.Scalar? {
    Hangul.composition(of: first, second).flatMap(Unicode.Scalar.init) ?? Mappings.compositions[[first, second]]
}

private func combiningClass(_ scalar: Unicode.Scalar) -> UInt8 {
    scalar.properties.canonicalCombiningClass.rawValue
}
