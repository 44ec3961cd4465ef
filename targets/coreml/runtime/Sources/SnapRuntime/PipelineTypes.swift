import Foundation
import SnapCore

extension Pipeline {
    /// How models are loaded.
    public struct Options: Sendable {
        /// The processors that Core ML may use.
        public var computeUnits: ComputeUnits
        /// Whether only one network is in memory at a time: each is loaded just before it runs. For phones whose memory does
        /// not hold all three; every run takes longer by the time of loading.
        public var reduceMemory: Bool
        /// Where compiled models are kept; nil for the folder that ``ModelStore/init(folder:)`` names.
        public var cacheFolder: URL?
        /// Size of the pictures, one of ``Manifest/pictureSizes``; nil for the artifact's first. A choice among several
        /// takes iOS 18 or macOS 15.
        public var size: PictureSize?

        /// Options; by default all processors, with all networks kept in memory, and the artifact's first size.
        public init(
            computeUnits: ComputeUnits = .all, reduceMemory: Bool = false, cacheFolder: URL? = nil,
            size: PictureSize? = nil
        ) {
            self.computeUnits = computeUnits
            self.reduceMemory = reduceMemory
            self.cacheFolder = cacheFolder
            self.size = size
        }
    }

    /// What to make.
    public struct Request: Sendable {
        /// What the picture should show.
        public var prompt: String
        /// What it should not show; without guidance it plays no part.
        public var negativePrompt: String
        /// Seed of the noise that the run starts from, the same as PyTorch's for a generator on the CPU.
        public var seed: UInt64
        /// Number of DDIM steps; nil for the artifact's.
        public var steps: Int?
        /// Guidance scale; at 1 and below there is no guidance. nil for the artifact's.
        public var guidance: Float?
        /// What the run starts from in place of noise, `[channels, height, width]` of the manifest's latents.
        public var initLatents: [Float]?

        /// A request; what is left out is the artifact's.
        public init(
            prompt: String, negativePrompt: String = "", seed: UInt64 = 0, steps: Int? = nil, guidance: Float? = nil,
            initLatents: [Float]? = nil
        ) {
            self.prompt = prompt
            self.negativePrompt = negativePrompt
            self.seed = seed
            self.steps = steps
            self.guidance = guidance
            self.initLatents = initLatents
        }
    }

    /// A step that has run.
    public struct Progress: Sendable {
        /// Number of the step, from 0.
        public let step: Int
        /// Number of steps of the run.
        public let steps: Int
        /// Timestep of the noise schedule.
        public let timestep: Int
        /// What the UNet gave before guidance, `[rows, channels, height, width]`: with guidance two rows, that of the negative
        /// prompt first.
        public let predictions: [Float]
        /// Latents after the step, `[channels, height, width]`.
        public let latents: [Float]
        /// Latents of the image that the model sees at this step.
        let denoised: [Float]
        let pipeline: Pipeline

        /// The picture as the model sees it at this step: one call of the decoder, between the steps.
        ///
        /// With ``Pipeline/Options/reduceMemory`` it is loaded for that, and the UNet again afterwards.
        ///
        /// - Throws: ``SnapError/model(stage:reason:)``, ``SnapError/notFinite(stage:step:)``.
        public func preview() async throws -> RGBImage {
            try await pipeline.preview(denoised)
        }
    }

    /// The result of a run.
    public struct Generation: Sendable {
        /// The picture.
        public let image: RGBImage
        /// Latents after the last step, `[channels, height, width]`.
        public let latents: [Float]
        /// Latents before the first step.
        public let initLatents: [Float]
        /// Token ids `[rows, tokens]`; with guidance two rows, that of the negative prompt first.
        public let inputIDs: [Int32]
        /// Text embeddings `[rows, tokens, width]`.
        public let textEmbeddings: [Float]
        /// What the decoder gave, `[3, height, width]`, -1 black and 1 white, not clamped.
        public let decoded: [Float]
        /// The timestep of each step.
        public let timesteps: [Int]
        /// Guidance scale.
        public let guidance: Float
        /// Where the time went.
        public let timings: Timings
    }

    /// Where the time of a run went.
    public struct Timings: Sendable {
        /// Loading of models for the run: of the first run when the pipeline was opened, of the others only where memory is
        /// reduced.
        public var loading: [Stage: Duration] = [:]
        /// The text encoder, for all prompts.
        public var textEncoder: Duration = .zero
        /// The UNet and the scheduler, by step.
        public var steps: [Duration] = []
        /// The VAE decoder.
        public var vaeDecoder: Duration = .zero
        /// Everything, with the time of the observer.
        public var total: Duration = .zero
    }

    /// What ``Pipeline/events(_:)`` tells.
    public enum Event: Sendable {
        /// A step has run.
        case step(Progress)
        /// The run is over.
        case finished(Generation)
    }
}
