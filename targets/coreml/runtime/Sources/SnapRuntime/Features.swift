import SnapCore

/// Which feature of a graph is which, by name. Two sets of names are known, diffusers' (`plain`) and that of Apple's Stable
/// Diffusion packages (`apple`). With `snap` the UNet takes `step`, a position among the manifest's timesteps, in place of
/// `timestep`, and outputs of the text encoder under their own names in place of `encoder_hidden_states`.
struct Features: Sendable {
    let textEncoder: TextEncoderFeatures
    let unet: UnetFeatures
    let vaeDecoder: VAEDecoderFeatures

    /// Outputs of the text encoder that a run wants: the embeddings, then those that the UNet takes, in the order of its inputs.
    var textOutputs: [Manifest.Feature] {
        let taken = unet.projections.compactMap { input in
            textEncoder.graph.outputs.first { $0.name == input.name }
        }
        return [textEncoder.embeddings] + taken
    }

    /// - Throws: ``SnapError/artifact(path:reason:)`` when the graphs of the artifact do not make a pipeline.
    init(_ artifact: Artifact) throws {
        let lookup = FeatureLookup(path: artifact.manifestPath)
        let manifest = artifact.manifest
        for graph in artifact.packages.map(\.graph) {
            try lookup.checkSizes(of: graph)
        }
        func graphs(_ stage: Stage) -> [Manifest.Graph] {
            artifact.packages.filter { $0.stage == stage }.map(\.graph)
        }
        textEncoder = try TextEncoderFeatures(graphs(.textEncoder), manifest, lookup)
        unet = try UnetFeatures(graphs(.unet), textEncoder, manifest.latent, lookup)
        vaeDecoder = try VAEDecoderFeatures(graphs(.vaeDecoder), manifest.latent, lookup)
    }
}

/// Features of the text encoder, which takes one prompt at a time.
struct TextEncoderFeatures: Sendable {
    let graph: Manifest.Graph
    let inputIDs: Manifest.Feature
    /// `[1, tokens, width]`.
    let embeddings: Manifest.Feature
    /// Width of a token's embedding.
    let width: Int

    init(_ graphs: [Manifest.Graph], _ manifest: Manifest, _ lookup: FeatureLookup) throws {
        graph = try lookup.only(graphs, .textEncoder)
        inputIDs = try lookup.input(["input_ids"], of: [graph])
        try lookup.require(inputIDs, of: graph, shape: [1, manifest.tokens])
        guard inputIDs.dtype == .i32 || inputIDs.dtype == .f32 else {
            throw lookup.failure("\(graph.name): token ids do not fit '\(inputIDs.name)', which is \(inputIDs.dtype.rawValue)")
        }
        try lookup.refuseInputs(of: graph, besides: [inputIDs.name])
        embeddings = try lookup.output(["last_hidden_state"], of: [graph])
        width = embeddings.shape.last ?? 0
        try lookup.require(embeddings, of: graph, shape: [1, manifest.tokens, width])
    }
}

/// Features of the UNet, whole or in two chunks that run one after the other. The second chunk takes outputs of the first
/// one by name.
struct UnetFeatures: Sendable {
    let graphs: [Manifest.Graph]
    let sample: Manifest.Feature
    let timestep: Manifest.Feature?
    let step: Manifest.Feature?
    let states: Manifest.Feature?
    /// What the UNet takes of the text encoder's outputs as it is.
    let projections: [Manifest.Feature]
    let prediction: Manifest.Feature
    /// Rows of a call: 2 for both halves of the guidance, or 1.
    let batch: Int

    init(
        _ graphs: [Manifest.Graph], _ text: TextEncoderFeatures, _ latent: Manifest.Latent, _ lookup: FeatureLookup
    ) throws {
        guard let first = graphs.first else {
            throw lookup.failure("has no graph 'unet'")
        }
        self.graphs = graphs
        let inner = Set(graphs.dropLast().flatMap(\.outputs).map(\.name))
        func input(_ name: String) -> Manifest.Feature? {
            inner.contains(name) ? nil : graphs.lazy.flatMap(\.inputs).first { $0.name == name }
        }
        sample = try lookup.input(["sample"], of: graphs)
        batch = sample.shape.first ?? 1
        let latents = [batch, latent.channels, latent.height, latent.width]
        try lookup.require(sample, of: first, shape: latents)
        prediction = try lookup.output(["out_sample", "noise_pred"], of: Array(graphs.suffix(1)))
        try lookup.require(prediction, of: first, shape: latents)

        timestep = input("timestep")
        step = input("step")
        states = input("encoder_hidden_states")
        let known = ["sample", "timestep", "step", "encoder_hidden_states"]
        let others = graphs.flatMap(\.inputs).filter { !known.contains($0.name) && !inner.contains($0.name) }
        var projections: [Manifest.Feature] = []
        for other in others where !projections.contains(where: { $0.name == other.name }) {
            guard let output = text.graph.outputs.first(where: { $0.name == other.name }) else {
                throw lookup.failure(
                    "\(first.name): a run has no value for the input '\(other.name)', and no output of text_encoder is named so")
            }
            try lookup.require(output, of: text.graph, shape: [1] + output.shape.dropFirst())
            try lookup.require(other, of: first, shape: [batch] + output.shape.dropFirst())
            projections.append(other)
        }
        self.projections = projections
        if timestep == nil && step == nil {
            throw lookup.failure("\(first.name): there is neither an input 'timestep' nor 'step'")
        }
        if states == nil && projections.isEmpty {
            throw lookup.failure("\(first.name): there is no input 'encoder_hidden_states'")
        }
        if let timestep, timestep.shape != [1], timestep.shape != [batch] {
            throw lookup.failure("\(first.name): 'timestep' has the shape \(timestep.shape), not [1] or [\(batch)]")
        }
        if let step {
            try lookup.require(step, of: first, shape: [1])
        }
        if let states {
            let tokensFirst = [batch] + text.embeddings.shape.dropFirst()
            let widthFirst = [batch, text.width, 1, tokensFirst[1]]
            guard states.shape == tokensFirst || states.shape == widthFirst else {
                throw lookup.failure(
                    "\(first.name): 'encoder_hidden_states' has the shape \(states.shape), not \(tokensFirst) or \(widthFirst)")
            }
        }
    }

    /// Whether the embeddings go in as `[N, width, 1, tokens]`, Apple's layout.
    var statesAreWidthFirst: Bool { states?.shape.count == 4 }
}

/// Features of the VAE decoder, which decodes one picture at a time.
struct VAEDecoderFeatures: Sendable {
    let graph: Manifest.Graph
    let latents: Manifest.Feature
    /// `[1, 3, height, width]`.
    let image: Manifest.Feature
    let height: Int
    let width: Int

    /// Whether the decoder gives a picture in place of planes (`--image-output`).
    var givesPicture: Bool { image.dtype == .u8 }

    init(_ graphs: [Manifest.Graph], _ latent: Manifest.Latent, _ lookup: FeatureLookup) throws {
        graph = try lookup.only(graphs, .vaeDecoder)
        latents = try lookup.input(["latent_sample", "z"], of: [graph])
        try lookup.require(latents, of: graph, shape: [1, latent.channels, latent.height, latent.width])
        try lookup.refuseInputs(of: graph, besides: [latents.name])
        image = try lookup.output(["sample", "image"], of: [graph])
        height = latent.height * latent.pixelsPerCell
        width = latent.width * latent.pixelsPerCell
        guard max(height, width) <= RGBImage.maxSide else {
            throw lookup.failure("pictures of \(width)x\(height) are larger than \(RGBImage.maxSide) on a side")
        }
        try lookup.require(image, of: graph, shape: [1, 3, height, width])
    }
}
