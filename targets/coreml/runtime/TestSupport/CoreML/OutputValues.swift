/// What a prediction writes to for an output.
enum OutputValues {
    /// A multi-array, and its elements side by side.
    case array(MLMultiArray, ContiguousValues)
    /// An image.
    case image(ImageValues)

    /// Where the library puts the elements.
    var memory: UnsafeMutableRawBufferPointer {
        switch self {
        case .array(_, let values): return values.memory
        case .image(let values): return values.memory
        }
    }

    /// The value of the output, once the library has put its elements there.
    func featureValue() -> MLFeatureValue {
        switch self {
        case .array(let array, let values):
            values.writeBack()
            return MLFeatureValue(multiArray: array)
        case .image(let values):
            return MLFeatureValue(pixelBuffer: values.pixelBuffer())
        }
    }
}
