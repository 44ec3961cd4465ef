import Foundation

/// The processors that a model may use. Here every choice runs on the CPU; ``SimulatedCoreML/loadedUnits`` tells what was asked
/// for.
public enum MLComputeUnits: Int, Sendable {
    /// The CPU alone.
    case cpuOnly = 0
    /// CPU and GPU.
    case cpuAndGPU = 1
    /// All that the device has.
    case all = 2
    /// CPU and Neural Engine.
    case cpuAndNeuralEngine = 3
}

/// How a model is loaded.
public final class MLModelConfiguration: NSObject {
    /// The processors that the model may use.
    public var computeUnits: MLComputeUnits = .all
    /// The function of a package that has several; nil for its default one, and for a package that has one without a name.
    public var functionName: String?
}

/// How a prediction is made.
public final class MLPredictionOptions: NSObject {
    /// By output, the `MLMultiArray` that its values are to be written to. It has the shape and the element type of the output.
    public var outputBackings: [String: Any] = [:]
}
