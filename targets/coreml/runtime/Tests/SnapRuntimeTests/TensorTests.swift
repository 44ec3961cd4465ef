import CoreML
import Foundation
import XCTest

@testable import SnapRuntime

/// Memory of features: conversions and layouts.
final class TensorTests: XCTestCase {
    private func feature(_ dtype: Manifest.ElementType, _ shape: [Int]) throws -> Manifest.Feature {
        let sizes = shape.map { "\"\($0)\"" }.joined(separator: ",")
        let json = "{\"name\":\"x\",\"dtype\":\"\(dtype.rawValue)\",\"shape\":[\(sizes)]}"
        return try JSONDecoder().decode(Manifest.Feature.self, from: Data(json.utf8))
    }

    /// Bit patterns of numpy's float16: ties to even, subnormals, overflow.
    func testHalfPrecision() throws {
        let values: [Float] = [1, -2.5, 65504, 65520, 1.0 / 3, 1.00048828125, 1.00146484375, 6e-8, 2.98e-8, 0, -0.0]
        let bits: [UInt16] = [
            0x3c00, 0xc100, 0x7bff, 0x7c00, 0x3555, 0x3c00, 0x3c02, 0x0001, 0x0000, 0x0000, 0x8000,
        ]
        let tensor = try Tensor(try feature(.f16, [1, values.count]))
        values.withUnsafeBufferPointer { tensor.store($0, row: 0) }
        XCTAssertEqual(tensor.array.withUnsafeBytes { Array($0.bindMemory(to: UInt16.self)) }, bits)
        let exact: [Float] = [1, -2.5, 65504, .infinity, 0.333251953125, 1, 1.001953125, 5.9604645e-08, 0, 0, 0]
        XCTAssertEqual(tensor.floats(), exact)
        XCTAssertFalse(tensor.isFinite(count: 4))
        XCTAssertTrue(tensor.isFinite(count: 3))
    }

    func testFiniteness() throws {
        for dtype in [Manifest.ElementType.f16, .f32] {
            for value in [Float.nan, .infinity, -.infinity] {
                let tensor = try Tensor(try feature(dtype, [1, 3]))
                XCTAssertTrue(tensor.isFinite(count: 3))
                [0, value, 1].withUnsafeBufferPointer { tensor.store($0, row: 0) }
                XCTAssertFalse(tensor.isFinite(count: 3), "\(dtype) \(value)")
                XCTAssertTrue(tensor.isFinite(count: 1))
            }
        }
    }

    func testIntegers() throws {
        let tensor = try Tensor(try feature(.i32, [1, 3]))
        [49406, -1, 7].withUnsafeBufferPointer { tensor.store($0, row: 0) }
        XCTAssertEqual(tensor.floats(), [49406, -1, 7])
        XCTAssertEqual(tensor.array.withUnsafeBytes { Array($0.bindMemory(to: Int32.self)) }, [49406, -1, 7])
    }

    /// Latents as integers make no sense, but an artifact may say so. The largest float below 2^31 is 2^31 - 128.
    func testIntegersOutOfRange() throws {
        let tensor = try Tensor(try feature(.i32, [1, 5]))
        [3e9, -3e9, .infinity, .nan, -1.9].withUnsafeBufferPointer { tensor.store($0, row: 0) }
        let expected: [Int32] = [2_147_483_520, .min, 2_147_483_520, 0, -1]
        XCTAssertEqual(tensor.array.withUnsafeBytes { Array($0.bindMemory(to: Int32.self)) }, expected)
    }

    func testRowsShareTheMemory() throws {
        let tensor = try Tensor(try feature(.f32, [2, 3]))
        let row = try tensor.view(ofRow: 1)
        XCTAssertEqual(row.array.shape, [1, 3])
        [1, 2, 3].withUnsafeBufferPointer { row.store($0, row: 0) }
        XCTAssertEqual(tensor.floats(), [0, 0, 0, 1, 2, 3])
        tensor.copyRow(1, to: 0)
        XCTAssertEqual(tensor.floats(), [1, 2, 3, 1, 2, 3])
        tensor.fill(4)
        XCTAssertEqual(row.floats(), [4, 4, 4])
    }

    /// An array may outlive the tensor that made it: its memory stays.
    func testMemoryLivesAsLongAsItsArrays() throws {
        var tensor: Tensor? = try Tensor(try feature(.f32, [1, 4096]))
        tensor?.fill(5)
        let array = try XCTUnwrap(tensor).array
        tensor = nil
        XCTAssertEqual(array.withUnsafeBytes { $0.bindMemory(to: Float.self).reduce(0, +) }, 5 * 4096)
    }

    /// Rows of 3 that lie 5 apart, in planes that lie 12 apart.
    func testArraysWithGaps() throws {
        var memory = [Float](repeating: .nan, count: 24)
        for (plane, row, column) in (0..<2).flatMap({ p in (0..<2).flatMap { r in (0..<3).map { (p, r, $0) } } }) {
            memory[12 * plane + 5 * row + column] = Float(100 * plane + 10 * row + column)
        }
        let expected: [Float] = [0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112]
        try memory.withUnsafeMutableBytes { bytes in
            let array = try MLMultiArray(
                dataPointer: try XCTUnwrap(bytes.baseAddress), shape: [2, 2, 3], dataType: .float32, strides: [12, 5, 1])
            let tensor = try Tensor(try feature(.f32, [2, 2, 3]))
            XCTAssertTrue(tensor.copy(from: array))
            XCTAssertEqual(tensor.floats(), expected)
            XCTAssertFalse(try Tensor(try feature(.f32, [2, 3, 2])).copy(from: array))
            XCTAssertFalse(try Tensor(try feature(.i32, [2, 2, 3])).copy(from: array))
        }
    }

    func testStridedCopies() {
        func copied(_ shape: [Int], _ strides: [Int], of count: Int) -> [UInt16] {
            let source = (0..<UInt16(count)).map { $0 }
            var target = [UInt16](repeating: .max, count: shape.reduce(1, *))
            source.withUnsafeBytes { from in
                target.withUnsafeMutableBytes { to in
                    if let from = from.baseAddress, let to = to.baseAddress {
                        StridedCopy(shape: shape, strides: strides, size: 2).run(from: from, to: to)
                    }
                }
            }
            return target
        }
        XCTAssertEqual(copied([2, 3], [3, 1], of: 6), [0, 1, 2, 3, 4, 5])
        XCTAssertEqual(copied([2, 3], [4, 1], of: 8), [0, 1, 2, 4, 5, 6])
        XCTAssertEqual(copied([3, 2], [1, 3], of: 6), [0, 3, 1, 4, 2, 5])
        XCTAssertEqual(copied([2, 1, 2], [2, 64, 1], of: 4), [0, 1, 2, 3])
        XCTAssertEqual(copied([2], [0], of: 1), [0, 0])
        XCTAssertEqual(copied([1], [7], of: 1), [0])
    }

    func testTransposition() {
        XCTAssertEqual(transposed([1, 2, 3, 4, 5, 6], columns: 3), [1, 4, 2, 5, 3, 6])
        XCTAssertEqual(transposed([1, 2, 3], columns: 1), [1, 2, 3])
    }

    /// FIPS 180-4's examples of one and two blocks, the empty message, and lengths around the padding's limits by
    /// Python's hashlib.
    func testSHA256() {
        let cases: [(String, String)] = [
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (String(repeating: "a", count: 55), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"),
            (String(repeating: "a", count: 56), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"),
            (String(repeating: "a", count: 64), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"),
        ]
        for (text, expected) in cases {
            XCTAssertEqual(SHA256.hexadecimal(of: Data(text.utf8)), expected, text)
        }
    }

    func testSHA256OfAFileInPieces() throws {
        let scratch = try Scratch()
        let file = scratch.folder.appendingPathComponent("a")
        try Data(repeating: UInt8(ascii: "a"), count: 1_000_000).write(to: file)
        // FIPS 180-4's example of a long message.
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        XCTAssertEqual(try SHA256.hexadecimal(of: try FileHandle(forReadingFrom: file)), expected)
    }
}
