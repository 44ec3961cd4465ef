import Foundation
import XCTest

@testable import SnapCore

final class ManifestTests: FolderTestCase {
    private struct Configuration: Decodable {
        let beta_start: Double
        let beta_end: Double
        let steps_offset: Int
        let num_train_timesteps: Int
    }

    // Expected values are those of `fixtures/tiny`, from which the artifact is made, and of diffusers' run of it.
    func testAnArtifactIsDescribed() throws {
        let manifest = try Manifest.read(folder: Fixtures.artifact("plain"))
        let run = try ReferenceRun(Safetensors(contentsOf: Fixtures.file("tiny/reference.safetensors")))
        XCTAssertEqual(manifest.schemaVersion, 1)
        XCTAssertEqual(manifest.target, "coreml")
        XCTAssertEqual(manifest.interface, .plain)
        XCTAssertEqual(manifest.steps, run.steps)
        XCTAssertEqual(manifest.timesteps, run.timesteps)
        XCTAssertEqual(manifest.guidance, run.guidance)
        XCTAssertEqual(manifest.tokens, 77)
        XCTAssertEqual(manifest.padTokenID, 49407)
        let latent = Manifest.Latent(channels: 4, height: 16, width: 16, pixelsPerCell: 8, scalingFactor: 0.18215)
        XCTAssertEqual(manifest.latent, latent)
        let json = try Fixtures.data("tiny/scheduler/scheduler_config.json")
        let configuration = try JSONDecoder().decode(Configuration.self, from: json)
        XCTAssertEqual(manifest.scheduler.betaStart, configuration.beta_start)
        XCTAssertEqual(manifest.scheduler.betaEnd, configuration.beta_end)
        XCTAssertEqual(manifest.scheduler.stepsOffset, configuration.steps_offset)
        XCTAssertEqual(manifest.scheduler.numTrainTimesteps, configuration.num_train_timesteps)
        XCTAssertEqual(manifest.graphs.map(\.name), Stage.allCases.map(\.rawValue))
        let unet = try XCTUnwrap(manifest.graph(named: "unet"))
        XCTAssertEqual(unet.file, "Unet.mlpackage")
        XCTAssertEqual(unet.inputs.first?.name, "sample")
        XCTAssertEqual(unet.inputs.first?.shape, [2, 4, 16, 16])
        XCTAssertEqual(unet.inputs.first?.count, 2048)
        XCTAssertEqual(unet.inputs.first?.dtype, .f16)
        XCTAssertNil(manifest.graph(named: "unet_chunk1"))
        for file in manifest.files {
            let path = try Fixtures.artifact("plain").appendingPathComponent(file.path).path
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            XCTAssertEqual(attributes[.size] as? Int, file.bytes, file.path)
        }
    }

    func testEveryKindOfArtifactIsDescribed() throws {
        XCTAssertEqual(try Manifest.read(folder: Fixtures.artifact("apple")).interface, .apple)
        let chunks = try Manifest.read(folder: Fixtures.artifact("chunk")).graphs.map(\.name)
        XCTAssertEqual(chunks, ["text_encoder", "unet_chunk1", "unet_chunk2", "vae_decoder"])
        let snap = try Manifest.read(folder: Fixtures.artifact("snap"))
        XCTAssertEqual(snap.interface, .snap)
        let roles = try XCTUnwrap(snap.graph(named: "unet")).inputs.map(\.role)
        XCTAssert(roles.contains(.stepIndex) && roles.contains(.textProjection), "\(roles)")
    }

    func testAManifestIsEncodedAsItIsRead() throws {
        let manifest = try Manifest.decode(Data(Self.example.utf8), path: "snap.json")
        let encoded = try JSONEncoder().encode(manifest)
        XCTAssertEqual(try Manifest.decode(encoded, path: "snap.json"), manifest)
        let keys = try XCTUnwrap(JSONSerialization.jsonObject(with: encoded) as? [String: Any]).keys
        let expected = try XCTUnwrap(JSONSerialization.jsonObject(with: Data(Self.example.utf8)) as? [String: Any]).keys
        XCTAssertEqual(keys.sorted(), expected.sorted())
    }

    /// A manifest of one graph.
    private static let example = """
        {
          "schema_version": 1, "snapc_version": "0.1.0", "target": "coreml", "precision": "f16", "interface": "plain",
          "attention": "auto", "min_ios": 17, "passes": "",
          "graphs": [{
            "name": "unet", "file": "Unet.mlpackage",
            "inputs": [{"name": "sample", "dtype": "f16", "shape": ["2", "4", "16", "16"]}],
            "outputs": [{"name": "out_sample", "dtype": "f16", "shape": ["2", "4", "16", "16"], "role": "prediction"}]
          }],
          "scheduler": {
            "kind": "ddim", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "timestep_spacing": "leading",
            "steps_offset": 1, "set_alpha_to_one": false
          },
          "steps": 2, "timesteps": [501, 1], "guidance": 7.5,
          "latent": {"channels": 4, "height": 16, "width": 16, "pixels_per_cell": 8, "scaling_factor": 0.18215},
          "tokens": 77, "pad_token_id": 49407,
          "files": [{"path": "merges.txt", "bytes": 1, "sha256": ""}]
        }
        """

    /// Replaces a part of the example that stands there once, and expects an error with this reason.
    private func assertRefused(_ part: String, _ replacement: String, _ reason: String, line: UInt = #line) throws {
        let parts = Self.example.components(separatedBy: part)
        XCTAssertEqual(parts.count, 2, "'\(part)' in the example", line: line)
        let file = try write(Data(parts.joined(separator: replacement).utf8), as: "snap.json")
        XCTAssertThrowsError(try Manifest.read(folder: folder), reason, line: line) { error in
            guard case .artifact(file.path, let found) = error as? SnapError else {
                return XCTFail("\(error)", line: line)
            }
            XCTAssert(found.contains(reason), "\(found), expected: \(reason)", line: line)
        }
    }

    func testFilesThatAreNoManifestAreRefused() throws {
        let path = folder.appendingPathComponent("snap.json").path
        XCTAssertThrowsError(try Manifest.read(folder: folder)) { error in
            let reason = "does not exist; copy the whole artifact folder"
            XCTAssertEqual(error as? SnapError, .artifact(path: path, reason: reason))
        }
        let cases: [(contents: Data, reason: String)] = [
            (Data(), "is not JSON"),
            (Data(Self.example.utf8.dropLast(2)), "is not JSON"),
            (Data([0xff, 0xfe, 0x00]), "is not JSON"),
            (Data(String(repeating: "[", count: 100_000).utf8), "is not JSON"),
            (Data("[]".utf8), "the document is not of type"),
            (Data("{}".utf8), "field 'schema_version' is missing"),
            (Data(#"{"schema_version": 2}"#.utf8), "field 'schema_version' is 2, but this runtime reads version 1"),
            (Data(#"{"schema_version": "1"}"#.utf8), "field 'schema_version' is not of type Int"),
        ]
        for (contents, reason) in cases {
            _ = try write(contents, as: "snap.json")
            XCTAssertThrowsError(try Manifest.read(folder: folder), reason) { error in
                guard case .artifact(path, let found) = error as? SnapError else {
                    return XCTFail("\(error)")
                }
                XCTAssert(found.contains(reason), "\(found), expected: \(reason)")
            }
        }
    }

    func testFieldsOfAnotherFormAreNamed() throws {
        try assertRefused(#""steps": 2"#, #""steps": "2""#, "field 'steps' is not of type Int")
        try assertRefused(#""steps": 2"#, #""steps": null"#, "field 'steps'")
        try assertRefused(#""steps": 2,"#, "", "field 'steps' is missing")
        try assertRefused(#""interface": "plain""#, #""interface": "lean""#, "field 'interface' has a value unknown")
        try assertRefused(
            #""name": "sample", "dtype": "f16""#, #""name": "sample", "dtype": "f8""#,
            "field 'graphs[0].inputs[0].dtype'")
        try assertRefused(
            #""16"]}]"#, #""N"]}]"#,
            "field 'graphs[0].inputs[0].shape' has a value unknown to this runtime ('N'")
        try assertRefused(#""16"]}]"#, #""0"]}]"#, "'0' is not a fixed size")
        try assertRefused(#""16"]}]"#, #""9223372036854775807"]}]"#, "more than 2147483648 elements")
        try assertRefused(#""16"]}]"#, #"16]}]"#, "field 'graphs[0].inputs[0].shape")
        try assertRefused(#""role": "prediction""#, #""role": "guess""#, "field 'graphs[0].outputs[0].role'")
        try assertRefused(
            #""prediction_type": "epsilon""#, #""prediction_type": "sample""#,
            "field 'scheduler.prediction_type'")
        try assertRefused(#""beta_end": 0.012,"#, "", "field 'scheduler.beta_end' is missing")
    }

    // Some versions of Foundation name the field of such a number, others do not.
    func testNumbersBeyondTheirTypeAreRefused() throws {
        for (part, replacement, field) in [
            (#""steps": 2"#, #""steps": 2.5"#, "field 'steps'"),
            (#""steps": 2"#, #""steps": 1e40"#, "field 'steps'"),
            (#""bytes": 1"#, #""bytes": 18446744073709551615"#, "field 'files[0].bytes'"),
        ] {
            let text = Self.example.replacingOccurrences(of: part, with: replacement)
            let file = try write(Data(text.utf8), as: "snap.json")
            XCTAssertThrowsError(try Manifest.read(folder: folder), replacement) { error in
                guard case .artifact(file.path, let found) = error as? SnapError else {
                    return XCTFail("\(error)")
                }
                XCTAssert(found.contains(field) || found.contains("a number that its field cannot hold"), found)
            }
        }
    }

    func testEveryPrefixIsRefused() {
        let bytes = Data(Self.example.utf8)
        for length in 0..<bytes.count {
            XCTAssertThrowsError(try Manifest.decode(bytes.prefix(length), path: "snap.json"), "\(length) bytes") {
                guard case .artifact("snap.json", _) = $0 as? SnapError else {
                    return XCTFail("\($0)")
                }
            }
        }
    }

    func testValuesThatCannotBeRunAreNamed() throws {
        try assertRefused(#""target": "coreml""#, #""target": "onnx""#, "field 'target' is 'onnx'")
        try assertRefused(#""kind": "ddim""#, #""kind": "pndm""#, "field 'scheduler' is of kind 'pndm'")
        try assertRefused("1000", "1000000000000", "field 'scheduler' has 1000000000000 training steps")
        try assertRefused("0.00085", "-1", "field 'scheduler' has betas from -1.0 to 0.012")
        try assertRefused(#""steps_offset": 1"#, #""steps_offset": -1"#, "field 'scheduler' has a negative offset")
        try assertRefused(#""steps": 2"#, #""steps": 0"#, "field 'steps' is 0")
        try assertRefused(#""steps": 2"#, #""steps": 3"#, "field 'timesteps' has 2 entries for 3 steps")
        try assertRefused("[501, 1]", "[1000, 1]", "field 'timesteps' has 1000")
        try assertRefused("[501, 1]", "[501, -1]", "field 'timesteps' has -1")
        try assertRefused(#""tokens": 77"#, #""tokens": 1"#, "field 'tokens' is 1")
        try assertRefused("49407", "-1", "field 'pad_token_id' is negative")
        try assertRefused(#""channels": 4"#, #""channels": 0"#, "field 'latent' has 0 channels")
        try assertRefused(#""height": 16"#, #""height": 4096"#, "field 'latent' makes a picture")
        try assertRefused(#""width": 16"#, #""width": 9223372036854775807"#, "field 'latent' makes a picture")
        try assertRefused("0.18215", "0", "field 'latent' has a scaling factor")
        try assertRefused("Unet.mlpackage", "../Unet.mlpackage", "field 'graphs[0].file' leads out")
        try assertRefused("Unet.mlpackage", "/Unet.mlpackage", "field 'graphs[0].file' leads out")
        try assertRefused("merges.txt", "a/../../b", "field 'files[0].path' leads out")
        try assertRefused(#""bytes": 1"#, #""bytes": -1"#, "field 'files[0].bytes' is negative")
        let feature = #"{"name": "sample", "dtype": "f16", "shape": ["2", "4", "16", "16"]}"#
        try assertRefused(feature, "\(feature), \(feature)", "field 'graphs[0].inputs' has two features of one name")
        try assertRefused(
            #""graphs": [{"#, #""graphs": [{"name": "unet", "file": "a", "inputs": [], "outputs": []}, {"#,
            "field 'graphs[1].name' is 'unet' a second time")
    }

    func testSizesAreThoseOfTheArtifact() throws {
        let manifest = try Manifest.read(folder: Fixtures.artifact("sizes"))
        let expected = [(128, 128), (64, 64), (64, 128)].map { PictureSize(height: $0, width: $1) }
        XCTAssertEqual(manifest.pictureSizes, expected)
        XCTAssertEqual(manifest.sizes?.map(\.function), ["size_128x128", "size_64x64", "size_64x128"])
        XCTAssertNil(manifest.graph(named: "text_encoder")?.functions)
        let decoder = try XCTUnwrap(manifest.graph(named: "vae_decoder")?.functions)
        XCTAssertEqual(decoder.map { $0.outputs[0].shape }, [[1, 3, 128, 128], [1, 3, 64, 64], [1, 3, 64, 128]])
        let latent = try XCTUnwrap(manifest.latent(at: expected[2]))
        XCTAssertEqual([latent.height, latent.width], [8, 16])
        XCTAssertNil(manifest.latent(at: PictureSize(height: 63, width: 64)))

        let single = try Manifest.read(folder: Fixtures.artifact("plain"))
        XCTAssertNil(single.sizes)
        XCTAssertEqual(single.pictureSizes, [expected[0]])
        let json = try JSONEncoder().encode(manifest)
        XCTAssertEqual(try Manifest.decode(json, path: "snap.json"), manifest)
    }

    func testSizesThatCannotBeRunAreNamed() throws {
        func refuse(_ sizes: String, _ reason: String, functions: String = "", line: UInt = #line) throws {
            let text = Self.example.replacingOccurrences(
                of: #""tokens": 77"#, with: "\"sizes\": [\(sizes)], \"tokens\": 77")
            let inputs = #""file": "Unet.mlpackage","#
            let file = try write(Data(text.replacingOccurrences(of: inputs, with: inputs + functions).utf8), as: "snap.json")
            XCTAssertThrowsError(try Manifest.read(folder: folder), reason, line: line) { error in
                guard case .artifact(file.path, let found) = error as? SnapError else {
                    return XCTFail("\(error)", line: line)
                }
                XCTAssert(found.contains(reason), "\(found), expected: \(reason)", line: line)
            }
        }
        func size(_ height: String, _ width: String, _ function: String) -> String {
            "{\"height\": \(height), \"width\": \(width), \"function\": \"\(function)\"}"
        }
        let first = size("128", "128", "a")
        try refuse("{}", "field 'sizes[0].height' is missing")
        try refuse(size("64", "64", "a"), "field 'sizes[0]' is 64x64, not the size of the latents")
        try refuse("\(first), \(size("63", "64", "b"))", "field 'sizes[1]' is 63x64, not whole latents of 8 pixels")
        try refuse("\(first), \(size("-8", "8", "b"))", "field 'sizes[1]' is -8x8, not whole")
        try refuse("\(first), \(size("9223372036854775800", "8", "b"))", "field 'sizes[1]' makes a picture")
        try refuse("\(first), \(size("128", "128", "b"))", "field 'sizes[1]' has the size or the function of an earlier")
        try refuse("\(first), \(size("64", "64", "a"))", "field 'sizes[1]' has the size or the function of an earlier")
        let sizes = "\(first), \(size("64", "64", "b"))"
        func functions(_ names: String...) -> String {
            let list = names.map { "{\"name\": \"\($0)\", \"inputs\": [], \"outputs\": []}" }
            return "\"functions\": [\(list.joined(separator: ", "))],"
        }
        try refuse(sizes, "field 'graphs[0].functions' are not those of 'sizes'", functions: functions("b", "a"))
        try refuse(sizes, "field 'graphs[0].functions' are not those of 'sizes'", functions: functions("a"))
        try refuse("", "field 'graphs[0].functions' are not those of 'sizes'", functions: functions("a"))
        try refuse(sizes, "field 'graphs[0].functions[0]' has other features", functions: functions("a", "b"))
    }

    func testErrorsSayWhatToDo() {
        let errors: [(error: SnapError, text: String)] = [
            (.artifact(path: "a/snap.json", reason: "is empty"), "a/snap.json: is empty"),
            (.unsupported(reason: "made for 8 steps"), "made for 8 steps"),
            (.model(stage: .vaeDecoder, reason: "no memory"), "vae_decoder: no memory"),
            (.notFinite(stage: .unet, step: 3), "unet, step 3: the output is not finite"),
            (.notFinite(stage: .textEncoder, step: nil), "text_encoder: the output is not finite"),
        ]
        for (error, text) in errors {
            XCTAssert(error.description.hasPrefix(text), error.description)
            XCTAssertEqual(error.localizedDescription, error.description)
        }
    }
}
