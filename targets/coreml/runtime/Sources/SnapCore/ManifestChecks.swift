import Foundation

extension Manifest {
    /// The runtime is for this target.
    private static let supportedTarget = "coreml"

    /// No prompt of these networks is longer.
    private static let maxTokens = 1 << 16

    /// The first field whose value cannot be run, with the reason as a verb phrase.
    func firstProblem() -> (field: String, reason: String)? {
        if target != Self.supportedTarget {
            return ("target", "is '\(target)', but this runtime is for '\(Self.supportedTarget)'")
        }
        if let reason = scheduler.problem() {
            return ("scheduler", reason)
        }
        if steps < 1 || steps > scheduler.numTrainTimesteps {
            return ("steps", "is \(steps), not between 1 and the number of training steps")
        }
        if timesteps.count != steps {
            return ("timesteps", "has \(timesteps.count) entries for \(steps) steps")
        }
        if let outside = timesteps.first(where: { $0 < 0 || $0 >= scheduler.numTrainTimesteps }) {
            return ("timesteps", "has \(outside), which is not a training step")
        }
        if !guidance.isFinite {
            return ("guidance", "is not finite")
        }
        if let reason = latent.problem() {
            return ("latent", reason)
        }
        if tokens < 2 || tokens > Self.maxTokens {
            return ("tokens", "is \(tokens), not between 2 and \(Self.maxTokens)")
        }
        if let padTokenID, padTokenID < 0 {
            return ("pad_token_id", "is negative")
        }
        return problemOfGraphs() ?? problemOfSizes() ?? problemOfFiles()
    }

    private func problemOfGraphs() -> (field: String, reason: String)? {
        if graphs.isEmpty {
            return ("graphs", "is empty")
        }
        for (index, graph) in graphs.enumerated() {
            let field = "graphs[\(index)]"
            if graphs[..<index].contains(where: { $0.name == graph.name }) {
                return ("\(field).name", "is '\(graph.name)' a second time")
            }
            if !staysInside(graph.file) {
                return ("\(field).file", "leads out of the artifact")
            }
            var lists = [("inputs", graph.inputs), ("outputs", graph.outputs)]
            for (index, function) in (graph.functions ?? []).enumerated() {
                lists += [("functions[\(index)].inputs", function.inputs), ("functions[\(index)].outputs", function.outputs)]
            }
            for (side, features) in lists {
                let names = features.map(\.name)
                if Set(names).count != names.count {
                    return ("\(field).\(side)", "has two features of one name")
                }
            }
        }
        return nil
    }

    private func problemOfFiles() -> (field: String, reason: String)? {
        for (index, file) in files.enumerated() {
            if !staysInside(file.path) {
                return ("files[\(index)].path", "leads out of the artifact")
            }
            if file.bytes < 0 {
                return ("files[\(index)].bytes", "is negative")
            }
        }
        return nil
    }

    /// Whether a path relative to the artifact stays in it.
    private func staysInside(_ path: String) -> Bool {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        return parts.allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." && !$0.utf8.contains(0) }
    }
}

extension Manifest.Scheduler {
    /// More training steps than any model has; the schedule is computed step by step.
    private static let maxTrainTimesteps = 1_000_000

    /// Why there is no such schedule, as a verb phrase.
    func problem() -> String? {
        if kind != "ddim" {
            return "is of kind '\(kind)', but this runtime has 'ddim'"
        }
        if numTrainTimesteps < 1 || numTrainTimesteps > Self.maxTrainTimesteps {
            return "has \(numTrainTimesteps) training steps, not between 1 and \(Self.maxTrainTimesteps)"
        }
        // Written so that NaN is refused too.
        if !(betaStart > 0 && betaStart < 1 && betaEnd > 0 && betaEnd < 1) {
            return "has betas from \(betaStart) to \(betaEnd), which do not lie between 0 and 1"
        }
        if stepsOffset < 0 {
            return "has a negative offset of the steps"
        }
        return nil
    }
}

extension Manifest.Latent {
    /// Longest side of a picture.
    private static let maxSide = RGBImage.maxSide

    /// More channels than any VAE has.
    private static let maxChannels = 1 << 10

    /// Why there are no such latents, as a verb phrase.
    func problem() -> String? {
        if channels < 1 || channels > Self.maxChannels {
            return "has \(channels) channels"
        }
        let sizes = [height, width, pixelsPerCell]
        if sizes.contains(where: { $0 < 1 || $0 > Self.maxSide }) || max(height, width) * pixelsPerCell > Self.maxSide {
            return "makes a picture with a side that is not between 1 and \(Self.maxSide) pixels"
        }
        if !(scalingFactor > 0 && scalingFactor.isFinite) {
            return "has a scaling factor that is not a positive number"
        }
        return nil
    }
}
