import CoreML
import Foundation
import SnapCore

/// Memory of a feature, allocated once per run: dense, row-major, in the feature's element type.
///
/// Networks read it as an input and write to it as an output backing, so that an output of one is an input of the next
/// without a copy.
final class Tensor {
    /// The memory as Core ML takes it.
    let array: MLMultiArray
    let dtype: Manifest.ElementType
    let shape: [Int]
    private let memory: Memory
    /// Offset of the first element in the memory.
    private let offset: Int

    /// Memory for a feature, all zero.
    ///
    /// - Throws: ``SnapError/unsupported(reason:)`` when Core ML has no array of this form.
    convenience init(_ feature: Manifest.Feature) throws {
        let memory = Memory(byteCount: feature.count * feature.dtype.size)
        try self.init(memory, offset: 0, dtype: feature.dtype, shape: feature.shape)
    }

    private init(_ memory: Memory, offset: Int, dtype: Manifest.ElementType, shape: [Int]) throws {
        self.memory = memory
        self.offset = offset
        self.dtype = dtype
        self.shape = shape
        var strides = shape
        var stride = 1
        for axis in shape.indices.reversed() {
            strides[axis] = stride
            stride *= shape[axis]
        }
        guard let type = dtype.coreML else {
            throw SnapError.unsupported(reason: "a picture is no array; convert without --image-output")
        }
        do {
            array = try MLMultiArray(
                dataPointer: memory.base + offset, shape: shape.map { NSNumber(value: $0) }, dataType: type,
                strides: strides.map { NSNumber(value: $0) },
                // The array may outlive the tensor.
                deallocator: { _ in withExtendedLifetime(memory) {} })
        } catch {
            throw SnapError.unsupported(reason: "Core ML has no array of the shape \(shape): \(describe(error))")
        }
    }

    /// Number of elements.
    var count: Int { shape.reduce(1, *) }

    /// Rows along the first axis.
    var rows: Int { shape.first ?? 1 }

    /// Elements of a row.
    var rowCount: Int { count / rows }

    private var base: UnsafeMutableRawPointer { memory.base + offset }

    private func row(_ index: Int) -> UnsafeMutableRawPointer {
        precondition(index < rows, "a row of the tensor")
        return base + index * rowCount * dtype.size
    }

    /// A row as a tensor of one row, in the same memory.
    func view(ofRow index: Int) throws -> Tensor {
        try Tensor(
            memory, offset: offset + index * rowCount * dtype.size, dtype: dtype, shape: [1] + shape.dropFirst())
    }

    /// Writes values to a row.
    func store(_ values: UnsafeBufferPointer<Float>, row index: Int) {
        precondition(values.count == rowCount, "as many values as a row has")
        dtype.store(values, at: row(index))
    }

    /// Writes one value to all elements.
    func fill(_ value: Float) {
        let values = [Float](repeating: value, count: count)
        values.withUnsafeBufferPointer { dtype.store($0, at: base) }
    }

    /// Reads the first rows, as many as the values.
    func load(into values: UnsafeMutableBufferPointer<Float>) {
        precondition(values.count <= count, "no more values than there are")
        dtype.load(base, into: values)
    }

    /// Copies a row to another one.
    func copyRow(_ source: Int, to target: Int) {
        row(target).copyMemory(from: row(source), byteCount: rowCount * dtype.size)
    }

    /// Whether the first elements, as many as given, are finite.
    func isFinite(count: Int) -> Bool {
        dtype.isFinite(base, count: min(count, self.count))
    }

    /// Copies the elements of an array that Core ML made, whose rows may be padded.
    ///
    /// - Returns: false when it is of another type or shape.
    func copy(from source: MLMultiArray) -> Bool {
        guard source.dataType == dtype.coreML, source.shape.map(\.intValue) == shape else {
            return false
        }
        let size = dtype.size
        return source.withUnsafeBytes { bytes in
            // Read here, because access from the CPU may bring the elements into another layout.
            let strides = source.strides.map(\.intValue)
            let last = zip(shape, strides).reduce(0) { $0 + ($1.0 - 1) * $1.1 }
            guard let from = bytes.baseAddress, strides.allSatisfy({ $0 >= 0 }), (last + 1) * size <= bytes.count else {
                return false
            }
            StridedCopy(shape: shape, strides: strides, size: size).run(from: from, to: base)
            return true
        }
    }
}

extension Manifest.ElementType {
    /// The type of arrays; nil for pictures, which are none.
    var coreML: MLMultiArrayDataType? {
        switch self {
        case .f16: return .float16
        case .f32: return .float32
        case .i32: return .int32
        case .u8: return nil
        }
    }
}

/// Aligned bytes.
private final class Memory: @unchecked Sendable {
    /// A page of Apple's processors: Core ML can hand whole pages to other processors without a copy.
    private static let alignment = 16384

    let base: UnsafeMutableRawPointer

    init(byteCount: Int) {
        let padded = (byteCount + Self.alignment - 1) / Self.alignment * Self.alignment
        base = .allocate(byteCount: padded, alignment: Self.alignment)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: padded)
    }

    deinit {
        base.deallocate()
    }
}
