import CoreML
import SnapCore

/// The UNet's part of a run.
final class UnetRun {
    /// What the text encoder writes to.
    let text: TextInputs
    private let batch: Int
    private let sample: Tensor
    private let timestep: Tensor?
    private let step: Tensor?
    private let prediction: Tensor
    /// Per pass of a step, the call of each package.
    private let passes: [[Call]]

    init(_ features: UnetFeatures, prompts: Int, lookup: FeatureLookup) throws {
        let text = try TextInputs(features, prompts: prompts)
        self.text = text
        batch = features.batch
        var tensors: [String: Tensor] = [:]
        func memory(_ feature: Manifest.Feature) throws -> Tensor {
            let tensor = try tensors[feature.name] ?? Tensor(feature)
            tensors[feature.name] = tensor
            return tensor
        }
        sample = try memory(features.sample)
        timestep = try features.timestep.map(memory)
        step = try features.step.map(memory)
        prediction = try memory(features.prediction)
        // Between two packages: what one writes, the next one reads.
        for graph in features.graphs.dropLast() {
            for output in graph.outputs {
                _ = try memory(output)
            }
        }
        passes = try (0..<text.passes).map { pass in
            let tensors = tensors.merging(text.inputs(ofPass: pass)) { shared, _ in shared }
            return try features.graphs.map { try Call($0, stage: .unet, tensors: tensors, lookup: lookup) }
        }
    }

    /// Predicts for every prompt.
    ///
    /// - Parameters:
    ///   - latents: Of one picture, the same for all prompts.
    ///   - timestep: Of the noise schedule.
    ///   - position: Of the timestep among those of the manifest.
    ///   - step: Number of the step, for errors.
    ///   - predictions: Of each prompt, the negative one first.
    /// - Throws: ``SnapError/model(stage:reason:)``, ``SnapError/notFinite(stage:step:)``.
    func predict(
        _ latents: UnsafeBufferPointer<Float>, timestep: Int, position: Int, step number: Int, with models: [MLModel],
        into predictions: UnsafeMutableBufferPointer<Float>
    ) throws {
        sample.store(latents, row: 0)
        for row in 1..<max(batch, 1) {
            sample.copyRow(0, to: row)
        }
        self.timestep?.fill(Float(timestep))
        step?.fill(Float(position))
        var done = 0
        for calls in passes {
            for (call, model) in zip(calls, models) {
                try call.run(model)
            }
            let count = min(batch * latents.count, predictions.count - done)
            guard prediction.isFinite(count: count) else {
                throw SnapError.notFinite(stage: .unet, step: number)
            }
            prediction.load(into: UnsafeMutableBufferPointer(rebasing: predictions[done..<done + count]))
            done += count
        }
    }
}
