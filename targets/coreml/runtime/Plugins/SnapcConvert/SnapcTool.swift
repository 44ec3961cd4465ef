import Foundation
import PackagePlugin

/// Name of the settings file in a target's folder; the `--config` of `snapc convert`.
let settingsFileName = "snapc.toml"

/// Why a plugin could not convert.
enum SnapcError: Error, CustomStringConvertible {
    /// No `snapc` was found in these folders.
    case notFound([String])
    /// What the environment variable `SNAPC` names is no executable file.
    case notExecutable(String)
    /// No target that was looked at has a settings file.
    case noSettings([String])
    /// `snapc` ended with this code for the target; it has said why.
    case failed(target: String, code: Int32)

    var description: String {
        switch self {
        case .notFound(let folders):
            return "snapc is in none of \(folders.joined(separator: ", ")); install it, or name it with the environment variable SNAPC"
        case .notExecutable(let path):
            return "SNAPC names '\(path)', which is no executable file"
        case .noSettings(let targets):
            return "no \(settingsFileName) in the folders of the targets \(targets.joined(separator: ", "))"
        case .failed(let target, let code):
            return "snapc ended with code \(code) for the target '\(target)'"
        }
    }
}

/// Where `snapc` is: what the environment variable `SNAPC` names, else the first on `PATH`, else where cargo and Homebrew
/// install, because Xcode starts with a `PATH` of the system alone.
func findSnapc() throws -> Path {
    let environment = ProcessInfo.processInfo.environment
    if let named = environment["SNAPC"] {
        let path = URL(fileURLWithPath: named).path
        guard isExecutableFile(path) else { throw SnapcError.notExecutable(named) }
        return Path(path)
    }
    var folders = environment["PATH", default: ""].split(separator: ":").map(String.init)
    folders += ["\(NSHomeDirectory())/.cargo/bin", "/opt/homebrew/bin", "/usr/local/bin"]
    guard let folder = folders.first(where: { isExecutableFile("\($0)/snapc") }) else {
        throw SnapcError.notFound(folders)
    }
    return Path("\(folder)/snapc")
}

private func isExecutableFile(_ path: String) -> Bool {
    var isFolder: ObjCBool = false
    let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
    return exists && !isFolder.boolValue && FileManager.default.isExecutableFile(atPath: path)
}

/// The settings file of a target, if it has one.
func settingsFile(of target: Target) -> Path? {
    let path = target.directory.appending(settingsFileName)
    return FileManager.default.fileExists(atPath: path.string) ? path : nil
}
