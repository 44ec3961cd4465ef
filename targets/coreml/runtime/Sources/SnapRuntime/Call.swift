import CoreML
import SnapCore

/// A prediction with its memory: made once, run at every step.
final class Call {
    private let graph: Manifest.Graph
    private let stage: Stage
    private let inputs: MLDictionaryFeatureProvider
    private let options = MLPredictionOptions()
    private let outputs: [(name: String, tensor: Tensor)]

    /// - Parameters:
    ///   - graph: What is run.
    ///   - stage: For errors.
    ///   - tensors: Memory of every input, and of the outputs that are wanted, by name.
    /// - Throws: ``SnapError/artifact(path:reason:)`` when an input has no memory or one of another form: two chunks that do
    ///   not belong together. ``SnapError/model(stage:reason:)`` when Core ML does not take the memory.
    init(_ graph: Manifest.Graph, stage: Stage, tensors: [String: Tensor], lookup: FeatureLookup) throws {
        self.graph = graph
        self.stage = stage
        var values: [String: Any] = [:]
        for input in graph.inputs {
            guard let tensor = tensors[input.name], tensor.dtype == input.dtype, tensor.shape == input.shape else {
                throw lookup.failure("\(graph.name): nothing gives the input '\(input.name)' in its form")
            }
            values[input.name] = MLFeatureValue(multiArray: tensor.array)
        }
        do {
            inputs = try MLDictionaryFeatureProvider(dictionary: values)
        } catch {
            throw SnapError.model(stage: stage, reason: "\(graph.name): Core ML refuses the inputs: \(describe(error))")
        }
        outputs = graph.outputs.compactMap { output in tensors[output.name].map { (output.name, $0) } }
        options.outputBackings = Dictionary(uniqueKeysWithValues: outputs.map { ($0.name, $0.tensor.array as Any) })
    }

    /// Runs the model and leaves the outputs in their tensors.
    ///
    /// - Returns: What Core ML gave, with the outputs that have no tensor.
    /// - Throws: ``SnapError/model(stage:reason:)``.
    @discardableResult
    func run(_ model: MLModel) throws -> any MLFeatureProvider {
        let results: any MLFeatureProvider
        do {
            results = try predict(model)
        } catch {
            throw SnapError.model(stage: stage, reason: "\(graph.name): Core ML cannot run it: \(describe(error))")
        }
        for (name, tensor) in outputs {
            guard let array = results.featureValue(for: name)?.multiArrayValue else {
                throw SnapError.model(stage: stage, reason: "\(graph.name): Core ML gives no output '\(name)'")
            }
            // Core ML may refuse a backing and give memory of its own.
            if array !== tensor.array, !tensor.copy(from: array) {
                throw SnapError.model(
                    stage: stage, reason: "\(graph.name): the output '\(name)' has not the form that the manifest says")
            }
        }
        return results
    }

    private func predict(_ model: MLModel) throws -> any MLFeatureProvider {
        do {
            return try model.prediction(from: inputs, options: options)
        } catch where !options.outputBackings.isEmpty {
            // Some of Core ML's engines fail over memory that is not theirs, instead of leaving it aside.
            let results = try model.prediction(from: inputs, options: MLPredictionOptions())
            options.outputBackings = [:]
            return results
        }
    }
}
