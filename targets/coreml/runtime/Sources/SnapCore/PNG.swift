import Foundation

/// PNG files (PNG specification, third edition) with stored deflate blocks (RFC 1950, RFC 1951): simple, and as large as
/// the picture.
enum PNG {
    private static let signature: [UInt8] = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]

    /// The file of a picture.
    static func file(of image: RGBImage) -> Data {
        var header = bigEndian(UInt32(image.width)) + bigEndian(UInt32(image.height))
        // Eight bits, RGB, deflate, adaptive filters, not interlaced.
        header += [8, 2, 0, 0, 0]
        var file = Data(signature)
        append(chunk: "IHDR", header, to: &file)
        append(chunk: "IDAT", zlib(scanlines(of: image)), to: &file)
        append(chunk: "IEND", [], to: &file)
        return file
    }

    /// The rows, each behind a byte that says it is not filtered.
    private static func scanlines(of image: RGBImage) -> [UInt8] {
        let row = 3 * image.width
        var bytes: [UInt8] = []
        bytes.reserveCapacity((row + 1) * image.height)
        for start in stride(from: 0, to: image.pixels.count, by: row) {
            bytes.append(0)
            bytes += image.pixels[start..<(start + row)]
        }
        return bytes
    }

    /// A zlib stream of stored blocks.
    static func zlib(_ bytes: [UInt8]) -> [UInt8] {
        let maxBlock = 0xffff
        // Deflate with a window of 32 KB, at the lowest level; the two are a multiple of 31.
        var stream: [UInt8] = [0x78, 0x01]
        stream.reserveCapacity(bytes.count + 5 * (bytes.count / maxBlock + 1) + 6)
        var start = 0
        repeat {
            let end = min(start + maxBlock, bytes.count)
            let length = UInt16(end - start)
            stream.append(end == bytes.count ? 1 : 0)
            for word in [length, ~length] {
                stream += [UInt8(word & 0xff), UInt8(word >> 8)]
            }
            stream += bytes[start..<end]
            start = end
        } while start < bytes.count
        return stream + bigEndian(adler32(bytes))
    }

    private static func append(chunk type: String, _ contents: [UInt8], to file: inout Data) {
        let body = Array(type.utf8) + contents
        file.append(contentsOf: bigEndian(UInt32(contents.count)))
        file.append(contentsOf: body)
        file.append(contentsOf: bigEndian(crc32(body)))
    }

    private static func bigEndian(_ value: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
    }

    /// The check value of a chunk: CRC-32 with the polynomial 0xedb88320 (reflected).
    static func crc32(_ bytes: [UInt8]) -> UInt32 {
        ~bytes.reduce(~0) { crc, byte in
            crcTable[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] ^ (crc >> 8)
        }
    }

    private static let crcTable: [UInt32] = (0..<256).map { index in
        (0..<8).reduce(UInt32(index)) { crc, _ in crc & 1 == 1 ? 0xedb8_8320 ^ (crc >> 1) : crc >> 1 }
    }

    /// The check value of a zlib stream.
    static func adler32(_ bytes: [UInt8]) -> UInt32 {
        let modulus: UInt32 = 65_521
        var (low, high): (UInt32, UInt32) = (1, 0)
        for byte in bytes {
            low = (low + UInt32(byte)) % modulus
            high = (high + low) % modulus
        }
        return high << 16 | low
    }
}
