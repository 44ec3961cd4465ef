/// `snap.json`, the manifest of an artifact: what its graphs take and give, and how they are to be run.
///
/// Keys that only people and the converter read (the effects of the passes) are left out; unknown keys are ignored, as
/// long as the schema version is ``supportedSchemaVersion``.
public struct Manifest: Codable, Equatable, Sendable {
    /// Name of the file in an artifact.
    public static let fileName = "snap.json"

    /// Where snapc puts this Swift package in an artifact. An app has it as a package, not among its resources.
    public static let runtimeFolder = "runtime"

    /// The version of the manifest that this runtime reads.
    public static let supportedSchemaVersion = 1

    /// Always ``supportedSchemaVersion``.
    public var schemaVersion: Int
    /// Version of snapc that wrote the artifact.
    public var snapcVersion: String
    /// Always `coreml`.
    public var target: String
    /// Element type of weights and activations: `f16` or `f32`.
    public var precision: String
    /// How the weights of products are stored, when it is not in the precision.
    public var weights: String?
    /// Names and shapes of the features.
    public var interface: Interface
    /// Form of attention that was asked for.
    public var attention: String
    /// Lowest major version of iOS.
    public var minIOS: Int?
    /// The passes that ran.
    public var passes: String
    /// The graphs in the order in which they run.
    public var graphs: [Graph]
    /// The noise schedule of the model.
    public var scheduler: Scheduler
    /// Number of denoising steps.
    public var steps: Int
    /// The timestep of each step, first step first. With ``Interface/snap`` the UNet has no others.
    public var timesteps: [Int]
    /// Guidance scale.
    public var guidance: Float
    /// Size and scale of the latents.
    public var latent: Latent
    /// The picture sizes that the artifact has functions for, that of ``latent`` first; nil when that is the only one.
    public var sizes: [Size]?
    /// Number of token ids of a prompt.
    public var tokens: Int
    /// Id of the token that fills prompts up; nil when the artifact has no tokenizer.
    public var padTokenID: Int32?
    /// Every file but the manifest, by path.
    public var files: [File]

    private enum CodingKeys: String, CodingKey {
        case schemaVersion = "schema_version"
        case snapcVersion = "snapc_version"
        case target, precision, weights, interface, attention
        case minIOS = "min_ios"
        case passes, graphs, scheduler, steps, timesteps, guidance, latent, sizes, tokens
        case padTokenID = "pad_token_id"
        case files
    }

    /// Names and shapes of the features: `--interface` of `snapc convert`.
    public enum Interface: String, Codable, Sendable {
        /// What diffusers gives each network.
        case plain
        /// What Apple's Stable Diffusion package takes.
        case apple
        /// Specialised to the steps of the manifest; ``Feature/role`` says what each feature is for.
        case snap
    }

    /// A Core ML package of the artifact.
    public struct Graph: Codable, Equatable, Sendable {
        /// Graph name: `text_encoder`, `unet` or `unet_chunk1` and `unet_chunk2`, `vae_decoder`.
        public var name: String
        /// The package, relative to the artifact.
        public var file: String
        /// Inputs in order.
        public var inputs: [Feature]
        /// Outputs in order.
        public var outputs: [Feature]
        /// A function per picture size, in the order of ``Manifest/sizes``; nil when one serves all sizes.
        public var functions: [Function]?
    }

    /// The noise schedule, with the keys of diffusers' `DDIMScheduler`.
    public struct Scheduler: Codable, Equatable, Sendable {
        /// The integrator; `ddim`.
        public var kind: String
        /// Number of training steps.
        public var numTrainTimesteps: Int
        /// First beta.
        public var betaStart: Double
        /// Last beta.
        public var betaEnd: Double
        /// How beta grows between the two.
        public var betaSchedule: BetaSchedule
        /// What the UNet predicts.
        public var predictionType: PredictionType
        /// Where the steps of a run lie among the training steps.
        public var timestepSpacing: TimestepSpacing
        /// Added to every leading timestep.
        public var stepsOffset: Int
        /// Whether the image itself stands before timestep 0, rather than the latents of timestep 0.
        public var setAlphaToOne: Bool

        private enum CodingKeys: String, CodingKey {
            case kind
            case numTrainTimesteps = "num_train_timesteps"
            case betaStart = "beta_start"
            case betaEnd = "beta_end"
            case betaSchedule = "beta_schedule"
            case predictionType = "prediction_type"
            case timestepSpacing = "timestep_spacing"
            case stepsOffset = "steps_offset"
            case setAlphaToOne = "set_alpha_to_one"
        }
    }

    /// How beta grows over the training steps.
    public enum BetaSchedule: String, Codable, Sendable {
        /// Linearly.
        case linear
        /// Its square root linearly (Stable Diffusion).
        case scaledLinear = "scaled_linear"
    }

    /// What the UNet predicts.
    public enum PredictionType: String, Codable, Sendable {
        /// The noise.
        case epsilon
        /// The velocity, `sqrt(a) noise - sqrt(1 - a) image`.
        case vPrediction = "v_prediction"
    }

    /// Where the steps of a run lie among the training steps.
    public enum TimestepSpacing: String, Codable, Sendable {
        /// Multiples of the stride from 0, moved by the offset.
        case leading
        /// The stride counted back from the last training step.
        case trailing
    }

    /// Size and scale of the latents.
    public struct Latent: Codable, Equatable, Sendable {
        /// Channels.
        public var channels: Int
        /// Rows.
        public var height: Int
        /// Columns.
        public var width: Int
        /// Image pixels per latent cell along each side.
        public var pixelsPerCell: Int
        /// The decoder takes latents divided by this.
        public var scalingFactor: Double

        private enum CodingKeys: String, CodingKey {
            case channels, height, width
            case pixelsPerCell = "pixels_per_cell"
            case scalingFactor = "scaling_factor"
        }
    }

    /// A file of the artifact.
    public struct File: Codable, Equatable, Sendable {
        /// Path relative to the artifact, with `/` between parts.
        public var path: String
        /// Size.
        public var bytes: Int
        /// SHA-256 of the contents, in lower-case hexadecimal.
        public var sha256: String
    }

    /// The graph of that name, if the artifact has it.
    public func graph(named name: String) -> Graph? {
        graphs.first { $0.name == name }
    }
}
