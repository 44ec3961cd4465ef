//! What a package says about itself: features and metadata, without its program.

use std::collections::BTreeMap;
use std::path::Path;

use snapc_ir::DType;

use super::error::ReadError;
use super::package::Package;
use crate::proto::{ArrayDataType, ColorSpace, FeatureDescription, Metadata, Model};

/// The description of a package, as an app sees it before it loads the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `specificationVersion` of the model.
    pub specification_version: i32,
    /// Inputs in order.
    pub inputs: Vec<ArrayFeature>,
    /// Outputs in order.
    pub outputs: Vec<ArrayFeature>,
    /// Author, licence, version and texts.
    pub metadata: PackageMetadata,
}

/// An input or output: a multi-array, or an output that is an RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayFeature {
    /// Its name.
    pub name: String,
    /// Element type: f16, f32 or i32 of a multi-array; u8 of an image.
    pub dtype: DType,
    /// Sizes of the axes; of an image 1, 3 channels (red, green, blue), rows and columns.
    pub shape: Vec<usize>,
}

/// Facts about a package for people; empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageMetadata {
    /// What the model does.
    pub description: String,
    /// Version of the model.
    pub version: String,
    /// Who made it.
    pub author: String,
    /// Its licence.
    pub license: String,
    /// Facts under keys of the maker's own.
    pub user_defined: BTreeMap<String, String>,
}

/// Reads the description of a package; of one that has several functions that of its default one.
///
/// # Errors
/// When the manifest or the model file is missing, malformed or outside of the package, or a feature is neither a multi-array of
/// f16, f32 or i32 nor an output that is an RGB image.
pub fn describe(package: &Path) -> Result<Description, ReadError> {
    describe_one(package, None)
}

/// Reads the description of one function of a package that has several; [`describe`] takes the default one.
///
/// # Errors
/// As [`describe`], and when there is no such function.
pub fn describe_function(package: &Path, function: &str) -> Result<Description, ReadError> {
    describe_one(package, Some(function))
}

fn describe_one(package: &Path, function: Option<&str>) -> Result<Description, ReadError> {
    let Package {
        model, model_file, ..
    } = Package::open(package)?;
    description(model, function).map_err(|reason| ReadError::File {
        path: model_file,
        reason,
    })
}

fn description(model: Model, function: Option<&str>) -> Result<Description, String> {
    let mut described = model.description.ok_or("the model has no description")?;
    let default = (!described.functions.is_empty()).then(|| &*described.default_function_name);
    if let Some(name) = function.or(default) {
        let name = name.to_owned();
        let functions = std::mem::take(&mut described.functions).into_iter();
        let (found, others): (Vec<_>, Vec<_>) = functions.partition(|f| f.name == name);
        let found = found.into_iter().next().ok_or_else(|| match &others[..] {
            [] => format!("there is no function '{name}': it has one function, without a name"),
            _ => {
                let known = others.iter().map(|f| format!("'{}'", f.name));
                let known: Vec<String> = known.collect();
                format!("there is no function '{name}'; it has {}", known.join(", "))
            }
        })?;
        (described.input, described.output) = (found.input, found.output);
    }
    let inputs: Result<Vec<_>, _> = described.input.iter().map(array).collect();
    let outputs: Result<Vec<_>, _> = described.output.iter().map(output).collect();
    Ok(Description {
        specification_version: model.specification_version,
        inputs: inputs.map_err(|e| format!("input {e}"))?,
        outputs: outputs.map_err(|e| format!("output {e}"))?,
        metadata: described.metadata.map(metadata).unwrap_or_default(),
    })
}

fn output(feature: &FeatureDescription) -> Result<ArrayFeature, String> {
    let name = &feature.name;
    let Some(image) = feature.ty.as_ref().and_then(|ty| ty.image.as_ref()) else {
        return array(feature);
    };
    if image.color_space != ColorSpace::Rgb as i32 {
        return Err(format!("'{name}' is an image that is not RGB"));
    }
    Ok(ArrayFeature {
        name: name.clone(),
        dtype: DType::U8,
        shape: sizes(name, &[1, 3, image.height, image.width])?,
    })
}

fn array(feature: &FeatureDescription) -> Result<ArrayFeature, String> {
    let name = &feature.name;
    let array = feature.ty.as_ref().and_then(|ty| ty.multi_array.as_ref());
    let array = array.ok_or_else(|| format!("'{name}' is no multi-array"))?;
    let dtype = match ArrayDataType::try_from(array.data_type) {
        Ok(ArrayDataType::Float16) => DType::F16,
        Ok(ArrayDataType::Float32) => DType::F32,
        Ok(ArrayDataType::Int32) => DType::I32,
        _ => {
            let code = array.data_type;
            return Err(format!(
                "'{name}' has the element type {code}, which is not f16, f32 or i32"
            ));
        }
    };
    Ok(ArrayFeature {
        name: name.clone(),
        dtype,
        shape: sizes(name, &array.shape)?,
    })
}

fn sizes(name: &str, shape: &[i64]) -> Result<Vec<usize>, String> {
    let sizes = shape.iter().map(|&size| usize::try_from(size));
    let sizes: Result<_, _> = sizes.collect();
    sizes.map_err(|_| format!("'{name}' has a negative dimension"))
}

fn metadata(metadata: Metadata) -> PackageMetadata {
    PackageMetadata {
        description: metadata.short_description,
        version: metadata.version_string,
        author: metadata.author,
        license: metadata.license,
        user_defined: metadata.user_defined,
    }
}
