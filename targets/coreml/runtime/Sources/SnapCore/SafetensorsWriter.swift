import Foundation

extension Safetensors {
    /// Writes a file; the same tensors give the same bytes.
    ///
    /// - Parameters:
    ///   - tensors: Tensors of F32, in the order of the file; names are unique.
    ///   - integers: Tensors of I32, which stand behind the others.
    ///   - metadata: What the file says about itself.
    ///   - url: Where to write. The file appears whole or not at all, and replaces one that is there.
    /// - Throws: ``SnapError/request(reason:)`` when a shape does not fit its values or a name stands twice,
    ///   ``SnapError/artifact(path:reason:)`` when the file cannot be written.
    public static func write(
        _ tensors: [(name: String, shape: [Int], values: [Float])],
        integers: [(name: String, shape: [Int], values: [Int32])] = [], metadata: [String: String], to url: URL
    ) throws {
        var header = HeaderWriter(metadata: metadata)
        for (name, shape, values) in tensors {
            try header.add(name, dtype: .f32, shape: shape, count: values.count)
        }
        for (name, shape, values) in integers {
            try header.add(name, dtype: .i32, shape: shape, count: values.count)
        }
        let json = header.json
        var file = Data()
        file.reserveCapacity(8 + json.count + header.position)
        append(CollectionOfOne(UInt64(json.count)), to: &file)
        file.append(contentsOf: json)
        for tensor in tensors {
            append(tensor.values.map(\.bitPattern), to: &file)
        }
        for tensor in integers {
            append(tensor.values, to: &file)
        }
        do {
            try file.write(to: url, options: .atomic)
        } catch {
            throw SnapError.artifact(path: url.path, reason: "cannot be written: \(error.localizedDescription)")
        }
    }

    private static func append<Word: FixedWidthInteger>(_ words: some Collection<Word>, to file: inout Data) {
        words.map(\.littleEndian).withUnsafeBytes { file.append(contentsOf: $0) }
    }
}

/// The header of a file, tensor by tensor.
private struct HeaderWriter {
    /// Bytes of the tensors so far.
    private(set) var position = 0
    private var entries: [String] = []
    /// As bytes, because equality of Swift's strings is canonical equivalence.
    private var names: Set<[UInt8]> = [Array(SafetensorsHeader.metadataKey.utf8)]

    init(metadata: [String: String]) {
        if !metadata.isEmpty {
            let pairs = metadata.sorted { $0.key < $1.key }.map { "\(quoted($0.key)):\(quoted($0.value))" }
            entries.append("\(quoted(SafetensorsHeader.metadataKey)):{\(pairs.joined(separator: ","))}")
        }
    }

    mutating func add(_ name: String, dtype: SafetensorsHeader.ElementType, shape: [Int], count: Int) throws {
        guard names.insert(Array(name.utf8)).inserted else {
            throw SnapError.request(reason: "cannot write two tensors '\(name)'; give each a name of its own")
        }
        guard shape.allSatisfy({ $0 >= 0 }), checkedProduct(shape) == count else {
            throw SnapError.request(reason: "cannot write tensor '\(name)' with \(count) values in the shape \(shape)")
        }
        let end = position + dtype.size * count
        let sizes = shape.map(String.init).joined(separator: ",")
        entries.append(
            "\(quoted(name)):{\"dtype\":\"\(dtype.rawValue)\",\"shape\":[\(sizes)],\"data_offsets\":[\(position),\(end)]}")
        position = end
    }

    /// The bytes, padded with spaces so that the tensors are aligned.
    var json: [UInt8] {
        let text = Array("{\(entries.joined(separator: ","))}".utf8)
        return text + [UInt8](repeating: UInt8(ascii: " "), count: (8 - text.count % 8) % 8)
    }
}

/// The product of sizes; nil when it is beyond an integer.
func checkedProduct(_ sizes: [Int]) -> Int? {
    var product = 1
    for size in sizes {
        let (next, overflow) = product.multipliedReportingOverflow(by: size)
        guard !overflow else {
            return nil
        }
        product = next
    }
    return product
}

/// A JSON string.
private func quoted(_ text: String) -> String {
    var quoted = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": quoted += "\\\""
        case "\\": quoted += "\\\\"
        case "\u{0}"..."\u{1f}":
            let digits = String(scalar.value, radix: 16)
            quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: quoted.unicodeScalars.append(scalar)
        }
    }
    return quoted + "\""
}
