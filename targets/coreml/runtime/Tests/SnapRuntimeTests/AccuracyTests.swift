import Foundation
import XCTest

@testable import SnapRuntime

#if os(Linux)
    import CoreML
#endif

/// The whole guided run on emitted packages, against diffusers in f32. The bars are those of the project's contract.
final class AccuracyTests: XCTestCase {
    /// How far a run is from the reference, in dB.
    private struct Comparison {
        var finalLatents = 0.0
        /// The call of the UNet that got the reference's own latents.
        var firstCall = 0.0
        var image = 0.0
        var textEmbeddings = 0.0
    }

    private func compare(
        _ artifact: String, _ options: Pipeline.Options = Pipeline.Options()
    ) async throws -> Comparison {
        let scratch = try Scratch()
        var options = options
        options.cacheFolder = scratch.folder
        let reference = try Reference()
        let pipeline = try await Pipeline(
            artifact: Artifact(folder: try Environment.artifact(artifact)), options: options)
        let steps = Collected<Pipeline.Progress>()
        let found = try await pipeline.generate(try reference.request()) { progress in
            steps.append(progress)
            return true
        }
        XCTAssertEqual(steps.values.map(\.timestep), [876, 751, 626, 501, 376, 251, 126, 1])
        XCTAssertEqual(found.inputIDs, try reference.file.ints("input_ids").values)
        XCTAssertEqual(steps.values.last?.latents, found.latents)
        let first = try XCTUnwrap(steps.values.first)
        return Comparison(
            finalLatents: psnr(reference: try reference.floats("step_7.latents"), found: found.latents),
            firstCall: psnr(reference: try reference.floats("step_0.noise_pred"), found: first.predictions),
            image: psnr(
                reference: try reference.floats("image"), found: found.decoded.map { min(max($0, -1), 1) }),
            textEmbeddings: psnr(
                reference: try reference.floats("text_embeddings"), found: found.textEmbeddings))
    }

    private func assertHalfPrecision(
        _ artifact: String, _ options: Pipeline.Options = Pipeline.Options(), line: UInt = #line
    ) async throws {
        let found = try await compare(artifact, options)
        XCTAssertGreaterThanOrEqual(found.finalLatents, 55, "final latents of \(artifact)", line: line)
        XCTAssertGreaterThanOrEqual(found.firstCall, 65, "UNet call of \(artifact)", line: line)
        XCTAssertGreaterThanOrEqual(found.textEmbeddings, 55, "embeddings of \(artifact)", line: line)
        XCTAssertGreaterThanOrEqual(found.image, 40, "picture of \(artifact)", line: line)
    }

    func testPlain() async throws {
        try await assertHalfPrecision("plain")
    }

    func testApple() async throws {
        try await assertHalfPrecision("apple")
    }

    func testSnap() async throws {
        try await assertHalfPrecision("snap")
    }

    func testChunks() async throws {
        try await assertHalfPrecision("chunk")
    }

    func testReducedMemory() async throws {
        try await assertHalfPrecision("chunk", Pipeline.Options(reduceMemory: true))
    }

    func testSplitEinsum() async throws {
        try await assertHalfPrecision("split")
    }

    /// Each call of the UNet on the latents that the reference run had there.
    func testEveryCallOfTheUNet() async throws {
        let scratch = try Scratch()
        let reference = try Reference()
        for name in ["plain", "apple", "snap", "chunk"] {
            let artifact = try Artifact(folder: try Environment.artifact(name))
            let pipeline = try await Pipeline(artifact: artifact, options: .init(cacheFolder: scratch.folder))
            let run = try await pipeline.makeRun(try pipeline.settings(of: try reference.request()))
            for (index, prompt) in [reference.negativePrompt, reference.prompt].enumerated() {
                try await pipeline.worker.run { try run.encode(prompt, index: index) }
            }
            for step in 0..<reference.steps {
                let latents = try reference.floats(step == 0 ? "init_latents" : "step_\(step - 1).latents")
                let predictions = try await pipeline.worker.run {
                    run.restart(from: latents)
                    return try run.step(step, isObserved: true)?.predictions ?? []
                }
                let quality = psnr(reference: try reference.floats("step_\(step).noise_pred"), found: predictions)
                XCTAssertGreaterThanOrEqual(quality, 65, "step \(step) of \(name)")
            }
        }
    }

    func testSinglePrecision() async throws {
        let found = try await compare("f32")
        XCTAssertGreaterThanOrEqual(found.finalLatents, 100)
        XCTAssertGreaterThanOrEqual(found.firstCall, 100)
        XCTAssertGreaterThanOrEqual(found.image, 100)
        XCTAssertGreaterThanOrEqual(found.textEmbeddings, 100)
    }

    func testEightBitWeights() async throws {
        let found = try await compare("int8")
        XCTAssertGreaterThanOrEqual(found.finalLatents, 30)
    }

    func testSixBitWeights() async throws {
        let found = try await compare("palette6")
        XCTAssertGreaterThanOrEqual(found.finalLatents, 30)
    }

    /// The bars would not notice anything otherwise: here the weights of one convolution have the other sign.
    func testAWrongPackageIsUnderTheBars() async throws {
        let found = try await compare("wrong")
        XCTAssertLessThan(found.finalLatents, 30)
        XCTAssertLessThan(found.firstCall, 65)
    }

    #if os(Linux)
        /// Core ML may give memory of its own, with gaps, in place of that which it is offered.
        func testBackingsThatAreNotUsed() async throws {
            SimulatedCoreML.ignoresBackings = true
            SimulatedCoreML.padsOutputs = true
            defer { SimulatedCoreML.reset() }
            for artifact in ["plain", "apple", "snap", "chunk"] {
                try await assertHalfPrecision(artifact)
            }
        }

        /// Or fail over it, once per network: the next calls do not offer it.
        func testBackingsThatAreRefused() async throws {
            SimulatedCoreML.reset()
            SimulatedCoreML.refusesBackings = true
            SimulatedCoreML.padsOutputs = true
            defer { SimulatedCoreML.reset() }
            try await assertHalfPrecision("chunk")
            // Both prompts, eight steps of two chunks, the picture; of each memory's first call, a second attempt.
            XCTAssertEqual(SimulatedCoreML.predictions, 2 * 2 + (8 * 2 + 2) + 2)
        }
    #endif
}
