import CoreML
import SnapCore

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

    /// How a model is loaded for these processors.
    ///
    /// - Parameter function: The function of the package; nil for the default one.
    /// - Throws: ``SnapError/unsupported(reason:)`` when the system cannot choose a function.
    func configuration(function: String?) throws -> MLModelConfiguration {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = coreML
        guard let function else {
            return configuration
        }
        // Earlier compilers come with an SDK that has no `functionName`.
        #if compiler(>=6.0)
            if #available(iOS 18, macOS 15, *) {
                configuration.functionName = function
                return configuration
            }
            throw SnapError.unsupported(
                reason: "the size of the picture can be chosen on iOS 18 and macOS 15 and later, which load one function of "
                    + "a package; convert for this size alone with --size")
        #else
            throw SnapError.unsupported(
                reason: "this app was built without the SDK of iOS 18, which loads one function of a package; "
                    + "build it with Xcode 16 or later, or convert for this size alone with --size")
        #endif
    }
}
