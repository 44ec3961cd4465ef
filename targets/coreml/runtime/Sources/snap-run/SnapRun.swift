import Foundation
import SnapRuntime

/// The command line of SnapRuntime.
@main
struct SnapRun {
    static let usage = """
        Run Core ML artifacts of snapc

        Usage: snap-run COMMAND ARTIFACT [OPTIONS]

        Commands:
          generate  Make a picture
          bench     Time the networks
          doctor    Check the files, and tell where Core ML runs what

        `snap-run COMMAND --help` shows the options of a command.
        Exit codes: 0 done, 2 usage, 3 input invalid or incomplete, 4 not supported, 70 internal error.
        """

    static func main() async {
        let code = await run(Array(CommandLine.arguments.dropFirst()))
        exit(code.rawValue)
    }

    /// Runs a command and tells about its failure.
    static func run(_ arguments: [String]) async -> ExitCode {
        do {
            try await dispatch(arguments)
            return .done
        } catch let help as HelpRequest {
            Console.result(help.text)
            return .done
        } catch {
            Console.say("error: \(ExitCode.message(of: error))")
            return ExitCode(error)
        }
    }

    private static func dispatch(_ arguments: [String]) async throws {
        let rest = Array(arguments.dropFirst())
        switch arguments.first {
        case "generate": try await GenerateCommand(rest).run()
        case "bench": try await BenchCommand(rest).run()
        case "doctor": try await DoctorCommand(rest).run()
        case "-h", "--help", "help": throw HelpRequest(text: usage)
        case nil: throw UsageError(reason: "no command is given; choose generate, bench or doctor")
        case let word?: throw UsageError(reason: "'\(word)' is no command; choose generate, bench or doctor")
        }
    }
}
