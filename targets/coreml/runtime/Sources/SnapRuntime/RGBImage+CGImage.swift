#if canImport(CoreGraphics)
    import CoreGraphics
    import Foundation
    import SnapCore

    extension RGBImage {
        /// The picture for the system's frameworks, in sRGB; nil when the system has no memory for it.
        public var cgImage: CGImage? {
            guard let provider = CGDataProvider(data: Data(pixels) as CFData),
                let space = CGColorSpace(name: CGColorSpace.sRGB)
            else {
                return nil
            }
            return CGImage(
                width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 24, bytesPerRow: 3 * width, space: space,
                bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
                shouldInterpolate: false, intent: .defaultIntent)
        }
    }

    extension Pipeline.Generation {
        /// ``image`` for the system's frameworks.
        public var cgImage: CGImage? { image.cgImage }
    }
#endif
