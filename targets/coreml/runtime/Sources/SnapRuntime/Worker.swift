import Dispatch

/// A thread for calls that block: files, Core ML. Swift's own threads are few and must not wait.
///
/// Calls run one after the other in the order in which they came.
final class Worker: Sendable {
    private let queue: DispatchQueue

    init(label: String) {
        queue = DispatchQueue(label: label, qos: .userInitiated, autoreleaseFrequency: .workItem)
    }

    /// Runs a call and waits for its result without blocking a thread.
    func run<T: Sendable>(_ call: @escaping @Sendable () throws -> T) async throws -> T {
        try await withCheckedThrowingContinuation { continuation in
            queue.async {
                continuation.resume(with: Result(catching: call))
            }
        }
    }

    /// Runs a call that cannot fail and waits for it without blocking a thread.
    func finish(_ call: @escaping @Sendable () -> Void) async {
        await withCheckedContinuation { continuation in
            queue.async {
                call()
                continuation.resume()
            }
        }
    }
}
