/// Copies elements of a strided array to dense memory, the longest dense pieces at once.
struct StridedCopy {
    /// Axes that are walked, from the outside.
    private let shape: [Int]
    private let strides: [Int]
    /// Bytes of a piece that is dense in the source.
    private let piece: Int
    /// Bytes of an element.
    private let size: Int

    /// - Parameters:
    ///   - shape: Dimensions of both.
    ///   - strides: Of the source, in elements.
    ///   - size: Bytes of an element.
    init(shape: [Int], strides: [Int], size: Int) {
        var (count, axes) = (1, shape.count)
        while axes > 0, strides[axes - 1] == count || shape[axes - 1] == 1 {
            count *= shape[axes - 1]
            axes -= 1
        }
        self.shape = Array(shape[..<axes])
        self.strides = Array(strides[..<axes])
        self.size = size
        piece = count * size
    }

    func run(from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer) {
        var target = target
        walk(axis: 0, source, &target)
    }

    private func walk(axis: Int, _ source: UnsafeRawPointer, _ target: inout UnsafeMutableRawPointer) {
        guard axis < shape.count else {
            target.copyMemory(from: source, byteCount: piece)
            target += piece
            return
        }
        for index in 0..<shape[axis] {
            walk(axis: axis + 1, source + index * strides[axis] * size, &target)
        }
    }
}
