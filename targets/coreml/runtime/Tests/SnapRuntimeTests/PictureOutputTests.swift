import Foundation
import XCTest

@testable import SnapRuntime

#if os(Linux)
    import CoreVideo
#endif

/// Decoders whose output is a picture (`--image-output`).
final class PictureOutputTests: XCTestCase {
    private let scratch = try? Scratch()

    private func pipeline(_ artifact: String) async throws -> Pipeline {
        let options = Pipeline.Options(cacheFolder: try XCTUnwrap(scratch).folder)
        return try await Pipeline(artifact: Artifact(folder: try Environment.artifact(artifact)), options: options)
    }

    /// Levels of the reference's picture, pixel by pixel: diffusers' `VaeImageProcessor.postprocess`.
    private func referenceLevels() throws -> [Int] {
        let planes = try Reference().floats("image")
        let plane = planes.count / 3
        return (0..<planes.count).map { index in
            let value = planes[index % 3 * plane + index / 3]
            return Int((min(max(value / 2 + 0.5, 0), 1) * 255).rounded(.toNearestOrEven))
        }
    }

    private func distances(_ picture: [Int], _ other: [Int]) throws -> [Int] {
        XCTAssertEqual(picture.count, other.count)
        return zip(picture, other).map { abs($0 - $1) }
    }

    /// The bars are those of the contract for runs in f16: 40 dB for the picture. The picture of the same packages with planes
    /// differs by the rounding alone.
    func testThePictureOfAWholeRun() async throws {
        let pipeline = try await pipeline("image")
        XCTAssertEqual(pipeline.artifact.manifest.graphs.last?.outputs.map(\.dtype), [.u8])
        let found = try await pipeline.generate(try Reference().request())
        let picture = found.image.pixels.map(Int.init)
        let reference = try referenceLevels()
        XCTAssertGreaterThanOrEqual(psnr(reference: reference.map(Float.init), found: picture.map(Float.init)), 40)
        XCTAssertLessThanOrEqual(try XCTUnwrap(distances(picture, reference).max()), 1)

        let plain = try await self.pipeline("plain").generate(try Reference().request())
        XCTAssertEqual(found.latents, plain.latents)
        let apart = try distances(picture, plain.image.pixels.map(Int.init))
        XCTAssertLessThanOrEqual(try XCTUnwrap(apart.max()), 1)
    }

    func testPreviewsArePicturesToo() async throws {
        let previews = Collected<RGBImage>()
        let generation = try await pipeline("image").generate(try Reference().request()) { progress in
            if progress.step == 7, let preview = try? await progress.preview() {
                previews.append(preview)
            }
            return true
        }
        let preview = try XCTUnwrap(previews.values.first)
        XCTAssertEqual([preview.width, preview.height], [128, 128])
        let apart = try distances(preview.pixels.map(Int.init), generation.image.pixels.map(Int.init))
        XCTAssertLessThan(Double(apart.reduce(0, +)) / Double(apart.count), 8)
    }

    #if os(Linux)
        /// Red, green and blue of a pixel, none of them equal.
        private func color(_ row: Int, _ column: Int) -> (UInt8, UInt8, UInt8) {
            (UInt8(10 * row + column), UInt8(100 + 10 * row + column), UInt8(200 + 10 * row + column))
        }

        func testPixelsAreReadInBothOrders() {
            let orders: [(OSType, (Int, Int) -> (UInt8, UInt8, UInt8, UInt8))] = [
                (kCVPixelFormatType_32BGRA, { let (r, g, b) = self.color($0, $1); return (b, g, r, 255) }),
                (kCVPixelFormatType_32ARGB, { let (r, g, b) = self.color($0, $1); return (255, r, g, b) }),
            ]
            for (format, pixel) in orders {
                let buffer = CVPixelBuffer(width: 3, height: 2, format: format, pixel: pixel)
                let levels: [Float] = [
                    0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112, 200, 201, 202, 210, 211, 212,
                ]
                XCTAssertEqual(buffer.planes(width: 3, height: 2), levels.map { $0 / 127.5 - 1 })
                XCTAssertFalse(buffer.isLocked)
            }
        }

        func testOtherBuffersAreRefused() {
            func buffer(_ format: OSType) -> CVPixelBuffer {
                CVPixelBuffer(width: 3, height: 2, format: format) { _, _ in (0, 0, 0, 0) }
            }
            let gray: OSType = 0x4c30_3038
            XCTAssertNil(buffer(gray).planes(width: 3, height: 2))
            for (width, height) in [(2, 3), (3, 1), (4, 2)] {
                let buffer = buffer(kCVPixelFormatType_32BGRA)
                XCTAssertNil(buffer.planes(width: width, height: height))
                XCTAssertFalse(buffer.isLocked)
            }
        }

        func testEveryLevelIsKept() {
            let buffer = CVPixelBuffer(width: 16, height: 16, format: kCVPixelFormatType_32BGRA) { row, column in
                let level = UInt8(16 * row + column)
                return (255 - level, 128, level, 255)
            }
            let picture = buffer.planes(width: 16, height: 16)?.withUnsafeBufferPointer {
                RGBImage(planes: $0, width: 16, height: 16)
            }
            XCTAssertEqual(picture?.pixels, (0...255).flatMap { [UInt8($0), 128, UInt8(255 - $0)] })
        }
    #endif
}
