import Foundation
import SnapRuntime

/// `snap-run bench`: how long the networks take.
struct BenchCommand {
    static let declaration = CommandDeclaration(
        name: "bench", summary: "Time the networks of an artifact",
        options: [
            OptionDeclaration(
                name: "--iterations", value: "N", help: "Timed calls of each network, after the first [default: 5]"),
            OptionDeclaration(name: "--json", help: "Print one JSON document instead of a table"),
        ] + Loading.declarations)

    let artifact: URL
    let options: Pipeline.Options
    let iterations: Int
    let printsJSON: Bool

    /// - Throws: ``UsageError``, ``HelpRequest``.
    init(_ words: [String]) throws {
        let arguments = try Arguments(words, of: Self.declaration)
        artifact = arguments.artifact
        var options = try Loading.options(arguments)
        // One network at a time, so that others do not take part.
        options.reduceMemory = true
        self.options = options
        let count = try arguments.number("--iterations", "a whole number from 1 on", where: { (n: Int) in n > 0 })
        iterations = count ?? 5
        printsJSON = arguments.has("--json")
    }

    func run() async throws {
        let artifact = try Artifact(folder: artifact)
        let pipeline = try await Pipeline(artifact: artifact, options: options, onInstall: Loading.tell)
        let benchmark = try await pipeline.benchmark(iterations: iterations)
        if printsJSON {
            Console.result(String(decoding: try benchmark.json(), as: UTF8.self))
            return
        }
        let head = ["network", "batch", "load", "first", "median", "minimum"]
        let rows = benchmark.networks.map { network in
            [network.name.rawValue, String(network.batch)]
                + [network.loadMs, network.firstMs, network.medianMs, network.minMs].map(Console.time)
        }
        Console.result(Console.table([head] + rows))
    }
}
