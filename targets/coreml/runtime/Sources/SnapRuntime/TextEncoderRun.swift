import CoreML
import SnapCore

/// The text encoder's part of a run. Its outputs are rows of the UNet's inputs wherever both have one form.
final class TextEncoderRun {
    private let features: TextEncoderFeatures
    private let inputIDs: Tensor
    private let prompts: [Prompt]
    private let known: KnownPrompt?

    /// The call for a prompt.
    private struct Prompt {
        let call: Call
        let embeddings: Tensor
        /// Outputs that are wanted, and where they have to be converted to.
        let outputs: [(tensor: Tensor, converted: Tensor?)]
    }

    /// - Parameters:
    ///   - known: A prompt that needs no call.
    ///   - inputs: What the prompts are encoded for.
    init(_ features: Features, known: KnownPrompt?, inputs: TextInputs, lookup: FeatureLookup) throws {
        let text = features.textEncoder
        self.features = text
        self.known = known
        let inputIDs = try Tensor(text.inputIDs)
        self.inputIDs = inputIDs
        prompts = try (0..<inputs.prompts).map { prompt in
            var tensors = [text.inputIDs.name: inputIDs]
            var outputs: [(tensor: Tensor, converted: Tensor?)] = []
            func want(_ output: Manifest.Feature, as input: String?) throws -> Tensor {
                let row = try input.flatMap { try inputs.row($0, prompt: prompt) }
                let isRow = row.map { $0.dtype == output.dtype && $0.shape == output.shape } ?? false
                let tensor = try isRow ? row ?? Tensor(output) : Tensor(output)
                outputs.append((tensor, isRow ? nil : row))
                tensors[output.name] = tensor
                return tensor
            }
            let embeddings = try want(text.embeddings, as: features.unet.states?.name)
            for output in features.textOutputs.dropFirst() {
                _ = try want(output, as: output.name)
            }
            let call = try Call(text.graph, stage: .textEncoder, tensors: tensors, lookup: lookup)
            return Prompt(call: call, embeddings: embeddings, outputs: outputs)
        }
    }

    /// Encodes a prompt for the UNet.
    ///
    /// - Parameter ids: Ids of the prompt with the given number, 0 for the negative one when there are two.
    /// - Returns: The embeddings, `[tokens, width]`.
    /// - Throws: ``SnapError/model(stage:reason:)``, ``SnapError/notFinite(stage:step:)``.
    func encode(_ ids: [Int32], prompt index: Int, with model: MLModel) throws -> [Float] {
        let prompt = prompts[index]
        // Ids are below 2^24, so floats hold them.
        ids.map(Float.init).withUnsafeBufferPointer { inputIDs.store($0, row: 0) }
        try prompt.call.run(model)
        return try finish(prompt)
    }

    /// Takes a prompt for the UNet that is known; the embeddings as ``encode(_:prompt:with:)`` gives them, or nil for a prompt
    /// that has to be encoded.
    ///
    /// - Throws: ``SnapError/notFinite(stage:step:)``.
    func takeKnown(_ ids: [Int32], prompt index: Int) throws -> [Float]? {
        guard let known, known.ids == ids else {
            return nil
        }
        let prompt = prompts[index]
        var rest = known.values[...]
        for (tensor, _) in prompt.outputs {
            rest.prefix(tensor.count).withUnsafeBufferPointer { tensor.store($0, row: 0) }
            rest = rest.dropFirst(tensor.count)
        }
        return try finish(prompt)
    }

    /// Checks the outputs for a prompt, and converts those that the UNet takes in another form.
    private func finish(_ prompt: Prompt) throws -> [Float] {
        for (tensor, converted) in prompt.outputs {
            guard tensor.isFinite(count: tensor.count) else {
                throw SnapError.notFinite(stage: .textEncoder, step: nil)
            }
            if let converted {
                // Apple's layout of the embeddings, `[1, width, 1, tokens]`; other outputs have the shape of their input.
                let isWidthFirst = tensor === prompt.embeddings && converted.shape.count == 4
                let values = tensor.floats()
                (isWidthFirst ? transposed(values, columns: features.width) : values)
                    .withUnsafeBufferPointer { converted.store($0, row: 0) }
            }
        }
        return prompt.embeddings.floats()
    }
}

extension Tensor {
    /// All elements.
    func floats() -> [Float] {
        [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            load(into: UnsafeMutableBufferPointer(rebasing: buffer[..<count]))
            initialized = count
        }
    }
}
