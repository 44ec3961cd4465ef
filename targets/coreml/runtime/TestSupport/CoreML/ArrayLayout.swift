/// Where the elements of a multi-array lie.
struct ArrayLayout: Equatable {
    /// Sizes of the axes.
    let shape: [Int]
    /// Elements from one to the next along each axis.
    let strides: [Int]
    /// Number of elements.
    let count: Int
    /// Elements from the first to the last, gaps between them included.
    let extent: Int

    /// `nil` when there is no axis, a size or stride is not positive, or the numbers grow too large.
    init?(_ shape: [Int], strides: [Int]) {
        guard !shape.isEmpty, shape.count == strides.count else { return nil }
        var (count, last) = (1, 0)
        for (size, stride) in zip(shape, strides) {
            guard size > 0, stride > 0 else { return nil }
            let product = count.multipliedReportingOverflow(by: size)
            let step = (size - 1).multipliedReportingOverflow(by: stride)
            let sum = last.addingReportingOverflow(step.partialValue)
            guard !product.overflow, !step.overflow, !sum.overflow else { return nil }
            (count, last) = (product.partialValue, sum.partialValue)
        }
        guard last < Int.max else { return nil }
        self.shape = shape
        self.strides = strides
        self.count = count
        extent = last + 1
    }

    /// Elements side by side, the last axis first.
    init?(contiguous shape: [Int]) {
        self.init(shape, rowStride: shape.last ?? 0)
    }

    /// Rows of the last axis that begin at multiples of 64 bytes and have a gap behind them, as buffers of the Neural Engine may
    /// have; arrays of one axis have no gaps.
    init?(padded shape: [Int], _ dataType: MLMultiArrayDataType) {
        let (line, last) = (64 / dataType.size, shape.last ?? 0)
        guard shape.count > 1, last > 0, last < Int.max - line else {
            self.init(contiguous: shape)
            return
        }
        self.init(shape, rowStride: (last / line + 1) * line)
    }

    private init?(_ shape: [Int], rowStride: Int) {
        var strides = [Int](repeating: 1, count: shape.count)
        var next = rowStride
        for axis in shape.indices.dropLast().reversed() {
            strides[axis] = next
            let product = next.multipliedReportingOverflow(by: shape[axis])
            guard !product.overflow else { return nil }
            next = product.partialValue
        }
        self.init(shape, strides: strides)
    }

    /// Whether the elements lie side by side, the last axis first.
    var isContiguous: Bool {
        self == ArrayLayout(contiguous: shape)
    }

    /// Bytes from the first element to the end of the last; `nil` when they cannot be counted.
    func bytes(of dataType: MLMultiArrayDataType) -> Int? {
        let product = extent.multipliedReportingOverflow(by: dataType.size)
        return product.overflow ? nil : product.partialValue
    }

    /// Calls `body` for each element in row-major order with its distance from the first, in elements.
    func forEachOffset(_ body: (Int) -> Void) {
        var index = [Int](repeating: 0, count: shape.count)
        var offset = 0
        for _ in 0..<count {
            body(offset)
            for axis in shape.indices.reversed() {
                index[axis] += 1
                offset += strides[axis]
                if index[axis] < shape[axis] { break }
                offset -= shape[axis] * strides[axis]
                index[axis] = 0
            }
        }
    }
}

/// A shape as messages say it: `2 × 4 × 16 × 16`.
func text(of shape: [Int]) -> String {
    shape.map(String.init).joined(separator: " × ")
}
