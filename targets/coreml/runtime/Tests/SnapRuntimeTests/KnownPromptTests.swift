import Foundation
import XCTest

@testable import SnapRuntime

#if os(Linux)
    import CoreML
#endif

/// The empty prompt, which artifacts of `--interface snap` bring encoded.
final class KnownPromptTests: XCTestCase {
    private let fileName = "empty_prompt.bin"

    /// The artifact `snap` with other bytes in the file, or without it.
    private func artifact(_ scratch: Scratch, with data: Data?) throws -> URL {
        let folder = try scratch.copy(of: "snap")
        let file = folder.appendingPathComponent(fileName)
        var manifest = try Manifest.read(folder: folder)
        let index = try XCTUnwrap(manifest.files.firstIndex { $0.path == fileName })
        if let data {
            try data.write(to: file)
            manifest.files[index].bytes = data.count
        } else {
            try FileManager.default.removeItem(at: file)
            manifest.files.remove(at: index)
        }
        try JSONEncoder().encode(manifest).write(to: folder.appendingPathComponent(Manifest.fileName))
        return folder
    }

    private func contents() throws -> Data {
        try Data(contentsOf: try Environment.artifact("snap").appendingPathComponent(fileName))
    }

    private func generate(_ folder: URL, _ scratch: Scratch) async throws -> Pipeline.Generation {
        let pipeline = try await Pipeline(artifact: Artifact(folder: folder), options: .init(cacheFolder: scratch.folder))
        return try await pipeline.generate(Pipeline.Request(prompt: "a red fox", seed: 7))
    }

    /// What is stored comes from the f32 evaluator, what is computed from the package in f16: the bars of the contract for f16.
    func testTheEmptyPromptIsNotEncodedAgain() async throws {
        let scratch = try Scratch()
        #if os(Linux)
            SimulatedCoreML.reset()
        #endif
        let known = try await generate(try Environment.artifact("snap"), scratch)
        #if os(Linux)
            XCTAssertEqual(SimulatedCoreML.predictions, 1 + 8 + 1)
        #endif
        let encoded = try await generate(try artifact(scratch, with: nil), scratch)
        #if os(Linux)
            XCTAssertEqual(SimulatedCoreML.predictions, (1 + 8 + 1) + (2 + 8 + 1))
        #endif
        XCTAssertEqual(known.inputIDs, encoded.inputIDs)
        XCTAssertGreaterThanOrEqual(psnr(reference: encoded.textEmbeddings, found: known.textEmbeddings), 65)
        XCTAssertGreaterThanOrEqual(psnr(reference: encoded.latents, found: known.latents), 55)
    }

    func testAnotherPromptIsEncoded() async throws {
        let scratch = try Scratch()
        var data = try contents()
        // The first token behind the start is another one.
        data[8] ^= 1
        let folder = try artifact(scratch, with: data)
        let found = try await generate(folder, scratch)
        let other = try Scratch()
        let expected = try await generate(try artifact(other, with: nil), other)
        XCTAssertEqual(found.latents, expected.latents)
    }

    func testFilesThatDoNotFitAreRefused() async throws {
        let sound = try contents()
        var counted = sound
        counted[0] ^= 1
        var infinite = sound
        infinite.replaceSubrange(infinite.count - 4..<infinite.count, with: [0, 0, 0x80, 0x7f])
        let wrong: [(Data, String)] = [
            (Data(), "has 0 bytes"), (sound.dropLast(), "ids and"), (sound + [0, 0, 0, 0], "ids and"), (counted, "ids and"),
            (infinite, "not finite"),
        ]
        for (data, reason) in wrong {
            let scratch = try Scratch()
            let folder = try artifact(scratch, with: data)
            let error = await failure { try await self.generate(folder, scratch) }
            assertArtifact(error, fileName, reason)
        }
    }
}
