import CoreVideo

/// The levels of an image output, as the library gives them: red, green and blue plane.
final class ImageValues {
    let memory: UnsafeMutableRawBufferPointer
    private let width: Int
    private let height: Int

    /// Room for an output of the shape `[1, 3, height, width]`.
    ///
    /// - Throws: when it has another shape.
    init(_ feature: ModelRecord.Feature) throws {
        guard feature.shape.count == 4, feature.shape[..<2] == [1, 3], let layout = ArrayLayout(contiguous: feature.shape)
        else {
            throw modelError(.generic, "output '\(feature.name)' of the shape \(text(of: feature.shape)) is no image")
        }
        (height, width) = (feature.shape[2], feature.shape[3])
        memory = .allocate(byteCount: layout.count, alignment: 64)
    }

    deinit {
        memory.deallocate()
    }

    /// The image as the framework gives it: 8-bit BGRA, opaque.
    func pixelBuffer() -> CVPixelBuffer {
        CVPixelBuffer(width: width, height: height, format: kCVPixelFormatType_32BGRA) { row, column in
            let pixel = row * width + column
            let plane = width * height
            return (memory[2 * plane + pixel], memory[plane + pixel], memory[pixel], 255)
        }
    }
}
