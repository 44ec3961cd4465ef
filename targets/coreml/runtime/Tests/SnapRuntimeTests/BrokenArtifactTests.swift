import Foundation
import SnapRuntime
import XCTest

/// Artifacts that are damaged: every one is refused with the file and what to do.
final class BrokenArtifactTests: XCTestCase {
    private func open(_ folder: URL, cache: URL) async throws -> Pipeline {
        try await Pipeline(artifact: Artifact(folder: folder), options: .init(cacheFolder: cache))
    }

    private func failure(of folder: URL, _ scratch: Scratch, line: UInt = #line) async -> SnapError? {
        let cache = scratch.folder.appendingPathComponent("cache")
        return await SnapRuntimeTests.failure(of: { try await self.open(folder, cache: cache) }, line: line)
    }

    private func edit(_ folder: URL, _ change: (inout String) -> Void) throws {
        let file = folder.appendingPathComponent(Manifest.fileName)
        var text = try String(contentsOf: file, encoding: .utf8)
        let before = text
        change(&text)
        XCTAssertNotEqual(text, before, "the manifest is changed")
        try Data(text.utf8).write(to: file)
    }

    func testATruncatedWeightFile() async throws {
        let scratch = try Scratch()
        let error = await failure(of: try Environment.artifact("broken"), scratch)
        assertArtifact(error, "weights/weight.bin", "bytes, but the manifest says")
    }

    /// Same size, other contents: found when the package is compiled.
    func testADamagedWeightFile() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        let file = folder.appendingPathComponent("VAEDecoder.mlpackage/Data/com.apple.CoreML/weights/weight.bin")
        var bytes = try Data(contentsOf: file)
        bytes[bytes.count - 70] ^= 1
        try bytes.write(to: file)
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "VAEDecoder.mlpackage/Data/com.apple.CoreML/weights/weight.bin", "SHA-256")
        XCTAssertThrowsError(try Artifact(folder: folder).verify())
        XCTAssertNoThrow(try Artifact(folder: try Environment.artifact("plain")).verify())
    }

    func testAMissingPackage() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        try FileManager.default.removeItem(at: folder.appendingPathComponent("Unet.mlpackage"))
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "Unet.mlpackage", "does not exist, and neither does Unet.mlmodelc")
    }

    func testAMissingFile() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        try FileManager.default.removeItem(at: folder.appendingPathComponent("merges.txt"))
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "merges.txt", "missing")
    }

    func testNoManifest() async throws {
        let scratch = try Scratch()
        let error = await failure(of: scratch.folder, scratch)
        assertArtifact(error, "snap.json", "does not exist")
    }

    func testAManifestOfAnotherVersion() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        try edit(folder) { $0 = $0.replacingOccurrences(of: "\"schema_version\": 1", with: "\"schema_version\": 2") }
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "version")
    }

    func testFeaturesThatMakeNoPipeline() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        try edit(folder) { $0 = $0.replacingOccurrences(of: "\"last_hidden_state\"", with: "\"hidden_state\"") }
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "text_encoder: no output is named 'last_hidden_state'")
    }

    func testAFeatureThatNothingGives() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        try edit(folder) { $0 = $0.replacingOccurrences(of: "\"timestep\"", with: "\"time\"") }
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "no value for the input 'time'")
    }

    /// Half precision holds no whole number above 2048 exactly.
    func testTokenIDsInHalfPrecision() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "apple")
        var manifest = try Manifest.read(folder: folder)
        manifest.graphs[0].inputs[0].dtype = .f16
        try JSONEncoder().encode(manifest).write(to: folder.appendingPathComponent(Manifest.fileName))
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "token ids do not fit 'input_ids', which is f16")
    }

    /// The UNet takes an output of the text encoder that has two rows for one prompt.
    func testAnOutputOfTheTextEncoderThatIsNoRow() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "snap")
        var manifest = try Manifest.read(folder: folder)
        let outputs = manifest.graphs[0].outputs.indices
        let inputs = Set(manifest.graphs.filter { $0.name == "unet" }.flatMap(\.inputs).map(\.name))
        let index = try XCTUnwrap(outputs.first { inputs.contains(manifest.graphs[0].outputs[$0].name) })
        manifest.graphs[0].outputs[index].shape[0] = 2
        try JSONEncoder().encode(manifest).write(to: folder.appendingPathComponent(Manifest.fileName))
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "text_encoder: '\(manifest.graphs[0].outputs[index].name)' has the shape [2, ")
    }

    /// The second chunk asks for what the first one does not give.
    func testChunksThatDoNotBelongTogether() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "chunk")
        try edit(folder) { text in
            // The output stands before the input of the same name.
            if let output = text.range(of: "\"conv_in_out\"") {
                text.replaceSubrange(output, with: "\"conv_in\"")
            }
        }
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "no value for the input 'conv_in_out'")
    }

    /// The manifest's latents are not those of the networks.
    func testSizesThatDiffer() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        try edit(folder) { $0 = $0.replacingOccurrences(of: "\"height\": 16", with: "\"height\": 32") }
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "'sample' has the shape [2, 4, 16, 16], not [2, 4, 32, 16]")
    }

    /// Refused before memory is asked for.
    func testAFeatureBeyondAllSizes() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        var manifest = try Manifest.read(folder: folder)
        manifest.graphs[0].outputs[1].shape = [1, 1 << 29]
        try JSONEncoder().encode(manifest).write(to: folder.appendingPathComponent(Manifest.fileName))
        let error = await failure(of: folder, scratch)
        assertArtifact(error, "snap.json", "'pooler_output' has 536870912 elements")
    }

    /// A compiled package of another conversion lies where the manifest's should.
    func testACompiledPackageOfAnotherConversion() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let models = try await store.install(Artifact(folder: try Environment.artifact("apple")))
        let folder = try scratch.copy(of: "plain")
        try FileManager.default.copyItem(at: models[1], to: folder.appendingPathComponent("Unet.mlmodelc"))
        let error = await failure(of: folder, scratch)
        guard case .model(stage: .unet, let reason)? = error else {
            return XCTFail("\(String(describing: error))")
        }
        XCTAssertTrue(reason.contains("is not as the manifest says"), reason)
    }

    func testACompiledPackageThatIsNone() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "plain")
        try FileManager.default.createDirectory(
            at: folder.appendingPathComponent("VAEDecoder.mlmodelc"), withIntermediateDirectories: true)
        let error = await failure(of: folder, scratch)
        guard case .model(stage: .vaeDecoder, _)? = error else {
            return XCTFail("\(String(describing: error))")
        }
    }

    func testNumbersThatAreNotFinite() async throws {
        let scratch = try Scratch()
        let pipeline = try await open(
            try Environment.artifact("plain"), cache: scratch.folder.appendingPathComponent("cache"))
        // Beyond what half precision holds.
        let latents = [Float](repeating: 1e6, count: 1024)
        let error = await SnapRuntimeTests.failure {
            try await pipeline.generate(.init(prompt: "a fox", initLatents: latents))
        }
        XCTAssertEqual(error, .notFinite(stage: .unet, step: 0))
    }
}
