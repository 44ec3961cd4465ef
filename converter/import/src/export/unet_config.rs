//! The configuration of a UNet whose blocks have changed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use snapc_ir::{Graph, Op, ValueId};

/// Puts the order of a UNet's blocks into its configuration, as the key `blocks` describes it. Whether the rest fits is for
/// building the network to say.
pub(super) fn with_blocks_of(graph: &Graph, config: &mut Map<String, Value>) {
    let count = |key: &str| {
        config
            .get(key)
            .and_then(Value::as_array)
            .map_or(0, Vec::len)
    };
    let (down, up) = (count("down_block_types"), count("up_block_types"));
    let mut stages: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for node in graph.nodes() {
        let Some((stage, name)) = entry_of(&node.name) else {
            continue;
        };
        let entries = stages.entry(stage).or_default();
        match entries.last_mut() {
            Some(last) if last.name == name => last.output = node.result,
            _ => entries.push(Entry {
                name,
                output: node.result,
            }),
        }
    }
    let skips: Vec<ValueId> = graph
        .nodes()
        .iter()
        .filter(|node| matches!(node.op, Op::Concat(_)) && node.name.starts_with("up_blocks."))
        .filter_map(|node| node.operands.get(1).copied())
        .collect();
    let list = |stage: String, keeps_skips: bool| {
        let mut words = Vec::new();
        for entry in stages.get(&stage).into_iter().flatten() {
            words.push(entry.name.clone());
            if keeps_skips && skips.contains(&entry.output) {
                words.push("skip".to_owned());
            }
        }
        words
    };
    let blocks = json!({
        "down_blocks": (0..down).map(|i| list(format!("down_blocks.{i}"), true)).collect::<Vec<_>>(),
        "mid_block": list("mid_block".to_owned(), false),
        "up_blocks": (0..up).map(|i| list(format!("up_blocks.{i}"), false)).collect::<Vec<_>>(),
    });
    config.insert("blocks".to_owned(), blocks);
}

/// A ResNet or an attention of a stage.
struct Entry {
    name: String,
    output: ValueId,
}

/// The stage and the block that a module belongs to: `down_blocks.0` and `resnets.1`.
fn entry_of(module: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = module.split('.').collect();
    let stage_parts = if parts.first() == Some(&"mid_block") {
        1
    } else {
        2
    };
    let (stage, rest) = parts.split_at_checked(stage_parts)?;
    match rest {
        [kind @ ("resnets" | "attentions"), index, ..] => {
            Some((stage.join("."), format!("{kind}.{index}")))
        }
        _ => None,
    }
}
