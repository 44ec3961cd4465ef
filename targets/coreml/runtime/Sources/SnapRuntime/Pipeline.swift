import Foundation
import SnapCore

/// A Stable Diffusion pipeline from a prompt to a picture: text encoder, DDIM steps of the UNet with guidance, VAE decoder.
///
/// ```swift
/// let pipeline = try await Pipeline(artifact: Artifact(folder: folder))
/// let result = try await pipeline.generate(.init(prompt: "a lighthouse at dusk", seed: 7)) { progress in
///     print("step \(progress.step + 1) of \(progress.steps)")
///     return true
/// }
/// try result.image.png().write(to: output)
/// ```
///
/// Everything heavy runs on a thread of the pipeline's own; a run blocks neither the caller nor Swift's threads. Several
/// runs may be under way: their steps take turns.
public final class Pipeline: Sendable {
    /// What the pipeline runs, at the size of its options.
    public let artifact: Artifact
    /// How its models are loaded.
    public let options: Options
    let features: Features
    let networks: Networks
    let worker: Worker
    private let tokenizer: Tokenizer
    private let known: KnownPrompt?
    let decoder: Decoder

    /// The VAE decoder's memory, which runs and previews share. For the worker alone.
    struct Decoder: @unchecked Sendable {
        let run: VAEDecoderRun
    }

    /// Opens a pipeline: compiles the packages that are not compiled yet, and loads the models, unless memory is reduced.
    ///
    /// - Parameters:
    ///   - artifact: What to run.
    ///   - options: How to load it.
    ///   - onInstall: Told of each package that is compiled or found.
    /// - Throws: ``SnapError/artifact(path:reason:)`` for files that are missing, damaged or no pipeline,
    ///   ``SnapError/unsupported(reason:)`` without a tokenizer, or for a size that the artifact has not or that the system
    ///   cannot choose, ``SnapError/model(stage:reason:)`` when Core ML does not compile or load a model,
    ///   ``SnapError/cancelled``.
    public init(
        artifact: Artifact, options: Options = Options(),
        onInstall: (@Sendable (InstallProgress) -> Void)? = nil
    ) async throws {
        let worker = Worker(label: "snapc.Pipeline")
        let artifact = try artifact.at(options.size)
        // Before packages are compiled, which takes a while.
        for package in artifact.packages {
            _ = try options.computeUnits.configuration(function: package.function)
        }
        let features = try Features(artifact)
        let manifest = artifact.manifest
        tokenizer = try await worker.run { try Tokenizer(folder: artifact.folder, manifest: manifest) }
        known = try await worker.run {
            try KnownPrompt(of: artifact, tokens: manifest.tokens, outputs: features.textOutputs)
        }
        let models = try await ModelStore(folder: options.cacheFolder).install(artifact, onProgress: onInstall)
        let networks = Networks(
            packages: artifact.packages, models: models, units: options.computeUnits,
            keepsOneStage: options.reduceMemory)
        let run = try VAEDecoderRun(
            features.vaeDecoder, scalingFactor: Float(manifest.latent.scalingFactor),
            lookup: FeatureLookup(path: artifact.manifestPath))
        decoder = Decoder(run: run)
        if !options.reduceMemory {
            for stage in Stage.allCases {
                try checkCancellation()
                try await worker.run { _ = try networks.models(of: stage) }
            }
        }
        self.artifact = artifact
        self.options = options
        self.features = features
        self.networks = networks
        self.worker = worker
    }

    /// Makes a picture.
    ///
    /// Cancelling the task cancels the run before its next step or network.
    ///
    /// - Parameters:
    ///   - request: What to make.
    ///   - onProgress: Called after every step; the next one waits for it. It cancels the run by returning false.
    /// - Throws: ``SnapError/request(reason:)`` and ``SnapError/unsupported(reason:)`` for requests that are impossible,
    ///   ``SnapError/model(stage:reason:)``, ``SnapError/notFinite(stage:step:)``, ``SnapError/cancelled``.
    public func generate(
        _ request: Request, onProgress: (@Sendable (Progress) async -> Bool)? = nil
    ) async throws -> Generation {
        let outcome: Result<Generation, any Error>
        do {
            outcome = .success(try await perform(request, onProgress))
        } catch {
            outcome = .failure(error)
        }
        // Whatever came of it, the memory is free when the caller goes on.
        let networks = self.networks
        await worker.finish { networks.finishRun() }
        return try outcome.get()
    }

    private func perform(
        _ request: Request, _ onProgress: (@Sendable (Progress) async -> Bool)?
    ) async throws -> Generation {
        let clock = ContinuousClock()
        let start = clock.now
        let settings = try settings(of: request)
        let decoder = self.decoder
        try checkCancellation()
        let run = try await makeRun(settings)
        for (index, prompt) in [request.negativePrompt, request.prompt].suffix(run.prompts).enumerated() {
            try checkCancellation()
            try await worker.run { try run.encode(prompt, index: index) }
        }
        let isObserved = onProgress != nil
        for step in 0..<settings.steps {
            try checkCancellation()
            let seen = try await worker.run { try run.step(step, isObserved: isObserved) }
            if let onProgress, let seen {
                let progress = Progress(
                    step: step, steps: settings.steps, timestep: settings.scheduler.timesteps[step],
                    predictions: seen.predictions, latents: seen.latents, denoised: seen.denoised, pipeline: self)
                guard await onProgress(progress) else {
                    throw SnapError.cancelled
                }
            }
        }
        try checkCancellation()
        return try await worker.run {
            let (planes, latents) = try run.decode(with: decoder.run)
            var timings = run.timings
            timings.total = clock.now - start
            return Generation(
                image: decoder.run.picture(planes), latents: latents, initLatents: settings.initLatents,
                inputIDs: run.inputIDs, textEmbeddings: run.textEmbeddings, decoded: planes,
                timesteps: settings.scheduler.timesteps, guidance: settings.guidance, timings: timings)
        }
    }

    /// A run as a stream: its steps, then its result. Leaving the loop cancels the run.
    ///
    /// ```swift
    /// for try await event in pipeline.events(request) {
    ///     switch event {
    ///     case .step(let progress): image = try await progress.preview()
    ///     case .finished(let generation): image = generation.image
    ///     }
    /// }
    /// ```
    public func events(_ request: Request) -> AsyncThrowingStream<Event, any Error> {
        AsyncThrowingStream { continuation in
            let task = Task {
                do {
                    let generation = try await self.generate(request) { progress in
                        continuation.yield(.step(progress))
                        return true
                    }
                    continuation.yield(.finished(generation))
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    /// Decodes latents that are not scaled.
    func preview(_ latents: [Float]) async throws -> RGBImage {
        let (networks, decoder) = (self.networks, self.decoder)
        return try await worker.run {
            defer { networks.finishRun() }
            var planes: [Float] = []
            for model in try networks.models(of: .vaeDecoder) {
                planes = try decoder.run.decode(latents, with: model)
            }
            return decoder.run.picture(planes)
        }
    }

    /// The memory of a run.
    func makeRun(_ settings: Run.Settings) async throws -> Run {
        let lookup = FeatureLookup(path: artifact.manifestPath)
        let (features, networks, tokenizer, known) = (self.features, self.networks, self.tokenizer, self.known)
        return try await worker.run {
            try Run(
                settings, features: features, networks: networks, tokenizer: tokenizer, known: known, lookup: lookup)
        }
    }

    /// Fills a request up with what the artifact says, and refuses what it cannot do.
    func settings(of request: Request) throws -> Run.Settings {
        let manifest = artifact.manifest
        let guidance = request.guidance ?? manifest.guidance
        guard guidance.isFinite else {
            throw SnapError.request(reason: "guidance \(guidance) is not a finite number")
        }
        let scheduler = try Scheduler(manifest.scheduler, steps: request.steps ?? manifest.steps)
        let isSpecialised = features.unet.timestep == nil
        if isSpecialised, scheduler.timesteps != manifest.timesteps {
            throw SnapError.unsupported(
                reason: "the artifact was converted for \(manifest.steps) steps and cannot take "
                    + "\(scheduler.timesteps.count); convert again with --steps \(scheduler.timesteps.count) "
                    + "or with --interface plain")
        }
        // Behind the table there is a row that the UNet computes from the timestep.
        let positions = scheduler.timesteps.map { manifest.timesteps.firstIndex(of: $0) ?? manifest.timesteps.count }
        let latents = try initLatents(of: request)
        return Run.Settings(scheduler: scheduler, positions: positions, guidance: guidance, initLatents: latents)
    }

    private func initLatents(of request: Request) throws -> [Float] {
        let latent = artifact.manifest.latent
        let count = latent.channels * latent.height * latent.width
        guard let latents = request.initLatents else {
            return TorchNoise.normal(seed: request.seed, count: count)
        }
        guard latents.count == count else {
            throw SnapError.request(
                reason: "the initial latents have \(latents.count) values, but the UNet takes \(count) "
                    + "([\(latent.channels), \(latent.height), \(latent.width)])")
        }
        if let index = latents.firstIndex(where: { !$0.isFinite }) {
            throw SnapError.request(reason: "value \(index) of the initial latents is not finite")
        }
        return latents
    }
}
