//! The configuration of a decoder whose widths have changed.

use serde_json::{Map, Value};
use snapc_ir::{Graph, Op};

/// Puts the widths of a decoder's stages and its GroupNorm groups into its configuration. Whether the rest fits is for
/// building the network to say.
pub(super) fn with_widths_of(graph: &Graph, config: &mut Map<String, Value>) {
    let width = |stage: usize| {
        let name = format!("decoder.up_blocks.{stage}.resnets.0.conv2.weight");
        let weight = graph.weights().iter().find(|w| w.name == name)?;
        weight.tensor.shape().first().copied()
    };
    // The decoder begins at the innermost stage, the configuration at the outermost.
    let mut widths: Vec<usize> = (0..).map_while(width).collect();
    widths.reverse();
    config.insert("block_out_channels".to_owned(), widths.into());
    let groups = graph.nodes().iter().find_map(|node| match &node.op {
        Op::GroupNorm(op) => Some(op.groups),
        _ => None,
    });
    if let Some(groups) = groups {
        config.insert("norm_num_groups".to_owned(), groups.into());
    }
}
