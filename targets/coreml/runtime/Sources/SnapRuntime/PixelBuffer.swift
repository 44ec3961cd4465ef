import CoreVideo

extension CVPixelBuffer {
    /// Red, green and blue plane, -1 black and 1 white, of an 8-bit picture; nil when it has another size or format.
    func planes(width: Int, height: Int) -> [Float]? {
        let channels: [Int]
        switch CVPixelBufferGetPixelFormatType(self) {
        case kCVPixelFormatType_32BGRA: channels = [2, 1, 0]
        case kCVPixelFormatType_32ARGB: channels = [1, 2, 3]
        default: return nil
        }
        guard CVPixelBufferGetWidth(self) == width, CVPixelBufferGetHeight(self) == height,
            CVPixelBufferLockBaseAddress(self, .readOnly) == kCVReturnSuccess
        else {
            return nil
        }
        defer { CVPixelBufferUnlockBaseAddress(self, .readOnly) }
        guard let base = CVPixelBufferGetBaseAddress(self) else {
            return nil
        }
        let rowBytes = CVPixelBufferGetBytesPerRow(self)
        var planes: [Float] = []
        planes.reserveCapacity(3 * width * height)
        for channel in channels {
            for row in 0..<height {
                let pixels = (base + row * rowBytes + channel).assumingMemoryBound(to: UInt8.self)
                for column in 0..<width {
                    planes.append(Float(pixels[4 * column]) / 127.5 - 1)
                }
            }
        }
        return planes
    }
}
