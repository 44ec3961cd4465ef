import Foundation
import SnapRuntime
import XCTest

@testable import snap_run

/// What the command line takes, and how it refuses the rest.
final class ArgumentTests: XCTestCase {
    private func refusal(_ words: String, file: StaticString = #filePath, line: UInt = #line) -> String {
        do {
            let words = words.split(separator: " ").map(String.init)
            _ = try GenerateCommand(words)
            XCTFail("there is no error", file: file, line: line)
        } catch let error as UsageError {
            return error.reason
        } catch {
            XCTFail("\(error)", file: file, line: line)
        }
        return ""
    }

    func testEverythingThatGenerateTakes() throws {
        let scratch = try Scratch()
        let (output, save) = (scratch.folder.appendingPathComponent("a.png"), scratch.folder.appendingPathComponent("a.st"))
        let command = try GenerateCommand([
            "--prompt", "a red fox", "model", "--negative=blurry = bad", "--seed", "18446744073709551615", "--steps=4",
            "--guidance", "-1.5", "--save", save.path, "--compute-units", "cpu-ane", "--reduce-memory", "--cache", "c",
            "--size=384x512",
            "-o", output.path,
        ])
        XCTAssertEqual(command.artifact.lastPathComponent, "model")
        XCTAssertEqual(command.request.prompt, "a red fox")
        XCTAssertEqual(command.request.negativePrompt, "blurry = bad")
        XCTAssertEqual(command.request.seed, .max)
        XCTAssertEqual(command.request.steps, 4)
        XCTAssertEqual(command.request.guidance, -1.5)
        XCTAssertEqual(command.save?.path, save.path)
        XCTAssertEqual(command.output.path, output.path)
        XCTAssertEqual(command.options.computeUnits, .cpuAndNeuralEngine)
        XCTAssertTrue(command.options.reduceMemory)
        XCTAssertEqual(command.options.cacheFolder?.lastPathComponent, "c")
        XCTAssertEqual(command.options.size, PictureSize(height: 384, width: 512))
        XCTAssertEqual(try BenchCommand(["model", "--size", "64"]).options.size, PictureSize(height: 64, width: 64))
        XCTAssertEqual(try DoctorCommand(["model", "--size", "8x16"]).options.size, PictureSize(height: 8, width: 16))
    }

    func testWhatIsLeftOutIsTheArtifacts() throws {
        let command = try GenerateCommand(["model", "--prompt", "", "-o", "/nothing-of-this-name.png"])
        XCTAssertEqual(command.request.prompt, "")
        XCTAssertNil(command.request.steps)
        XCTAssertNil(command.request.guidance)
        XCTAssertEqual(command.request.seed, 0)
        XCTAssertEqual(command.options.computeUnits, .all)
        XCTAssertFalse(command.options.reduceMemory)
        XCTAssertNil(command.options.size)
    }

    func testBehindTwoHyphensThereAreNoOptions() throws {
        let command = try BenchCommand(["--iterations", "2", "--", "--json"])
        XCTAssertEqual(command.artifact.lastPathComponent, "--json")
        XCTAssertFalse(command.printsJSON)
    }

    func testRefusals() {
        XCTAssertEqual(refusal("--prompt fox -o a.png"), "no artifact is given: snap-run generate ARTIFACT")
        XCTAssertEqual(refusal("model -o a.png"), "'--prompt' is missing")
        XCTAssertEqual(refusal("model --prompt fox"), "'--output' is missing")
        XCTAssertEqual(refusal("model --prompt red fox"), "'fox' is one argument too many; quote prompts with spaces")
        XCTAssertEqual(
            refusal("model --promt fox"), "'--promt' is no option of 'snap-run generate'; did you mean '--prompt'?")
        XCTAssertEqual(refusal("model --verbose"), "'--verbose' is no option of 'snap-run generate'")
        XCTAssertEqual(refusal("model --prompt"), "'--prompt' needs a value: --prompt <TEXT>")
        XCTAssertEqual(refusal("model --prompt a --prompt b"), "'--prompt' is given twice")
        XCTAssertEqual(refusal("model --reduce-memory=yes"), "'--reduce-memory' takes no value")
        let rest = "model --prompt fox -o a.png"
        XCTAssertEqual(
            refusal("\(rest) --seed -1"), "'-1' is no value for '--seed'; it takes a whole number from 0 on")
        XCTAssertEqual(refusal("\(rest) --steps 0"), "'0' is no value for '--steps'; it takes a whole number from 1 on")
        XCTAssertEqual(refusal("\(rest) --guidance nan"), "'nan' is no value for '--guidance'; it takes a number")
        XCTAssertEqual(
            refusal("\(rest) --compute-units ane"),
            "'ane' is no value for '--compute-units'; it takes all, cpu, cpu-gpu, cpu-ane")
        for size in ["", "0", "64x", "64x0", "-8", "1x2x3", "64X64"] {
            XCTAssertEqual(
                refusal("\(rest) --size=\(size)"),
                "'\(size)' is no value for '--size'; it takes a number of pixels such as 512, "
                    + "or HEIGHTxWIDTH such as 384x512")
        }
        XCTAssertEqual(
            refusal("\(rest) --seed 1 --init-latents f"),
            "'--seed' and '--init-latents' both say where the run starts; give one of them")
        XCTAssertEqual(refusal("\(rest) --save ./a.png"), "'--save' and '--output' name the same file")
    }

    func testExistingFilesAreKept() throws {
        let scratch = try Scratch()
        let output = scratch.folder.appendingPathComponent("a.png").path
        try Data([1]).write(to: URL(fileURLWithPath: output))
        XCTAssertEqual(refusal("model --prompt fox -o \(output)"), "\(output) exists; --force replaces it")
        XCTAssertNoThrow(try GenerateCommand(["model", "--prompt", "fox", "-o", output, "--force"]))
        let nowhere = scratch.folder.appendingPathComponent("none").path
        XCTAssertEqual(refusal("model --prompt fox -o \(nowhere)/a.png"), "the folder \(nowhere) does not exist")
    }

    func testHelpNamesEveryOption() {
        for command in [GenerateCommand.declaration, BenchCommand.declaration, DoctorCommand.declaration] {
            for option in command.options {
                XCTAssertTrue(command.usage.contains(option.name), option.name)
            }
        }
        XCTAssertThrowsError(try GenerateCommand(["model", "-h"])) { XCTAssertTrue($0 is HelpRequest) }
    }

    func testExitCodes() {
        let codes: [(any Error, ExitCode)] = [
            (UsageError(reason: ""), .usage), (SnapError.request(reason: ""), .usage),
            (SnapError.artifact(path: "", reason: ""), .input), (SnapError.notFinite(stage: .unet, step: 1), .input),
            (SnapError.unsupported(reason: ""), .unsupported), (SnapError.model(stage: .unet, reason: ""), .failure),
            (SnapError.cancelled, .failure), (CocoaError(.fileNoSuchFile), .failure),
        ]
        for (error, code) in codes {
            XCTAssertEqual(ExitCode(error), code, "\(error)")
        }
    }

    /// By hand: two letters replaced and one inserted; nothing; everything.
    func testEditDistance() {
        XCTAssertEqual(editDistance("kitten", "sitting"), 3)
        XCTAssertEqual(editDistance("--seed", "--seed"), 0)
        XCTAssertEqual(editDistance("", "abc"), 3)
        XCTAssertEqual(editDistance("abc", ""), 3)
    }
}
