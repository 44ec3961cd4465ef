import Foundation
import SnapRuntime
import XCTest

@testable import snap_run

/// The commands on real packages.
final class CommandTests: XCTestCase {
    /// Runs a command in a folder of its own for compiled packages.
    private func run(_ words: String..., cache: Scratch) async -> ExitCode {
        await SnapRun.run(words + ["--cache", cache.folder.appendingPathComponent("cache").path])
    }

    func testGenerateSavesTheRunAsAReferenceFile() async throws {
        let scratch = try Scratch()
        let reference = try Reference()
        let (output, save) = (scratch.folder.appendingPathComponent("a.png"), scratch.folder.appendingPathComponent("a.st"))
        let code = await run(
            "generate", try Environment.artifact("plain").path, "--prompt", reference.prompt, "--negative",
            reference.negativePrompt, "--init-latents", try Environment.fixture("tiny/reference.safetensors").path,
            "--save", save.path, "-o", output.path, cache: scratch)
        XCTAssertEqual(code, .done)
        XCTAssertEqual(try Data(contentsOf: output).prefix(4), Data([0x89, 0x50, 0x4e, 0x47]))

        let found = try Safetensors(contentsOf: save)
        XCTAssertEqual(found.names, reference.file.names)
        for name in reference.file.names where name != "input_ids" {
            XCTAssertEqual(try found.floats(name).shape, try reference.file.floats(name).shape, name)
        }
        let (ids, expected) = (try found.ints("input_ids"), try reference.file.ints("input_ids"))
        XCTAssertEqual(ids.values, expected.values)
        XCTAssertEqual(ids.shape, expected.shape)
        XCTAssertEqual(try found.floats("init_latents").values, try reference.floats("init_latents"))
        for (name, bar) in [("step_7.latents", 55.0), ("step_0.noise_pred", 65), ("image", 40), ("text_embeddings", 55)] {
            let quality = psnr(reference: try reference.floats(name), found: try found.floats(name).values)
            XCTAssertGreaterThanOrEqual(quality, bar, name)
        }
        try assertEqualSettings(found, reference.file)
    }

    func testGenerateAtAnotherSize() async throws {
        let scratch = try Scratch()
        let reference = try Reference("reference-64x64")
        let (output, save) = (scratch.folder.appendingPathComponent("a.png"), scratch.folder.appendingPathComponent("a.st"))
        let code = await run(
            "generate", try Environment.artifact("sizes").path, "--prompt", reference.prompt, "--negative",
            reference.negativePrompt, "--size", "64", "--save", save.path, "-o", output.path, cache: scratch)
        XCTAssertEqual(code, .done)
        // Width and height in the header of the file.
        XCTAssertEqual(try Data(contentsOf: output)[16..<24], Data([0, 0, 0, 64, 0, 0, 0, 64]))
        let found = try Safetensors(contentsOf: save)
        XCTAssertEqual(found.names, reference.file.names)
        for name in reference.file.names where name != "input_ids" {
            XCTAssertEqual(try found.floats(name).shape, try reference.file.floats(name).shape, name)
        }
        // The reference is of seed 0, the default.
        for (name, bar) in [("init_latents", 120.0), ("step_0.noise_pred", 65), ("step_7.latents", 55), ("image", 40)] {
            let quality = psnr(reference: try reference.floats(name), found: try found.floats(name).values)
            XCTAssertGreaterThanOrEqual(quality, bar, name)
        }
    }

    /// What the two files say about their runs, but for who made them.
    private func assertEqualSettings(_ found: Safetensors, _ expected: Safetensors) throws {
        func settings(_ file: Safetensors) throws -> [String: Any] {
            let text = try XCTUnwrap(file.metadata["snapc"])
            return try XCTUnwrap(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        }
        let (found, expected) = (try settings(found), try settings(expected))
        for key in ["prompt", "negative"] {
            XCTAssertEqual(found[key] as? String, expected[key] as? String, key)
        }
        XCTAssertEqual(found["steps"] as? Int, expected["steps"] as? Int)
        XCTAssertEqual(found["timesteps"] as? [Int], expected["timesteps"] as? [Int])
        XCTAssertEqual(found["guidance"] as? Double, expected["guidance"] as? Double)
        // The latents came from a file.
        XCTAssertNil(found["seed"])
        let (schedule, wanted) = (found["scheduler"] as? [String: Any], expected["scheduler"] as? [String: Any])
        for key in ["beta_start", "beta_end", "num_train_timesteps", "steps_offset"] {
            XCTAssertEqual(schedule?[key] as? Double, wanted?[key] as? Double, key)
            XCTAssertNotNil(schedule?[key], key)
        }
        for key in ["_class_name", "beta_schedule", "prediction_type", "timestep_spacing"] {
            XCTAssertEqual(schedule?[key] as? String, wanted?[key] as? String, key)
            XCTAssertNotNil(schedule?[key], key)
        }
        XCTAssertNotNil(found["versions"] as? [String: String])
        XCTAssertNotNil(found["made_by"] as? String)
    }

    func testDoctorOfAnArtifactInAnApp() async throws {
        let scratch = try Scratch()
        let bundled = try scratch.copy(of: "plain")
        try FileManager.default.removeItem(at: bundled.appendingPathComponent("runtime"))
        let code = await run("doctor", bundled.path, cache: scratch)
        XCTAssertEqual(code, .done)
    }

    func testExitCodesOfArtifacts() async throws {
        let scratch = try Scratch()
        let output = scratch.folder.appendingPathComponent("a.png").path
        let broken = await run(
            "generate", try Environment.artifact("broken").path, "--prompt", "a fox", "-o", output, cache: scratch)
        XCTAssertEqual(broken, .input)
        let steps = await run(
            "generate", try Environment.artifact("snap").path, "--prompt", "a fox", "--steps", "5", "-o", output,
            cache: scratch)
        XCTAssertEqual(steps, .unsupported)
        for command in ["generate", "bench", "doctor"] {
            let picture = command == "generate" ? ["--prompt", "a fox", "-o", output] : []
            let size = await SnapRun.run(
                [command, try Environment.artifact("sizes").path, "--size", "128x64", "--cache", scratch.folder.path] + picture)
            XCTAssertEqual(size, .unsupported, command)
        }
        let unknown = await SnapRun.run(["convert"])
        XCTAssertEqual(unknown, .usage)
        let nothing = await SnapRun.run([])
        XCTAssertEqual(nothing, .usage)
        let help = await SnapRun.run(["bench", "--help"])
        XCTAssertEqual(help, .done)
        XCTAssertFalse(FileManager.default.fileExists(atPath: output))
    }

    func testDoctor() async throws {
        let scratch = try Scratch()
        let sound = await run("doctor", try Environment.artifact("plain").path, cache: scratch)
        XCTAssertEqual(sound, .done)
        let sizes = await run("doctor", try Environment.artifact("sizes").path, "--size", "64x128", cache: scratch)
        XCTAssertEqual(sizes, .done)
        let broken = await run("doctor", try Environment.artifact("broken").path, cache: scratch)
        XCTAssertEqual(broken, .input)
        let absent = await run("doctor", scratch.folder.appendingPathComponent("none").path, cache: scratch)
        XCTAssertEqual(absent, .input)
    }

    func testBenchOfAnArtifactInChunks() async throws {
        let scratch = try Scratch()
        let artifact = try Artifact(folder: try Environment.artifact("chunk"))
        let options = Pipeline.Options(computeUnits: .cpu, reduceMemory: true, cacheFolder: scratch.folder)
        let pipeline = try await Pipeline(artifact: artifact, options: options)
        let json = try await pipeline.benchmark(iterations: 2).json()
        let document = try XCTUnwrap(JSONSerialization.jsonObject(with: json) as? [String: Any])
        XCTAssertEqual(document["schema_version"] as? Int, 1)
        XCTAssertEqual(document["command"] as? String, "bench")
        XCTAssertEqual(document["engine"] as? String, "coreml")
        XCTAssertEqual(document["compute_units"] as? String, "cpu")
        XCTAssertEqual(document["iterations"] as? Int, 2)
        let source = try XCTUnwrap(document["artifact"] as? [String: Any])
        XCTAssertEqual((source["files"] as? [String: String])?.count, artifact.manifest.files.count)
        XCTAssertEqual(source["size"] as? String, "128x128")
        let networks = try XCTUnwrap(document["networks"] as? [[String: Any]])
        XCTAssertEqual(networks.map { $0["name"] as? String }, ["text_encoder", "unet", "vae_decoder"])
        XCTAssertEqual(networks.map { $0["batch"] as? Int }, [1, 2, 1])
        XCTAssertEqual(networks.map { $0["predictions"] as? Int }, [1, 2, 1])
        XCTAssertEqual(networks[1]["packages"] as? [String], ["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"])
        for network in networks {
            let times = ["load_ms", "first_ms", "median_ms", "min_ms"].map { network[$0] as? Double ?? 0 }
            XCTAssertTrue(times.allSatisfy { $0 > 0 }, "\(network)")
            XCTAssertLessThanOrEqual(times[3], times[2])
        }
        let refused = await failure { try await pipeline.benchmark(iterations: 0) }
        guard case .request? = refused else {
            return XCTFail("\(String(describing: refused))")
        }
    }
}
