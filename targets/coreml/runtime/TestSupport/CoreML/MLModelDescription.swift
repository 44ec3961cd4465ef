import Foundation

/// What a model takes and gives.
public final class MLModelDescription: NSObject {
    /// The inputs.
    public let inputDescriptionsByName: [String: MLFeatureDescription]
    /// The outputs.
    public let outputDescriptionsByName: [String: MLFeatureDescription]
    /// Author, licence, version and texts of the package.
    public let metadata: [MLModelMetadataKey: Any]

    init(_ record: ModelRecord) {
        let byName = { (features: [ModelRecord.Feature]) in
            Dictionary(features.map { ($0.name, MLFeatureDescription($0)) }, uniquingKeysWith: { first, _ in first })
        }
        inputDescriptionsByName = byName(record.inputs)
        outputDescriptionsByName = byName(record.outputs)
        metadata = [
            .description: record.metadata.description,
            .versionString: record.metadata.version,
            .author: record.metadata.author,
            .license: record.metadata.license,
            .creatorDefinedKey: record.metadata.userDefined,
        ]
    }
}

/// Keys of a model's metadata.
public struct MLModelMetadataKey: RawRepresentable, Hashable, Sendable {
    /// The text of the key.
    public let rawValue: String

    /// The key of that text.
    public init(rawValue: String) {
        self.rawValue = rawValue
    }

    /// What the model does: `String`.
    public static let description = MLModelMetadataKey(rawValue: "MLModelDescriptionKey")
    /// Version of the model: `String`.
    public static let versionString = MLModelMetadataKey(rawValue: "MLModelVersionStringKey")
    /// Who made it: `String`.
    public static let author = MLModelMetadataKey(rawValue: "MLModelAuthorKey")
    /// Its licence: `String`.
    public static let license = MLModelMetadataKey(rawValue: "MLModelLicenseKey")
    /// Facts under keys of the maker's own: `[String: String]`.
    public static let creatorDefinedKey = MLModelMetadataKey(rawValue: "MLModelCreatorDefinedKey")
}

/// The kinds of values that features have.
public enum MLFeatureType: Int, Sendable {
    /// None.
    case invalid = 0
    /// An integer.
    case int64 = 1
    /// A number.
    case double = 2
    /// A text.
    case string = 3
    /// A picture.
    case image = 4
    /// Numbers along any number of axes.
    case multiArray = 5
    /// Numbers by key.
    case dictionary = 6
    /// A list.
    case sequence = 7
}

/// An input or output.
public final class MLFeatureDescription: NSObject {
    /// Its name.
    public let name: String
    /// The kind of its value; here a multi-array or an image.
    public let type: MLFeatureType
    /// Whether it may be left out; here never.
    public let isOptional: Bool
    /// Shape and element type of a multi-array; `nil` for an image.
    public let multiArrayConstraint: MLMultiArrayConstraint?

    init(_ feature: ModelRecord.Feature) {
        name = feature.name
        isOptional = false
        multiArrayConstraint = feature.dtype.dataType.map { MLMultiArrayConstraint(shape: feature.shape, dataType: $0) }
        type = multiArrayConstraint == nil ? .image : .multiArray
    }
}

/// What a multi-array must be to be given for a feature.
public final class MLMultiArrayConstraint: NSObject {
    /// Sizes of the axes.
    public let shape: [NSNumber]
    /// Element type.
    public let dataType: MLMultiArrayDataType

    init(shape: [Int], dataType: MLMultiArrayDataType) {
        self.shape = shape.map { NSNumber(value: $0) }
        self.dataType = dataType
    }
}
