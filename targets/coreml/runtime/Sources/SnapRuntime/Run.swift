import SnapCore

/// One run: its memory, and what happens at each step. For the pipeline's worker alone.
final class Run: @unchecked Sendable {
    /// What a request says once the artifact has filled it up.
    struct Settings: Sendable {
        let scheduler: Scheduler
        /// Position of each timestep among those of the manifest.
        let positions: [Int]
        let guidance: Float
        let initLatents: [Float]

        var steps: Int { scheduler.timesteps.count }
        var isGuided: Bool { guidance > 1 }
    }

    let settings: Settings
    private let networks: Networks
    private let tokenizer: Tokenizer
    private let text: TextEncoderRun
    private let unet: UnetRun
    private var latents: [Float]
    private var predictions: [Float]
    private var guided: [Float]
    private(set) var inputIDs: [Int32] = []
    private(set) var textEmbeddings: [Float] = []
    private(set) var timings = Pipeline.Timings()
    private let clock = ContinuousClock()

    init(
        _ settings: Settings, features: Features, networks: Networks, tokenizer: Tokenizer, known: KnownPrompt?,
        lookup: FeatureLookup
    ) throws {
        self.settings = settings
        self.networks = networks
        self.tokenizer = tokenizer
        unet = try UnetRun(features.unet, prompts: settings.isGuided ? 2 : 1, lookup: lookup)
        text = try TextEncoderRun(features, known: known, inputs: unet.text, lookup: lookup)
        latents = settings.initLatents
        guided = latents
        predictions = [Float](repeating: 0, count: unet.text.prompts * latents.count)
    }

    /// Number of prompts.
    var prompts: Int { unet.text.prompts }

    /// Calls of the UNet per step.
    var passes: Int { unet.text.passes }

    /// Goes back to the start, with the memory as it is.
    ///
    /// - Parameter latents: What the next step is given; nil for the latents of the request.
    func restart(from latents: [Float]? = nil) {
        self.latents = latents ?? settings.initLatents
        (inputIDs, textEmbeddings, timings) = ([], [], Pipeline.Timings())
    }

    /// Encodes a prompt; the last one completes the UNet's inputs.
    func encode(_ prompt: String, index: Int) throws {
        var start = clock.now
        let ids = tokenizer.encode(prompt)
        if let known = try text.takeKnown(ids, prompt: index) {
            textEmbeddings += known
        } else {
            timings.textEncoder += clock.now - start
            let models = try networks.models(of: .textEncoder)
            start = clock.now
            for model in models {
                textEmbeddings += try text.encode(ids, prompt: index, with: model)
            }
        }
        inputIDs += ids
        if index == prompts - 1 {
            unet.text.fillUp()
        }
        timings.textEncoder += clock.now - start
    }

    /// Runs a step.
    ///
    /// - Parameter isObserved: Whether anyone looks at the step.
    /// - Returns: What the observer sees: predictions, latents after the step, latents of the image that the model sees.
    func step(_ step: Int, isObserved: Bool) throws -> (predictions: [Float], latents: [Float], denoised: [Float])? {
        let models = try networks.models(of: .unet)
        let start = clock.now
        let count = latents.count
        var denoised: [Float] = []
        try predictions.withUnsafeMutableBufferPointer { predictions in
            try latents.withUnsafeBufferPointer { latents in
                try unet.predict(
                    latents, timestep: settings.scheduler.timesteps[step], position: settings.positions[step], step: step,
                    with: models, into: predictions)
            }
            let first = UnsafeBufferPointer(rebasing: predictions[..<count])
            guided.withUnsafeMutableBufferPointer { guided in
                if settings.isGuided {
                    let second = UnsafeBufferPointer(rebasing: predictions[count...])
                    Guidance.combine(unconditional: first, conditional: second, scale: settings.guidance, into: guided)
                } else {
                    _ = guided.update(fromContentsOf: first)
                }
            }
        }
        guided.withUnsafeBufferPointer { prediction in
            if isObserved {
                denoised = latents
                denoised.withUnsafeMutableBufferPointer { target in
                    latents.withUnsafeBufferPointer { latents in
                        settings.scheduler.denoise(step: step, prediction: prediction, latents: latents, into: target)
                    }
                }
            }
            latents.withUnsafeMutableBufferPointer {
                settings.scheduler.advance(step: step, prediction: prediction, latents: $0)
            }
        }
        timings.steps.append(clock.now - start)
        return isObserved ? (predictions, latents, denoised) : nil
    }

    /// Decodes the latents.
    func decode(with decoder: VAEDecoderRun) throws -> (planes: [Float], latents: [Float]) {
        var planes: [Float] = []
        for model in try networks.models(of: .vaeDecoder) {
            let start = clock.now
            planes = try decoder.decode(latents, with: model)
            timings.vaeDecoder = clock.now - start
        }
        timings.loading = networks.takeLoadTimes()
        return (planes, latents)
    }
}
