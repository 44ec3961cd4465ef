//! The interface `snap`: graphs that are specialised to a run, and what their features are for.
//!
//! The pass `specialize-schedule` gives the UNet the input `step`, and `hoist-text-projections` gives it inputs of the same
//! names as further outputs of the text encoder. `snap.json` says for every feature which of these it is.

use snapc_ir::{Graph, Op, Program};

use crate::artifact::EmittedGraph;
use crate::error::TargetError;
use crate::options::{EmitOptions, Interface};

/// The input of a specialised UNet that tells the step.
const STEP: &str = "step";

const TEXT_ENCODER: &str = "text_encoder";
const UNET: &str = "unet";

/// Checks that the passes have made of the program what the interface says.
///
/// # Errors
/// [`TargetError::Option`] when the UNet is specialised and the interface is not [`Interface::Snap`], or the other way round,
/// or when its table has another number of steps than the options.
pub fn check_interface(program: &Program, options: &EmitOptions) -> Result<(), TargetError> {
    let refused = |reason: String| TargetError::Option {
        option: "--interface",
        reason,
    };
    let Some(unet) = program.graph(UNET) else {
        return Ok(());
    };
    let table = table_rows(unet);
    if options.interface == Interface::Snap {
        return match table {
            Some(rows) if rows == options.steps => Ok(()),
            Some(rows) => Err(refused(format!(
                "the table of specialize-schedule has {rows} steps, but --steps is {}; give the pass the timesteps of as many",
                options.steps
            ))),
            None => Err(refused(
                "'snap' needs a UNet with a table of its timesteps; put specialize-schedule and hoist-text-projections in --passes, or choose plain".to_owned(),
            )),
        };
    }
    let outputs = program.graph(TEXT_ENCODER).map_or(&[][..], Graph::outputs);
    let mut inputs = unet.inputs().iter();
    let hoisted = inputs.any(|i| outputs.iter().any(|o| o.name == i.name));
    if table.is_some() || hoisted {
        return Err(refused(format!(
            "'{}' is for graphs as diffusers has them, and the passes have specialised the UNet to a run; choose snap, or leave specialize-schedule and hoist-text-projections out of --passes",
            options.interface
        )));
    }
    Ok(())
}

/// Rows of the table that the input `step` is an index of; with a row that is computed behind them, those before it.
fn table_rows(unet: &Graph) -> Option<usize> {
    let step = unet.inputs().iter().find(|i| i.name == STEP)?.value;
    let gather = unet
        .nodes()
        .iter()
        .find(|n| matches!(n.op, Op::Gather(_)) && n.operands.get(1) == Some(&step))?;
    let rows = gather.operands[0];
    let source = unet.node_of(rows).filter(|n| matches!(n.op, Op::Concat(_)));
    let table = source.map_or(rows, |concat| concat.operands[0]);
    unet.ty(table).shape.dims().first()?.fixed()
}

/// Says of every feature what it is for; for [`Interface::Snap`], whose names are not diffusers' alone.
pub(crate) fn describe_roles(graphs: &mut [EmittedGraph]) {
    let outputs = |name: &str| -> Vec<String> {
        let graph = graphs.iter().find(|g| g.name == name);
        let outputs = graph.map_or(&[][..], |g| &g.outputs);
        outputs.iter().map(|o| o.name.clone()).collect()
    };
    let texts = outputs(TEXT_ENCODER);
    for graph in graphs {
        let name = graph.name.as_str();
        let functions = graph.functions.iter_mut();
        let lists = functions.map(|f| (&mut f.inputs, &mut f.outputs));
        for (inputs, outputs) in lists.chain([(&mut graph.inputs, &mut graph.outputs)]) {
            for feature in inputs {
                feature.role = input_role(name, &feature.name, &texts).map(str::to_owned);
            }
            for feature in outputs {
                // An image has said so when it was written.
                let role = || output_role(name, &feature.name).map(str::to_owned);
                feature.role = feature.role.take().or_else(role);
            }
        }
    }
}

fn input_role(graph: &str, feature: &str, texts: &[String]) -> Option<&'static str> {
    Some(match (graph, feature) {
        (TEXT_ENCODER, "input_ids") => "token-ids",
        (UNET, "sample") => "latents",
        (UNET, STEP) => "step-index",
        (UNET, "timestep") => "timestep",
        (UNET, "encoder_hidden_states") => "text-embeddings",
        (UNET, name) if texts.iter().any(|text| text == name) => "text-projection",
        ("vae_decoder", _) => "latents",
        _ => return None,
    })
}

fn output_role(graph: &str, feature: &str) -> Option<&'static str> {
    Some(match (graph, feature) {
        (TEXT_ENCODER, "last_hidden_state") => "text-embeddings",
        (TEXT_ENCODER, "pooler_output") => "pooled-text-embedding",
        (TEXT_ENCODER, _) => "text-projection",
        (UNET, _) => "prediction",
        ("vae_decoder", _) => "picture",
        _ => return None,
    })
}
