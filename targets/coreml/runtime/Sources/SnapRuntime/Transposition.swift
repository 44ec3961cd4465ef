import Accelerate

/// A row-major matrix with its axes exchanged.
func transposed(_ values: [Float], columns: Int) -> [Float] {
    let rows = values.count / max(columns, 1)
    return [Float](unsafeUninitializedCapacity: values.count) { buffer, initialized in
        guard let target = buffer.baseAddress, rows > 0 else {
            return
        }
        values.withUnsafeBufferPointer { source in
            if let from = source.baseAddress {
                vDSP_mtrans(from, 1, target, 1, vDSP_Length(columns), vDSP_Length(rows))
            }
        }
        initialized = rows * columns
    }
}
