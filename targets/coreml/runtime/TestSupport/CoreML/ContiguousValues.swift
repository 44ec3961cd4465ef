/// The elements of a multi-array side by side: its own memory where they lie so, a copy elsewhere. `memory` is valid as long as
/// this object lives.
final class ContiguousValues {
    let memory: UnsafeMutableRawBufferPointer
    private let array: MLMultiArray
    private let isCopy: Bool

    /// Elements to be read.
    init(of array: MLMultiArray) {
        self.array = array
        isCopy = !array.layout.isContiguous
        memory = Self.memory(of: array, isCopy: isCopy)
        if isCopy { copy { $0.copyMemory(from: $1, byteCount: $2) } }
    }

    /// Room for elements that ``writeBack()`` puts into the array.
    init(for array: MLMultiArray) {
        self.array = array
        isCopy = !array.layout.isContiguous
        memory = Self.memory(of: array, isCopy: isCopy)
    }

    deinit {
        if isCopy { memory.deallocate() }
    }

    /// Puts the elements into the array.
    func writeBack() {
        if isCopy { copy { $1.copyMemory(from: $0, byteCount: $2) } }
    }

    private static func memory(of array: MLMultiArray, isCopy: Bool) -> UnsafeMutableRawBufferPointer {
        // No array has more elements than its extent, whose bytes are counted.
        let bytes = array.count * array.dataType.size
        return isCopy
            ? UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
            : UnsafeMutableRawBufferPointer(start: array.dataPointer, count: bytes)
    }

    /// Calls `move` for each element with its place here, its place in the array and its bytes.
    private func copy(_ move: (UnsafeMutableRawPointer, UnsafeMutableRawPointer, Int) -> Void) {
        guard var place = memory.baseAddress else { return }
        let size = array.dataType.size
        array.layout.forEachOffset { offset in
            move(place, array.dataPointer + offset * size, size)
            place += size
        }
    }
}
