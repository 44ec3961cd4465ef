import Foundation
import PackagePlugin

/// `swift package snapc-convert [--target NAME]... [FLAGS]`: converts the checkpoint that the settings file in the folder of each
/// target names, where something has changed since the last time. FLAGS go to `snapc convert`.
///
/// Packages lie where the settings file says, in the package itself, so that they can be resources of the target.
@main
struct SnapcConvert: CommandPlugin {
    func performCommand(context: PluginContext, arguments: [String]) async throws {
        var extractor = ArgumentExtractor(arguments)
        let names = extractor.extractOption(named: "target")
        let targets = try names.isEmpty ? context.package.targets : context.package.targets(named: names)
        let snapc = try findSnapc()
        var converted = false
        for target in targets {
            guard let settings = settingsFile(of: target) else { continue }
            converted = true
            let flags = ["convert", "--config", settings.string, "--target", "coreml", "--if-changed"]
            try run(snapc, flags + extractor.remainingArguments, for: target)
        }
        guard converted else { throw SnapcError.noSettings(targets.map(\.name)) }
    }

    private func run(_ snapc: Path, _ arguments: [String], for target: Target) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: snapc.string)
        process.arguments = arguments
        try process.run()
        process.waitUntilExit()
        guard process.terminationReason == .exit, process.terminationStatus == 0 else {
            throw SnapcError.failed(target: target.name, code: process.terminationStatus)
        }
    }
}
