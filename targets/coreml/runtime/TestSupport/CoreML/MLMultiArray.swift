import Foundation

/// Element type of a multi-array, with the numbers of the framework.
public enum MLMultiArrayDataType: Int, Sendable {
    /// IEEE binary64.
    case double = 65600
    /// IEEE binary32.
    case float32 = 65568
    /// IEEE binary16.
    case float16 = 65552
    /// Signed 32-bit integer.
    case int32 = 131104

    /// Another name of ``double``.
    public static var float64: MLMultiArrayDataType { .double }
    /// Another name of ``float32``.
    public static var float: MLMultiArrayDataType { .float32 }

    /// Bytes of an element.
    var size: Int {
        switch self {
        case .double: return 8
        case .float32, .int32: return 4
        case .float16: return 2
        }
    }
}

/// Numbers of one type along any number of axes, in memory of its own or of the caller.
///
/// Element `[i, j, …]` lies `i * strides[0] + j * strides[1] + …` elements behind the start. As in the framework, memory of its
/// own has no defined contents at first; here it is filled with bytes of 0xFF, which are NaN, so that a test sees it being read.
public final class MLMultiArray: NSObject {
    /// Element type.
    public let dataType: MLMultiArrayDataType
    /// Sizes of the axes.
    public let shape: [NSNumber]
    /// Elements from one to the next along each axis.
    public let strides: [NSNumber]
    /// Number of elements.
    public let count: Int
    /// The first element.
    public let dataPointer: UnsafeMutableRawPointer

    let layout: ArrayLayout
    private let release: () -> Void

    /// An array whose elements lie side by side, the last axis first, in memory of its own.
    ///
    /// - Throws: when there is no axis, or one without elements, or too many elements.
    public convenience init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
        let sizes = shape.map(\.intValue)
        guard let layout = ArrayLayout(contiguous: sizes) else {
            throw modelError(.generic, "no multi-array has the shape \(text(of: sizes))")
        }
        try self.init(layout, dataType)
    }

    /// An array in the caller's memory. `deallocator` is called with the pointer when the array goes.
    ///
    /// - Throws: when the shape is impossible, or the strides do not go with it.
    public convenience init(
        dataPointer: UnsafeMutableRawPointer,
        shape: [NSNumber],
        dataType: MLMultiArrayDataType,
        strides: [NSNumber],
        deallocator: ((UnsafeMutableRawPointer) -> Void)? = nil
    ) throws {
        let (sizes, steps) = (shape.map(\.intValue), strides.map(\.intValue))
        guard let layout = ArrayLayout(sizes, strides: steps) else {
            throw modelError(.generic, "no multi-array has the shape \(text(of: sizes)) and the strides \(steps)")
        }
        self.init(layout, dataType, at: dataPointer) { deallocator?(dataPointer) }
    }

    /// An array of this layout in memory of its own.
    convenience init(_ layout: ArrayLayout, _ dataType: MLMultiArrayDataType) throws {
        guard let bytes = layout.bytes(of: dataType) else {
            throw modelError(.generic, "a multi-array of the shape \(text(of: layout.shape)) does not fit in memory")
        }
        // The framework aligns to cache lines too.
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0xFF, count: bytes)
        self.init(layout, dataType, at: memory) { memory.deallocate() }
    }

    private init(
        _ layout: ArrayLayout, _ dataType: MLMultiArrayDataType, at memory: UnsafeMutableRawPointer,
        release: @escaping () -> Void
    ) {
        self.layout = layout
        self.dataType = dataType
        self.release = release
        shape = layout.shape.map { NSNumber(value: $0) }
        strides = layout.strides.map { NSNumber(value: $0) }
        count = layout.count
        dataPointer = memory
    }

    deinit {
        release()
    }

    /// Bytes from the first element to the end of the last.
    private var byteCount: Int {
        layout.bytes(of: dataType) ?? 0
    }

    /// Calls `body` with the memory from the first to the last element, gaps between them included.
    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(start: dataPointer, count: byteCount))
    }

    /// Calls `body` with the memory from the first to the last element, gaps between them included, and the strides.
    public func withUnsafeMutableBytes<R>(
        _ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> R
    ) rethrows -> R {
        try body(UnsafeMutableRawBufferPointer(start: dataPointer, count: byteCount), layout.strides)
    }
}
