import Foundation
import SnapRuntime
import XCTest

/// What the test step makes for these tests, and the reference run of diffusers.
enum Environment {
    /// An artifact that the test step has converted from `fixtures/tiny`.
    static func artifact(_ name: String) throws -> URL {
        try folder("SNAP_ARTIFACTS").appendingPathComponent(name, isDirectory: true)
    }

    /// A file of the repository's fixtures.
    static func fixture(_ path: String) throws -> URL {
        try folder("SNAP_FIXTURES").appendingPathComponent(path)
    }

    private static func folder(_ variable: String) throws -> URL {
        guard let path = ProcessInfo.processInfo.environment[variable] else {
            throw Missing(variable: variable)
        }
        return URL(fileURLWithPath: path, isDirectory: true)
    }

    /// A variable that is not set.
    struct Missing: Error, CustomStringConvertible {
        let variable: String

        var description: String { "\(variable) is not set; run these tests with `cargo xtask swift`" }
    }
}

/// Folders of a test, removed behind it.
final class Scratch {
    let folder: URL

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("snap-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    deinit {
        try? FileManager.default.removeItem(at: folder)
    }

    /// A copy of an artifact that may be changed.
    func copy(of name: String, as copy: String? = nil) throws -> URL {
        let url = folder.appendingPathComponent(copy ?? name, isDirectory: true)
        try FileManager.default.copyItem(at: try Environment.artifact(name), to: url)
        return url
    }

    /// Names in a folder, sorted.
    static func names(in folder: URL) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }
}

/// The eight guided steps of diffusers on `fixtures/tiny`, of pictures of 128x128 or another size.
struct Reference {
    let file: Safetensors
    let steps = 8
    let prompt = "a watercolour of a fox, 3 birds & it's raining"
    let negativePrompt = "blurry"

    init(_ name: String = "reference") throws {
        file = try Safetensors(contentsOf: try Environment.fixture("tiny/\(name).safetensors"))
    }

    func floats(_ name: String) throws -> [Float] {
        try file.floats(name).values
    }

    /// The request that the reference file records.
    func request() throws -> Pipeline.Request {
        Pipeline.Request(
            prompt: prompt, negativePrompt: negativePrompt, initLatents: try floats("init_latents"))
    }
}

/// Collects what a progress closure sees.
final class Collected<Value: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var list: [Value] = []

    func append(_ value: Value) {
        lock.lock()
        defer { lock.unlock() }
        list.append(value)
    }

    var values: [Value] {
        lock.lock()
        defer { lock.unlock() }
        return list
    }
}

/// The error of a call.
func failure<T>(
    of call: () async throws -> T, file: StaticString = #filePath, line: UInt = #line
) async -> SnapError? {
    do {
        _ = try await call()
        XCTFail("there is no error", file: file, line: line)
    } catch let error as SnapError {
        return error
    } catch {
        XCTFail("\(error) is no SnapError", file: file, line: line)
    }
    return nil
}

/// Fails unless an error is about a file of this name, for a reason with this text.
func assertArtifact(
    _ error: SnapError?, _ file: String, _ text: String, at location: StaticString = #filePath, line: UInt = #line
) {
    guard case .artifact(let path, let reason)? = error else {
        return XCTFail("\(String(describing: error)) is not about a file", file: location, line: line)
    }
    XCTAssertTrue(path.hasSuffix(file), path, file: location, line: line)
    XCTAssertTrue(reason.contains(text), reason, file: location, line: line)
}
