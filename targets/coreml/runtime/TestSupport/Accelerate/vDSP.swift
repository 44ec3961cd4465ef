/// Elements from one to the next.
public typealias vDSP_Stride = Int
/// A number of elements.
public typealias vDSP_Length = UInt

/// Transposes a row-major matrix.
///
/// - Parameters:
///   - __A: The matrix, of `__N` rows and `__M` columns.
///   - __IA: Elements from one of its values to the next.
///   - __C: Memory of the result, of `__M` rows and `__N` columns.
///   - __IC: Elements from one of its values to the next.
public func vDSP_mtrans(
    _ __A: UnsafePointer<Float>, _ __IA: vDSP_Stride, _ __C: UnsafeMutablePointer<Float>, _ __IC: vDSP_Stride,
    _ __M: vDSP_Length, _ __N: vDSP_Length
) {
    let (rows, columns) = (Int(__M), Int(__N))
    for row in 0..<rows {
        for column in 0..<columns {
            __C[(row * columns + column) * __IC] = __A[(column * rows + row) * __IA]
        }
    }
}
