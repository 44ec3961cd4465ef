import Foundation
import SnapRuntime
import XCTest

#if os(Linux)
    import CoreML
#endif

/// What a run takes and tells, and how it is cancelled.
final class RunTests: XCTestCase {
    private let scratch = try? Scratch()

    private func pipeline(
        _ artifact: String = "plain", reduceMemory: Bool = false
    ) async throws -> Pipeline {
        let options = Pipeline.Options(reduceMemory: reduceMemory, cacheFolder: try XCTUnwrap(scratch).folder)
        return try await Pipeline(artifact: Artifact(folder: try Environment.artifact(artifact)), options: options)
    }

    func testCancelledByTheObserver() async throws {
        let pipeline = try await pipeline()
        let request = try Reference().request()
        let seen = Collected<Int>()
        let error = await failure {
            try await pipeline.generate(request) { progress in
                seen.append(progress.step)
                return progress.step < 2
            }
        }
        XCTAssertEqual(error, .cancelled)
        XCTAssertEqual(seen.values, [0, 1, 2])
        let again = try await pipeline.generate(request)
        try assertIsReference(again)
    }

    func testCancelledWithItsTask() async throws {
        let pipeline = try await pipeline()
        let request = try Reference().request()
        let seen = Collected<Int>()
        let task = Task {
            try await pipeline.generate(request) { progress in
                seen.append(progress.step)
                if progress.step == 3 {
                    withUnsafeCurrentTask { $0?.cancel() }
                }
                return true
            }
        }
        let error = await failure { try await task.value }
        XCTAssertEqual(error, .cancelled)
        XCTAssertEqual(seen.values, [0, 1, 2, 3])
        let again = try await pipeline.generate(request)
        try assertIsReference(again)
    }

    func testATaskThatIsCancelledBeforeItsRunRunsNothing() async throws {
        let pipeline = try await pipeline()
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await pipeline.generate(.init(prompt: "a fox"))
        }
        let error = await failure { try await task.value }
        XCTAssertEqual(error, .cancelled)
    }

    func testLeavingTheStreamCancelsTheRun() async throws {
        let pipeline = try await pipeline()
        for try await event in pipeline.events(try Reference().request()) {
            if case .step(let progress) = event, progress.step == 1 {
                break
            }
        }
        let events = Collected<Int>()
        for try await event in pipeline.events(try Reference().request()) {
            switch event {
            case .step(let progress): events.append(progress.step)
            case .finished(let generation): try assertIsReference(generation)
            }
        }
        XCTAssertEqual(events.values, Array(0..<8))
    }

    /// The model's own view of the picture is close to the picture when the last step is over.
    func testPreviews() async throws {
        for reduceMemory in [false, true] {
            let pipeline = try await pipeline(reduceMemory: reduceMemory)
            let previews = Collected<RGBImage>()
            let generation = try await pipeline.generate(try Reference().request()) { progress in
                if progress.step == 0 || progress.step == 7, let preview = try? await progress.preview() {
                    previews.append(preview)
                }
                return true
            }
            try assertIsReference(generation)
            XCTAssertEqual(previews.values.count, 2)
            let distances = previews.values.map { mean(difference: $0, generation.image) }
            XCTAssertEqual(previews.values.map(\.width), [128, 128])
            XCTAssertLessThan(distances[1], 8)
            XCTAssertGreaterThan(distances[0], distances[1])
        }
    }

    func testOtherStepsAreRefusedWhereTheUNetIsSpecialised() async throws {
        let pipeline = try await pipeline("snap")
        let error = await failure { try await pipeline.generate(.init(prompt: "a fox", steps: 5)) }
        guard case .unsupported(let reason)? = error else {
            return XCTFail("\(String(describing: error))")
        }
        XCTAssertTrue(reason.contains("8 steps") && reason.contains("--steps 5"), reason)
        XCTAssertTrue(reason.contains("--interface plain"), reason)
    }

    /// diffusers' `DDIMScheduler` takes 3 steps of this schedule at 667, 334 and 1.
    func testOtherStepsAreTakenWhereTheUNetTakesAnyTimestep() async throws {
        let pipeline = try await pipeline("plain")
        let generation = try await pipeline.generate(.init(prompt: "a fox", steps: 3))
        XCTAssertEqual(generation.timesteps, [667, 334, 1])
    }

    func testImpossibleRequests() async throws {
        let pipeline = try await pipeline()
        let requests: [(Pipeline.Request, String)] = [
            (.init(prompt: "", steps: 0), "0"),
            (.init(prompt: "", steps: 1001), "1001"),
            (.init(prompt: "", guidance: .nan), "guidance"),
            (.init(prompt: "", initLatents: [1, 2, 3]), "3 values"),
            (.init(prompt: "", initLatents: [Float](repeating: .infinity, count: 1024)), "value 0"),
        ]
        for (request, text) in requests {
            let error = await failure { try await pipeline.generate(request) }
            guard case .request(let reason)? = error else {
                return XCTFail("\(String(describing: error))")
            }
            XCTAssertTrue(reason.contains(text), reason)
        }
    }

    /// Without guidance a batch of two has the prompt in both rows, and the first is what counts.
    func testWithoutGuidanceThereIsOneRow() async throws {
        let reference = try Reference()
        for name in ["plain", "apple", "snap"] {
            let pipeline = try await pipeline(name)
            var request = try reference.request()
            request.guidance = 1
            request.negativePrompt = "plays no part"
            let first = Collected<[Float]>()
            let generation = try await pipeline.generate(request) { progress in
                first.append(progress.predictions)
                return true
            }
            XCTAssertEqual(generation.inputIDs, Array(try reference.file.ints("input_ids").values[77...]))
            // The first call of the reference run got the same latents and, in its second row, the same prompt.
            let expected = Array(try reference.floats("step_0.noise_pred")[1024...])
            XCTAssertGreaterThanOrEqual(psnr(reference: expected, found: first.values[0]), 65, name)
        }
    }

    func testNoiseOfASeedIsThatOfTheReference() async throws {
        let reference = try Reference()
        let pipeline = try await pipeline()
        let generation = try await pipeline.generate(.init(prompt: reference.prompt, seed: 0, steps: 1))
        for (found, expected) in zip(generation.initLatents, try reference.floats("init_latents")) {
            // PyTorch itself differs by as much between processors.
            XCTAssertEqual(found, expected, accuracy: 2e-6)
        }
        let other = try await pipeline.generate(.init(prompt: reference.prompt, seed: 1, steps: 1))
        XCTAssertNotEqual(other.initLatents, generation.initLatents)
    }

    func testRunsAtTheSameTimeGiveWhatTheyGiveAlone() async throws {
        let pipeline = try await pipeline()
        let request = try Reference().request()
        async let first = pipeline.generate(request)
        async let second = pipeline.generate(.init(prompt: "another", seed: 3))
        async let third = pipeline.generate(request)
        let (one, two, three) = try await (first, second, third)
        try assertIsReference(one)
        XCTAssertEqual(one.latents, three.latents)
        XCTAssertNotEqual(one.latents, two.latents)
    }

    func testTimingsCoverTheRun() async throws {
        let pipeline = try await pipeline(reduceMemory: true)
        let timings = try await pipeline.generate(.init(prompt: "a fox", steps: 2)).timings
        XCTAssertEqual(timings.steps.count, 2)
        XCTAssertEqual(Set(timings.loading.keys), Set(Stage.allCases))
        let parts = timings.steps + [timings.textEncoder, timings.vaeDecoder] + timings.loading.values
        XCTAssertTrue(parts.allSatisfy { $0 > .zero })
        XCTAssertLessThanOrEqual(parts.reduce(.zero, +), timings.total)
    }

    #if os(Linux)
        func testReducedMemoryHasOneNetworkAtATime() async throws {
            SimulatedCoreML.reset()
            let pipeline = try await pipeline("chunk", reduceMemory: true)
            XCTAssertEqual(SimulatedCoreML.loads, 0)
            let open = SimulatedCoreML.openModels
            _ = try await pipeline.generate(.init(prompt: "a fox", steps: 2))
            // Both chunks of the UNet are one network.
            XCTAssertEqual(SimulatedCoreML.mostOpenModels - open, 2)
            XCTAssertEqual(SimulatedCoreML.loads, 4)
            XCTAssertEqual(SimulatedCoreML.openModels, open)
        }

        func testKeptNetworksAreLoadedOnce() async throws {
            SimulatedCoreML.reset()
            let options = Pipeline.Options(computeUnits: .cpuAndNeuralEngine, cacheFolder: try XCTUnwrap(scratch).folder)
            let artifact = try Artifact(folder: try Environment.artifact("plain"))
            let pipeline = try await Pipeline(artifact: artifact, options: options)
            _ = try await pipeline.generate(.init(prompt: "a fox", steps: 2))
            XCTAssertEqual(SimulatedCoreML.loadedUnits, [.cpuAndNeuralEngine, .cpuAndNeuralEngine, .cpuAndNeuralEngine])
            // Two prompts, two steps, one picture.
            XCTAssertEqual(SimulatedCoreML.predictions, 5)
        }

        func testAFailureOfCoreMLNamesTheNetwork() async throws {
            struct Failure: Error {}
            let pipeline = try await pipeline()
            SimulatedCoreML.beforePrediction = { model in
                if model == "Unet" {
                    throw Failure()
                }
            }
            defer { SimulatedCoreML.reset() }
            let error = await failure { try await pipeline.generate(.init(prompt: "a fox")) }
            guard case .model(stage: .unet, _)? = error else {
                return XCTFail("\(String(describing: error))")
            }
        }

        /// The networks run on a thread of the pipeline's own, so the caller's goes on.
        func testTheCallersThreadIsFree() async throws {
            let pipeline = try await pipeline()
            let threads = Collected<Bool>()
            SimulatedCoreML.beforePrediction = { _ in threads.append(Thread.isMainThread) }
            defer { SimulatedCoreML.reset() }
            _ = try await Task { @MainActor in
                try await pipeline.generate(.init(prompt: "a fox", steps: 1))
            }.value
            XCTAssertEqual(threads.values, [false, false, false, false])
        }
    #endif

    private func assertIsReference(
        _ generation: Pipeline.Generation, file: StaticString = #filePath, line: UInt = #line
    ) throws {
        let expected = try Reference().floats("step_7.latents")
        XCTAssertGreaterThanOrEqual(psnr(reference: expected, found: generation.latents), 55, file: file, line: line)
    }

    /// Mean difference of two pictures in levels.
    private func mean(difference first: RGBImage, _ second: RGBImage) -> Double {
        let sum = zip(first.pixels, second.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
        return Double(sum) / Double(first.pixels.count)
    }
}
