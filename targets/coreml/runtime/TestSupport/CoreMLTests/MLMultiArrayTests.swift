import XCTest

@testable import CoreML

/// The layout of multi-arrays, with numbers by hand.
final class MLMultiArrayTests: XCTestCase {
    func testNewArraysAreContiguousAndNotZero() throws {
        let array = try MLMultiArray(shape: [2, 3, 4], dataType: .float32)
        XCTAssertEqual(array.strides, [12, 4, 1])
        XCTAssertEqual(array.count, 24)
        array.withUnsafeBytes { bytes in
            XCTAssertEqual(bytes.count, 96)
            XCTAssertTrue(bytes.bindMemory(to: Float.self).allSatisfy(\.isNaN))
        }
    }

    func testPaddedRowsBeginAtCacheLinesBehindAGap() throws {
        let short = try XCTUnwrap(ArrayLayout(padded: [2, 4, 16, 16], .float16))
        XCTAssertEqual(short.strides, [2048, 512, 32, 1])
        // 32 halves fill a line, and the gap takes another one.
        let full = try XCTUnwrap(ArrayLayout(padded: [2, 32], .float16))
        XCTAssertEqual(full.strides, [64, 1])
        XCTAssertEqual(full.extent, 96)
        XCTAssertTrue(try XCTUnwrap(ArrayLayout(padded: [7], .float32)).isContiguous)
    }

    func testMemoryOfTheCallerIsSharedAndGivenBack() throws {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 24, alignment: 8)
        var given: UnsafeMutableRawPointer?
        do {
            let array = try MLMultiArray(
                dataPointer: memory, shape: [2, 2], dataType: .int32, strides: [4, 1], deallocator: { given = $0 })
            array.withUnsafeMutableBytes { bytes, strides in
                XCTAssertEqual(bytes.baseAddress, memory)
                XCTAssertEqual(bytes.count, 24)
                XCTAssertEqual(strides, [4, 1])
            }
            XCTAssertNil(given)
        }
        XCTAssertEqual(given, memory)
        memory.deallocate()
    }

    func testImpossibleShapesAreErrors() {
        let large = NSNumber(value: Int.max)
        for shape in [[], [0], [2, -1], [large, 2], [large]] as [[NSNumber]] {
            XCTAssertThrowsError(try MLMultiArray(shape: shape, dataType: .float32), "\(shape)") { error in
                XCTAssertEqual((error as NSError).domain, MLModelErrorDomain)
            }
        }
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
        defer { memory.deallocate() }
        for strides in [[], [1, 1], [0], [large]] as [[NSNumber]] {
            XCTAssertThrowsError(
                try MLMultiArray(dataPointer: memory, shape: [2], dataType: .int32, strides: strides), "\(strides)")
        }
    }

    func testElementsAreGatheredAndPutBackInOrder() throws {
        let layout = try XCTUnwrap(ArrayLayout([2, 2, 2], strides: [1, 8, 2]))
        let array = try MLMultiArray(layout, .int32)
        array.withUnsafeMutableBytes { bytes, _ in
            for (index, value) in bytes.bindMemory(to: Int32.self).indices.enumerated() {
                bytes.bindMemory(to: Int32.self)[value] = Int32(index)
            }
        }
        // [i, j, k] lies at i + 8 j + 2 k.
        let values = ContiguousValues(of: array)
        let found = withExtendedLifetime(values) { Array(values.memory.bindMemory(to: Int32.self)) }
        XCTAssertEqual(found, [0, 2, 8, 10, 1, 3, 9, 11])
        let target = try MLMultiArray(layout, .int32)
        let room = ContiguousValues(for: target)
        found.withUnsafeBytes { room.memory.copyMemory(from: $0) }
        room.writeBack()
        target.withUnsafeBytes { bytes in
            // What lies in no element keeps the bytes it had.
            XCTAssertEqual(Array(bytes.bindMemory(to: Int32.self)), [0, 1, 2, 3, -1, -1, -1, -1, 8, 9, 10, 11])
        }
    }
}
