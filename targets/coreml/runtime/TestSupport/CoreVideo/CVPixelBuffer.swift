/// A code of four characters.
public typealias OSType = UInt32

/// Blue, green, red and alpha, 8 bits each, in this order in memory: `BGRA`.
public let kCVPixelFormatType_32BGRA: OSType = 0x4247_5241
/// Alpha, red, green and blue, 8 bits each, in this order in memory.
public let kCVPixelFormatType_32ARGB: OSType = 0x0000_0020

/// What came of a call.
public typealias CVReturn = Int32
/// The call did what it is for.
public let kCVReturnSuccess: CVReturn = 0
/// An argument is wrong.
public let kCVReturnInvalidArgument: CVReturn = -6661

/// Flags of calls.
public typealias CVOptionFlags = UInt64

/// How a buffer is locked.
public struct CVPixelBufferLockFlags: OptionSet, Sendable {
    public let rawValue: CVOptionFlags

    public init(rawValue: CVOptionFlags) {
        self.rawValue = rawValue
    }

    /// The caller does not write.
    public static let readOnly = CVPixelBufferLockFlags(rawValue: 1)
}

/// A buffer, here always one of pixels.
///
/// This module stands in for Apple's framework where there is none, in tests: the part of the interface that the runtime uses. It
/// is strict where the framework may be lenient: rows always have a gap behind them, and a buffer that is not locked has no
/// address.
public final class CVBuffer {
    fileprivate let width: Int
    fileprivate let height: Int
    fileprivate let format: OSType
    fileprivate let rowBytes: Int
    fileprivate let memory: UnsafeMutableRawBufferPointer
    fileprivate var locks: [CVPixelBufferLockFlags] = []

    /// A picture of 4 bytes per pixel.
    ///
    /// - Parameter pixel: The bytes of a pixel by row and column.
    package init(
        width: Int, height: Int, format: OSType, pixel: (_ row: Int, _ column: Int) -> (UInt8, UInt8, UInt8, UInt8)
    ) {
        self.width = width
        self.height = height
        self.format = format
        // As IOSurface aligns rows, but never without a gap, whose bytes are those of no picture of the tests.
        rowBytes = (4 * width / 64 + 1) * 64
        memory = .allocate(byteCount: rowBytes * height, alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
        for row in 0..<height {
            for column in 0..<width {
                let (first, second, third, fourth) = pixel(row, column)
                let place = row * rowBytes + 4 * column
                memory[place] = first
                memory[place + 1] = second
                memory[place + 2] = third
                memory[place + 3] = fourth
            }
        }
    }

    deinit {
        memory.deallocate()
    }

    /// Whether somebody has locked it and not unlocked.
    package var isLocked: Bool {
        !locks.isEmpty
    }
}

/// A buffer that holds an image.
public typealias CVImageBuffer = CVBuffer
/// An image in memory.
public typealias CVPixelBuffer = CVImageBuffer

/// Locks the pixels in memory, which has to be done before they are touched.
@discardableResult
public func CVPixelBufferLockBaseAddress(_ pixelBuffer: CVPixelBuffer, _ lockFlags: CVPixelBufferLockFlags) -> CVReturn {
    pixelBuffer.locks.append(lockFlags)
    return kCVReturnSuccess
}

/// Ends a lock, with the flags of its beginning.
@discardableResult
public func CVPixelBufferUnlockBaseAddress(
    _ pixelBuffer: CVPixelBuffer, _ unlockFlags: CVPixelBufferLockFlags
) -> CVReturn {
    guard let place = pixelBuffer.locks.lastIndex(of: unlockFlags) else {
        return kCVReturnInvalidArgument
    }
    pixelBuffer.locks.remove(at: place)
    return kCVReturnSuccess
}

/// Pixels in a row.
public func CVPixelBufferGetWidth(_ pixelBuffer: CVPixelBuffer) -> Int {
    pixelBuffer.width
}

/// Rows.
public func CVPixelBufferGetHeight(_ pixelBuffer: CVPixelBuffer) -> Int {
    pixelBuffer.height
}

/// The order of the channels and their bits.
public func CVPixelBufferGetPixelFormatType(_ pixelBuffer: CVPixelBuffer) -> OSType {
    pixelBuffer.format
}

/// Bytes from one row to the next, gap included.
public func CVPixelBufferGetBytesPerRow(_ pixelBuffer: CVPixelBuffer) -> Int {
    pixelBuffer.rowBytes
}

/// The first pixel; `nil` unless the buffer is locked.
public func CVPixelBufferGetBaseAddress(_ pixelBuffer: CVPixelBuffer) -> UnsafeMutableRawPointer? {
    pixelBuffer.isLocked ? pixelBuffer.memory.baseAddress : nil
}
