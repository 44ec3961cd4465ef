import CSnapCoreML
import Foundation

/// An open package of the library `snap_coreml`.
final class Engine: @unchecked Sendable {
    // Calls on one model take turns within the library.
    private let handle: OpaquePointer
    /// What the package says about itself.
    let record: ModelRecord

    /// Opens the package in a folder.
    ///
    /// - Parameter function: One of its functions; nil for the default one.
    /// - Throws: when it is broken or has no such function, with what is wrong.
    init(folder: URL, function: String?) throws {
        var opened: OpaquePointer?
        guard snap_coreml_open(folder.path, function, &opened) == SNAP_COREML_OK, let opened else {
            throw modelError(.generic, lastError())
        }
        var json: UnsafePointer<CChar>?
        do {
            guard snap_coreml_description(opened, &json) == SNAP_COREML_OK, let json else {
                throw modelError(.generic, lastError())
            }
            record = try JSONDecoder().decode(ModelRecord.self, from: Data(String(cString: json).utf8))
        } catch {
            snap_coreml_close(opened)
            throw error
        }
        handle = opened
    }

    deinit {
        snap_coreml_close(handle)
    }

    /// Checks the package in a folder.
    ///
    /// - Throws: when it is broken, with what is wrong.
    static func check(folder: URL) throws {
        guard folder.path.withCString({ snap_coreml_check($0) }) == SNAP_COREML_OK else {
            throw modelError(.generic, lastError())
        }
    }

    /// A named buffer of a feature, its elements side by side.
    struct Buffer {
        let name: String
        let memory: UnsafeMutableRawBufferPointer
    }

    /// Runs the model: reads the buffers of the inputs, fills those of the outputs.
    ///
    /// - Throws: when it does not run on these values.
    func predict(inputs: [Buffer], outputs: [Buffer]) throws {
        // Names live as long as the call.
        let names = (inputs + outputs).map { strdup($0.name) }
        defer { names.forEach { free($0) } }
        let given = zip(inputs, names).map { buffer, name in
            snap_coreml_input(name: name, data: buffer.memory.baseAddress, bytes: buffer.memory.count)
        }
        let wanted = zip(outputs, names.dropFirst(inputs.count)).map { buffer, name in
            snap_coreml_output(name: name, data: buffer.memory.baseAddress, bytes: buffer.memory.count)
        }
        guard snap_coreml_predict(handle, given, given.count, wanted, wanted.count) == SNAP_COREML_OK else {
            throw modelError(.generic, lastError())
        }
    }
}

/// Why the last call of this thread failed.
private func lastError() -> String {
    String(cString: snap_coreml_last_error())
}
