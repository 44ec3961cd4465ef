import CoreML
import Foundation
import SnapRuntime
import XCTest

/// A UNet of batch 1 is called once per prompt, each time with that prompt's embeddings.
///
/// The network is `fixtures/coreml/unet_batch_one.mlpackage`, whose prediction can be computed by hand:
/// `sample / 2 + 32 mean(encoder_hidden_states) + timestep / 1024`.
final class BatchOneTests: XCTestCase {
    /// `plain` with that network, compiled and beside the manifest, in place of its UNet.
    private func artifact(_ scratch: Scratch) async throws -> Artifact {
        let folder = try scratch.copy(of: "plain")
        let package = try Environment.fixture("coreml/unet_batch_one.mlpackage")
        let compiled = try await MLModel.compileModel(at: package)
        try FileManager.default.moveItem(at: compiled, to: folder.appendingPathComponent("Unet.mlmodelc"))
        let file = folder.appendingPathComponent(Manifest.fileName)
        var manifest = try Manifest.read(folder: folder)
        let unet = try XCTUnwrap(manifest.graphs.firstIndex { $0.name == "unet" })
        for (index, feature) in manifest.graphs[unet].inputs.enumerated() where feature.name != "timestep" {
            manifest.graphs[unet].inputs[index].shape[0] = 1
        }
        manifest.graphs[unet].outputs[0].shape[0] = 1
        try JSONEncoder().encode(manifest).write(to: file)
        return try Artifact(folder: folder)
    }

    private func pipeline(_ scratch: Scratch) async throws -> Pipeline {
        let options = Pipeline.Options(cacheFolder: scratch.folder.appendingPathComponent("cache"))
        return try await Pipeline(artifact: try await artifact(scratch), options: options)
    }

    /// What the network gives for a row of the reference's embeddings.
    private func expected(_ latents: [Float], row: Int, timestep: Float) throws -> [Float] {
        let embeddings = try Reference().floats("text_embeddings")[(row * 77 * 32)..<((row + 1) * 77 * 32)]
        let mean = embeddings.reduce(0, +) / Float(embeddings.count)
        return latents.map { $0 / 2 + 32 * mean + timestep / 1024 }
    }

    private func assertEqual(_ found: ArraySlice<Float>, _ expected: [Float], line: UInt = #line) {
        XCTAssertEqual(found.count, expected.count, line: line)
        // Four roundings to half precision, each by at most 2^-11 of the largest number.
        let largest = expected.map(abs).max() ?? 0
        let worst = zip(found, expected).map { abs($0 - $1) }.max()
        XCTAssertLessThan(worst ?? .infinity, 2e-3 * largest, line: line)
    }

    func testWithGuidanceEveryPromptHasItsCall() async throws {
        let scratch = try Scratch()
        let pipeline = try await pipeline(scratch)
        let seen = Collected<Pipeline.Progress>()
        let request = try Reference().request()
        _ = try await pipeline.generate(request) { progress in
            seen.append(progress)
            return true
        }
        var before = try XCTUnwrap(request.initLatents)
        for progress in seen.values {
            let timestep = Float(progress.timestep)
            assertEqual(progress.predictions[..<1024], try expected(before, row: 0, timestep: timestep))
            assertEqual(progress.predictions[1024...], try expected(before, row: 1, timestep: timestep))
            before = progress.latents
        }
        XCTAssertEqual(seen.values.count, 8)
        // The two prompts can be told apart.
        let (first, second) = (try expected([0], row: 0, timestep: 0), try expected([0], row: 1, timestep: 0))
        XCTAssertGreaterThan(abs(first[0] - second[0]), 0.1)
    }

    func testWithoutGuidanceThereIsOneCall() async throws {
        let scratch = try Scratch()
        let pipeline = try await pipeline(scratch)
        var request = try Reference().request()
        (request.guidance, request.steps) = (1, 2)
        let seen = Collected<Pipeline.Progress>()
        #if os(Linux)
            let calls = Collected<String>()
            SimulatedCoreML.beforePrediction = { calls.append($0) }
            defer { SimulatedCoreML.reset() }
        #endif
        _ = try await pipeline.generate(request) { progress in
            seen.append(progress)
            return true
        }
        let first = try XCTUnwrap(seen.values.first)
        let latents = try XCTUnwrap(request.initLatents)
        assertEqual(first.predictions[...], try expected(latents, row: 1, timestep: Float(first.timestep)))
        #if os(Linux)
            XCTAssertEqual(calls.values, ["TextEncoder", "Unet", "Unet", "VAEDecoder"])
        #endif
    }

    func testTheBenchmarkCountsBothCalls() async throws {
        let scratch = try Scratch()
        let networks = try await pipeline(scratch).benchmark(iterations: 1).networks
        XCTAssertEqual(networks.map(\.predictions), [1, 2, 1])
        XCTAssertEqual(networks.map(\.batch), [1, 2, 1])
    }
}
