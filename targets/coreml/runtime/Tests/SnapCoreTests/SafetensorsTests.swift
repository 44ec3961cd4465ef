import Foundation
import XCTest

@testable import SnapCore

final class SafetensorsTests: FolderTestCase {
    /// A file of a header and data, with the length of the header in front.
    private func file(_ header: some Sequence<UInt8>, data: Int = 0, length: UInt64? = nil) throws -> URL {
        let header = Array(header)
        var contents = Data()
        withUnsafeBytes(of: (length ?? UInt64(header.count)).littleEndian) { contents.append(contentsOf: $0) }
        contents.append(contentsOf: header)
        contents.append(Data(count: data))
        return try write(contents, as: "file.safetensors")
    }

    private func tensor(_ name: String, _ shape: String, _ offsets: String, dtype: String = "F32") -> String {
        "\"\(name)\":{\"dtype\":\"\(dtype)\",\"shape\":[\(shape)],\"data_offsets\":[\(offsets)]}"
    }

    private func assertRefused(_ url: URL, _ reason: String, line: UInt = #line) {
        XCTAssertThrowsError(try Safetensors(contentsOf: url), reason, line: line) { error in
            guard case .artifact(url.path, let found) = error as? SnapError else {
                return XCTFail("\(error)", line: line)
            }
            XCTAssert(found.contains(reason), "\(found), expected: \(reason)", line: line)
        }
    }

    // Written by the safetensors library for Python.
    func testAFileOfAnotherWriterIsRead() throws {
        let reference = try Safetensors(contentsOf: Fixtures.file("tiny/reference.safetensors"))
        XCTAssertEqual(reference.names.count, 20)
        XCTAssertEqual(try reference.floats("image").shape, [1, 3, 128, 128])
        let ids = try reference.ints("input_ids")
        XCTAssertEqual(ids.shape, [2, 77])
        XCTAssertEqual(Array(ids.values.prefix(3)), [49406, 21977, 49407])
        XCTAssertEqual(try reference.floats("init_latents").values[0].bitPattern, 0xbf90_1b85)
        XCTAssert(try XCTUnwrap(reference.metadata["snapc"]).contains("\"seed\": 0"))
    }

    func testOtherNamesAndTypesAreErrorsThatSayWhich() throws {
        let url = try Fixtures.file("tiny/reference.safetensors")
        let reference = try Safetensors(contentsOf: url)
        XCTAssertThrowsError(try reference.floats("images")) { error in
            XCTAssertEqual(error as? SnapError, .artifact(path: url.path, reason: "has no tensor 'images'"))
        }
        XCTAssertThrowsError(try reference.floats("input_ids")) { error in
            let reason = "tensor 'input_ids' is I32, expected F32, F16 or BF16"
            XCTAssertEqual(error as? SnapError, .artifact(path: url.path, reason: reason))
        }
        XCTAssertThrowsError(try reference.ints("image")) { error in
            let reason = "tensor 'image' is F32, expected I32 or I64"
            XCTAssertEqual(error as? SnapError, .artifact(path: url.path, reason: reason))
        }
    }

    // Half-precision bits and values by IEEE 754: 1, -2, largest, smallest subnormal, 1/3, infinity; bfloat16 is the upper
    // half of a single.
    func testHalfPrecisionBecomesSingle() throws {
        let header = "{\(tensor("h", "7", "0,14", dtype: "F16")),\(tensor("b", "2", "14,18", dtype: "BF16"))}"
        var contents = Data()
        withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { contents.append(contentsOf: $0) }
        contents.append(contentsOf: header.utf8)
        for bits: UInt16 in [0x3c00, 0xc000, 0x7bff, 0x0001, 0x3555, 0xfc00, 0x7e00, 0x3fc0, 0xc2f7] {
            withUnsafeBytes(of: bits.littleEndian) { contents.append(contentsOf: $0) }
        }
        let file = try Safetensors(contentsOf: try write(contents, as: "half.safetensors"))
        let halves = try file.floats("h").values
        XCTAssertEqual(halves.prefix(6), [1, -2, 65504, 5.960_464_5e-8, 0.333_251_95, -.infinity])
        XCTAssert(halves[6].isNaN)
        XCTAssertEqual(try file.floats("b").values, [1.5, -123.5])
    }

    func testWideIntegersAreTakenWhereTheyFit() throws {
        func file(_ value: Int64) throws -> Safetensors {
            let header = "{\(tensor("i", "1", "0,8", dtype: "I64"))}"
            var contents = Data()
            withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { contents.append(contentsOf: $0) }
            contents.append(contentsOf: header.utf8)
            withUnsafeBytes(of: value.littleEndian) { contents.append(contentsOf: $0) }
            return try Safetensors(contentsOf: try write(contents, as: "wide.safetensors"))
        }
        XCTAssertEqual(try file(-3).ints("i").values, [-3])
        XCTAssertThrowsError(try file(1 << 31).ints("i")) { error in
            XCTAssert("\(error)".contains("2147483648, which does not fit 32 bits"), "\(error)")
        }
    }

    func testWhatIsWrittenIsReadBack() throws {
        let url = folder.appendingPathComponent("out.safetensors")
        let awkward = "quote \" backslash \\ newline \n emoji 🦊 null \u{0}"
        let tensors: [(name: String, shape: [Int], values: [Float])] = [
            ("step_0.latents", [1, 2, 2], [1, -2.5, .leastNonzeroMagnitude, .infinity]),
            (awkward, [0, 3], []),
            ("scalar", [], [7]),
            // Canonically equivalent, but not the same name.
            ("\u{e9}", [1], [1]), ("e\u{301}", [1], [2]),
        ]
        let metadata = ["snapc": "{\"a\":\"b\"}", awkward: awkward]
        try Safetensors.write(tensors, integers: [("ids", [2], [-1, .max])], metadata: metadata, to: url)
        let file = try Safetensors(contentsOf: url)
        XCTAssertEqual(file.metadata, metadata)
        XCTAssertEqual(file.names.count, tensors.count + 1)
        XCTAssertEqual(try file.ints("ids").values, [-1, .max])
        for tensor in tensors {
            let found = try file.floats(tensor.name)
            XCTAssertEqual(found.shape, tensor.shape, tensor.name)
            XCTAssertEqual(found.values, tensor.values, tensor.name)
        }
    }

    // Python: safetensors.numpy.save({"x": np.array([1, -2], np.float32)}, metadata={"a": "1"}).
    func testTheBytesAreThoseOfTheSafetensorsLibrary() throws {
        let url = folder.appendingPathComponent("out.safetensors")
        try Safetensors.write([("x", [2], [1, -2])], metadata: ["a": "1"], to: url)
        let header = #"{"__metadata__":{"a":"1"},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} "#
        var expected: [UInt8] = [80, 0, 0, 0, 0, 0, 0, 0]
        expected += Array(header.utf8)
        expected += [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]
        XCTAssertEqual([UInt8](try Data(contentsOf: url)), expected)
    }

    func testMetadataIsSorted() throws {
        let url = folder.appendingPathComponent("out.safetensors")
        try Safetensors.write([], metadata: ["b": "2", "c": "3", "a": "1"], to: url)
        let text = String(decoding: try Data(contentsOf: url).dropFirst(8), as: UTF8.self)
        XCTAssertEqual(text, #"{"__metadata__":{"a":"1","b":"2","c":"3"}}      "#)
    }

    func testTensorsThatCannotBeWrittenAreRefused() {
        let url = folder.appendingPathComponent("out.safetensors")
        let cases: [[(name: String, shape: [Int], values: [Float])]] = [
            [("x", [3], [1, 2])],
            [("x", [-1, -1], [1])],
            [("x", [Int.max, 2], [])],
            [("x", [1], [1]), ("x", [1], [2])],
            [("__metadata__", [1], [1])],
        ]
        for tensors in cases {
            XCTAssertThrowsError(try Safetensors.write(tensors, metadata: [:], to: url), "\(tensors)") { error in
                guard case .request = error as? SnapError else {
                    return XCTFail("\(error)")
                }
            }
        }
        XCTAssertFalse(FileManager.default.fileExists(atPath: url.path))
        let nowhere = folder.appendingPathComponent("missing/out.safetensors")
        XCTAssertThrowsError(try Safetensors.write([], metadata: [:], to: nowhere)) { error in
            guard case .artifact(nowhere.path, _) = error as? SnapError else {
                return XCTFail("\(error)")
            }
        }
    }

    func testHeadersThatDoNotFitTheFileAreRefused() throws {
        assertRefused(folder.appendingPathComponent("missing"), "does not exist")
        assertRefused(try write(Data(count: 7), as: "short"), "7 bytes are too few")
        assertRefused(try file("{}".utf8, length: 3), "a header of 3 bytes does not fit")
        assertRefused(try file("{}".utf8, length: .max), "does not fit the file")
        assertRefused(try file("{}".utf8, length: 1 << 63), "does not fit the file")
        assertRefused(try file("".utf8), "'{' expected")
    }

    func testRangesThatDoNotFitAreRefused() throws {
        let cases: [(tensors: [String], data: Int, reason: String)] = [
            ([tensor("a", "2", "0,8"), tensor("b", "2", "4,12")], 12, "'b' overlaps another"),
            ([tensor("a", "2", "0,8"), tensor("b", "2", "0,8")], 8, "'b' overlaps another"),
            ([tensor("a", "1", "0,4"), tensor("b", "1", "8,12")], 12, "'b' leaves a gap"),
            ([tensor("a", "1", "4,8")], 8, "'a' leaves a gap"),
            ([tensor("a", "2", "0,8")], 4, "the tensors have 8 bytes, but 4 follow"),
            ([tensor("a", "1", "0,4")], 8, "the tensors have 4 bytes, but 8 follow"),
            ([tensor("a", "1", "8,4")], 8, "'a' ends before it begins"),
            ([tensor("a", "3", "0,8")], 8, "the shape [3] of tensor 'a' does not fit"),
            ([tensor("a", "4611686018427387904,4", "0,0")], 0, "does not fit its data_offsets"),
            ([tensor("a", "9223372036854775807", "0,8")], 8, "does not fit its data_offsets"),
            ([tensor("a", "1", "0,9223372036854775808")], 8, "fits 63 bits"),
            ([tensor("a", "1", "0,4,8")], 8, "lacks dtype, shape or two data_offsets"),
            ([tensor("a", "1", "0,4", dtype: "F12")], 4, "unknown dtype 'F12'"),
        ]
        for (tensors, data, reason) in cases {
            assertRefused(try file("{\(tensors.joined(separator: ","))}".utf8, data: data), reason)
        }
    }

    func testHeadersThatAreNotOfTheFormatAreRefused() throws {
        let one = tensor("a", "1", "0,4")
        let cases: [(header: String, reason: String)] = [
            ("{\(one),\(one)}", "the key 'a' stands twice"),
            (#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, "the key 'dtype' stands twice"),
            (#"{"__metadata__":{"k":"1","\u006b":"2"}}"#, "the key 'k' stands twice"),
            (#"{"__metadata__":{"\u00e9":"1","e\u0301":"2"}}"#, "two keys that are both written"),
            (#"{"__metadata__":{"k":1}}"#, "'\"' expected"),
            (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}}"#, "the unknown key 'more'"),
            (#"{"a":{"dtype":"F32","shape":[1]}}"#, "lacks dtype, shape or two data_offsets"),
            (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, "an integer expected"),
            (#"{"a":{"dtype":"F32","shape":[1 2],"data_offsets":[0,4]}}"#, "']' or ',' expected"),
            (#"{"a":[]}"#, "'{' expected"),
            ("{\(one)", "it ends too early"),
            ("{\(one)} x", "text behind the object"),
            (#"{"\ud800":{}}"#, "half of a surrogate pair"),
            (#"{"\ud800\u0041":{}}"#, "half of a surrogate pair"),
            (#"{"\ud800"#, "it ends too early"),
            (#"{"\u00+1":{}}"#, "four hexadecimal digits"),
            (#"{"\x":{}}"#, "an unknown escape"),
            ("{\"a\nb\":{}}", "a control character"),
            ("[]", "'{' expected"),
            (String(repeating: "{\"a\":", count: 10_000), "the unknown key 'a'"),
        ]
        for (header, reason) in cases {
            assertRefused(try file(header.utf8, data: 4), reason)
        }
        var notText = Array("{\"a\":{}}".utf8)
        notText.insert(0xff, at: 2)
        assertRefused(try file(notText), "not UTF-8")
    }

    // A trap would end the test run. A header that still makes sense has to keep its tensors readable.
    func testEveryChangedByteIsReadOrRefused() throws {
        let url = folder.appendingPathComponent("valid.safetensors")
        try Safetensors.write(
            [("a", [2], [1, 2]), ("b", [1, 1], [3])], integers: [("c", [1], [4])], metadata: ["k": "v"], to: url)
        let valid = try Data(contentsOf: url)
        var refused = 0
        for position in 0..<(valid.count - 16) {
            for byte: UInt8 in [0, 0x22, 0x2c, 0x39, 0x5c, 0x7b, 0x7d, 0xff] where byte != valid[position] {
                var changed = valid
                changed[position] = byte
                do {
                    let file = try Safetensors(changed, path: "changed")
                    for name in file.names {
                        _ = try? file.floats(name)
                        _ = try? file.ints(name)
                    }
                } catch SnapError.artifact {
                    refused += 1
                }
            }
        }
        XCTAssertGreaterThan(refused, valid.count)
    }

    func testEscapesAreRead() throws {
        let header = #"{"__metadata__":{"\ud83e\udd8a\u00e9":"\"\\\/\b\f\n\r\t"}}"#
        let file = try Safetensors(contentsOf: try file(header.utf8))
        XCTAssertEqual(file.metadata, ["🦊é": "\"\\/\u{8}\u{c}\n\r\t"])
    }
}
