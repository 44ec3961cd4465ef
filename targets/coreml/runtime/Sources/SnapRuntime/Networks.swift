import CoreML
import Foundation
import SnapCore

/// The models of a pipeline, loaded when they are needed. For the pipeline's worker alone.
final class Networks: @unchecked Sendable {
    private let packages: [Artifact.Package]
    private let models: [URL]
    private let units: ComputeUnits
    private let keepsOneStage: Bool
    private var loaded: [Stage: [MLModel]] = [:]
    /// Time spent on loading since it was last taken.
    private var loadTimes: [Stage: Duration] = [:]

    /// - Parameters:
    ///   - packages: The packages of the artifact.
    ///   - models: Their compiled models.
    ///   - keepsOneStage: Whether loading a stage drops the others.
    init(packages: [Artifact.Package], models: [URL], units: ComputeUnits, keepsOneStage: Bool) {
        self.packages = packages
        self.models = models
        self.units = units
        self.keepsOneStage = keepsOneStage
    }

    /// The models of a stage in the order in which they run.
    ///
    /// - Throws: ``SnapError/model(stage:reason:)`` when Core ML does not load one, or one is not that of the manifest.
    func models(of stage: Stage) throws -> [MLModel] {
        if let models = loaded[stage] {
            return models
        }
        if keepsOneStage {
            loaded.removeAll()
        }
        let clock = ContinuousClock()
        let start = clock.now
        let parts = zip(packages, models).filter { $0.0.stage == stage }
        let models = try parts.map { package, url in try load(package, url) }
        loaded[stage] = models
        loadTimes[stage, default: .zero] += clock.now - start
        return models
    }

    /// Drops all models.
    func dropAll() {
        loaded.removeAll()
    }

    /// Drops what reduced memory has no use for when a run is over: everything.
    func finishRun() {
        if keepsOneStage {
            loaded.removeAll()
        }
    }

    /// Time spent on loading since the last call.
    func takeLoadTimes() -> [Stage: Duration] {
        defer { loadTimes.removeAll() }
        return loadTimes
    }

    private func load(_ package: Artifact.Package, _ url: URL) throws -> MLModel {
        let configuration = try units.configuration(function: package.function)
        let model: MLModel
        do {
            model = try MLModel(contentsOf: url, configuration: configuration)
        } catch {
            throw SnapError.model(
                stage: package.stage, reason: "Core ML cannot load \(url.path): \(describe(error))")
        }
        let description = model.modelDescription
        let sides = [
            (package.graph.inputs, description.inputDescriptionsByName),
            (package.graph.outputs, description.outputDescriptionsByName),
        ]
        for (features, found) in sides {
            for feature in features where !matches(feature, found[feature.name]) {
                throw SnapError.model(
                    stage: package.stage,
                    reason: "\(url.path): the feature '\(feature.name)' is not as the manifest says; "
                        + "take the packages and snap.json of one conversion")
            }
        }
        return model
    }

    private func matches(_ feature: Manifest.Feature, _ found: MLFeatureDescription?) -> Bool {
        guard let type = feature.dtype.coreML else {
            return found?.type == .image
        }
        guard let constraint = found?.multiArrayConstraint else {
            return false
        }
        return constraint.dataType == type && constraint.shape.map(\.intValue) == feature.shape
    }
}
