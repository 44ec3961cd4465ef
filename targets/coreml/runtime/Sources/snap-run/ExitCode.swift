import SnapRuntime

/// Exit codes, the same as snapc's.
enum ExitCode: Int32 {
    case done = 0
    /// Wrong arguments.
    case usage = 2
    /// A file is invalid or incomplete.
    case input = 3
    /// The artifact or the system cannot do it.
    case unsupported = 4
    /// Core ML or the runtime failed.
    case failure = 70

    /// The code for an error.
    init(_ error: any Error) {
        switch error {
        case is UsageError: self = .usage
        case let error as SnapError:
            switch error {
            case .request: self = .usage
            case .artifact, .notFinite: self = .input
            case .unsupported: self = .unsupported
            case .model, .cancelled: self = .failure
            }
        default: self = .failure
        }
    }

    /// What an error says.
    static func message(of error: any Error) -> String {
        switch error {
        case let error as UsageError: return "\(error.reason)\n`snap-run --help` tells more"
        case let error as SnapError: return error.description
        default: return error.localizedDescription
        }
    }
}

/// Wrong arguments.
struct UsageError: Error, Equatable {
    /// What is wrong and what to do.
    let reason: String
}

/// Help was asked for.
struct HelpRequest: Error {
    let text: String
}
