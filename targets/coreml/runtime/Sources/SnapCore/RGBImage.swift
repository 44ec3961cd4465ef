import Foundation

/// An 8-bit RGB picture.
public struct RGBImage: Equatable, Sendable {
    /// Longest side of a picture.
    public static let maxSide = 1 << 14

    /// Pixels in a row.
    public let width: Int
    /// Rows.
    public let height: Int
    /// Red, green and blue of each pixel, row by row from the top.
    public let pixels: [UInt8]

    /// A picture of given pixels.
    ///
    /// - Parameters:
    ///   - pixels: Red, green and blue of each pixel, row by row from the top.
    ///   - width: Pixels in a row.
    ///   - height: Rows.
    /// - Precondition: Both sides lie between 1 and ``maxSide``, and there are `3 * height * width` bytes.
    public init(pixels: [UInt8], width: Int, height: Int) {
        let sides = 1...Self.maxSide
        precondition(sides.contains(width) && sides.contains(height), "a picture that has pixels")
        precondition(pixels.count == 3 * width * height, "three bytes per pixel")
        self.width = width
        self.height = height
        self.pixels = pixels
    }

    /// The picture of decoder output `[1, 3, height, width]`, -1 black and 1 white: `clamp(x / 2 + 0.5, 0, 1) * 255`,
    /// halves rounded to even (diffusers' `VaeImageProcessor.postprocess`). NaN becomes black.
    ///
    /// - Precondition: Both sides lie between 1 and ``maxSide``, and there are `3 * height * width` values.
    public init(planes: UnsafeBufferPointer<Float>, width: Int, height: Int) {
        let plane = planes.count / 3
        precondition(planes.count == 3 * plane, "three values per pixel")
        let pixels = [UInt8](unsafeUninitializedCapacity: planes.count) { bytes, count in
            for pixel in 0..<plane {
                for channel in 0..<3 {
                    bytes[3 * pixel + channel] = Self.level(planes[channel * plane + pixel])
                }
            }
            count = planes.count
        }
        self.init(pixels: pixels, width: width, height: height)
    }

    /// The level of a value.
    private static func level(_ value: Float) -> UInt8 {
        let share = value / 2 + 0.5
        // NaN compares false.
        guard share > 0 else {
            return 0
        }
        return share < 1 ? UInt8((share * 255).rounded(.toNearestOrEven)) : 255
    }

    /// The bytes of a PNG file, not compressed; the same picture gives the same bytes.
    public func png() -> Data {
        PNG.file(of: self)
    }
}
