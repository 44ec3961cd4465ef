//! The features that packages show: batch sizes, and the names, shapes and element types of `--interface`.
//!
//! `plain` is what diffusers gives the graphs, with the batch bound and the scalar timestep as one element, because a
//! feature needs a dimension; `snap` is the same for a program that is specialised to a run. `apple` is that of Apple's Stable Diffusion packages:
//!
//! | package | inputs | outputs |
//! |---|---|---|
//! | TextEncoder | `input_ids` f32 `[N,77]`, made so by lowering | `last_hidden_state`, `pooled_outputs` f32 |
//! | Unet | `sample` `[N,4,H,W]`, `timestep` `[N]`, `encoder_hidden_states` `[N,D,1,77]` | `noise_pred` f32 |
//! | VAEDecoder | `z` `[N,4,H,W]` | `image` f32 |
//!
//! The inputs without element type have that of the program: f16 as in Apple's packages, or f32 in a program of f32,
//! whose point would be lost if its inputs were rounded. Between chunks of the UNet, `apple` has floats in f32.
//!
//! With `--image-output`, the decoder's output is the image `image` in place of an array of values from -1 to 1.

use snapc_ir::ops::{Cast, Reshape, Transpose};
use snapc_ir::{
    BuildError, DType, Dim, Graph, Node, Op, Program, Rebuild, Shape, TensorType, ValueId,
};
use snapc_target::{
    EmitOptions, Interface, Precision, TargetError, bind_batch, check_interface, picture_levels,
};

/// The graph that makes pictures.
const DECODER: &str = "vae_decoder";

/// Name of the decoder's output when it is an image; no other feature of a Stable Diffusion pipeline that is no array has it.
const IMAGE: &str = "image";

/// Whether an output of a graph is an image.
pub(crate) fn is_image(graph: &str, output: &str, options: &EmitOptions) -> bool {
    options.image_output && (graph, output) == (DECODER, IMAGE)
}

/// Binds the batch and gives every graph the features of the options.
///
/// # Errors
/// When a graph does not take the bound batch or the changed inputs.
pub(crate) fn apply(program: Program, options: &EmitOptions) -> Result<Program, TargetError> {
    check_interface(&program, options)?;
    check_image_output(options)?;
    let Program { graphs, pipeline } = program;
    let graphs = graphs.iter().map(|graph| {
        let batch = options.batch.unwrap_or(default_batch(graph.name()));
        let bound = bind_batch(graph, batch)?;
        Ok(with_features(&bound, batch, options)?)
    });
    let graphs = graphs.collect::<Result<Vec<Graph>, TargetError>>()?;
    Ok(Program { graphs, pipeline })
}

/// Refuses an image where nobody would take it.
fn check_image_output(options: &EmitOptions) -> Result<(), TargetError> {
    let reason = match (options.interface, options.batch) {
        _ if !options.image_output => return Ok(()),
        (Interface::Apple, _) => {
            "Apple's Swift package takes the picture as an array; choose --interface plain or snap"
        }
        (_, Some(batch)) if batch != 1 => "an image is one picture; the batch has to be 1",
        _ => return Ok(()),
    };
    Err(TargetError::Option {
        option: "--image-output",
        reason: reason.to_owned(),
    })
}

/// The UNet runs both halves of the guidance at once; the others run once per prompt or image.
fn default_batch(graph: &str) -> usize {
    if graph == "unet" { 2 } else { 1 }
}

fn with_features(graph: &Graph, batch: usize, options: &EmitOptions) -> Result<Graph, BuildError> {
    let mut rebuild = Rebuild::new(graph);
    for input in graph.inputs() {
        let ty = graph.ty(input.value).clone();
        let value = match options.interface {
            Interface::Plain | Interface::Snap => plain_input(&mut rebuild.graph, &input.name, ty),
            Interface::Apple => apple_input(
                &mut rebuild.graph,
                &input.name,
                ty,
                batch,
                options.precision,
            )?,
        };
        rebuild.bind(input.value, value);
    }
    for node in graph.nodes() {
        let value = copy_with_batch(&mut rebuild, node)?;
        rebuild.bind(node.result, value);
    }
    if options.image_output && graph.name() == DECODER {
        return with_image(graph, rebuild);
    }
    if options.interface != Interface::Apple {
        return rebuild.finish();
    }
    let mut features = Vec::new();
    for output in graph.outputs() {
        features.push((
            apple_output(graph.name(), &output.name),
            rebuild.operand(output.value)?,
        ));
    }
    // The outputs have other names, so `Rebuild::finish`, which keeps the old ones, does not apply.
    let mut graph = rebuild.graph;
    for (name, value) in features {
        let value = cast(&mut graph, value, DType::F32, &name)?;
        graph.output(name, value);
    }
    Ok(graph)
}

/// The decoder with an image for its output, which is its only one.
fn with_image(graph: &Graph, mut rebuild: Rebuild<'_>) -> Result<Graph, BuildError> {
    for output in graph.outputs() {
        let value = rebuild.operand(output.value)?;
        let levels = picture_levels(&mut rebuild.graph, value, IMAGE)?;
        rebuild.graph.output(IMAGE, levels);
    }
    Ok(rebuild.graph)
}

/// A scalar becomes a vector of one element, which the operators that take timesteps take as well.
fn plain_input(graph: &mut Graph, name: &str, ty: TensorType) -> ValueId {
    if ty.shape.rank() > 0 {
        return graph.input(name, ty);
    }
    graph.input(name, TensorType::new(ty.dtype, Shape::fixed(&[1])))
}

/// Declares the feature and gives the value of the graph's own input made from it.
fn apple_input(
    graph: &mut Graph,
    name: &str,
    ty: TensorType,
    batch: usize,
    precision: Precision,
) -> Result<ValueId, BuildError> {
    let float = match precision {
        Precision::F16 => DType::F16,
        Precision::F32 => DType::F32,
    };
    let mut declare =
        |name: &str, dtype: DType, shape: Shape| graph.input(name, TensorType::new(dtype, shape));
    match (name, ty.shape.dims()) {
        ("input_ids", _) => Ok(declare(name, ty.dtype, ty.shape)),
        ("timestep", _) => {
            let timestep = declare(name, float, Shape::fixed(&[batch]));
            cast(graph, timestep, ty.dtype, name)
        }
        ("encoder_hidden_states", &[n, tokens, width]) => {
            let states = declare(name, float, Shape(vec![n, width, Dim::Fixed(1), tokens]));
            let states = cast(graph, states, ty.dtype, name)?;
            let reshape = Reshape {
                shape: vec![n, width, tokens],
            };
            let states = graph.add(reshape, &[states], name)?;
            let perm = vec![0, 2, 1];
            graph.add(Transpose { perm }, &[states], name)
        }
        _ => {
            let feature = if name == "latent_sample" { "z" } else { name };
            let value = declare(feature, float, ty.shape);
            cast(graph, value, ty.dtype, name)
        }
    }
}

/// Apple's name for an output.
fn apple_output(graph: &str, name: &str) -> String {
    let apple = match (graph, name) {
        ("text_encoder", "pooler_output") => "pooled_outputs",
        ("unet", "out_sample") => "noise_pred",
        ("vae_decoder", "sample") => "image",
        _ => name,
    };
    apple.to_owned()
}

fn cast(graph: &mut Graph, value: ValueId, to: DType, name: &str) -> Result<ValueId, BuildError> {
    if graph.ty(value).dtype == to {
        return Ok(value);
    }
    graph.add(Cast { to }, &[value], name)
}

/// Adds the node, whose operands may have a batch of timesteps where there was one timestep for all: a reshape that
/// keeps that leading 1 keeps the batch instead. All other operators broadcast or work on rows.
fn copy_with_batch(rebuild: &mut Rebuild<'_>, node: &Node) -> Result<ValueId, BuildError> {
    let Op::Reshape(reshape) = &node.op else {
        return rebuild.copy(node);
    };
    let old = rebuild
        .old()
        .ty(node.operands[0])
        .shape
        .dims()
        .first()
        .copied();
    let operands = rebuild.operands(node)?;
    let new = rebuild.graph.ty(operands[0]).shape.dims().first().copied();
    let mut shape = reshape.shape.clone();
    if let (Some(old), Some(new), Some(first)) = (old, new, shape.first_mut())
        && old != new
        && *first == old
    {
        *first = new;
    }
    rebuild
        .graph
        .add(Reshape { shape }, &operands, node.name.clone())
}
