import Foundation

extension Manifest {
    /// Reads `snap.json` of an artifact and checks that its values can be run.
    ///
    /// - Parameter folder: The artifact.
    /// - Throws: ``SnapError/artifact(path:reason:)`` when the file is missing, is no manifest, or has another schema
    ///   version or target; the reason names the field.
    public static func read(folder: URL) throws -> Manifest {
        let file = folder.appendingPathComponent(fileName)
        return try decode(readArtifactFile(file), path: file.path)
    }

    /// The manifest in the bytes of a file; `path` is for errors.
    static func decode(_ json: Data, path: String) throws -> Manifest {
        func refused(_ reason: String) -> SnapError { .artifact(path: path, reason: reason) }
        do {
            // First of all, because the other fields may be those of another version.
            let version = try JSONDecoder().decode(SchemaVersion.self, from: json).schemaVersion
            guard version == supportedSchemaVersion else {
                throw refused(
                    "field 'schema_version' is \(version), but this runtime reads version \(supportedSchemaVersion); "
                        + "convert the checkpoint with the snapc that this runtime came with")
            }
            let manifest = try JSONDecoder().decode(Manifest.self, from: json)
            if let problem = manifest.firstProblem() {
                throw refused("field '\(problem.field)' \(problem.reason); convert the checkpoint again")
            }
            return manifest
        } catch let error as DecodingError {
            throw refused("\(describe(error)); convert the checkpoint again")
        }
    }

    /// The one field that all schema versions have.
    private struct SchemaVersion: Decodable {
        var schemaVersion: Int

        private enum CodingKeys: String, CodingKey {
            case schemaVersion = "schema_version"
        }
    }
}

/// The bytes of a file of an artifact.
///
/// - Throws: ``SnapError/artifact(path:reason:)`` when it cannot be read.
func readArtifactFile(_ file: URL, options: Data.ReadingOptions = []) throws -> Data {
    guard FileManager.default.fileExists(atPath: file.path) else {
        throw SnapError.artifact(path: file.path, reason: "does not exist; copy the whole artifact folder")
    }
    do {
        return try Data(contentsOf: file, options: options)
    } catch {
        throw SnapError.artifact(path: file.path, reason: "cannot be read: \(error.localizedDescription)")
    }
}

/// The field and what is wrong with it.
private func describe(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, let context):
        return "\(place(context.codingPath + [key])) is missing"
    case .valueNotFound(_, let context):
        return "\(place(context.codingPath)) is null"
    case .typeMismatch(let type, let context):
        return "\(place(context.codingPath)) is not of type \(type)"
    case .dataCorrupted(let context) where context.codingPath.isEmpty:
        // Foundation reports numbers beyond their type in this way too, and without the field.
        return "is not JSON, or has a number that its field cannot hold (\(context.debugDescription))"
    case .dataCorrupted(let context):
        return "\(place(context.codingPath)) has a value unknown to this runtime (\(context.debugDescription))"
    @unknown default:
        return "is not a manifest (\(error))"
    }
}

/// A field like `graphs[1].inputs[0].dtype`, quoted.
private func place(_ path: [any CodingKey]) -> String {
    guard !path.isEmpty else {
        return "the document"
    }
    let name = path.reduce(into: "") { name, key in
        if let index = key.intValue {
            name += "[\(index)]"
        } else {
            name += name.isEmpty ? key.stringValue : ".\(key.stringValue)"
        }
    }
    return "field '\(name)'"
}
