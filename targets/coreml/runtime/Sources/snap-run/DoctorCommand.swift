import Foundation
import SnapRuntime

/// `snap-run doctor`: what may keep an artifact from running here, or from running fast.
struct DoctorCommand {
    static let declaration = CommandDeclaration(
        name: "doctor", summary: "Check the files of an artifact, and tell where Core ML runs what",
        options: Loading.declarations)

    let artifact: URL
    let options: Pipeline.Options

    /// - Throws: ``UsageError``, ``HelpRequest``.
    init(_ words: [String]) throws {
        let arguments = try Arguments(words, of: Self.declaration)
        artifact = arguments.artifact
        options = try Loading.options(arguments)
    }

    func run() async throws {
        let device = Benchmark.Device.current
        Console.result("\(device.system), \(device.model), \(device.memory >> 20) MB of memory")
        let manifest = try Manifest.read(folder: artifact)
        Console.result(describe(manifest))
        // Before the artifact is opened, which stops at the first file.
        let damaged = report(manifest)
        let artifact = try Artifact(folder: artifact).at(options.size)
        if let damaged {
            throw damaged
        }
        let store = ModelStore(folder: options.cacheFolder)
        Console.result("compiled packages: \(store.isInstalled(artifact) ? "in" : "not yet in") \(store.folder.path)")
        try await reportPlan(artifact, store)
    }

    private func describe(_ manifest: Manifest) -> String {
        let weights = manifest.weights.map { ", weights \($0)" } ?? ""
        let system = manifest.minIOS.map { ", iOS \($0) and later" } ?? ""
        return "interface \(manifest.interface.rawValue), \(manifest.precision)\(weights), attention \(manifest.attention), "
            + "\(manifest.steps) steps, guidance \(manifest.guidance), "
            + "pictures of \(manifest.pictureSizes.map(\.description).joined(separator: ", "))\(system), "
            + "by snapc \(manifest.snapcVersion)"
    }

    /// Lists the files; the error about the first one that is damaged, but for those of packages that are compiled, and the
    /// runtime's where an app has left them out.
    private func report(_ manifest: Manifest) -> SnapError? {
        var first: SnapError?
        for file in manifest.files {
            let package = manifest.graphs.first { file.path.hasPrefix($0.file + "/") }
            if let package, isCompiled(package) {
                continue
            }
            let finding = FileFinding(file, in: artifact, hashing: true)
            if finding.state == .missing, file.path.hasPrefix(Manifest.runtimeFolder + "/") {
                continue
            }
            Console.result("\(finding.problem == nil ? "ok     " : "damaged") \(file.path)")
            if let problem = finding.problem {
                Console.result("        \(problem)")
                first = first ?? problem
            }
        }
        return first
    }

    private func isCompiled(_ graph: Manifest.Graph) -> Bool {
        let compiled = artifact.appendingPathComponent(graph.file).deletingPathExtension()
        return FileManager.default.fileExists(atPath: compiled.appendingPathExtension("mlmodelc").path)
    }

    private func reportPlan(_ artifact: Artifact, _ store: ModelStore) async throws {
        #if canImport(Darwin)
            guard #available(iOS 17.4, macOS 14.4, *) else {
                Console.result("compute plan: needs macOS 14.4 or iOS 17.4")
                return
            }
            let models = try await store.install(artifact, onProgress: Loading.tell)
            for (package, model) in zip(artifact.packages, models) {
                let plan = try await ComputePlanSummary(
                    model: model, stage: package.stage, computeUnits: options.computeUnits,
                    function: package.function ?? package.graph.functions?.first?.name)
                let counts = ComputePlanSummary.Unit.allCases.compactMap { unit in
                    plan.counts[unit].map { "\($0) on \(unit.rawValue)" }
                }
                Console.result("\(package.graph.file): operations \(counts.joined(separator: ", "))")
                let rows = plan.departures.map { departure in
                    [
                        "  \(departure.count)", departure.operation, departure.unit.rawValue,
                        departure.isSupported ? "by choice of Core ML" : "not supported by the Neural Engine",
                    ]
                }
                if !rows.isEmpty {
                    Console.result(Console.table(rows))
                }
            }
        #else
            Console.result("compute plan: this operating system does not offer it; macOS 14.4 and iOS 17.4 do")
        #endif
    }
}
