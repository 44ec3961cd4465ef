// This module stands in for Apple's framework where there is none, in tests: the functions that the runtime uses, with the
// parameters of the framework and as it documents them.

/// What came of a call.
public typealias vImage_Error = Int
/// Rows or columns.
public typealias vImagePixelCount = UInt
/// Flags of calls.
public typealias vImage_Flags = UInt32

/// The call did what it is for.
public let kvImageNoError = 0
/// The destination has more rows or columns than the source.
public let kvImageRoiLargerThanInputBuffer = -21766
/// A buffer has no memory.
public let kvImageNullPointerArgument = -21772
/// No flags.
public let kvImageNoFlags = 0

/// Rows of pixels in the caller's memory.
public struct vImage_Buffer {
    /// The first pixel.
    public var data: UnsafeMutableRawPointer!
    /// Rows.
    public var height: vImagePixelCount
    /// Pixels in a row.
    public var width: vImagePixelCount
    /// Bytes from one row to the next.
    public var rowBytes: Int

    /// A buffer in this memory.
    public init(data: UnsafeMutableRawPointer!, height: vImagePixelCount, width: vImagePixelCount, rowBytes: Int) {
        self.data = data
        self.height = height
        self.width = width
        self.rowBytes = rowBytes
    }
}

/// Rounds single to half precision, to nearest, ties to even.
public func vImageConvert_PlanarFtoPlanar16F(
    _ src: UnsafePointer<vImage_Buffer>, _ dest: UnsafePointer<vImage_Buffer>, _ flags: vImage_Flags
) -> vImage_Error {
    convert(src.pointee, dest.pointee) { (value: Float) in Float16(value) }
}

/// Widens half to single precision.
public func vImageConvert_Planar16FtoPlanarF(
    _ src: UnsafePointer<vImage_Buffer>, _ dest: UnsafePointer<vImage_Buffer>, _ flags: vImage_Flags
) -> vImage_Error {
    convert(src.pointee, dest.pointee) { (value: Float16) in Float(value) }
}

/// The size is that of the destination.
private func convert<From, To>(
    _ source: vImage_Buffer, _ target: vImage_Buffer, _ convert: (From) -> To
) -> vImage_Error {
    guard source.height >= target.height, source.width >= target.width else {
        return kvImageRoiLargerThanInputBuffer
    }
    guard let from = source.data, let to = target.data else {
        return kvImageNullPointerArgument
    }
    for row in 0..<Int(target.height) {
        let values = (from + row * source.rowBytes).assumingMemoryBound(to: From.self)
        let results = (to + row * target.rowBytes).assumingMemoryBound(to: To.self)
        for column in 0..<Int(target.width) {
            results[column] = convert(values[column])
        }
    }
    return kvImageNoError
}
