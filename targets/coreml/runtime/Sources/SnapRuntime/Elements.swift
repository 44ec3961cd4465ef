import Accelerate
import SnapCore

extension Manifest.ElementType {
    /// Bytes of an element.
    var size: Int {
        switch self {
        case .f16: return 2
        case .f32, .i32: return 4
        case .u8: return 1
        }
    }

    /// Writes floats as elements of this type. Half precision is rounded to nearest, ties to even; integers are rounded
    /// towards zero, to the nearest that a float holds when out of range, and NaN to 0.
    func store(_ values: UnsafeBufferPointer<Float>, at target: UnsafeMutableRawPointer) {
        guard let source = values.baseAddress, !values.isEmpty else {
            return
        }
        switch self {
        case .f16: storeHalf(source, target, values.count)
        case .f32: target.copyMemory(from: source, byteCount: values.count * size)
        case .i32:
            let integers = target.assumingMemoryBound(to: Int32.self)
            for index in 0..<values.count {
                let value = source[index]
                integers[index] = value.isNaN ? 0 : Int32(max(-0x1p31, min(value, 0x1.fffffep30)))
            }
        case .u8: preconditionFailure("pictures have no tensor")
        }
    }

    /// Reads elements of this type as floats.
    func load(_ source: UnsafeRawPointer, into values: UnsafeMutableBufferPointer<Float>) {
        guard let target = values.baseAddress, !values.isEmpty else {
            return
        }
        switch self {
        case .f16: loadHalf(source, target, values.count)
        case .f32: UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: values.count * size)
        case .i32:
            let integers = source.assumingMemoryBound(to: Int32.self)
            for index in 0..<values.count {
                target[index] = Float(integers[index])
            }
        case .u8: preconditionFailure("pictures have no tensor")
        }
    }

    /// Whether all elements are finite: those that are not have every bit of the exponent set. Integers are.
    func isFinite(_ source: UnsafeRawPointer, count: Int) -> Bool {
        switch self {
        case .f16:
            let bits = UnsafeBufferPointer(start: source.assumingMemoryBound(to: UInt16.self), count: count)
            return bits.reduce(0) { max($0, $1 & 0x7fff) } < 0x7c00
        case .f32:
            let bits = UnsafeBufferPointer(start: source.assumingMemoryBound(to: UInt32.self), count: count)
            return bits.reduce(0) { max($0, $1 & 0x7fff_ffff) } < 0x7f80_0000
        case .i32, .u8: return true
        }
    }
}

// By vImage, since Swift has no Float16 on Macs with an Intel processor.

private func storeHalf(_ source: UnsafePointer<Float>, _ target: UnsafeMutableRawPointer, _ count: Int) {
    var (from, to) = (row(UnsafeMutableRawPointer(mutating: source), count, of: 4), row(target, count, of: 2))
    check(vImageConvert_PlanarFtoPlanar16F(&from, &to, vImage_Flags(kvImageNoFlags)))
}

private func loadHalf(_ source: UnsafeRawPointer, _ target: UnsafeMutablePointer<Float>, _ count: Int) {
    var (from, to) = (row(UnsafeMutableRawPointer(mutating: source), count, of: 2), row(target, count, of: 4))
    check(vImageConvert_Planar16FtoPlanarF(&from, &to, vImage_Flags(kvImageNoFlags)))
}

/// Elements of so many bytes as the one row of a picture.
private func row(_ data: UnsafeMutableRawPointer, _ count: Int, of size: Int) -> vImage_Buffer {
    vImage_Buffer(data: data, height: 1, width: vImagePixelCount(count), rowBytes: size * count)
}

private func check(_ status: vImage_Error) {
    precondition(status == kvImageNoError, "both buffers are one row of as many elements")
}
