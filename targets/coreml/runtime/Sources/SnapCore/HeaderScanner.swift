import Foundation

/// Reads the JSON of a safetensors header: objects, strings and lists of integers, in which no key may stand twice.
///
/// `JSONDecoder` takes repeated keys, and takes keys that are canonically equivalent for the same.
struct HeaderScanner {
    private let bytes: [UInt8]
    private var position = 0

    /// - Throws: ``SafetensorsHeader/Malformed`` when the bytes are not UTF-8.
    init(_ header: Data) throws {
        bytes = [UInt8](header)
        // Decoding repairs what is wrong, and so changes it.
        guard String(decoding: bytes, as: UTF8.self).utf8.elementsEqual(bytes) else {
            throw SafetensorsHeader.Malformed(reason: "the header is not UTF-8")
        }
    }

    /// Reads an object; `read` is called behind each key and reads the value.
    mutating func object(_ read: (inout HeaderScanner, String) throws -> Void) throws {
        var keys: Set<[UInt8]> = []
        try list(from: "{", to: "}") { scanner in
            let key = try scanner.string()
            guard keys.insert(Array(key.utf8)).inserted else {
                throw SafetensorsHeader.Malformed(reason: "the key '\(key)' stands twice")
            }
            try scanner.expect(":")
            try read(&scanner, key)
        }
    }

    /// Reads a list of integers that are not negative.
    mutating func integers() throws -> [Int] {
        var values: [Int] = []
        try list(from: "[", to: "]") { scanner in values.append(try scanner.integer()) }
        return values
    }

    /// Reads a string.
    mutating func string() throws -> String {
        try expect("\"")
        var text: [UInt8] = []
        while true {
            let byte = try take()
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): text += try escape().utf8
            case ..<0x20: throw malformed("a control character in a string")
            default: text.append(byte)
            }
        }
    }

    /// Refuses anything but space behind what was read; writers pad the header with it.
    mutating func finish() throws {
        skipSpace()
        guard position == bytes.count else {
            throw malformed("text behind the object")
        }
    }

    private mutating func list(
        from open: Unicode.Scalar, to close: Unicode.Scalar, _ read: (inout HeaderScanner) throws -> Void
    ) throws {
        try expect(open)
        skipSpace()
        if peek() == UInt8(ascii: close) {
            position += 1
            return
        }
        while true {
            try read(&self)
            skipSpace()
            let byte = try take()
            if byte == UInt8(ascii: close) {
                return
            }
            guard byte == UInt8(ascii: ",") else {
                throw malformed("'\(close)' or ',' expected")
            }
        }
    }

    private mutating func integer() throws -> Int {
        skipSpace()
        let digits = bytes[position...].prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        guard !digits.isEmpty, let value = Int(String(decoding: digits, as: UTF8.self)) else {
            throw malformed("an integer expected that is not negative and fits 63 bits")
        }
        position = digits.endIndex
        return value
    }

    /// The character of an escape sequence, behind its backslash.
    private mutating func escape() throws -> Unicode.Scalar {
        switch try take() {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try unicodeEscape()
        default: throw malformed("an unknown escape sequence")
        }
    }

    /// A character from four hexadecimal digits, or from a pair of surrogates.
    private mutating func unicodeEscape() throws -> Unicode.Scalar {
        let first = try hexadecimal()
        if let scalar = Unicode.Scalar(first) {
            return scalar
        }
        if UTF16.isLeadSurrogate(first), try take() == UInt8(ascii: "\\"), try take() == UInt8(ascii: "u") {
            let second = try hexadecimal()
            let point = 0x10000 + UInt32(first & 0x3ff) << 10 + UInt32(second & 0x3ff)
            if UTF16.isTrailSurrogate(second), let scalar = Unicode.Scalar(point) {
                return scalar
            }
        }
        throw malformed("half of a surrogate pair")
    }

    private mutating func hexadecimal() throws -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(try take())).hexDigitValue else {
                throw malformed("four hexadecimal digits expected")
            }
            value = value << 4 | UInt16(digit)
        }
        return value
    }

    private mutating func expect(_ scalar: Unicode.Scalar) throws {
        skipSpace()
        guard peek() == UInt8(ascii: scalar) else {
            throw malformed("'\(scalar)' expected")
        }
        position += 1
    }

    private mutating func skipSpace() {
        while let byte = peek(), [0x20, 0x09, 0x0a, 0x0d].contains(byte) {
            position += 1
        }
    }

    private mutating func take() throws -> UInt8 {
        guard let byte = peek() else {
            throw malformed("it ends too early")
        }
        position += 1
        return byte
    }

    private func peek() -> UInt8? {
        position < bytes.count ? bytes[position] : nil
    }

    private func malformed(_ what: String) -> SafetensorsHeader.Malformed {
        SafetensorsHeader.Malformed(reason: "the header has an error at byte \(position): \(what)")
    }
}
