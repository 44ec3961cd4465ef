import Foundation
import SnapCore

/// How long the networks of an artifact take on a device: one row of a latency table.
///
/// Encoded as JSON it is what `snap-run bench --json` prints; an app can make the same on a phone. Times are milliseconds.
public struct Benchmark: Codable, Sendable {
    /// Version of the document.
    public static let currentSchemaVersion = 1

    /// ``currentSchemaVersion``.
    public let schemaVersion: Int
    /// `bench`, as in the documents of snapc's commands.
    public let command: String
    /// `coreml`.
    public let engine: String
    /// Where it ran.
    public let device: Device
    /// Processors that Core ML was allowed to use.
    public let computeUnits: ComputeUnits
    /// What ran.
    public let artifact: Source
    /// Timed calls of each network, after the first one.
    public let iterations: Int
    /// The networks in the order in which they run.
    public let networks: [Network]

    private enum CodingKeys: String, CodingKey {
        case schemaVersion = "schema_version"
        case command, engine, device
        case computeUnits = "compute_units"
        case artifact, iterations, networks
    }

    /// The artifact that ran.
    public struct Source: Codable, Sendable {
        /// Features of the graphs.
        public let interface: Manifest.Interface
        /// Element type of activations.
        public let precision: String
        /// How weights are stored, when it is not in the precision.
        public let weights: String?
        /// Form of attention.
        public let attention: String
        /// Size of the picture, `HEIGHTxWIDTH`.
        public let size: String
        /// Version of snapc that wrote it.
        public let snapcVersion: String
        /// SHA-256 of every file, by path.
        public let files: [String: String]

        private enum CodingKeys: String, CodingKey {
            case interface, precision, weights, attention, size
            case snapcVersion = "snapc_version"
            case files
        }
    }

    /// The times of one network.
    public struct Network: Codable, Sendable {
        /// The network.
        public let name: Stage
        /// Its packages.
        public let packages: [String]
        /// Rows of a timed call: prompts of the UNet, 1 for the others.
        public let batch: Int
        /// Predictions of a timed call: a UNet of batch 1 is asked twice a step, one in chunks once per chunk.
        public let predictions: Int
        /// Loading of the compiled packages.
        public let loadMs: Double
        /// The first call.
        public let firstMs: Double
        /// The middle one of the timed calls, or the mean of the two in the middle.
        public let medianMs: Double
        /// The fastest of the timed calls.
        public let minMs: Double

        private enum CodingKeys: String, CodingKey {
            case name, packages, batch, predictions
            case loadMs = "load_ms"
            case firstMs = "first_ms"
            case medianMs = "median_ms"
            case minMs = "min_ms"
        }
    }

    /// The document as JSON, with sorted keys.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self)
    }
}

extension Pipeline {
    /// Times the networks as a guided run calls them: the text encoder for one prompt, the UNet for one step, the decoder.
    /// Each is loaded anew, with no other one in memory; the next run loads them again.
    ///
    /// - Parameter iterations: Timed calls of each network, at least 1.
    /// - Throws: ``SnapError/request(reason:)`` without iterations, and what ``generate(_:onProgress:)`` throws.
    public func benchmark(iterations: Int = 5) async throws -> Benchmark {
        guard iterations > 0 else {
            throw SnapError.request(reason: "there is nothing to time in \(iterations) iterations; take 1 or more")
        }
        let manifest = artifact.manifest
        // Above 1, so that both prompts run.
        let guidance = max(manifest.guidance, 2)
        let settings = try settings(of: Request(prompt: "", guidance: guidance))
        let run = try await makeRun(settings)
        var networks: [Benchmark.Network] = []
        for stage in Stage.allCases {
            networks.append(try await time(stage, of: run, iterations: iterations))
        }
        await dropModels()
        let files = Dictionary(manifest.files.map { ($0.path, $0.sha256) }) { first, _ in first }
        return Benchmark(
            schemaVersion: Benchmark.currentSchemaVersion, command: "bench", engine: "coreml", device: .current,
            computeUnits: options.computeUnits,
            artifact: Benchmark.Source(
                interface: manifest.interface, precision: manifest.precision, weights: manifest.weights,
                attention: manifest.attention, size: "\(features.vaeDecoder.height)x\(features.vaeDecoder.width)",
                snapcVersion: manifest.snapcVersion, files: files),
            iterations: iterations, networks: networks)
    }

    private func time(_ stage: Stage, of run: Run, iterations: Int) async throws -> Benchmark.Network {
        let clock = ContinuousClock()
        let (networks, call) = (self.networks, benchmarkCall(of: stage, run))
        func measure(_ body: @escaping @Sendable () throws -> Void) async throws -> Double {
            try checkCancellation()
            return try await worker.run { milliseconds(try clock.measure { try body() }) }
        }
        await dropModels()
        let load = try await measure { _ = try networks.models(of: stage) }
        let first = try await measure(call)
        var times: [Double] = []
        for _ in 0..<iterations {
            times.append(try await measure(call))
        }
        times.sort()
        let packages = artifact.packages.filter { $0.stage == stage }
        let isUnet = stage == .unet
        return Benchmark.Network(
            name: stage, packages: packages.map(\.graph.file), batch: isUnet ? run.prompts : 1,
            predictions: packages.count * (isUnet ? run.passes : 1), loadMs: load, firstMs: first,
            medianMs: (times[(times.count - 1) / 2] + times[times.count / 2]) / 2, minMs: times[0])
    }

    private func dropModels() async {
        let networks = self.networks
        await worker.finish { networks.dropAll() }
    }

    private func benchmarkCall(of stage: Stage, _ run: Run) -> @Sendable () throws -> Void {
        let decoder = self.decoder
        return {
            // So that repeated steps do not wander off.
            run.restart()
            switch stage {
            // A prompt that no artifact knows.
            case .textEncoder: try run.encode("a photo", index: run.prompts - 1)
            case .unet: _ = try run.step(0, isObserved: false)
            case .vaeDecoder: _ = try run.decode(with: decoder.run)
            }
        }
    }
}

/// A duration for JSON and for people.
func milliseconds(_ duration: Duration) -> Double {
    let (seconds, attoseconds) = duration.components
    return 1e3 * Double(seconds) + 1e-15 * Double(attoseconds)
}
