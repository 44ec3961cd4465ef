import Foundation
import SnapRuntime
import XCTest

#if os(Linux)
    import CoreML
#endif

/// Compiling once, keeping, and throwing away.
final class ModelStoreTests: XCTestCase {
    private func states(
        of artifact: Artifact, in store: ModelStore
    ) async throws -> (models: [URL], states: [InstallProgress.State]) {
        let told = Collected<InstallProgress>()
        let models = try await store.install(artifact) { told.append($0) }
        XCTAssertTrue(told.values.allSatisfy { $0.count == artifact.packages.count })
        return (models, told.values.map(\.state))
    }

    private let compiled: [InstallProgress.State] = [.compiling, .ready(.compiled)]
    private let reused: [InstallProgress.State] = [.ready(.reused)]

    func testPackagesAreCompiledOnce() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let artifact = try Artifact(folder: try Environment.artifact("plain"))
        XCTAssertFalse(store.isInstalled(artifact))
        let first = try await states(of: artifact, in: store)
        XCTAssertEqual(first.states, compiled + compiled + compiled)
        XCTAssertTrue(store.isInstalled(artifact))
        let second = try await states(of: artifact, in: ModelStore(folder: store.folder))
        XCTAssertEqual(second.states, reused + reused + reused)
        XCTAssertEqual(second.models, first.models)
        XCTAssertEqual(
            first.models.map(\.lastPathComponent), ["TextEncoder.mlmodelc", "Unet.mlmodelc", "VAEDecoder.mlmodelc"])
        // Nothing is left of the installation itself.
        XCTAssertFalse(try Scratch.names(in: store.folder).contains { $0.hasPrefix(".") })
    }

    func testPackagesThatOtherArtifactsHaveTooAreShared() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let plain = try Artifact(folder: try Environment.artifact("plain"))
        let chunk = try Artifact(folder: try Environment.artifact("chunk"))
        _ = try await states(of: plain, in: store)
        let found = try await states(of: chunk, in: store)
        XCTAssertEqual(found.states, reused + compiled + compiled + reused)
    }

    /// The UNet of the artifact is another one after a conversion: it alone is compiled, and the old one is removed.
    func testAPackageThatChangedIsCompiledAgain() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let folder = try scratch.copy(of: "plain", as: "app")
        let before = try await states(of: Artifact(folder: folder), in: store)
        try FileManager.default.removeItem(at: folder)
        _ = try scratch.copy(of: "wrong", as: "app")
        let after = try await states(of: Artifact(folder: folder), in: store)
        XCTAssertEqual(after.states, reused + compiled + reused)
        XCTAssertNotEqual(before.models[1], after.models[1])
        XCTAssertFalse(FileManager.default.fileExists(atPath: before.models[1].path))
        XCTAssertEqual(try Scratch.names(in: store.folder).count, 3)
    }

    /// Another artifact still has the old package.
    func testAPackageInUseElsewhereStays() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let (first, second) = (try scratch.copy(of: "plain", as: "first"), try scratch.copy(of: "plain", as: "second"))
        let before = try await states(of: Artifact(folder: first), in: store)
        _ = try await states(of: Artifact(folder: second), in: store)
        // Who has it is still known when it had to be compiled again.
        try FileManager.default.removeItem(at: before.models[1])
        _ = try await states(of: Artifact(folder: first), in: store)
        try FileManager.default.removeItem(at: first)
        _ = try scratch.copy(of: "wrong", as: "first")
        _ = try await states(of: Artifact(folder: first), in: store)
        XCTAssertTrue(FileManager.default.fileExists(atPath: before.models[1].path))
        // Until it is gone as well.
        try FileManager.default.removeItem(at: second)
        _ = try await states(of: Artifact(folder: first), in: store)
        XCTAssertFalse(FileManager.default.fileExists(atPath: before.models[1].path))
    }

    /// An installation that was interrupted long ago is no longer at it; one of an hour ago may be.
    func testWhatInterruptedInstallationsLeftIsRemoved() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let now = Int(Date().timeIntervalSince1970)
        let (old, young) = (".staging-\(now - 90_000)-a", ".staging-\(now - 3600)-b")
        for name in [old, young] {
            try FileManager.default.createDirectory(
                at: store.folder.appendingPathComponent(name), withIntermediateDirectories: true)
        }
        _ = try await store.install(Artifact(folder: try Environment.artifact("plain")))
        let names = try Scratch.names(in: store.folder)
        XCTAssertEqual(names.filter { $0.hasPrefix(".") }, [young])
    }

    func testModelsAreRemovedOnDemand() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let artifact = try Artifact(folder: try Environment.artifact("plain"))
        _ = try await states(of: artifact, in: store)
        try store.remove(artifact)
        XCTAssertFalse(store.isInstalled(artifact))
        XCTAssertEqual(try Scratch.names(in: store.folder), [])
    }

    func testAPlaceThatTheSystemEmptiedIsFilledAgain() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let artifact = try Artifact(folder: try Environment.artifact("plain"))
        let models = try await states(of: artifact, in: store).models
        try FileManager.default.removeItem(at: models[0])
        let again = try await states(of: artifact, in: store)
        XCTAssertEqual(again.states, compiled + reused + reused)
        XCTAssertEqual(again.models, models)
    }

    /// A system that needs space takes single files: the model is compiled again, in its place.
    func testAModelThatHasLostAFileIsCompiledAgain() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let artifact = try Artifact(folder: try Environment.artifact("plain"))
        let models = try await states(of: artifact, in: store).models
        let weights = models[1].appendingPathComponent("Data/com.apple.CoreML/weights/weight.bin")
        try FileManager.default.removeItem(at: weights)
        XCTAssertFalse(store.isInstalled(artifact))
        let again = try await states(of: artifact, in: store)
        XCTAssertEqual(again.states, reused + compiled + reused)
        XCTAssertEqual(again.models, models)
        XCTAssertTrue(FileManager.default.fileExists(atPath: weights.path))
        // Shorter is as bad as gone.
        try Data().write(to: weights)
        let third = try await states(of: artifact, in: store)
        XCTAssertEqual(third.states, reused + compiled + reused)
        XCTAssertTrue(store.isInstalled(artifact))
        // And so is a list that says nothing.
        let list = models[1].deletingLastPathComponent().appendingPathComponent("files.txt")
        for text in ["", "size path\n"] {
            try Data(text.utf8).write(to: list)
            XCTAssertFalse(store.isInstalled(artifact), text)
        }
    }

    /// As several processes do: each fills the same places, and gives up the same stale one.
    func testStoresThatShareAFolderAtTheSameTime() async throws {
        let scratch = try Scratch()
        let folder = scratch.folder.appendingPathComponent("store")
        let package = try scratch.copy(of: "plain", as: "app")
        _ = try await ModelStore(folder: folder).install(Artifact(folder: package))
        try FileManager.default.removeItem(at: package)
        _ = try scratch.copy(of: "wrong", as: "app")
        let artifact = try Artifact(folder: package)
        let installed = try await withThrowingTaskGroup(of: [URL].self) { group in
            for _ in 0..<8 {
                group.addTask { try await ModelStore(folder: folder).install(artifact) }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        XCTAssertEqual(installed.count, 8)
        XCTAssertEqual(Set(installed).count, 1)
        XCTAssertTrue(ModelStore(folder: folder).isInstalled(artifact))
        XCTAssertEqual(try Scratch.names(in: folder).count, 3)
    }

    func testAFolderThatCannotBeWritten() async throws {
        let scratch = try Scratch()
        let file = scratch.folder.appendingPathComponent("file")
        try Data().write(to: file)
        let artifact = try Artifact(folder: try Environment.artifact("plain"))
        let error = await failure { try await ModelStore(folder: file.appendingPathComponent("store")).install(artifact) }
        guard case .model(stage: .textEncoder, let reason)? = error else {
            return XCTFail("\(String(describing: error))")
        }
        XCTAssertTrue(reason.contains("cache folder"), reason)
    }

    /// As in an app: Xcode has compiled the packages, only the compiled ones are there, and the runtime is a package.
    func testPackagesThatXcodeHasCompiled() async throws {
        let scratch = try Scratch()
        let store = ModelStore(folder: scratch.folder.appendingPathComponent("store"))
        let bundle = try scratch.copy(of: "snap", as: "bundle")
        let models = try await store.install(Artifact(folder: bundle))
        try FileManager.default.removeItem(at: bundle.appendingPathComponent("runtime"))
        for model in models {
            let name = model.deletingPathExtension().lastPathComponent
            try FileManager.default.removeItem(at: bundle.appendingPathComponent("\(name).mlpackage"))
            try FileManager.default.moveItem(at: model, to: bundle.appendingPathComponent("\(name).mlmodelc"))
        }
        let empty = ModelStore(folder: scratch.folder.appendingPathComponent("empty"))
        let artifact = try Artifact(folder: bundle)
        XCTAssertTrue(empty.isInstalled(artifact))
        let found = try await states(of: artifact, in: empty)
        XCTAssertEqual(found.states, [.ready(.compiledBefore), .ready(.compiledBefore), .ready(.compiledBefore)])
        XCTAssertFalse(FileManager.default.fileExists(atPath: empty.folder.path))
        let pipeline = try await Pipeline(artifact: artifact, options: .init(cacheFolder: empty.folder))
        let reference = try Reference()
        let generation = try await pipeline.generate(try reference.request())
        XCTAssertGreaterThanOrEqual(
            psnr(reference: try reference.floats("step_7.latents"), found: generation.latents), 55)
    }

    #if os(Linux)
        func testTheCompilerIsAskedOnce() async throws {
            let scratch = try Scratch()
            SimulatedCoreML.reset()
            let options = Pipeline.Options(cacheFolder: scratch.folder.appendingPathComponent("store"))
            let artifact = try Artifact(folder: try Environment.artifact("chunk"))
            _ = try await Pipeline(artifact: artifact, options: options)
            XCTAssertEqual(SimulatedCoreML.compilations, 4)
            _ = try await Pipeline(artifact: artifact, options: options)
            XCTAssertEqual(SimulatedCoreML.compilations, 4)
        }

        /// Core ML's error does not tell what an older system lacks.
        func testAPackageThatDoesNotCompileNamesTheSystemsItIsFor() async throws {
            struct Refused: Error {}
            let scratch = try Scratch()
            let artifact = try Artifact(folder: try Environment.artifact("ios18"))
            SimulatedCoreML.beforeCompilation = { _ in throw Refused() }
            defer { SimulatedCoreML.reset() }
            let error = await failure { try await ModelStore(folder: scratch.folder).install(artifact) }
            guard case .model(stage: .textEncoder, let reason)? = error else {
                return XCTFail("\(String(describing: error))")
            }
            XCTAssertTrue(reason.contains("iOS 18 and later"), reason)
        }
    #endif
}
