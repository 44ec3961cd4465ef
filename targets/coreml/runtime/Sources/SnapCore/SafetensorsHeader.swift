import Foundation

/// The checked header of a safetensors file: its length in eight bytes, then JSON.
struct SafetensorsHeader {
    /// What is wrong with a file.
    struct Malformed: Error {
        let reason: String
    }

    /// Element types of the format.
    enum ElementType: String {
        case bool = "BOOL"
        case u8 = "U8"
        case i8 = "I8"
        case f8e4m3 = "F8_E4M3"
        case f8e5m2 = "F8_E5M2"
        case u16 = "U16"
        case i16 = "I16"
        case f16 = "F16"
        case bf16 = "BF16"
        case u32 = "U32"
        case i32 = "I32"
        case f32 = "F32"
        case u64 = "U64"
        case i64 = "I64"
        case f64 = "F64"

        /// Bytes of an element.
        var size: Int {
            switch self {
            case .bool, .u8, .i8, .f8e4m3, .f8e5m2: return 1
            case .u16, .i16, .f16, .bf16: return 2
            case .u32, .i32, .f32: return 4
            case .u64, .i64, .f64: return 8
            }
        }
    }

    /// A tensor and where its bytes lie, counted from ``SafetensorsHeader/end``.
    struct Tensor {
        let name: String
        let dtype: ElementType
        let shape: [Int]
        let bytes: Range<Int>
    }

    /// The longest header that the format allows.
    private static let maxLength = 100_000_000

    /// Key of the header that is no tensor.
    static let metadataKey = "__metadata__"

    /// Pairs of the metadata.
    private(set) var metadata: [String: String] = [:]
    /// Tensors in the order of their bytes.
    private(set) var tensors: [Tensor] = []
    /// Offset of the first byte behind the header.
    let end: Int

    /// Reads the header of a file.
    ///
    /// - Throws: ``Malformed``.
    init(file: Data) throws {
        let prefix = 8
        guard file.count >= prefix else {
            throw Malformed(reason: "\(file.count) bytes are too few for a header")
        }
        let length = file.prefix(prefix).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(file.count - prefix), length <= UInt64(Self.maxLength) else {
            throw Malformed(reason: "a header of \(length) bytes does not fit the file")
        }
        end = prefix + Int(length)
        var scanner = try HeaderScanner(file.dropFirst(prefix).prefix(Int(length)))
        try scanner.object { scanner, name in
            if name == Self.metadataKey {
                metadata = try Self.metadata(&scanner)
            } else {
                tensors.append(try Self.tensor(&scanner, name: name))
            }
        }
        try scanner.finish()
        tensors.sort { ($0.bytes.lowerBound, $0.bytes.upperBound) < ($1.bytes.lowerBound, $1.bytes.upperBound) }
        try checkRanges(dataLength: file.count - end)
    }

    private static func metadata(_ scanner: inout HeaderScanner) throws -> [String: String] {
        var pairs: [String: String] = [:]
        try scanner.object { scanner, key in
            // The scanner compares keys by their bytes; a dictionary takes canonically equivalent ones for the same.
            guard pairs.updateValue(try scanner.string(), forKey: key) == nil else {
                throw Malformed(reason: "the metadata has two keys that are both written '\(key)'")
            }
        }
        return pairs
    }

    private static func tensor(_ scanner: inout HeaderScanner, name: String) throws -> Tensor {
        var (dtype, shape, offsets): (String?, [Int]?, [Int]?) = (nil, nil, nil)
        try scanner.object { scanner, key in
            switch key {
            case "dtype": dtype = try scanner.string()
            case "shape": shape = try scanner.integers()
            case "data_offsets": offsets = try scanner.integers()
            default: throw Malformed(reason: "tensor '\(name)' has the unknown key '\(key)'")
            }
        }
        guard let dtype, let shape, let offsets, offsets.count == 2 else {
            throw Malformed(reason: "tensor '\(name)' lacks dtype, shape or two data_offsets")
        }
        guard let type = ElementType(rawValue: dtype) else {
            throw Malformed(reason: "tensor '\(name)' has the unknown dtype '\(dtype)'")
        }
        guard offsets[0] <= offsets[1] else {
            throw Malformed(reason: "tensor '\(name)' ends before it begins")
        }
        guard checkedProduct(shape + [type.size]) == offsets[1] - offsets[0] else {
            throw Malformed(reason: "the shape \(shape) of tensor '\(name)' does not fit its data_offsets \(offsets)")
        }
        return Tensor(name: name, dtype: type, shape: shape, bytes: offsets[0]..<offsets[1])
    }

    private func checkRanges(dataLength: Int) throws {
        var position = 0
        for tensor in tensors {
            guard tensor.bytes.lowerBound == position else {
                let what = tensor.bytes.lowerBound < position ? "overlaps another" : "leaves a gap before it"
                throw Malformed(reason: "tensor '\(tensor.name)' \(what)")
            }
            position = tensor.bytes.upperBound
        }
        guard position == dataLength else {
            throw Malformed(reason: "the tensors have \(position) bytes, but \(dataLength) follow the header")
        }
    }
}
