#if canImport(Darwin)
    import CoreML
    import Foundation
    import SnapCore

    /// Where Core ML means to run the operations of a compiled package.
    @available(iOS 17.4, macOS 14.4, *)
    public struct ComputePlanSummary: Sendable {
        /// A processor.
        public enum Unit: String, Sendable, CaseIterable {
            /// The CPU.
            case cpu = "CPU"
            /// The GPU.
            case gpu = "GPU"
            /// The Neural Engine.
            case neuralEngine = "Neural Engine"
            /// One that this version does not know.
            case other
        }

        /// Operations of one kind that leave the Neural Engine.
        public struct Departure: Sendable, Equatable {
            /// Name of the operation.
            public let operation: String
            /// Where it runs.
            public let unit: Unit
            /// How many there are.
            public let count: Int
            /// Whether the Neural Engine could run them: then Core ML judged another unit to be better.
            public let isSupported: Bool
        }

        /// Number of operations by the unit that Core ML prefers; constants do not count.
        public let counts: [Unit: Int]
        /// The operations that do not run on the Neural Engine, most first.
        public let departures: [Departure]

        /// Asks Core ML for its plan.
        ///
        /// - Parameters:
        ///   - model: A compiled package.
        ///   - stage: For errors.
        ///   - computeUnits: The processors that it may use.
        ///   - function: The function, of a package that has one per picture size.
        /// - Throws: ``SnapError/model(stage:reason:)``; ``SnapError/unsupported(reason:)`` when the system cannot choose a
        ///   function.
        public init(model: URL, stage: Stage, computeUnits: ComputeUnits, function: String? = nil) async throws {
            let configuration = try computeUnits.configuration(function: function)
            let name = function ?? "main"
            let plan: MLComputePlan
            do {
                plan = try await MLComputePlan.load(contentsOf: model, configuration: configuration)
            } catch {
                throw SnapError.model(
                    stage: stage, reason: "Core ML has no compute plan for \(model.path): \(describe(error))")
            }
            guard case .program(let program) = plan.modelStructure, let body = program.functions[name] else {
                throw SnapError.model(stage: stage, reason: "\(model.path) is no ML Program with a function '\(name)'")
            }
            var counts: [Unit: Int] = [:]
            var kinds: [Kind: Int] = [:]
            for operation in body.block.operations {
                // Constants have no place.
                guard let usage = plan.deviceUsage(for: operation) else {
                    continue
                }
                let unit = Unit(usage.preferred)
                counts[unit, default: 0] += 1
                if unit != .neuralEngine {
                    let isSupported = usage.supported.contains { Unit($0) == .neuralEngine }
                    let kind = Kind(operation: operation.operatorName, unit: unit, isSupported: isSupported)
                    kinds[kind, default: 0] += 1
                }
            }
            self.counts = counts
            departures = kinds.map { kind, count in
                Departure(operation: kind.operation, unit: kind.unit, count: count, isSupported: kind.isSupported)
            }
            .sorted { ($1.count, $0.operation, $0.unit.rawValue) < ($0.count, $1.operation, $1.unit.rawValue) }
        }

        private struct Kind: Hashable {
            let operation: String
            let unit: Unit
            let isSupported: Bool
        }
    }

    @available(iOS 17.4, macOS 14.4, *)
    extension ComputePlanSummary.Unit {
        init(_ device: MLComputeDevice) {
            switch device {
            case .cpu: self = .cpu
            case .gpu: self = .gpu
            case .neuralEngine: self = .neuralEngine
            @unknown default: self = .other
            }
        }
    }
#endif
