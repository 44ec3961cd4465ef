//! The rules that packages are checked against.

/// A rule of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Id, as findings cite it.
    pub id: &'static str,
    /// What holds.
    pub text: &'static str,
}

macro_rules! rules {
    ($($name:ident = $id:literal: $text:literal),* $(,)?) => {
        $(pub(crate) const $name: &str = $id;)*

        /// Every rule.
        pub const RULES: &[Rule] = &[$(Rule { id: $id, text: $text }),*];
    };
}

rules! {
    PACKAGES = "cml-01-packages": "the artifact holds at least one .mlpackage folder",
    MANIFEST = "cml-02-manifest": "Manifest.json is a regular file, a JSON object with fileFormatVersion 1.0.0, itemInfoEntries and rootModelIdentifier",
    MANIFEST_ITEM = "cml-03-manifest-item": "every item has author, description, name and path, and the path exists under Data",
    MANIFEST_ROOT = "cml-04-manifest-root": "rootModelIdentifier names an item that is the model file",
    MANIFEST_WEIGHTS = "cml-05-manifest-weights": "the weights' folder has an item",
    DECODE = "cml-06-decode": "the model file is a regular file, a Model message that holds an ML Program",
    SPECIFICATION = "cml-07-specification": "specificationVersion is 7, 8, 9 or 10",
    PROGRAM = "cml-08-program": "the program has version 1 and one function, main, or from iOS 18 on several, each with one block and no attributes",
    OPSET = "cml-09-opset": "the function's opset and its block's key are the one of specificationVersion",
    IDENTIFIER = "cml-10-identifier": "names are [A-Za-z_][A-Za-z0-9_]* and no word of the language",
    UNIQUE = "cml-11-unique": "a name is defined once",
    DEFINED = "cml-12-defined": "an operation uses only names that are defined before it, and the block gives out only names that are defined",
    OUTPUT = "cml-13-output": "a block output is the result of an operation, and given out once",
    NAMED = "cml-14-operation-name": "an operation has a name attribute, one string, and no attribute that is not its own",
    TYPE = "cml-15-value-type": "a type is a tensor of known element type whose rank is the number of its constant dimensions, none for a scalar",
    RANK = "cml-16-rank": "a value has at most five dimensions, the operand of linear at most three",
    DESCRIPTION = "cml-17-description": "the description has the inputs and outputs of every function in order, with equal names, element types and shapes",
    FUNCTIONS = "cml-33-functions": "several functions are described one by one, and one of them is the default; a single one is described by the model itself",
    FEATURE = "cml-18-feature": "a feature is a multi-array of fp16, fp32 or int32 with one dimension or more, or an output that is an RGB image, and not optional",
    OPERATION = "cml-19-operation": "an operation is known at the package's level and has one result and no block",
    PARAMETER = "cml-20-parameter": "an operation has no parameter that its signature lacks at the package's level",
    MISSING = "cml-21-missing-parameter": "every parameter that the system's parser wants is written, defaults too",
    KIND = "cml-22-parameter-kind": "a parameter is of the kind its signature says: constant or not, scalar or vector, element type, word",
    SAME_TYPE = "cml-23-element-types": "operands that must have one element type have it, and the result has the one that follows",
    CONSTANT = "cml-24-constant": "a const has a value of its result's type, with as many elements as the type, in the field of its element type",
    INLINE = "cml-25-inline": "operations take constants by name",
    CONSTEXPR = "cml-26-constexpr": "parameters of a compressed constant are attributes up to CoreML7 and inputs from CoreML8 on",
    CONSTEXPR_PARAMETERS = "cml-31-constexpr-parameters": "the parameters of a compressed constant go with each other and with the result",
    BLOB_FILE = "cml-27-blob-file": "the weight file is a regular file, has version 2 and the number of blobs that are referred to, and is named @model_path/weights/weight.bin",
    BLOB_OFFSET = "cml-28-blob-offset": "a blob's offset is a multiple of 64, inside the file, and that of its metadata",
    BLOB_DATA = "cml-29-blob-data": "a blob's element type and size are those of the constant, and its data is right behind the metadata and inside the file",
    IMAGE = "cml-32-image": "an image is floats of shape [1, 3, height, width], cut off at 0 and 255 by the operation that makes them",
    SHAPE = "cml-30-shape": "the result's declared shape is the one that follows from the operands",
}
