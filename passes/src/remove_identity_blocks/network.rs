//! The blocks of a UNet and the skips between them, found in its graph by the names of nodes.

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::{Graph, LazyTensor, Node, Op, ValueDef, ValueId};

use super::plan::{BlockKind, BlockName};

/// A ResNet or an attention.
pub(super) struct Block {
    /// Positions of its nodes, ascending.
    pub(super) nodes: Vec<usize>,
    /// What it gives.
    pub(super) output: ValueId,
    /// What it gives when it does nothing, or why it cannot do nothing.
    pub(super) hidden: Result<ValueId, String>,
    /// The skip that it joins to its input, when it is a ResNet of an up stage.
    pub(super) skip: Option<ValueId>,
}

/// The blocks of a graph.
pub(super) struct Network<'a> {
    pub(super) graph: &'a Graph,
    pub(super) blocks: BTreeMap<BlockName, Block>,
    /// The block that gives a value.
    makers: BTreeMap<ValueId, BlockName>,
    skips: BTreeSet<ValueId>,
}

impl<'a> Network<'a> {
    /// Finds the blocks.
    pub(super) fn of(graph: &'a Graph) -> Self {
        let owners: Vec<Option<BlockName>> = graph
            .nodes()
            .iter()
            .map(|node| BlockName::of_module(&node.name))
            .collect();
        let mut nodes: BTreeMap<BlockName, Vec<usize>> = BTreeMap::new();
        for (position, owner) in owners.iter().enumerate() {
            if let Some(name) = owner {
                nodes.entry(*name).or_default().push(position);
            }
        }
        let blocks: BTreeMap<BlockName, Block> = nodes
            .into_iter()
            .map(|(name, nodes)| (name, find_block(graph, &owners, name, nodes)))
            .collect();
        Network {
            graph,
            makers: blocks.iter().map(|(name, b)| (b.output, *name)).collect(),
            skips: blocks.values().filter_map(|b| b.skip).collect(),
            blocks,
        }
    }

    /// The block that has to go with an up-stage ResNet so that no skip is left over, that is the ResNet of the layer that
    /// made its skip. `Err` has the name of what made the skip when that is no block.
    pub(super) fn partner(&self, skip: ValueId) -> Result<BlockName, String> {
        let Some(&maker) = self.makers.get(&skip) else {
            let node = self.graph.node_of(skip);
            return Err(node.map_or_else(|| "an input".to_owned(), |n| n.name.clone()));
        };
        let mut layer = maker;
        while layer.kind == BlockKind::Attention {
            // An attention follows the ResNet of its layer, unless that is missing.
            let before = self.blocks[&layer].hidden.as_ref().ok();
            let before = before.filter(|v| !self.skips.contains(v));
            match before.and_then(|v| self.makers.get(v)) {
                Some(&earlier) if earlier.stage == maker.stage => layer = earlier,
                _ => return Ok(maker),
            }
        }
        Ok(layer)
    }

    /// Every up-stage ResNet that may go, with the block that goes with it.
    pub(super) fn pairs(&self) -> Vec<(BlockName, BlockName)> {
        let mut pairs = Vec::new();
        for (&name, block) in &self.blocks {
            let Some(skip) = block.skip.filter(|_| block.hidden.is_ok()) else {
                continue;
            };
            if let Ok(partner) = self.partner(skip)
                && self.blocks[&partner].hidden.is_ok()
            {
                pairs.push((name, partner));
            }
        }
        pairs
    }

    /// Whether a block that equals this one stands right behind it: what duplicating it leaves.
    pub(super) fn has_twin(&self, name: BlockName) -> bool {
        let Some(block) = self.blocks.get(&name) else {
            return false;
        };
        let own = self.weights(name, block);
        self.blocks.iter().any(|(&other, twin)| {
            let follows = (other.stage, other.kind) == (name.stage, name.kind)
                && twin.hidden == Ok(block.output);
            if !follows {
                return false;
            }
            let weights = self.weights(other, twin);
            let mut pairs = own.iter().zip(&weights);
            own.len() == weights.len()
                && pairs.all(|((a, own), (b, its))| a == b && own.same_data(its))
        })
    }

    /// The weights that a block uses, in order, under their names within the block.
    fn weights(&self, name: BlockName, block: &Block) -> Vec<(String, &'a LazyTensor)> {
        let prefix = name.to_string();
        let nodes = block.nodes.iter().map(|&n| &self.graph.nodes()[n]);
        let weights = nodes
            .flat_map(|n| &n.operands)
            .filter_map(|&v| self.graph.weight_of(v));
        let within = |name: &str| name.strip_prefix(&prefix).unwrap_or(name).to_owned();
        weights.map(|w| (within(&w.name), &w.tensor)).collect()
    }
}

fn find_block(
    graph: &Graph,
    owners: &[Option<BlockName>],
    name: BlockName,
    positions: Vec<usize>,
) -> Block {
    let is_outside = |value: ValueId| match graph.value(value).def {
        ValueDef::Node(node) => owners[node.index()] != Some(name),
        ValueDef::Input(_) => true,
        ValueDef::Weight(_) => false,
    };
    let own_name = name.to_string();
    let nodes: Vec<&Node> = positions.iter().map(|&p| &graph.nodes()[p]).collect();
    let is_sum = |node: &&&Node| matches!(node.op, Op::Add(_)) && node.name == own_name;
    let sums: Vec<ValueId> = nodes.iter().filter(is_sum).map(|n| n.result).collect();
    let last = nodes.last().expect("a block is found by its nodes").result;
    let output = sums.last().copied().unwrap_or(last);

    let joins = nodes.iter().find(|node| {
        let joins_two = matches!(node.op, Op::Concat(_)) && node.operands.len() == 2;
        joins_two && node.name == own_name && node.operands.iter().all(|&v| is_outside(v))
    });
    let join = joins.map(|node| (node.operands[0], node.operands[1]));
    let taken = nodes.iter().flat_map(|n| n.operands.iter().copied());
    let entering: BTreeSet<ValueId> = match join {
        Some((hidden, _)) => BTreeSet::from([hidden]),
        None => taken.filter(|&v| is_outside(v)).collect(),
    };
    let hidden = match sums.len() {
        0 => Err(
            "does not end in a sum, as ResNets and attentions do before passes that fuse"
                .to_owned(),
        ),
        1 => unchanged(graph, &entering, output),
        n => Err(format!("stands {n} times with the same weights")),
    };
    Block {
        nodes: positions,
        output,
        hidden,
        skip: join.map(|(_, skip)| skip),
    }
}

/// The one of the entering values that is of the output's type.
fn unchanged(
    graph: &Graph,
    entering: &BTreeSet<ValueId>,
    output: ValueId,
) -> Result<ValueId, String> {
    let ty = graph.ty(output);
    let mut same = entering.iter().filter(|&&v| graph.ty(v) == ty);
    match (same.next(), same.next()) {
        (Some(&value), None) => Ok(value),
        (Some(_), Some(_)) => Err(format!("takes several values of type {ty}")),
        (None, _) => {
            let image = entering
                .iter()
                .find(|&&v| graph.ty(v).shape.rank() == ty.shape.rank());
            let from = image.map_or_else(
                || "nothing of that rank".to_owned(),
                |&v| graph.ty(v).to_string(),
            );
            Err(format!("turns {from} into {ty}"))
        }
    }
}
