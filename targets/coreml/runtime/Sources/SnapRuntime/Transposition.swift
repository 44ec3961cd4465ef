#if canImport(Accelerate)
    import Accelerate
#endif

/// A row-major matrix with its axes exchanged.
func transposed(_ values: [Float], columns: Int) -> [Float] {
    let rows = values.count / max(columns, 1)
    return [Float](unsafeUninitializedCapacity: values.count) { buffer, initialized in
        guard let target = buffer.baseAddress, rows > 0 else {
            return
        }
        values.withUnsafeBufferPointer { source in
            #if canImport(Accelerate)
                if let from = source.baseAddress {
                    vDSP_mtrans(from, 1, target, 1, vDSP_Length(columns), vDSP_Length(rows))
                }
            #else
                for column in 0..<columns {
                    for row in 0..<rows {
                        target[column * rows + row] = source[row * columns + column]
                    }
                }
            #endif
        }
        initialized = rows * columns
    }
}
