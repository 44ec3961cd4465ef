//! Carrying out a plan.

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::{BuildError, Graph, Rebuild, ValueId};

use super::network::{Block, Network};
use super::plan::{BlockKind, BlockName, Plan, Stage};

/// A graph after a plan.
pub(super) struct Planned {
    /// The new graph; what led to removed blocks alone is still in it.
    pub(super) graph: Graph,
    /// What became of which block, one line each.
    pub(super) notes: Vec<String>,
}

/// Whether the graph is one that this plan has made. Only copies tell: a block that went leaves no trace.
pub(super) fn is_carried_out(plan: &Plan, network: &Network<'_>) -> bool {
    !plan.duplicate().is_empty()
        && plan.duplicate().iter().all(|&name| network.has_twin(name))
        && plan
            .remove()
            .iter()
            .all(|name| !network.blocks.contains_key(name))
}

/// Why the network does not allow the plan, one entry per block; empty when it does.
pub(super) fn obstacles(plan: &Plan, network: &Network<'_>) -> Vec<String> {
    let removed: BTreeSet<BlockName> = plan.remove().iter().copied().collect();
    let outputs: BTreeSet<ValueId> = network.graph.outputs().iter().map(|o| o.value).collect();
    let mut obstacles = Vec::new();
    for &name in plan.remove() {
        let found = find(network, name).and_then(|block| match block.skip {
            _ if outputs.contains(&block.output) => Err("gives an output of the graph".to_owned()),
            Some(skip) => check_pair(network, skip, &removed),
            None => Ok(()),
        });
        obstacles.extend(
            found
                .err()
                .map(|reason| format!("remove '{name}': it {reason}")),
        );
    }
    for &name in plan.duplicate() {
        let found = find(network, name).and_then(|block| match block.skip {
            Some(_) => Err("takes a skip, and there is none for a copy".to_owned()),
            None => Ok(()),
        });
        obstacles.extend(
            found
                .err()
                .map(|reason| format!("duplicate '{name}': it {reason}")),
        );
    }
    obstacles
}

/// A block whose output is of the type of its input.
fn find<'n>(network: &'n Network<'_>, name: BlockName) -> Result<&'n Block, String> {
    let Some(block) = network.blocks.get(&name) else {
        return Err(format!(
            "is not in the network, which has {}",
            neighbours(network, name)
        ));
    };
    match &block.hidden {
        Ok(_) => Ok(block),
        Err(reason) => Err(reason.clone()),
    }
}

/// The blocks of a stage, or else the stages.
fn neighbours(network: &Network<'_>, name: BlockName) -> String {
    let list = |words: Vec<String>| {
        if words.is_empty() {
            "no blocks".to_owned()
        } else {
            words.join(", ")
        }
    };
    let stage: Vec<String> = network
        .blocks
        .keys()
        .filter(|b| b.stage == name.stage)
        .map(ToString::to_string)
        .collect();
    if !stage.is_empty() {
        return list(stage);
    }
    let stages: BTreeSet<Stage> = network.blocks.keys().map(|b| b.stage).collect();
    list(stages.iter().map(|s| format!("{s}.*")).collect())
}

/// Checks that what made the skip of an up-stage ResNet goes with it.
fn check_pair(
    network: &Network<'_>,
    skip: ValueId,
    removed: &BTreeSet<BlockName>,
) -> Result<(), String> {
    let reason = match network.partner(skip) {
        Err(maker) => format!("takes the skip of '{maker}', which always stands"),
        Ok(partner) if removed.contains(&partner) => return Ok(()),
        Ok(partner) => match &network.blocks[&partner].hidden {
            Ok(_) => format!("takes the skip of '{partner}', which has to go with it"),
            Err(why) => format!("takes the skip of '{partner}', which cannot go: that {why}"),
        },
    };
    let pairs = network.pairs();
    if pairs.is_empty() {
        return Err(format!(
            "{reason}; no resnets of up stages can go in this network"
        ));
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(up, down)| format!("{up} with {down}"))
        .collect();
    Err(format!("{reason}; these can go: {}", pairs.join(", ")))
}

/// Carries out a plan that has no obstacles.
///
/// # Errors
/// When the new graph cannot be built.
pub(super) fn carry_out(plan: &Plan, network: &Network<'_>) -> Result<Planned, BuildError> {
    let mut notes = Vec::new();
    let mut removed: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for name in plan.remove() {
        let block = &network.blocks[name];
        if let Ok(hidden) = block.hidden {
            removed.insert(block.output, hidden);
        }
        notes.push(format!("removed {name}"));
    }
    let mut copies: BTreeMap<ValueId, (BlockName, BlockName)> = BTreeMap::new();
    let mut next: BTreeMap<(Stage, BlockKind), usize> = BTreeMap::new();
    for name in network.blocks.keys() {
        let index = next.entry((name.stage, name.kind)).or_default();
        *index = (*index).max(name.index + 1);
    }
    for &name in plan.duplicate() {
        let index = next.entry((name.stage, name.kind)).or_default();
        let copy = BlockName {
            index: *index,
            ..name
        };
        *index += 1;
        notes.push(format!(
            "added {copy} behind {name}, with weights equal to its"
        ));
        copies.insert(network.blocks[&name].output, (name, copy));
    }
    let graph = network.graph.rebuild(|rebuild, node| {
        let value = match removed.get(&node.result) {
            Some(&hidden) => rebuild.operand(hidden)?,
            None => rebuild.copy(node)?,
        };
        let value = match copies.get(&node.result) {
            Some(&(name, copy)) => copy_block(rebuild, network, (name, copy), value)?,
            None => value,
        };
        Ok::<_, BuildError>(Some(value))
    })?;
    Ok(Planned { graph, notes })
}

/// Adds the nodes of a block once more under another name, on `input`, and gives their result.
fn copy_block(
    rebuild: &mut Rebuild<'_>,
    network: &Network<'_>,
    (name, copy): (BlockName, BlockName),
    input: ValueId,
) -> Result<ValueId, BuildError> {
    let block = &network.blocks[&name];
    let (from, to) = (name.to_string(), copy.to_string());
    let rename = |path: &str| match path.strip_prefix(&from) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => format!("{to}{rest}"),
        _ => path.to_owned(),
    };
    let mut values: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    if let Ok(hidden) = block.hidden {
        values.insert(hidden, input);
    }
    let mut last = input;
    for &position in &block.nodes {
        let node = &network.graph.nodes()[position];
        let mut operands = Vec::with_capacity(node.operands.len());
        for &operand in &node.operands {
            let known = values.get(&operand).copied();
            let own = network.graph.weight_of(operand).filter(|w| w.is_parameter);
            let value = match (known, own) {
                (Some(value), _) => value,
                (None, Some(weight)) => rebuild
                    .graph
                    .parameter(rename(&weight.name), weight.tensor.clone()),
                (None, None) => rebuild.operand(operand)?,
            };
            values.insert(operand, value);
            operands.push(value);
        }
        last = rebuild
            .graph
            .add(node.op.clone(), &operands, rename(&node.name))?;
        values.insert(node.result, last);
        if node.result == block.output {
            break;
        }
    }
    Ok(last)
}
