import Foundation
import XCTest

@testable import SnapRuntime

/// An artifact with a function per picture size: 128x128, 64x64 and 64x128.
final class SizesTests: XCTestCase {
    private func artifact(_ name: String = "sizes") throws -> Artifact {
        try Artifact(folder: try Environment.artifact(name))
    }

    private func pipeline(_ size: PictureSize?, of name: String = "sizes", cache: Scratch) async throws -> Pipeline {
        try await Pipeline(artifact: try artifact(name), options: .init(cacheFolder: cache.folder, size: size))
    }

    private func square(_ side: Int) -> PictureSize {
        PictureSize(height: side, width: side)
    }

    /// The bars of the project's contract for f16, against diffusers' runs of both sizes in f32.
    func testEverySizeIsAsCloseToDiffusers() async throws {
        let scratch = try Scratch()
        for (size, name) in [
            (nil, "reference"), (square(128), "reference"), (square(64), "reference-64x64"),
        ] as [(PictureSize?, String)] {
            let reference = try Reference(name)
            let pipeline = try await pipeline(size, cache: scratch)
            let steps = Collected<Pipeline.Progress>()
            let found = try await pipeline.generate(try reference.request()) { progress in
                steps.append(progress)
                return true
            }
            let first = try XCTUnwrap(steps.values.first)
            for (tensor, values, bar) in [
                ("text_embeddings", found.textEmbeddings, 55), ("step_0.noise_pred", first.predictions, 65),
                ("step_7.latents", found.latents, 55), ("image", found.decoded.map { min(max($0, -1), 1) }, 40),
            ] as [(String, [Float], Double)] {
                let quality = psnr(reference: try reference.floats(tensor), found: values)
                XCTAssertGreaterThanOrEqual(quality, bar, "\(tensor) of \(name)")
            }
            let side = size?.height ?? 128
            XCTAssertEqual([found.image.height, found.image.width], [side, side])
        }
    }

    /// Without a choice the pictures are, to the bit, those of the first size, which is what an artifact of that size makes.
    func testTheFirstSizeIsThatOfAnArtifactOfOneSize() async throws {
        let scratch = try Scratch()
        let request = Pipeline.Request(prompt: "a fox", seed: 3, steps: 2)
        var latents: [[Float]] = []
        for (size, name) in [(nil, "plain"), (nil, "sizes"), (square(128), "sizes")] as [(PictureSize?, String)] {
            latents.append(try await pipeline(size, of: name, cache: scratch).generate(request).latents)
        }
        XCTAssertEqual(latents[1], latents[2])
        XCTAssertEqual(latents[0], latents[1])
    }

    func testRowsAndColumnsAreNotMixedUp() async throws {
        let scratch = try Scratch()
        let pipeline = try await pipeline(PictureSize(height: 64, width: 128), cache: scratch)
        let latent = pipeline.artifact.manifest.latent
        XCTAssertEqual([latent.height, latent.width], [8, 16])
        let previews = Collected<RGBImage>()
        let found = try await pipeline.generate(.init(prompt: "a fox", steps: 1)) { progress in
            if let preview = try? await progress.preview() {
                previews.append(preview)
            }
            return true
        }
        XCTAssertEqual(found.latents.count, 4 * 8 * 16)
        for picture in [found.image] + previews.values {
            XCTAssertEqual([picture.height, picture.width], [64, 128])
        }
        XCTAssertEqual(previews.values.count, 1)
        let benchmark = try await pipeline.benchmark(iterations: 1)
        XCTAssertEqual(benchmark.artifact.size, "64x128")
        let short = await failure {
            try await pipeline.generate(.init(prompt: "", initLatents: [Float](repeating: 0, count: 4 * 8 * 8)))
        }
        XCTAssertEqual(
            short, .request(reason: "the initial latents have 256 values, but the UNet takes 512 ([4, 8, 16])"))
    }

    /// All sizes are in one compiled package.
    func testAnotherSizeIsNotCompiledAgain() async throws {
        let scratch = try Scratch()
        _ = try await pipeline(nil, cache: scratch)
        let states = Collected<InstallProgress.State>()
        _ = try await Pipeline(
            artifact: try artifact(), options: .init(cacheFolder: scratch.folder, size: square(64)),
            onInstall: { states.append($0.state) })
        XCTAssertEqual(states.values, [.ready(.reused), .ready(.reused), .ready(.reused)])
    }

    func testSizesThatTheArtifactHasNotAreRefused() async throws {
        let scratch = try Scratch()
        for (name, size, sizes) in [
            ("sizes", PictureSize(height: 128, width: 64), "128x128, 64x64, 64x128"), ("plain", square(64), "128x128"),
        ] {
            let error = await failure { try await pipeline(size, of: name, cache: scratch) }
            let reason = "the artifact makes no pictures of \(size), only of \(sizes); "
                + "choose one of these, or convert again with --sizes"
            XCTAssertEqual(error, .unsupported(reason: reason))
        }
        // Nothing is compiled before.
        XCTAssertEqual(try Scratch.names(in: scratch.folder), [])
        // Its own size can be named for an artifact of one size, which has no functions.
        let plain = try artifact("plain").at(square(128))
        XCTAssertEqual(plain.packages.map(\.function), [nil, nil, nil])
        let again = try artifact().at(square(64)).at(PictureSize(height: 64, width: 128)).at(nil)
        XCTAssertEqual(again.packages.map(\.function), [nil, "size_64x128", "size_64x128"])
    }

    func testAPackageWithoutTheFunctionIsRefused() async throws {
        let scratch = try Scratch()
        let folder = try scratch.copy(of: "sizes")
        let manifest = folder.appendingPathComponent("snap.json")
        let text = try String(contentsOf: manifest, encoding: .utf8)
        XCTAssertTrue(text.contains("size_64x64"))
        try Data(text.replacingOccurrences(of: "size_64x64", with: "size_64").utf8).write(to: manifest)
        let error = await failure {
            try await Pipeline(
                artifact: try Artifact(folder: folder),
                options: .init(cacheFolder: scratch.folder.appendingPathComponent("cache"), size: square(64)))
        }
        guard case .model(.unet, let reason)? = error else {
            return XCTFail("\(String(describing: error))")
        }
        XCTAssertTrue(reason.contains("there is no function 'size_64'"), reason)
    }
}
