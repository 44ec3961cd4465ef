import XCTest

@testable import CoreML

/// Models from the packages of the fixture: what is refused and how, backings, strides, hooks.
final class MLModelTests: XCTestCase {
    private var place = FileManager.default.temporaryDirectory

    override func setUpWithError() throws {
        SimulatedCoreML.reset()
        place = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        SimulatedCoreML.reset()
        try FileManager.default.removeItem(at: place)
    }

    /// A package of the artifact `name` under `SNAP_ARTIFACTS`.
    private func package(_ file: String, of name: String = "plain") throws -> URL {
        let folder = ProcessInfo.processInfo.environment["SNAP_ARTIFACTS"]
        let artifacts = try XCTUnwrap(folder, "SNAP_ARTIFACTS names no folder; run `cargo xtask swift`")
        return URL(fileURLWithPath: artifacts).appendingPathComponent(name).appendingPathComponent(file)
    }

    private func textEncoder() async throws -> MLModel {
        let compiled = try await MLModel.compileModel(at: package("TextEncoder.mlpackage"))
        defer { try? FileManager.default.removeItem(at: compiled.deletingLastPathComponent()) }
        return try await MLModel.load(contentsOf: compiled)
    }

    /// Token ids of an empty prompt: the first and the last token of CLIP's vocabulary.
    private func ids(shape: [NSNumber] = [1, 77], type: MLMultiArrayDataType = .int32) throws -> MLMultiArray {
        let array = try MLMultiArray(shape: shape, dataType: type)
        array.withUnsafeMutableBytes { bytes, _ in
            let ids = bytes.bindMemory(to: Int32.self)
            ids.update(repeating: 49407)
            ids[0] = 49406
        }
        return array
    }

    private func predict(
        _ model: MLModel, _ features: [String: Any], backings: [String: Any] = [:]
    ) throws -> MLFeatureProvider {
        let options = MLPredictionOptions()
        options.outputBackings = backings
        return try model.prediction(from: MLDictionaryFeatureProvider(dictionary: features), options: options)
    }

    private func assertFails(
        _ code: Int, _ part: String, line: UInt = #line, _ body: () async throws -> Void
    ) async {
        do {
            try await body()
            XCTFail("it succeeds", line: line)
        } catch let error as NSError {
            XCTAssertEqual(error.domain, "com.apple.CoreML", line: line)
            XCTAssertEqual(error.code, code, line: line)
            XCTAssertTrue(error.localizedDescription.contains(part), error.localizedDescription, line: line)
        }
    }

    private func values(_ array: MLMultiArray?) throws -> [UInt16] {
        let array = try XCTUnwrap(array)
        XCTAssertEqual(array.dataType, .float16)
        let values = ContiguousValues(of: array)
        return withExtendedLifetime(values) { Array(values.memory.bindMemory(to: UInt16.self)) }
    }

    func testTheDescriptionIsThatOfThePackage() async throws {
        let description = try await textEncoder().modelDescription
        XCTAssertEqual(Set(description.inputDescriptionsByName.keys), ["input_ids"])
        XCTAssertEqual(Set(description.outputDescriptionsByName.keys), ["last_hidden_state", "pooler_output"])
        let input = try XCTUnwrap(description.inputDescriptionsByName["input_ids"])
        XCTAssertEqual(input.type, .multiArray)
        XCTAssertFalse(input.isOptional)
        XCTAssertEqual(input.multiArrayConstraint?.shape, [1, 77])
        XCTAssertEqual(input.multiArrayConstraint?.dataType, .int32)
        let keys = description.metadata[.creatorDefinedKey] as? [String: String]
        XCTAssertEqual(keys?["snapc.graph"], "text_encoder")
    }

    func testOnlyCompiledModelsLoad() async throws {
        let package = try package("TextEncoder.mlpackage")
        await assertFails(0, "MLModel.compileModel(at:)") { _ = try MLModel(contentsOf: package) }
        let missing = place.appendingPathComponent("None.mlmodelc")
        await assertFails(0, "None.mlmodelc") { _ = try await MLModel.load(contentsOf: missing) }
        await assertFails(0, "is no .mlpackage folder") { _ = try await MLModel.compileModel(at: missing) }
    }

    func testBrokenPackagesAreRefusedWithWhatIsWrong() async throws {
        let broken = try package("Unet.mlpackage", of: "broken")
        await assertFails(0, "breaks the rules of the format") { _ = try await MLModel.compileModel(at: broken) }
        let compiled = try await MLModel.compileModel(at: package("TextEncoder.mlpackage"))
        defer { try? FileManager.default.removeItem(at: compiled.deletingLastPathComponent()) }
        try Data().write(to: compiled.appendingPathComponent("Manifest.json"))
        await assertFails(0, "TextEncoder.mlmodelc/Manifest.json") { _ = try MLModel(contentsOf: compiled) }
        XCTAssertEqual(SimulatedCoreML.openModels, 0)
    }

    func testAFunctionIsChosenByName() async throws {
        let compiled = try await MLModel.compileModel(at: package("Unet.mlpackage", of: "sizes"))
        defer { try? FileManager.default.removeItem(at: compiled.deletingLastPathComponent()) }
        func load(_ function: String?) async throws -> MLModel {
            let configuration = MLModelConfiguration()
            configuration.functionName = function
            return try await MLModel.load(contentsOf: compiled, configuration: configuration)
        }
        for (function, shape) in [
            (nil, [2, 4, 16, 16]), ("size_128x128", [2, 4, 16, 16]), ("size_64x64", [2, 4, 8, 8]),
            ("size_64x128", [2, 4, 8, 16]),
        ] as [(String?, [NSNumber])] {
            let description = try await load(function).modelDescription
            XCTAssertEqual(description.inputDescriptionsByName["sample"]?.multiArrayConstraint?.shape, shape)
            XCTAssertEqual(description.outputDescriptionsByName["out_sample"]?.multiArrayConstraint?.shape, shape)
        }
        await assertFails(0, "there is no function 'main'; it has 'size_128x128'") { _ = try await load("main") }
        let single = MLModelConfiguration()
        single.functionName = "main"
        let encoder = try await MLModel.compileModel(at: package("TextEncoder.mlpackage", of: "sizes"))
        defer { try? FileManager.default.removeItem(at: encoder.deletingLastPathComponent()) }
        await assertFails(0, "it has one function") { _ = try MLModel(contentsOf: encoder, configuration: single) }
    }

    func testFeaturesMustBeThoseOfTheDescription() async throws {
        let model = try await textEncoder()
        let given = try ids()
        await assertFails(1, "Feature input_ids is required") { _ = try predict(model, ["ids": given]) }
        let (flat, floats) = try (ids(shape: [77]), ids(type: .float32))
        await assertFails(1, "the shape 77, the model has 1 × 77") { _ = try predict(model, ["input_ids": flat]) }
        await assertFails(1, "is of float32") { _ = try predict(model, ["input_ids": floats]) }
        await assertFails(0, "no feature value") { _ = try predict(model, ["input_ids": 7]) }
        let wide = try MLMultiArray(shape: [1, 77, 33], dataType: .float16)
        let (right, other) = try (
            MLMultiArray(shape: [1, 32], dataType: .float16), MLMultiArray(shape: [1, 32], dataType: .float32)
        )
        for (backings, part) in [
            (["last_hidden_state": wide], "1 × 77 × 33"), (["pooler_output": other], "is of float32"),
            (["image": right], "no output of the model"), (["pooler_output": 7], "is no multi-array"),
        ] as [([String: Any], String)] {
            await assertFails(1, part) { _ = try predict(model, ["input_ids": given], backings: backings) }
        }
    }

    func testOutputsAreEqualInAnyMemory() async throws {
        let model = try await textEncoder()
        let given = try ids()
        let name = "last_hidden_state"
        let plain = try predict(model, ["input_ids": given]).featureValue(for: name)?.multiArrayValue
        let expected = try values(plain)
        XCTAssertEqual(expected.count, 77 * 32)
        XCTAssertEqual(plain?.strides, [2464, 32, 1])

        let backing = try MLMultiArray(shape: [1, 77, 32], dataType: .float16)
        let backed = try predict(model, ["input_ids": given], backings: [name: backing])
        XCTAssertTrue(backed.featureValue(for: name)?.multiArrayValue === backing)
        XCTAssertEqual(backed.featureNames, ["last_hidden_state", "pooler_output"])
        XCTAssertEqual(try values(backing), expected)

        SimulatedCoreML.padsOutputs = true
        let padded = try predict(model, ["input_ids": given]).featureValue(for: name)?.multiArrayValue
        XCTAssertEqual(padded?.strides, [4928, 64, 1])
        XCTAssertEqual(try values(padded), expected)
        SimulatedCoreML.ignoresBackings = true
        let ignored = try predict(model, ["input_ids": given], backings: [name: backing])
        XCTAssertFalse(ignored.featureValue(for: name)?.multiArrayValue === backing)

        let strided = try MLMultiArray(XCTUnwrap(ArrayLayout(padded: [1, 77], .int32)), .int32)
        let room = ContiguousValues(for: strided)
        given.withUnsafeBytes { room.memory.copyMemory(from: $0) }
        room.writeBack()
        let again = try predict(model, ["input_ids": strided]).featureValue(for: name)?.multiArrayValue
        XCTAssertEqual(try values(again), expected)
    }

    func testHooksCountAndFail() async throws {
        struct Stop: Error {}
        var model: MLModel? = try await textEncoder()
        XCTAssertEqual(SimulatedCoreML.compilations, 1)
        XCTAssertEqual(SimulatedCoreML.loadedUnits, [.all])
        XCTAssertEqual(SimulatedCoreML.openModels, 1)
        SimulatedCoreML.beforePrediction = { name in
            XCTAssertEqual(name, "TextEncoder")
            if SimulatedCoreML.predictions == 2 { throw Stop() }
        }
        let loaded = try XCTUnwrap(model)
        _ = try predict(loaded, ["input_ids": ids()])
        XCTAssertThrowsError(try predict(loaded, ["input_ids": ids()])) { XCTAssertTrue($0 is Stop) }
        _ = try predict(loaded, ["input_ids": ids()])
        XCTAssertEqual(SimulatedCoreML.predictions, 3)
        model = nil
        SimulatedCoreML.reset()
        XCTAssertEqual(SimulatedCoreML.predictions, 0)
    }

    func testModelsThatGoAreCounted() async throws {
        do {
            let models = try await [textEncoder(), textEncoder()]
            XCTAssertEqual(SimulatedCoreML.openModels, models.count)
        }
        XCTAssertEqual(SimulatedCoreML.openModels, 0)
        XCTAssertEqual(SimulatedCoreML.mostOpenModels, 2)
    }
}
