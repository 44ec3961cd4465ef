/// The description of a package as `snap_coreml_description` gives it.
struct ModelRecord: Decodable {
    /// An input or output.
    struct Feature: Decodable {
        let name: String
        let dtype: ElementType
        let shape: [Int]
    }

    /// An element type of features; `u8` is that of images.
    enum ElementType: String, Decodable {
        case f16, f32, i32, u8

        /// As multi-arrays have it; `nil` for images.
        var dataType: MLMultiArrayDataType? {
            switch self {
            case .f16: return .float16
            case .f32: return .float32
            case .i32: return .int32
            case .u8: return nil
            }
        }
    }

    /// Facts for people.
    struct Metadata: Decodable {
        let description: String
        let version: String
        let author: String
        let license: String
        let userDefined: [String: String]

        enum CodingKeys: String, CodingKey {
            case description, version, author, license
            case userDefined = "user_defined"
        }
    }

    let inputs: [Feature]
    let outputs: [Feature]
    let metadata: Metadata
}
