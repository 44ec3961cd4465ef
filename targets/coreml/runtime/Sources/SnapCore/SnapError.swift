import Foundation

/// Why there is no picture.
public enum SnapError: Error, Equatable, Sendable {
    /// A file of the artifact is missing, damaged or of another version.
    case artifact(path: String, reason: String)
    /// The artifact or the operating system cannot do what is asked, another number of steps for example.
    case unsupported(reason: String)
    /// An argument is wrong whatever the artifact.
    case request(reason: String)
    /// Core ML did not compile, load or run a model.
    case model(stage: Stage, reason: String)
    /// A network gave an infinity or NaN. `step` counts from 0; it is nil outside the UNet.
    case notFinite(stage: Stage, step: Int?)
    /// The run was cancelled.
    case cancelled
}

extension SnapError: CustomStringConvertible {
    /// What happened and what to do, in lower case and without a final full stop.
    public var description: String {
        switch self {
        case .artifact(let path, let reason): return "\(path): \(reason)"
        case .unsupported(let reason), .request(let reason): return reason
        case .model(let stage, let reason): return "\(stage.rawValue): \(reason)"
        case .notFinite(let stage, let step):
            let place = step.map { "\(stage.rawValue), step \($0)" } ?? stage.rawValue
            return "\(place): the output is not finite; run on other compute units, or convert with --precision f32"
        case .cancelled: return "the run was cancelled"
        }
    }
}

extension SnapError: LocalizedError {
    /// ``description``, for alerts and logs that take `localizedDescription`.
    public var errorDescription: String? { description }
}
