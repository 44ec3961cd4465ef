import Foundation
import SnapRuntime

/// Options of all commands that load models.
enum Loading {
    static let declarations = [
        OptionDeclaration(
            name: "--compute-units", value: "UNITS",
            help: "Processors for Core ML: \(ComputeUnits.allCases.map(\.rawValue).joined(separator: ", ")) [default: all]"),
        OptionDeclaration(
            name: "--cache", value: "DIR", help: "Where compiled packages are kept [default: the user's caches]"),
        OptionDeclaration(
            name: "--size", value: "SIZE",
            help: "Size of the picture in pixels, N or HxW, of those that the artifact has [default: its first]"),
    ]

    static func options(_ arguments: Arguments) throws -> Pipeline.Options {
        var options = Pipeline.Options(cacheFolder: arguments.file("--cache"))
        options.computeUnits = try arguments.choice("--compute-units", of: ComputeUnits.self) ?? .all
        options.size = try arguments.number(
            "--size", "a number of pixels such as 512, or HEIGHTxWIDTH such as 384x512",
            where: { (_: PictureSize) in true })
        return options
    }

    /// Says on standard error what takes long.
    @Sendable static func tell(_ progress: InstallProgress) {
        if progress.state == .compiling {
            Console.say("compiling \(progress.package) (\(progress.index + 1) of \(progress.count))")
        }
    }
}
