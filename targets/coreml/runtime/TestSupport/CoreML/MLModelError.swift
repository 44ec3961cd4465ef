import Foundation

/// Domain of all errors of the framework.
public let MLModelErrorDomain = "com.apple.CoreML"

/// Codes of errors, by the names and numbers of the framework.
enum ErrorCode: Int {
    /// Loading, compiling or running failed.
    case generic = 0
    /// A feature is missing or does not fit its description.
    case featureType = 1
    /// A file cannot be read or written.
    case io = 3
}

/// An error as the framework throws it: an `NSError` with a localized description. It stands as the reason too, which is what
/// Foundation prints of an error on Linux.
func modelError(_ code: ErrorCode, _ description: String) -> NSError {
    let texts = [NSLocalizedDescriptionKey: description, NSLocalizedFailureReasonErrorKey: description]
    return NSError(domain: MLModelErrorDomain, code: code.rawValue, userInfo: texts)
}
