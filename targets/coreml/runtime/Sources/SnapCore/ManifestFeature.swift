extension Manifest {
    /// Element type of a feature.
    public enum ElementType: String, Codable, Sendable {
        /// IEEE 754 half precision.
        case f16
        /// IEEE 754 single precision.
        case f32
        /// 32-bit signed integer.
        case i32
        /// Byte of a picture; only the output that `--image-output` makes.
        case u8
    }

    /// What a feature is for, where the interface has features that diffusers has not.
    public enum Role: String, Codable, Sendable {
        /// Input of the text encoder: the ids of a prompt.
        case tokenIDs = "token-ids"
        /// What the text encoder gives for every token, and the UNet takes.
        case textEmbeddings = "text-embeddings"
        /// The text encoder's output at the end token.
        case pooledTextEmbedding = "pooled-text-embedding"
        /// An output of the text encoder that the UNet takes as it is, under the same name.
        case textProjection = "text-projection"
        /// Input of the UNet and of the VAE decoder.
        case latents
        /// Position of the timestep among ``Manifest/timesteps``.
        case stepIndex = "step-index"
        /// Timestep of the noise schedule.
        case timestep
        /// Output of the UNet.
        case prediction
        /// Output of the VAE decoder, from -1 to 1.
        case picture
        /// Output of the VAE decoder as an image feature (`--image-output`).
        case pictureRGB = "picture-rgb"
    }

    /// An input or output of a graph.
    public struct Feature: Codable, Equatable, Sendable {
        /// Name.
        public var name: String
        /// Element type.
        public var dtype: ElementType
        /// Dimensions, none of them open; each is at least 1.
        public var shape: [Int]
        /// What it is for; nil where the name says so.
        public var role: Role?

        /// Number of elements.
        public var count: Int { shape.reduce(1, *) }

        private enum CodingKeys: String, CodingKey {
            case name, dtype, shape, role
        }
    }
}

extension Manifest.Feature {
    /// More elements than any feature of these networks has.
    private static let maxCount = 1 << 31

    /// Decodes a feature; `snap.json` spells dimensions as strings.
    ///
    /// - Throws: `DecodingError` for other types, and for a dimension that is no size.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        name = try container.decode(String.self, forKey: .name)
        dtype = try container.decode(Manifest.ElementType.self, forKey: .dtype)
        role = try container.decodeIfPresent(Manifest.Role.self, forKey: .role)
        shape = try container.decode([String].self, forKey: .shape).map { spelled in
            guard let size = Int(spelled), size > 0 else {
                let reason = "'\(spelled)' is not a fixed size"
                throw DecodingError.dataCorruptedError(forKey: .shape, in: container, debugDescription: reason)
            }
            return size
        }
        guard let count = checkedProduct(shape), count <= Self.maxCount else {
            let reason = "more than \(Self.maxCount) elements"
            throw DecodingError.dataCorruptedError(forKey: .shape, in: container, debugDescription: reason)
        }
    }

    /// Encodes the feature as in `snap.json`.
    ///
    /// - Throws: what the encoder throws.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(name, forKey: .name)
        try container.encode(dtype, forKey: .dtype)
        try container.encode(shape.map(String.init), forKey: .shape)
        try container.encodeIfPresent(role, forKey: .role)
    }
}
