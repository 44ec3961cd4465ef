import Foundation
import SnapCore

/// Records a run step by step and writes it as a reference file, which `snapc validate` compares with others.
///
/// Tensors, for a run with guidance: `input_ids` [2, tokens] (the negative prompt first), `text_embeddings` [2, tokens, D],
/// `init_latents` [1, 4, H, W], per step k `step_k.noise_pred` [2, 4, H, W] before guidance and `step_k.latents`
/// [1, 4, H, W] after the step, `image` [1, 3, 8H, 8W] in [-1, 1]. Without guidance there is one row instead of two. The
/// metadata key `snapc` holds the request as JSON.
public final class RunRecorder: @unchecked Sendable {
    private let lock = NSLock()
    private var steps: [(predictions: [Float], latents: [Float])] = []

    /// A recorder without steps.
    public init() {}

    /// Takes in a step: call it from `onProgress` of ``Pipeline/generate(_:onProgress:)`` for each.
    public func add(_ progress: Pipeline.Progress) {
        lock.lock()
        defer { lock.unlock() }
        steps.append((progress.predictions, progress.latents))
    }

    /// Writes the file.
    ///
    /// - Parameters:
    ///   - generation: The result of the run.
    ///   - request: What was asked for.
    ///   - manifest: Of the artifact that ran.
    ///   - url: Where to write; a file that is there is replaced.
    /// - Throws: ``SnapError/request(reason:)`` when not every step of the run was recorded, and what
    ///   `Safetensors.write` throws.
    public func write(
        _ generation: Pipeline.Generation, of request: Pipeline.Request, manifest: Manifest, to url: URL
    ) throws {
        lock.lock()
        let steps = self.steps
        lock.unlock()
        guard steps.count == generation.timesteps.count else {
            throw SnapError.request(
                reason: "\(steps.count) of \(generation.timesteps.count) steps were recorded; add every step of one run")
        }
        let latent = manifest.latent
        let rows = generation.inputIDs.count / manifest.tokens
        let width = generation.textEmbeddings.count / max(generation.inputIDs.count, 1)
        let side = latent.pixelsPerCell
        func latents(_ rows: Int) -> [Int] { [rows, latent.channels, latent.height, latent.width] }
        var tensors: [(name: String, shape: [Int], values: [Float])] = [
            ("image", [1, 3, latent.height * side, latent.width * side], generation.decoded.map { min(max($0, -1), 1) }),
            ("init_latents", latents(1), generation.initLatents),
            ("text_embeddings", [rows, manifest.tokens, width], generation.textEmbeddings),
        ]
        for (step, record) in steps.enumerated() {
            tensors.append(("step_\(step).latents", latents(1), record.latents))
            tensors.append(("step_\(step).noise_pred", latents(rows), record.predictions))
        }
        let settings = RecordSettings(generation, request, manifest)
        try Safetensors.write(
            tensors, integers: [("input_ids", [rows, manifest.tokens], generation.inputIDs)],
            metadata: ["snapc": try settings.json()], to: url)
    }
}

/// The JSON of a reference file's metadata.
private struct RecordSettings: Encodable {
    let guidance: Float
    let made_by = "snap-run, engine coreml"
    let negative: String
    let prompt: String
    let scheduler: SchedulerConfig
    /// Of noise; nil when the latents were given.
    let seed: UInt64?
    let steps: Int
    let timesteps: [Int]
    let versions: [String: String]

    /// A DDIM configuration of diffusers, with what this runtime never does switched off.
    struct SchedulerConfig: Encodable {
        let _class_name = "DDIMScheduler"
        let beta_end: Double
        let beta_schedule: String
        let beta_start: Double
        let clip_sample = false
        let num_train_timesteps: Int
        let prediction_type: String
        let rescale_betas_zero_snr = false
        let set_alpha_to_one: Bool
        let steps_offset: Int
        let thresholding = false
        let timestep_spacing: String
    }

    init(_ generation: Pipeline.Generation, _ request: Pipeline.Request, _ manifest: Manifest) {
        guidance = generation.guidance
        negative = request.negativePrompt
        prompt = request.prompt
        let record = manifest.scheduler
        scheduler = SchedulerConfig(
            beta_end: record.betaEnd, beta_schedule: record.betaSchedule.rawValue, beta_start: record.betaStart,
            num_train_timesteps: record.numTrainTimesteps, prediction_type: record.predictionType.rawValue,
            set_alpha_to_one: record.setAlphaToOne, steps_offset: record.stepsOffset,
            timestep_spacing: record.timestepSpacing.rawValue)
        seed = request.initLatents == nil ? request.seed : nil
        steps = generation.timesteps.count
        timesteps = generation.timesteps
        let system = ProcessInfo.processInfo.operatingSystemVersionString
        versions = ["snapc": manifest.snapcVersion, "system": system]
    }

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}
