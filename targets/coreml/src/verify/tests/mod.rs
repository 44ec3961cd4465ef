//! Packages that break one rule in one place.
//!
//! A small valid package is made here; [`seeds`] changes it once for every rule, [`common_mistakes`] and [`loader`] once for
//! every item of two lists of what goes wrong with hand-written packages.

mod common_mistakes;
mod loader;
mod seeds;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use snapc_ir::ops::{
    Add, Attention, Cast, Concat, Conv2d, Gather, GroupNorm, LayerNorm, Linear, QuickGelu, Reshape,
    Slice, Softmax,
};
use snapc_ir::{
    About, BetaSchedule, DType, Dim, Encoding, Graph, LatentSpec, LazyTensor, PipelineSpec,
    PredictionType, SchedulerSpec, Shape, TimestepSpacing,
};
use snapc_target::{AttentionForm, EmitOptions, Finding, Silent, picture_levels};

use super::verify;
use crate::blob::WeightFile;
use crate::describe::Description;
use crate::level::Level;
use crate::lower::{IntegerFeatures, lower};
use crate::model::{MAIN, NamedFunction, model_of};
use crate::package;
use crate::proto::*;

const NAME: &str = "Unet.mlpackage";
const MODEL: &str = "model.mlmodel";
const WEIGHTS: &str = "weights/weight.bin";

fn weights(shape: &[usize]) -> LazyTensor {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect();
    LazyTensor::from_f32(shape, &data).cast(DType::F16)
}

/// A graph with operations of every form: tuples, words, scalars, vectors, large and small constants.
fn graph() -> Graph {
    let mut g = Graph::new("unet");
    let x = g.input(
        "x",
        snapc_ir::TensorType::new(DType::F16, Shape::fixed(&[1, 4, 6, 6])),
    );
    let ids = g.input(
        "ids",
        snapc_ir::TensorType::new(DType::I32, Shape::fixed(&[1, 5])),
    );
    let [weight, bias] = [
        g.parameter("conv.weight", weights(&[8, 4, 3, 3])),
        g.parameter("conv.bias", weights(&[8])),
    ];
    let conv = Conv2d {
        strides: [2, 2],
        pads: [1, 1, 1, 1],
        groups: 1,
    };
    let y = g.add(conv, &[x, weight, bias], "conv").unwrap();
    let [scale, shift] = [
        g.parameter("norm.weight", weights(&[8])),
        g.parameter("norm.bias", weights(&[8])),
    ];
    let y = g
        .add(
            GroupNorm {
                groups: 2,
                epsilon: 1e-5,
            },
            &[y, scale, shift],
            "norm",
        )
        .unwrap();
    let shape = vec![Dim::Fixed(1), Dim::Fixed(9), Dim::Fixed(8)];
    let y = g.add(Reshape { shape }, &[y], "rows").unwrap();
    let y = g
        .add(
            Slice {
                axis: 1,
                start: 0,
                end: 5,
            },
            &[y],
            "some",
        )
        .unwrap();
    // One group per row, which every level has a form for.
    let scale = vec![1.0 / 64.0; 8];
    let rows = Encoding::affine(8, &[8, 1], scale, Vec::new()).unwrap();
    let table = g.parameter("table", weights(&[8, 8]).encode(Arc::new(rows)));
    let z = g
        .add(
            Gather {
                axis: 0,
                batch_dims: 0,
            },
            &[table, ids],
            "tokens",
        )
        .unwrap();
    let y = g.add(Add {}, &[y, z], "sum").unwrap();
    let y = g.add(Concat { axis: 2 }, &[y, z], "both").unwrap();
    let [scale, shift] = [
        g.parameter("ln.weight", weights(&[16])),
        g.parameter("ln.bias", weights(&[16])),
    ];
    let y = g
        .add(LayerNorm { epsilon: 1e-5 }, &[y, scale, shift], "ln")
        .unwrap();
    let [weight, bias] = [
        g.parameter("fc.weight", weights(&[3, 16])),
        g.parameter("fc.bias", weights(&[3])),
    ];
    let y = g.add(Linear {}, &[y, weight, bias], "fc").unwrap();
    let y = g.add(Softmax { axis: 2 }, &[y], "softmax").unwrap();
    let y = g.add(Cast { to: DType::F32 }, &[y], "wide").unwrap();
    g.output("y", y);
    g
}

fn pipeline() -> PipelineSpec {
    PipelineSpec {
        scheduler: SchedulerSpec {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 1,
            set_alpha_to_one: false,
        },
        latent: LatentSpec {
            channels: 4,
            height: 6,
            width: 6,
            pixels_per_cell: 8,
            scaling_factor: 0.18215,
        },
        tokens: 77,
        files: BTreeMap::new(),
        about: About::default(),
    }
}

fn valid(level: Level) -> (Model, WeightFile) {
    package_of(&graph(), level, AttentionForm::Auto)
}

/// A graph as a package.
fn package_of(graph: &Graph, level: Level, attention: AttentionForm) -> (Model, WeightFile) {
    let mut lowered = lower(
        graph,
        level,
        IntegerFeatures::Int32,
        attention,
        WeightFile::default(),
    )
    .unwrap();
    let weights = std::mem::take(&mut lowered.weights);
    let name = MAIN.to_owned();
    let (options, pipeline) = (EmitOptions::default(), pipeline());
    let about = Description::new(graph, &[], &options, &pipeline);
    (
        model_of(&[NamedFunction { name, lowered }], level, &about),
        weights,
    )
}

/// The findings for the package after changes to the model and to the files.
fn findings(
    level: Level,
    edit: impl FnOnce(&mut Model),
    damage: impl FnOnce(&Path),
) -> Vec<Finding> {
    findings_of(valid(level), edit, damage)
}

/// The same for another package.
fn findings_of(
    (mut model, weights): (Model, WeightFile),
    edit: impl FnOnce(&mut Model),
    damage: impl FnOnce(&Path),
) -> Vec<Finding> {
    let dir = tempfile::tempdir().unwrap();
    edit(&mut model);
    package::write(dir.path(), NAME, "unet", &model, &weights, &Silent).unwrap();
    damage(&dir.path().join(NAME));
    verify(dir.path()).unwrap()
}

/// Asserts that a finding of the rule names all of these.
fn assert_names(findings: &[Finding], rule: &str, names: &[&str]) {
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let mut of_rule = findings.iter().zip(&all).filter(|(f, _)| f.rule == rule);
    assert!(
        of_rule.any(|(_, text)| names.iter().all(|name| text.contains(name))),
        "nothing about {names:?} in {all:#?}"
    );
}

/// One head of attention after the other below iOS 18, one operation from then on.
fn attention(level: Level) -> (Model, WeightFile) {
    let mut g = Graph::new("unet");
    let mut input = |name: &str, tokens: usize| {
        let shape = Shape::fixed(&[1, tokens, 6]);
        g.input(name, snapc_ir::TensorType::new(DType::F16, shape))
    };
    let operands = [input("q", 4), input("k", 5), input("v", 5)];
    let op = Attention {
        heads: 2,
        scale: 0.5,
    };
    let y = g.add(op, &operands, "attention").unwrap();
    g.output("y", y);
    let form = match level < Level::Ios18 {
        true => AttentionForm::SplitEinsum,
        false => AttentionForm::Sdpa,
    };
    package_of(&g, level, form)
}

/// A convolution that pads behind only, as that of the VAE's encoder, with `quick_gelu` and a picture behind it.
fn picture(level: Level) -> (Model, WeightFile) {
    let mut g = Graph::new("vae_decoder");
    let shape = Shape::fixed(&[1, 4, 6, 6]);
    let x = g.input("x", snapc_ir::TensorType::new(DType::F16, shape));
    let weight = g.parameter("conv.weight", weights(&[3, 4, 3, 3]));
    let bias = g.parameter("conv.bias", weights(&[3]));
    let conv = Conv2d {
        strides: [2, 2],
        pads: [0, 0, 1, 1],
        groups: 1,
    };
    let y = g.add(conv, &[x, weight, bias], "conv").unwrap();
    let y = g.add(QuickGelu {}, &[y], "gelu").unwrap();
    let y = picture_levels(&mut g, y, "y").unwrap();
    g.output("y", y);
    package_of(&g, level, AttentionForm::Auto)
}

/// A table of four entries for a weight.
fn palette(level: Level) -> (Model, WeightFile) {
    let mut g = Graph::new("unet");
    let shape = Shape::fixed(&[1, 8]);
    let x = g.input("x", snapc_ir::TensorType::new(DType::F16, shape));
    // As many codes as stand in the weight file at every level.
    let table = Encoding::palette(2, &[1, 1], vec![-0.5, 0.0, 0.5, 1.0]).unwrap();
    let weight = g.parameter("weight", weights(&[8, 8]).encode(Arc::new(table)));
    let bias = g.parameter("bias", weights(&[8]));
    let y = g.add(Linear {}, &[x, weight, bias], "fc").unwrap();
    g.output("y", y);
    package_of(&g, level, AttentionForm::Auto)
}

fn main_of(model: &mut Model) -> &mut Function {
    model
        .ml_program
        .as_mut()
        .unwrap()
        .functions
        .get_mut("main")
        .unwrap()
}

fn block(model: &mut Model) -> &mut Block {
    main_of(model)
        .block_specializations
        .values_mut()
        .next()
        .unwrap()
}

fn operation<'a>(model: &'a mut Model, kind: &str) -> &'a mut Operation {
    block(model)
        .operations
        .iter_mut()
        .find(|o| o.kind == kind)
        .unwrap()
}

/// The constant that a parameter is bound to.
fn constant<'a>(model: &'a mut Model, kind: &str, parameter: &str) -> &'a mut Operation {
    let name = bound(&operation(model, kind).inputs[parameter]);
    let operations = &mut block(model).operations;
    operations
        .iter_mut()
        .find(|o| o.outputs[0].name == name)
        .unwrap()
}

fn bound(argument: &Argument) -> String {
    match &argument.arguments[0].bound {
        Some(Bound::Name(name)) => name.clone(),
        other => panic!("bound to {other:?}"),
    }
}

fn by_name(name: &str) -> Argument {
    let bound = Some(Bound::Name(name.to_owned()));
    Argument {
        arguments: vec![Binding { bound }],
    }
}

fn in_place(value: Value) -> Argument {
    let bound = Some(Bound::Value(value));
    Argument {
        arguments: vec![Binding { bound }],
    }
}

/// Adds a linear layer over four dimensions.
fn with_linear_of_rank_4(model: &mut Model) {
    let four = [1, 1, 5, 16];
    let before = bound(&operation(model, "linear").inputs["x"]);
    let ints = Elements::Ints(RepeatedInts {
        values: four.map(|n| n as i32).to_vec(),
    });
    let value = immediate(DataType::Int32, &[4], ints);
    let mut shape = named("const", "four", value.ty.clone().unwrap());
    shape.attributes.insert("val".to_owned(), value);
    let mut reshape = named("reshape", "fourth", tensor_type(DataType::Float16, &four));
    reshape.inputs = [
        ("x".to_owned(), by_name(&before)),
        ("shape".to_owned(), by_name("four")),
    ]
    .into();
    let mut linear = operation(model, "linear").clone();
    linear.inputs.insert("x".to_owned(), by_name("fourth"));
    linear.outputs[0] = NamedValueType {
        name: "wide_linear".to_owned(),
        ty: Some(tensor_type(DataType::Float16, &[1, 1, 5, 3])),
    };
    block(model).operations.extend([shape, reshape, linear]);
}

/// Gives a value another name wherever it stands.
fn rename(model: &mut Model, from: &str, to: &str) {
    for op in &mut block(model).operations {
        let bindings = op.inputs.values_mut().flat_map(|a| &mut a.arguments);
        for binding in bindings.filter(|b| b.bound == Some(Bound::Name(from.to_owned()))) {
            binding.bound = Some(Bound::Name(to.to_owned()));
        }
        for output in op.outputs.iter_mut().filter(|o| o.name == from) {
            output.name = to.to_owned();
        }
    }
}

fn named(kind: &str, name: &str, ty: ValueType) -> Operation {
    Operation {
        kind: kind.to_owned(),
        outputs: vec![NamedValueType {
            name: name.to_owned(),
            ty: Some(ty),
        }],
        attributes: [("name".to_owned(), string(name))].into(),
        ..Operation::default()
    }
}

fn tensor_of(ty: &mut Option<ValueType>) -> &mut TensorType {
    ty.as_mut().unwrap().tensor.as_mut().unwrap()
}

/// The form of a compressed constant at iOS 17 as that of iOS 18.
fn to_blockwise(op: &mut Operation) {
    op.kind = "constexpr_blockwise_shift_scale".to_owned();
    let mut attributes = std::mem::take(&mut op.attributes);
    let mut scale = attributes.remove("scale").unwrap();
    scale.ty = Some(tensor_type(DataType::Float16, &[8, 1]));
    let data = attributes.remove("quantized_data").unwrap();
    for (name, value) in [("data", data), ("scale", scale)] {
        let bound = Some(Bound::Value(value));
        let arguments = vec![Binding { bound }];
        op.inputs.insert(name.to_owned(), Argument { arguments });
    }
    let name = attributes.remove_entry("name");
    op.attributes.extend(name);
}

/// The value in place of a parameter.
fn value_of<'a>(op: &'a mut Operation, parameter: &str) -> &'a mut Value {
    let argument = op.inputs.get_mut(parameter).unwrap();
    match &mut argument.arguments[0].bound {
        Some(Bound::Value(value)) => value,
        other => panic!("bound to {other:?}"),
    }
}

fn blob_of(op: &mut Operation) -> &mut BlobFileValue {
    match &mut op.attributes.get_mut("val").unwrap().content {
        Some(Content::BlobFile(blob)) => blob,
        other => panic!("not in the weight file: {other:?}"),
    }
}

fn ints_of(op: &mut Operation) -> &mut Vec<i32> {
    let content = &mut op.attributes.get_mut("val").unwrap().content;
    match content {
        Some(Content::Immediate(ImmediateValue {
            tensor:
                Some(TensorValue {
                    elements: Some(Elements::Ints(v)),
                }),
        })) => &mut v.values,
        other => panic!("no ints: {other:?}"),
    }
}

fn edit_json(package: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = package.join("Manifest.json");
    let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// The item whose path ends as given.
fn item(json: &serde_json::Value, path: &str) -> String {
    let items = json["itemInfoEntries"].as_object().unwrap();
    let found = items
        .iter()
        .find(|(_, i)| i["path"].as_str().unwrap().ends_with(path));
    found.unwrap().0.clone()
}

fn edit_bytes(package: &Path, file: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let path = package.join("Data/com.apple.CoreML").join(file);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn array(feature: &mut FeatureDescription) -> &mut ArrayFeatureType {
    feature.ty.as_mut().unwrap().multi_array.as_mut().unwrap()
}
