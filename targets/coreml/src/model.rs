//! The model file: a program and the description of its features.

use std::collections::BTreeMap;

use snapc_ir::{DType, TensorType};

use crate::describe::Description;
use crate::level::Level;
use crate::lower::Lowered;
use crate::proto::{
    ArrayDataType, ArrayFeatureType, ColorSpace, FeatureDescription, FeatureType,
    FunctionDescription, ImageFeatureType, Model, ModelDescription, Program,
};

/// Name of a function that is the only one.
pub(crate) const MAIN: &str = "main";

/// A function of a package.
pub(crate) struct NamedFunction {
    /// Its name.
    pub name: String,
    /// The graph it is made of.
    pub lowered: Lowered,
}

/// The model file of the functions of a graph, of which the first is the default. One function alone is described by the
/// model itself.
pub(crate) fn model_of(
    functions: &[NamedFunction],
    level: Level,
    about: &Description<'_>,
) -> Model {
    let mut described: Vec<FunctionDescription> =
        functions.iter().map(|f| describe(f, about)).collect();
    let mut description = ModelDescription {
        metadata: Some(about.metadata()),
        ..ModelDescription::default()
    };
    if let [one] = described.as_mut_slice() {
        description.input = std::mem::take(&mut one.input);
        description.output = std::mem::take(&mut one.output);
    } else {
        description.default_function_name = functions[0].name.clone();
        description.functions = described;
    }
    let bodies = functions
        .iter()
        .map(|f| (f.name.clone(), f.lowered.function.clone()));
    Model {
        specification_version: level.specification(),
        description: Some(description),
        ml_program: Some(Program {
            version: 1,
            functions: bodies.collect::<BTreeMap<_, _>>(),
            ..Program::default()
        }),
    }
}

fn describe(function: &NamedFunction, about: &Description<'_>) -> FunctionDescription {
    let input = |(name, ty): &(String, TensorType)| FeatureDescription {
        name: name.clone(),
        short_description: about.input(name, ty),
        ty: Some(multi_array(ty)),
    };
    let output = |(name, ty): &(String, TensorType)| FeatureDescription {
        name: name.clone(),
        short_description: about.output(name, ty),
        ty: Some(match about.is_image(name) {
            true => image(ty),
            false => multi_array(ty),
        }),
    };
    FunctionDescription {
        name: function.name.clone(),
        input: function.lowered.inputs.iter().map(input).collect(),
        output: function.lowered.outputs.iter().map(output).collect(),
    }
}

fn multi_array(ty: &TensorType) -> FeatureType {
    let data_type = match ty.dtype {
        DType::F16 => ArrayDataType::Float16,
        DType::F32 => ArrayDataType::Float32,
        DType::I32 => ArrayDataType::Int32,
        DType::BF16 | DType::I64 | DType::Bool | DType::I8 | DType::U8 => {
            unreachable!("lowering refuses such features")
        }
    };
    FeatureType {
        multi_array: Some(ArrayFeatureType {
            shape: sizes(ty),
            data_type: data_type as i32,
        }),
        ..FeatureType::default()
    }
}

/// The image that a value `[1, 3, rows, columns]` of levels is.
fn image(ty: &TensorType) -> FeatureType {
    let [.., height, width] = sizes(ty)[..] else {
        unreachable!("a picture has rows and columns");
    };
    FeatureType {
        image: Some(ImageFeatureType {
            width,
            height,
            color_space: ColorSpace::Rgb as i32,
        }),
        ..FeatureType::default()
    }
}

fn sizes(ty: &TensorType) -> Vec<i64> {
    let size = |n: &usize| i64::try_from(*n).expect("lowering refuses dimensions beyond 31 bits");
    ty.shape.bind(1).iter().map(size).collect()
}
