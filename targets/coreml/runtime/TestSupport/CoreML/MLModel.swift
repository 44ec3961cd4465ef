import Dispatch
import Foundation

/// A model: a compiled package that is loaded.
///
/// This module stands in for Apple's framework where there is none, in tests: it has the part of the interface that the runtime
/// uses, behaves as the framework is documented to, and runs packages on the CPU with the project's own reader and engine.
public final class MLModel: NSObject, @unchecked Sendable {
    /// What the model takes and gives.
    public let modelDescription: MLModelDescription

    private let engine: Engine
    private let name: String

    /// Loads a compiled model, a folder that ``compileModel(at:)`` has made.
    ///
    /// - Throws: when it is not there, not compiled or broken, or has no function of the configuration's name.
    public init(contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()) throws {
        name = url.deletingPathExtension().lastPathComponent
        try SimulatedCoreML.loading(name, configuration.computeUnits)
        guard FileManager.default.fileExists(atPath: url.appendingPathComponent(compiledMarker).path) else {
            let hint = "it is not there or not compiled; compile it with Xcode or MLModel.compileModel(at:)"
            throw modelError(.generic, "cannot load the model '\(url.path)': \(hint)")
        }
        engine = try Engine(folder: url, function: configuration.functionName)
        modelDescription = MLModelDescription(engine.record)
        super.init()
        SimulatedCoreML.opened()
    }

    deinit {
        SimulatedCoreML.closed()
    }

    /// Loads a compiled model without blocking the caller's thread.
    ///
    /// - Throws: as ``init(contentsOf:configuration:)``.
    public static func load(
        contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
    ) async throws -> MLModel {
        let (units, function) = (configuration.computeUnits, configuration.functionName)
        return try await blocking {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units
            configuration.functionName = function
            return try MLModel(contentsOf: url, configuration: configuration)
        }
    }

    /// Runs the model.
    ///
    /// - Throws: when an input is missing, an input or a backing does not fit its description, or the model fails.
    public func prediction(
        from input: MLFeatureProvider, options: MLPredictionOptions = MLPredictionOptions()
    ) throws -> MLFeatureProvider {
        try SimulatedCoreML.predicting(name)
        if SimulatedCoreML.refusesBackings, !options.outputBackings.isEmpty {
            throw modelError(.generic, "the engine of '\(name)' takes no backings")
        }
        let backings = try backings(options)
        let inputs = try engine.record.inputs.map { feature -> ContiguousValues in
            guard let value = input.featureValue(for: feature.name) else {
                throw modelError(.featureType, "Feature \(feature.name) is required but not specified.")
            }
            guard let array = value.multiArrayValue else {
                throw modelError(.featureType, "input '\(feature.name)' is no multi-array")
            }
            try check(array, for: feature, as: "input")
            return ContiguousValues(of: array)
        }
        let results = try engine.record.outputs.map { feature in
            try room(for: feature, backing: backings[feature.name])
        }
        // The memory goes with the values, which nothing else would keep so long.
        try withExtendedLifetime((inputs, results)) {
            try engine.predict(
                inputs: zip(engine.record.inputs, inputs).map { .init(name: $0.name, memory: $1.memory) },
                outputs: zip(engine.record.outputs, results).map { .init(name: $0.name, memory: $1.memory) })
        }
        let values = zip(engine.record.outputs, results).map { ($0.name, $1.featureValue()) }
        return try MLDictionaryFeatureProvider(dictionary: Dictionary(values, uniquingKeysWith: { first, _ in first }))
    }

    /// The backings that are used, checked.
    private func backings(_ options: MLPredictionOptions) throws -> [String: MLMultiArray] {
        let outputs = engine.record.outputs
        let backings = try options.outputBackings.map { name, backing -> (String, MLMultiArray) in
            guard let feature = outputs.first(where: { $0.name == name }) else {
                throw modelError(.featureType, "there is a backing for '\(name)', which is no output of the model")
            }
            guard let array = backing as? MLMultiArray else {
                throw modelError(.featureType, "the backing of output '\(name)' is no multi-array")
            }
            try check(array, for: feature, as: "the backing of output")
            return (name, array)
        }
        return SimulatedCoreML.ignoresBackings ? [:] : Dictionary(backings, uniquingKeysWith: { first, _ in first })
    }

    private func room(for feature: ModelRecord.Feature, backing: MLMultiArray?) throws -> OutputValues {
        guard let dataType = feature.dtype.dataType else {
            return .image(try ImageValues(feature))
        }
        let array = try backing ?? result(feature, dataType)
        return .array(array, ContiguousValues(for: array))
    }

    /// An array for an output without a backing.
    private func result(_ feature: ModelRecord.Feature, _ dataType: MLMultiArrayDataType) throws -> MLMultiArray {
        let layout = SimulatedCoreML.padsOutputs
            ? ArrayLayout(padded: feature.shape, dataType) : ArrayLayout(contiguous: feature.shape)
        guard let layout else {
            throw modelError(.generic, "output '\(feature.name)' does not fit in memory")
        }
        return try MLMultiArray(layout, dataType)
    }

    private func check(_ array: MLMultiArray, for feature: ModelRecord.Feature, as what: String) throws {
        guard let expected = feature.dtype.dataType else {
            throw modelError(.featureType, "\(what) '\(feature.name)' is a multi-array, the model has an image")
        }
        guard array.dataType == expected else {
            let found = array.dataType
            throw modelError(.featureType, "\(what) '\(feature.name)' is of \(found), the model has \(expected)")
        }
        guard array.layout.shape == feature.shape else {
            let (found, expected) = (text(of: array.layout.shape), text(of: feature.shape))
            throw modelError(.featureType, "\(what) '\(feature.name)' has the shape \(found), the model has \(expected)")
        }
    }
}

/// Runs what blocks on a thread that may be blocked.
func blocking<R: Sendable>(_ work: @escaping @Sendable () throws -> R) async throws -> R {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global().async {
            continuation.resume(with: Result(catching: work))
        }
    }
}
