import Foundation

/// A safetensors file: named tensors behind a JSON header.
///
/// Nothing in a file is trusted: names are unique, every tensor lies in the file and has as many bytes as its shape asks
/// for, and tensors neither overlap nor leave gaps, as the format demands.
public struct Safetensors: Sendable {
    /// What the file says about itself; empty when it says nothing.
    public let metadata: [String: String]

    private let path: String
    private let file: Data
    /// Offset of the first tensor in the file.
    private let start: Int
    /// By the UTF-8 of the name, because equality of Swift's strings is canonical equivalence.
    private let tensors: [[UInt8]: SafetensorsHeader.Tensor]

    /// Opens a file and checks its header.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` when it cannot be read or is no safetensors file.
    public init(contentsOf url: URL) throws {
        try self.init(readArtifactFile(url, options: .mappedIfSafe), path: url.path)
    }

    /// The file with these bytes; `path` is for errors.
    init(_ file: Data, path: String) throws {
        self.path = path
        self.file = file
        do {
            let header = try SafetensorsHeader(file: file)
            (metadata, start) = (header.metadata, header.end)
            tensors = Dictionary(uniqueKeysWithValues: header.tensors.map { (Array($0.name.utf8), $0) })
        } catch let error as SafetensorsHeader.Malformed {
            throw SnapError.artifact(path: path, reason: "is not a safetensors file: \(error.reason); make it again")
        }
    }

    /// Names of the tensors, sorted.
    public var names: [String] { tensors.values.map(\.name).sorted() }

    /// A tensor of F32, F16 or BF16.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` when there is no such tensor, or it holds something else.
    public func floats(_ name: String) throws -> (shape: [Int], values: [Float]) {
        let tensor = try tensor(name)
        switch tensor.dtype {
        case .f32: return (tensor.shape, words(tensor, as: UInt32.self).map(Float.init(bitPattern:)))
        case .f16: return (tensor.shape, words(tensor, as: UInt16.self).map(float(half:)))
        case .bf16: return (tensor.shape, words(tensor, as: UInt16.self).map { Float(bitPattern: UInt32($0) << 16) })
        default: throw refused("tensor '\(name)' is \(tensor.dtype.rawValue), expected F32, F16 or BF16")
        }
    }

    /// A tensor of I32, or of I64 with values that fit.
    ///
    /// - Throws: ``SnapError/artifact(path:reason:)`` when there is no such tensor, or it holds something else.
    public func ints(_ name: String) throws -> (shape: [Int], values: [Int32]) {
        let tensor = try tensor(name)
        switch tensor.dtype {
        case .i32: return (tensor.shape, words(tensor, as: UInt32.self).map(Int32.init(bitPattern:)))
        case .i64:
            let values = try words(tensor, as: UInt64.self).map { bits in
                guard let value = Int32(exactly: Int64(bitPattern: bits)) else {
                    throw refused("tensor '\(name)' has \(Int64(bitPattern: bits)), which does not fit 32 bits")
                }
                return value
            }
            return (tensor.shape, values)
        default: throw refused("tensor '\(name)' is \(tensor.dtype.rawValue), expected I32 or I64")
        }
    }

    private func tensor(_ name: String) throws -> SafetensorsHeader.Tensor {
        guard let tensor = tensors[Array(name.utf8)] else {
            throw refused("has no tensor '\(name)'")
        }
        return tensor
    }

    private func refused(_ reason: String) -> SnapError { .artifact(path: path, reason: reason) }

    /// The elements of a tensor, whose bytes the header's checks have found to lie in the file and to be whole words.
    private func words<Word: FixedWidthInteger>(_ tensor: SafetensorsHeader.Tensor, as type: Word.Type) -> [Word] {
        let size = MemoryLayout<Word>.size
        return file.withUnsafeBytes { bytes in
            let data = bytes[(start + tensor.bytes.lowerBound)..<(start + tensor.bytes.upperBound)]
            return stride(from: data.startIndex, to: data.endIndex, by: size).map { offset in
                Word(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Word.self))
            }
        }
    }
}

/// The value of IEEE 754 half-precision bits. `Float16` does not exist on Intel Macs.
private func float(half bits: UInt16) -> Float {
    let sign: Float = bits >> 15 == 1 ? -1 : 1
    let exponent = Int(bits >> 10 & 0x1f)
    let fraction = Float(bits & 0x3ff)
    switch exponent {
    case 0: return sign * fraction * 0x1p-24
    case 0x1f: return fraction == 0 ? sign * .infinity : .nan
    default: return sign * (1 + fraction * 0x1p-10) * Float(sign: .plus, exponent: exponent - 15, significand: 1)
    }
}
