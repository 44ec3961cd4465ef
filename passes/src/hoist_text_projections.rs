//! Moves what the UNet computes from the prompt alone into the text encoder.
//!
//! # What it does
//! The keys and values of cross-attention are projections of the text embeddings: the same in every step. Whatever the UNet
//! computes from `encoder_hidden_states` and weights alone moves behind `last_hidden_state` of the text encoder, which gives
//! each result as a further output. The UNet takes the results as inputs of the same names, in place of
//! `encoder_hidden_states`. The names are those of the nodes that gave them, `.` and other signs replaced by `_`, such as
//! `mid_block_attentions_0_transformer_blocks_0_attn2_to_k`.
//!
//! # When it applies
//! To a text encoder and a UNet whose embeddings are of one type. One row per prompt has to stay one row, so what has its
//! batch elsewhere than in front stays in the UNet, which then takes the last values before it. A UNet that uses the
//! embeddings themselves keeps `encoder_hidden_states` beside the new inputs. It changes the interface of both graphs: it
//! belongs to `--interface snap`.
//!
//! # Options
//! None.
//!
//! # Effect on accuracy
//! None. Targets that store features more narrowly than they compute round the results once more.
//!
//! # Example
//! ```text
//! before: text_encoder: last_hidden_state = h
//!         unet:         k = linear(encoder_hidden_states, w); y = attention(q, k, v)
//! after:  text_encoder: last_hidden_state = h; to_k = linear(h, w)
//!         unet:         y = attention(q, to_k, to_v)
//! ```

use std::collections::BTreeSet;

use serde::Deserialize;
use snapc_ir::{Dim, Graph, Rebuild, TensorType, ValueId};

use crate::info::Describe;
use crate::input_cone::{InputCone, parameters};
use crate::pass::{Change, Pass, PassContext, PassError};

/// The output of the text encoder that the UNet is fed with.
const EMBEDDINGS: &str = "last_hidden_state";

/// The input of the UNet that takes it.
const STATES: &str = "encoder_hidden_states";

/// See the module documentation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoistTextProjections {}

impl Describe for HoistTextProjections {
    const NAME: &'static str = "hoist-text-projections";
}

impl Pass for HoistTextProjections {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// One graph alone has nowhere to move anything to.
    fn run(&self, _: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
        Ok(None)
    }

    fn run_all(
        &self,
        graphs: &[Graph],
        _: &PassContext<'_>,
    ) -> Result<Vec<Option<Change>>, PassError> {
        let mut changes: Vec<Option<Change>> = vec![None; graphs.len()];
        let text_encoder = position(graphs, |g| output(g, EMBEDDINGS).is_some());
        let unet = position(graphs, |g| input(g, STATES).is_some());
        let (Some(text_encoder), Some(unet)) = (text_encoder, unet) else {
            return Ok(changes);
        };
        if let Some((first, second)) = hoist(&graphs[text_encoder], &graphs[unet])? {
            changes[text_encoder] = Some(first);
            changes[unet] = Some(second);
        }
        Ok(changes)
    }

    fn works_across_graphs(&self) -> bool {
        true
    }
}

fn position(graphs: &[Graph], is_it: impl Fn(&Graph) -> bool) -> Option<usize> {
    graphs.iter().position(is_it)
}

fn input(graph: &Graph, name: &str) -> Option<ValueId> {
    let input = graph.inputs().iter().find(|i| i.name == name)?;
    Some(input.value)
}

fn output(graph: &Graph, name: &str) -> Option<ValueId> {
    let output = graph.outputs().iter().find(|o| o.name == name)?;
    Some(output.value)
}

/// Whether rows of the value are those of prompts.
fn is_batched(ty: &TensorType) -> bool {
    ty.dtype.is_float() && ty.shape.rank() > 1 && ty.shape.dims()[0] == Dim::Batch
}

fn hoist(text_encoder: &Graph, unet: &Graph) -> Result<Option<(Change, Change)>, PassError> {
    let (Some(embeddings), Some(states)) = (output(text_encoder, EMBEDDINGS), input(unet, STATES))
    else {
        return Ok(None);
    };
    let cone = InputCone::of(unet, states, is_batched);
    let hoisted = cone.frontier().iter().filter(|&&v| v != states).count();
    if hoisted == 0 {
        return Ok(None);
    }
    let (given, taken) = (text_encoder.ty(embeddings), unet.ty(states));
    if given != taken {
        return Err(PassError::Refused {
            pass: HoistTextProjections::NAME,
            graph: unet.name().to_owned(),
            reason: format!(
                "'{STATES}' is {taken}, but '{EMBEDDINGS}' of graph '{}' is {given}; use a text encoder and a unet of one pipeline",
                text_encoder.name()
            ),
        });
    }

    let build = PassError::build(HoistTextProjections::NAME);
    let mut encoder = text_encoder.clone();
    let copied = cone.copy_into(&mut encoder, embeddings).map_err(&build)?;
    let names = feature_names(&cone, states, text_encoder, unet);
    for ((&old, new), name) in cone.frontier().iter().zip(copied).zip(&names) {
        if old != states {
            encoder.output(name.clone(), new);
        }
    }

    let mut rebuild = Rebuild::new(unet);
    for old in unet.inputs() {
        if old.value != states {
            let ty = unet.ty(old.value).clone();
            let new = rebuild.graph.input(old.name.clone(), ty);
            rebuild.bind(old.value, new);
            continue;
        }
        for (&value, name) in cone.frontier().iter().zip(&names) {
            let new = rebuild.graph.input(name.clone(), unet.ty(value).clone());
            rebuild.bind(value, new);
        }
    }
    for node in unet.nodes() {
        if !cone.contains(node.result) {
            let new = rebuild.copy(node).map_err(&build)?;
            rebuild.bind(node.result, new);
        }
    }
    let reduced = rebuild.finish().map_err(&build)?;

    let moved = parameters(unet) - parameters(&reduced);
    let counts = vec![("projections moved", hoisted), ("parameters moved", moved)];
    let mut second = Change::new(reduced, counts.clone());
    if hoisted < cone.frontier().len() {
        let note = format!("'{STATES}' stays, because the graph uses more of it than projections");
        second.notes.push(note);
    }
    Ok(Some((Change::new(encoder, counts), second)))
}

/// The feature of every value of the frontier, in its order: a name that all formats take.
fn feature_names(
    cone: &InputCone<'_>,
    states: ValueId,
    text_encoder: &Graph,
    unet: &Graph,
) -> Vec<String> {
    let inputs = [text_encoder, unet].into_iter().flat_map(Graph::inputs);
    let outputs = [text_encoder, unet].into_iter().flat_map(Graph::outputs);
    let mut taken: BTreeSet<String> = inputs.map(|i| i.name.clone()).collect();
    taken.extend(outputs.map(|o| o.name.clone()));
    let name = |&value: &ValueId| {
        if value == states {
            return STATES.to_owned();
        }
        let base = identifier(cone.name(value));
        let numbered = (2..).map(|i| format!("{base}_{i}"));
        let mut candidates = std::iter::once(base.clone()).chain(numbered);
        let free = candidates.find(|c| !taken.contains(c));
        let free = free.expect("the numbers do not end");
        taken.insert(free.clone());
        free
    };
    cone.frontier().iter().map(name).collect()
}

/// A name in letters, digits and `_`, which does not begin with a digit.
fn identifier(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    match name.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{name}"),
        false => name,
    }
}

#[cfg(test)]
mod tests;
