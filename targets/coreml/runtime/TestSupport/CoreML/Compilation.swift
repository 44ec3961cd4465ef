import Foundation

/// The file that a compiled model has and a package has not, here as in the framework.
let compiledMarker = "coremldata.bin"

extension MLModel {
    /// Compiles a package: checks it and copies it to a folder with the extension `mlmodelc` in a temporary place, from where the
    /// caller moves it.
    ///
    /// - Throws: when the package is not there or broken, or the copy cannot be written.
    public static func compileModel(at modelURL: URL) async throws -> URL {
        try await blocking { try compile(modelURL) }
    }

    private static func compile(_ package: URL) throws -> URL {
        let name = package.deletingPathExtension().lastPathComponent
        try SimulatedCoreML.compiling(name)
        guard package.pathExtension == "mlpackage" else {
            throw modelError(.generic, "'\(package.path)' is no .mlpackage folder")
        }
        try Engine.check(folder: package)
        let files = FileManager.default
        let place = files.temporaryDirectory.appendingPathComponent(UUID().uuidString, isDirectory: true)
        let compiled = place.appendingPathComponent("\(name).mlmodelc", isDirectory: true)
        do {
            try files.createDirectory(at: place, withIntermediateDirectories: true)
            try files.copyItem(at: package, to: compiled)
            try Data().write(to: compiled.appendingPathComponent(compiledMarker))
        } catch {
            try? files.removeItem(at: place)
            throw modelError(.io, "cannot write '\(compiled.path)': \(error.localizedDescription)")
        }
        return compiled
    }
}
