import CoreML

/// The processors that Core ML may use.
public enum ComputeUnits: String, CaseIterable, Codable, Sendable {
    /// All: Core ML chooses for each operation.
    case all
    /// The CPU alone.
    case cpu
    /// CPU and GPU; for attention as one operation (`--attention sdpa`) on a Mac.
    case cpuAndGPU = "cpu-gpu"
    /// CPU and Neural Engine; the usual choice on an iPhone, where the GPU's memory counts as the app's.
    case cpuAndNeuralEngine = "cpu-ane"

    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .cpu: return .cpuOnly
        case .cpuAndGPU: return .cpuAndGPU
        case .cpuAndNeuralEngine: return .cpuAndNeuralEngine
        }
    }
}
