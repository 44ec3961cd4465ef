import Foundation
import SnapRuntime

/// `snap-run generate`: a picture, and the run as a reference file.
struct GenerateCommand {
    static let declaration = CommandDeclaration(
        name: "generate", summary: "Make a picture with an artifact",
        options: [
            OptionDeclaration(name: "--prompt", value: "TEXT", help: "What the picture should show"),
            OptionDeclaration(name: "--negative", value: "TEXT", help: "What it should not show"),
            OptionDeclaration(name: "--seed", value: "N", help: "Seed of the noise, the same as torch's [default: 0]"),
            OptionDeclaration(name: "--steps", value: "N", help: "Denoising steps [default: the artifact's]"),
            OptionDeclaration(
                name: "--guidance", value: "SCALE",
                help: "Guidance scale; none at 1 and below [default: the artifact's]"),
            OptionDeclaration(
                name: "--init-latents", value: "FILE", help: "Start from init_latents of this safetensors file"),
            OptionDeclaration(name: "--save", value: "FILE", help: "Also write the run as a reference file"),
            OptionDeclaration(name: "--output", short: "-o", value: "FILE", help: "Picture to write, a PNG file"),
            OptionDeclaration(name: "--reduce-memory", help: "Keep one network in memory at a time"),
            OptionDeclaration(name: "--force", help: "Replace existing files"),
        ] + Loading.declarations)

    let artifact: URL
    let options: Pipeline.Options
    let request: Pipeline.Request
    let initLatents: URL?
    let save: URL?
    let output: URL

    /// - Throws: ``UsageError``, ``HelpRequest``.
    init(_ words: [String]) throws {
        let arguments = try Arguments(words, of: Self.declaration)
        artifact = arguments.artifact
        var options = try Loading.options(arguments)
        options.reduceMemory = arguments.has("--reduce-memory")
        self.options = options
        initLatents = arguments.file("--init-latents")
        if initLatents != nil, arguments.text("--seed") != nil {
            throw UsageError(reason: "'--seed' and '--init-latents' both say where the run starts; give one of them")
        }
        request = Pipeline.Request(
            prompt: try arguments.required("--prompt"), negativePrompt: arguments.text("--negative") ?? "",
            seed: try arguments.number("--seed", "a whole number from 0 on", where: { (_: UInt64) in true }) ?? 0,
            steps: try arguments.number("--steps", "a whole number from 1 on", where: { (n: Int) in n > 0 }),
            guidance: try arguments.number("--guidance", "a number", where: { (g: Float) in g.isFinite }))
        save = arguments.file("--save")
        output = URL(fileURLWithPath: try arguments.required("--output"))
        try Self.check([output] + (save.map { [$0] } ?? []), replacing: arguments.has("--force"))
    }

    /// Refuses outputs that cannot be written before anything is computed.
    private static func check(_ files: [URL], replacing: Bool) throws {
        if Set(files.map(\.standardizedFileURL.path)).count < files.count {
            throw UsageError(reason: "'--save' and '--output' name the same file")
        }
        for file in files {
            let folder = file.deletingLastPathComponent()
            guard FileManager.default.fileExists(atPath: folder.path) else {
                throw UsageError(reason: "the folder \(folder.path) does not exist")
            }
            if !replacing, FileManager.default.fileExists(atPath: file.path) {
                throw UsageError(reason: "\(file.path) exists; --force replaces it")
            }
        }
    }

    func run() async throws {
        let artifact = try Artifact(folder: artifact)
        var request = request
        if let initLatents {
            request.initLatents = try Safetensors(contentsOf: initLatents).floats("init_latents").values
        }
        let pipeline = try await Pipeline(artifact: artifact, options: options, onInstall: Loading.tell)
        let recorder = RunRecorder()
        let generation = try await pipeline.generate(request) { progress in
            Console.say("step \(progress.step + 1) of \(progress.steps)")
            recorder.add(progress)
            return true
        }
        do {
            try generation.image.png().write(to: output, options: .atomic)
        } catch {
            throw UsageError(reason: "\(output.path) cannot be written: \(error.localizedDescription)")
        }
        if let save {
            try recorder.write(generation, of: request, manifest: pipeline.artifact.manifest, to: save)
        }
        let (image, timings) = (generation.image, generation.timings)
        Console.result(
            "\(output.path): \(image.width)x\(image.height), \(generation.timesteps.count) steps, "
                + "guidance \(generation.guidance), \(Console.time(timings.total))")
    }
}

extension Console {
    /// A duration for people.
    static func time(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        return time(1e3 * Double(seconds) + 1e-15 * Double(attoseconds))
    }
}
