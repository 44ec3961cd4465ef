import Foundation

/// What tests ask this stand-in for the framework, and how they make it fail, wait or show another side of the framework. Apple's
/// framework has nothing like it.
public enum SimulatedCoreML {
    /// Called with the name of a model, which is that of its folder without the extension. What it throws is thrown to the caller.
    public typealias Hook = @Sendable (_ model: String) throws -> Void

    private struct State {
        var compilations = 0
        var loads = 0
        var predictions = 0
        var openModels = 0
        var mostOpenModels = 0
        var loadedUnits: [MLComputeUnits] = []
        var beforeCompilation: Hook?
        var beforeLoad: Hook?
        var beforePrediction: Hook?
        var padsOutputs = ProcessInfo.processInfo.environment["SIMULATED_COREML_PADS"] == "1"
        var ignoresBackings = false
        var refusesBackings = false
    }

    private final class Guarded: @unchecked Sendable {
        private let lock = NSLock()
        private var state = State()

        func with<R>(_ body: (inout State) -> R) -> R {
            lock.lock()
            defer { lock.unlock() }
            return body(&state)
        }
    }

    private static let shared = Guarded()

    /// Compilations that have begun.
    public static var compilations: Int { shared.with { $0.compilations } }
    /// Loads that have begun.
    public static var loads: Int { shared.with { $0.loads } }
    /// Predictions that have begun.
    public static var predictions: Int { shared.with { $0.predictions } }
    /// Models that are in memory now.
    public static var openModels: Int { shared.with { $0.openModels } }
    /// The most models that were in memory at once.
    public static var mostOpenModels: Int { shared.with { $0.mostOpenModels } }
    /// The processors that each load asked for, in order.
    public static var loadedUnits: [MLComputeUnits] { shared.with { $0.loadedUnits } }

    /// Runs before every compilation, on its thread.
    public static var beforeCompilation: Hook? {
        get { shared.with { $0.beforeCompilation } }
        set { shared.with { $0.beforeCompilation = newValue } }
    }

    /// Runs before every load, on its thread.
    public static var beforeLoad: Hook? {
        get { shared.with { $0.beforeLoad } }
        set { shared.with { $0.beforeLoad = newValue } }
    }

    /// Runs before every prediction, on its thread.
    public static var beforePrediction: Hook? {
        get { shared.with { $0.beforePrediction } }
        set { shared.with { $0.beforePrediction = newValue } }
    }

    /// Whether arrays that a prediction makes have gaps between their rows, filled with NaN, as the framework's may have. At first
    /// whether the environment has `SIMULATED_COREML_PADS=1`.
    public static var padsOutputs: Bool {
        get { shared.with { $0.padsOutputs } }
        set { shared.with { $0.padsOutputs = newValue } }
    }

    /// Whether a prediction gives arrays of its own in place of the backings, which the framework may do.
    public static var ignoresBackings: Bool {
        get { shared.with { $0.ignoresBackings } }
        set { shared.with { $0.ignoresBackings = newValue } }
    }

    /// Whether a prediction with backings fails, as it does in some of the framework's engines.
    public static var refusesBackings: Bool {
        get { shared.with { $0.refusesBackings } }
        set { shared.with { $0.refusesBackings = newValue } }
    }

    /// Sets counters to zero, removes hooks, and takes options back to what they were. Models stay open.
    public static func reset() {
        shared.with { state in
            let open = state.openModels
            state = State()
            (state.openModels, state.mostOpenModels) = (open, open)
        }
    }

    static func compiling(_ model: String) throws {
        let hook = shared.with { state -> Hook? in
            state.compilations += 1
            return state.beforeCompilation
        }
        try hook?(model)
    }

    static func loading(_ model: String, _ units: MLComputeUnits) throws {
        let hook = shared.with { state -> Hook? in
            state.loads += 1
            state.loadedUnits.append(units)
            return state.beforeLoad
        }
        try hook?(model)
    }

    static func predicting(_ model: String) throws {
        let hook = shared.with { state -> Hook? in
            state.predictions += 1
            return state.beforePrediction
        }
        try hook?(model)
    }

    static func opened() {
        shared.with { state in
            state.openModels += 1
            state.mostOpenModels = max(state.mostOpenModels, state.openModels)
        }
    }

    static func closed() {
        shared.with { $0.openModels -= 1 }
    }
}
