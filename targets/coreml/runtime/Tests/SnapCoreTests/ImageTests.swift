import Foundation
import XCTest

@testable import SnapCore

final class ImageTests: XCTestCase {
    private func image(_ values: [Float], width: Int, height: Int) -> RGBImage {
        values.withUnsafeBufferPointer { RGBImage(planes: $0, width: width, height: height) }
    }

    // numpy: ((x / 2 + 0.5).clip(0, 1) * 255).round() in f32. -0.4 lies at 76.5 and 0 at 127.5.
    func testLevelsAreThoseOfNumpy() {
        let values: [Float] = [-1.5, -1, -0.999, -0.4, -0.2, 0, 0.25, 0.4, 0.6, 0.999, 1, 2]
        let found = image(values, width: 4, height: 1)
        XCTAssertEqual(found.pixels, [0, 102, 204, 0, 128, 255, 0, 159, 255, 76, 178, 255])
        XCTAssertEqual([found.width, found.height], [4, 1])
    }

    func testWhatIsNotFiniteStillHasALevel() {
        let found = image([.nan, .infinity, -.infinity], width: 1, height: 1)
        XCTAssertEqual(found.pixels, [0, 255, 0])
    }

    // Python: struct, zlib.compress(scanlines, 0) and zlib.crc32 for the chunks of the 4 x 1 picture above.
    func testAPNGFileIsThatOfZlib() throws {
        let pixels: [UInt8] = [0, 102, 204, 0, 128, 255, 0, 159, 255, 76, 178, 255]
        let expected = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAABCAIAAAB2XpiaAAAAGElEQVR4AQENAPL/AABmzACA/wCf/0yy/yG+Bk0ZkriQAAAAAElFTkSuQmCC"
        XCTAssertEqual(RGBImage(pixels: pixels, width: 4, height: 1).png().base64EncodedString(), expected)
    }

    // More than one stored block. Python: zlib.adler32 and zlib.crc32 of the same picture's scanlines and IDAT chunk.
    func testALargePictureIsSeveralBlocks() throws {
        let (width, height) = (200, 120)
        // Channel c of the pixel (x, y) is x + 2 y + 3 c, modulo 256.
        var pixels: [UInt8] = []
        var scanlines: [UInt8] = []
        for y in 0..<height {
            var row: [UInt8] = []
            for x in 0..<width {
                for channel in 0..<3 {
                    row.append(UInt8((x + 2 * y + 3 * channel) % 256))
                }
            }
            pixels += row
            scanlines.append(0)
            scanlines += row
        }
        let picture = RGBImage(pixels: pixels, width: width, height: height)
        let file = [UInt8](picture.png())
        // Signature and IHDR have 33 bytes; the length of IDAT is that of the zlib stream.
        let stream = Array(file[41..<(file.count - 16)])
        let unpacked = try XCTUnwrap(unpackStored(stream))
        XCTAssertEqual(unpacked.blocks, 2)
        XCTAssertEqual(unpacked.contents, scanlines)
        XCTAssertEqual(Array(stream.suffix(4)), [0x74, 0x91, 0x02, 0x33])
        XCTAssertEqual(Array(file[(file.count - 16)..<(file.count - 12)]), [0x8e, 0x8e, 0xfe, 0x1d])
    }

    /// The contents of a zlib stream of stored blocks, and the number of these; nil for any other stream.
    private func unpackStored(_ stream: [UInt8]) -> (contents: [UInt8], blocks: Int)? {
        func word(at position: Int) -> Int {
            Int(stream[position + 1]) * 256 + Int(stream[position])
        }
        let checksum = stream.count - 4
        // 0x78 0x01: deflate with a window of 32 KB.
        guard checksum > 2, stream[0] == 0x78, stream[1] == 0x01 else {
            return nil
        }
        var contents: [UInt8] = []
        var blocks = 0
        var position = 2
        while position + 5 <= checksum {
            let last = stream[position]
            let length = word(at: position + 1)
            let start = position + 5
            let end = start + length
            guard last <= 1, word(at: position + 3) == 0xffff - length, end <= checksum else {
                return nil
            }
            contents += stream[start..<end]
            blocks += 1
            position = end
            if last == 1 {
                return position == checksum ? (contents, blocks) : nil
            }
        }
        return nil
    }

    // PNG specification: the CRC of every IEND chunk; RFC 1950 and the catalogue of CRCs for the others.
    func testCheckValuesAreThoseOfTheirSpecifications() {
        XCTAssertEqual(PNG.crc32(Array("IEND".utf8)), 0xae42_6082)
        XCTAssertEqual(PNG.crc32(Array("123456789".utf8)), 0xcbf4_3926)
        XCTAssertEqual(PNG.adler32([]), 1)
        XCTAssertEqual(PNG.adler32(Array("Wikipedia".utf8)), 0x11e6_0398)
        // Python: zlib.adler32(b"\xff" * 100000), where both sums pass the modulus.
        XCTAssertEqual(PNG.adler32([UInt8](repeating: 255, count: 100_000)), 0x149a_302c)
    }

    // By hand: errors 0, 0.1, 0, -0.1 have an RMSE of sqrt(0.005); the range is 4: 20 log10(4 / 0.0707107) = 35.0515.
    func testPSNRIsThatOfTheFormula() {
        XCTAssertEqual(psnr(reference: [-1, 1, 2, 3], found: [-1, 1.1, 2, 2.9]), 35.0515, accuracy: 1e-3)
        XCTAssertEqual(psnr(reference: [0, 0], found: [0, 0]), .infinity)
        XCTAssert(psnr(reference: [0, 1], found: [0, .nan]).isNaN)
        XCTAssert(psnr(reference: [], found: []).isNaN)
    }
}
