import Foundation
import XCTest

/// Files that tests read, by environment variables that the test command sets.
enum Fixtures {
    /// A file of the repository's `fixtures/`.
    static func file(_ path: String) throws -> URL {
        try folder("SNAP_FIXTURES", "the folder fixtures of the repository").appendingPathComponent(path)
    }

    /// An artifact that snapc has made from `fixtures/tiny`.
    static func artifact(_ name: String) throws -> URL {
        let what = "a folder of artifacts, which 'cargo xtask swift test' makes"
        return try folder("SNAP_ARTIFACTS", what).appendingPathComponent(name)
    }

    static func data(_ path: String) throws -> Data {
        try Data(contentsOf: file(path))
    }

    private static func folder(_ variable: String, _ what: String) throws -> URL {
        guard let path = ProcessInfo.processInfo.environment[variable] else {
            throw Missing(description: "set \(variable) to \(what)")
        }
        return URL(fileURLWithPath: path, isDirectory: true)
    }

    struct Missing: Error, CustomStringConvertible {
        let description: String
    }
}

/// A test case with an empty folder of its own.
class FolderTestCase: XCTestCase {
    private(set) var folder = URL(fileURLWithPath: "/")

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString, isDirectory: true)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    /// Writes a file into the folder.
    func write(_ contents: Data, as name: String) throws -> URL {
        let file = folder.appendingPathComponent(name)
        try contents.write(to: file)
        return file
    }
}

/// Asserts that two lists have the same values up to an error relative to values above 1.
func assertClose(
    _ found: [Float], _ expected: [Float], tolerance: Double, _ what: String = "", file: StaticString = #filePath,
    line: UInt = #line
) {
    guard found.count == expected.count else {
        XCTFail("\(what): \(found.count) values, expected \(expected.count)", file: file, line: line)
        return
    }
    for (index, (found, expected)) in zip(found, expected).enumerated() {
        let error = abs(Double(found) - Double(expected)) / max(1, abs(Double(expected)))
        guard error <= tolerance else {
            XCTFail("\(what), value \(index): \(found), expected \(expected)", file: file, line: line)
            return
        }
    }
}
