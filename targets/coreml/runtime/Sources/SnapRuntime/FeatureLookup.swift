import SnapCore

/// Finds features in the graphs of a manifest, with the errors about them.
struct FeatureLookup {
    /// The manifest's path.
    let path: String

    func failure(_ reason: String) -> SnapError {
        .artifact(path: path, reason: "\(reason); convert the checkpoint again with the snapc that this runtime came with")
    }

    /// Elements of a feature at most: four times a picture of 4096x4096. What declares more is broken.
    private static let maxCount = 1 << 28

    /// Refuses features that memory is not to be asked for.
    func checkSizes(of graph: Manifest.Graph) throws {
        if let feature = (graph.inputs + graph.outputs).first(where: { $0.count > Self.maxCount }) {
            throw failure("\(graph.name): '\(feature.name)' has \(feature.count) elements, more than \(Self.maxCount)")
        }
    }

    /// The one graph of a stage.
    func only(_ graphs: [Manifest.Graph], _ stage: Stage) throws -> Manifest.Graph {
        guard let graph = graphs.first, graphs.count == 1 else {
            throw failure("has no graph '\(stage.rawValue)'")
        }
        return graph
    }

    /// The input of one of these names in one of the graphs.
    func input(_ names: [String], of graphs: [Manifest.Graph]) throws -> Manifest.Feature {
        try find(names, "input", graphs.flatMap(\.inputs), graphs)
    }

    /// The output of one of these names in one of the graphs.
    func output(_ names: [String], of graphs: [Manifest.Graph]) throws -> Manifest.Feature {
        try find(names, "output", graphs.flatMap(\.outputs), graphs)
    }

    /// Checks the shape of a feature.
    func require(_ feature: Manifest.Feature, of graph: Manifest.Graph, shape: [Int]) throws {
        guard feature.shape == shape else {
            throw failure("\(graph.name): '\(feature.name)' has the shape \(feature.shape), not \(shape)")
        }
    }

    /// Refuses inputs that a run has no value for.
    func refuseInputs(of graph: Manifest.Graph, besides names: [String]) throws {
        if let unknown = graph.inputs.first(where: { !names.contains($0.name) }) {
            throw failure("\(graph.name): a run has no value for the input '\(unknown.name)'")
        }
    }

    private func find(
        _ names: [String], _ side: String, _ features: [Manifest.Feature], _ graphs: [Manifest.Graph]
    ) throws -> Manifest.Feature {
        if let feature = features.first(where: { names.contains($0.name) }) {
            return feature
        }
        let wanted = names.map { "'\($0)'" }.joined(separator: " or ")
        let found = features.map { "'\($0.name)'" }.joined(separator: ", ")
        let graph = graphs.map(\.name).joined(separator: ", ")
        throw failure("\(graph): no \(side) is named \(wanted); it has \(found.isEmpty ? "none" : found)")
    }
}
