import CoreVideo
import Foundation

/// Values of features, by name. Only objects are providers, as in the framework.
public protocol MLFeatureProvider: AnyObject {
    /// The features that have a value.
    var featureNames: Set<String> { get }

    /// The value of a feature; `nil` when there is none.
    func featureValue(for featureName: String) -> MLFeatureValue?
}

/// The value of a feature; here a multi-array or an image.
public final class MLFeatureValue: NSObject {
    /// The multi-array; `nil` when the value is an image.
    public let multiArrayValue: MLMultiArray?
    /// The image; `nil` when the value is a multi-array.
    public let imageBufferValue: CVPixelBuffer?

    /// The kind of the value.
    public var type: MLFeatureType { imageBufferValue == nil ? .multiArray : .image }

    /// A value that shares the memory of the array.
    public init(multiArray value: MLMultiArray) {
        multiArrayValue = value
        imageBufferValue = nil
    }

    /// A value that shares the memory of the image.
    public init(pixelBuffer value: CVPixelBuffer) {
        multiArrayValue = nil
        imageBufferValue = value
    }
}

/// Values in a dictionary.
public final class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    /// The values.
    public let dictionary: [String: MLFeatureValue]

    /// A provider of these values, each an `MLFeatureValue` or an `MLMultiArray`.
    ///
    /// - Throws: when one is anything else.
    public init(dictionary: [String: Any]) throws {
        self.dictionary = try dictionary.mapValues { value in
            switch value {
            case let value as MLFeatureValue: return value
            case let array as MLMultiArray: return MLFeatureValue(multiArray: array)
            default: throw modelError(.generic, "a value of type \(Swift.type(of: value)) is no feature value")
            }
        }
    }

    public var featureNames: Set<String> { Set(dictionary.keys) }

    public func featureValue(for featureName: String) -> MLFeatureValue? {
        dictionary[featureName]
    }
}
