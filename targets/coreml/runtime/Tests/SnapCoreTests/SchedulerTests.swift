import Foundation
import XCTest

@testable import SnapCore

final class SchedulerTests: XCTestCase {
    /// The scheduler of SD v1.5.
    private static let stableDiffusion = Manifest.Scheduler(
        kind: "ddim", numTrainTimesteps: 1000, betaStart: 0.00085, betaEnd: 0.012, betaSchedule: .scaledLinear,
        predictionType: .epsilon, timestepSpacing: .leading, stepsOffset: 1, setAlphaToOne: false)

    /// A run of diffusers' `DDIMScheduler`; made by `fixtures/make_scheduler_cases.py`.
    private struct Case: Decodable {
        let scheduler: Manifest.Scheduler
        let timesteps: [Int]
        /// What the next latents and the image take of latents 1 and of a prediction of 1.
        let next: [[Float]]
        let denoised: [[Float]]
    }

    func testStepsAreThoseOfDiffusers() throws {
        let cases = try JSONDecoder().decode([Case].self, from: Fixtures.data("scheduler_cases.json"))
        XCTAssertGreaterThanOrEqual(cases.count, 8)
        for (number, expected) in cases.enumerated() {
            let scheduler = try Scheduler(expected.scheduler, steps: expected.timesteps.count)
            XCTAssertEqual(scheduler.timesteps, expected.timesteps, "case \(number)")
            for step in expected.timesteps.indices {
                let prediction: [Float] = [0, 1]
                let before: [Float] = [1, 0]
                var latents = before
                var image = before
                prediction.withUnsafeBufferPointer { prediction in
                    latents.withUnsafeMutableBufferPointer {
                        scheduler.advance(step: step, prediction: prediction, latents: $0)
                    }
                    before.withUnsafeBufferPointer { before in
                        image.withUnsafeMutableBufferPointer {
                            scheduler.denoise(step: step, prediction: prediction, latents: before, into: $0)
                        }
                    }
                }
                // diffusers' tables are f32.
                let place = "case \(number), step \(step)"
                assertClose(latents, expected.next[step], tolerance: 1e-6, place)
                assertClose(image, expected.denoised[step], tolerance: 1e-6, place)
            }
        }
    }

    // From the latents before each step and the UNet's predictions, both as diffusers recorded them.
    func testGuidedStepsLeadToTheRecordedLatents() throws {
        let reference = try Safetensors(contentsOf: Fixtures.file("tiny/reference.safetensors"))
        let run = try ReferenceRun(reference)
        let scheduler = try Scheduler(Self.stableDiffusion, steps: run.steps)
        XCTAssertEqual(scheduler.timesteps, run.timesteps)
        var latents = try reference.floats("init_latents").values
        for step in 0..<run.steps {
            let predictions = try reference.floats("step_\(step).noise_pred").values
            var guided = [Float](repeating: .nan, count: latents.count)
            predictions.withUnsafeBufferPointer { predictions in
                guided.withUnsafeMutableBufferPointer {
                    Guidance.combine(
                        unconditional: UnsafeBufferPointer(rebasing: predictions[..<latents.count]),
                        conditional: UnsafeBufferPointer(rebasing: predictions[latents.count...]),
                        scale: run.guidance, into: $0)
                }
            }
            guided.withUnsafeBufferPointer { guided in
                latents.withUnsafeMutableBufferPointer {
                    scheduler.advance(step: step, prediction: guided, latents: $0)
                }
            }
            let recorded = try reference.floats("step_\(step).latents").values
            assertClose(latents, recorded, tolerance: 1e-5, "step \(step)")
            latents = recorded
        }
    }

    // numpy: np.round(np.arange(1000, 0, -1000 / n)).astype(np.int64) - 1, the first n elements, for every n: the sum
    // over n of sum(t_i (i + 1)), times 31 before each addition, modulo 2^61 - 1.
    func testEveryNumberOfTrailingStepsAgreesWithNumpy() throws {
        var record = Self.stableDiffusion
        record.timestepSpacing = .trailing
        let modulus: UInt64 = (1 << 61) - 1
        var sum: UInt64 = 0
        for steps in 1...1000 {
            let timesteps = try Scheduler(record, steps: steps).timesteps
            var weighted = 0
            for (index, timestep) in timesteps.enumerated() {
                weighted += timestep * (index + 1)
            }
            sum = modulus.dividingFullWidth(sum.multipliedFullWidth(by: 31)).remainder
            sum = (sum + UInt64(weighted)) % modulus
        }
        XCTAssertEqual(sum, 2_294_107_808_996_661_065)
    }

    func testImpossibleRunsAreRefused() throws {
        for steps in [-1, 0, 1001, Int.min, Int.max] {
            XCTAssertThrowsError(try Scheduler(Self.stableDiffusion, steps: steps)) { error in
                let reason = "cannot take \(steps) steps of a schedule of 1000; choose 1 to 1000"
                XCTAssertEqual(error as? SnapError, .request(reason: reason))
            }
        }
        for offset in [1, Int.max] {
            var record = Self.stableDiffusion
            record.stepsOffset = offset
            XCTAssertThrowsError(try Scheduler(record, steps: 1000)) { error in
                guard case .unsupported(let reason) = error as? SnapError else {
                    return XCTFail("\(error)")
                }
                XCTAssert(reason.contains("beyond timestep 999"), reason)
            }
        }
    }

    func testRecordsThatAreNoScheduleAreRefused() {
        let changes: [(inout Manifest.Scheduler) -> Void] = [
            { $0.kind = "euler" },
            { $0.numTrainTimesteps = 0 },
            { $0.numTrainTimesteps = .max },
            { $0.betaStart = 0 },
            { $0.betaStart = 1 },
            { $0.betaEnd = .nan },
            { $0.stepsOffset = -1 },
        ]
        for (number, change) in changes.enumerated() {
            var record = Self.stableDiffusion
            change(&record)
            XCTAssertThrowsError(try Scheduler(record, steps: 8), "change \(number)") { error in
                guard case .artifact("snap.json", let reason) = error as? SnapError else {
                    return XCTFail("\(error)")
                }
                XCTAssert(reason.hasPrefix("field 'scheduler'"), reason)
            }
        }
    }

    // By hand: 1 + 7.5 (3 - 1) = 16 and 2 + 7.5 (-2 - 2) = -28.
    func testGuidanceLeadsAwayFromTheNegativePrompt() {
        let (unconditional, conditional): ([Float], [Float]) = ([1, 2], [3, -2])
        var guided: [Float] = [0, 0]
        unconditional.withUnsafeBufferPointer { unconditional in
            conditional.withUnsafeBufferPointer { conditional in
                guided.withUnsafeMutableBufferPointer {
                    Guidance.combine(unconditional: unconditional, conditional: conditional, scale: 7.5, into: $0)
                }
            }
        }
        XCTAssertEqual(guided, [16, -28])
    }
}

/// The settings of a recorded run: the metadata key `snapc` of a reference file.
struct ReferenceRun: Decodable {
    let steps: Int
    let guidance: Float
    let seed: UInt64
    let timesteps: [Int]

    init(_ reference: Safetensors) throws {
        let description = try XCTUnwrap(reference.metadata["snapc"])
        self = try JSONDecoder().decode(Self.self, from: Data(description.utf8))
    }
}
