//! Which weights are encoded, and why the others are not.

use snapc_ir::{Graph, Op};

use super::weight_index;
use crate::name_patterns::{NamePatterns, shortened};

/// What is kept as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepRules<'a> {
    /// Layers by name.
    pub keep: &'a NamePatterns,
    /// Weights with less elements.
    pub min_elements: usize,
    /// Whether neither of these is kept.
    pub all: bool,
}

/// A weight `[Cout,Cin,…]` of convolutions or linear layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Position among the weights of the graph.
    pub weight: usize,
    /// Positions of the nodes that use it.
    pub nodes: Vec<usize>,
}

/// The weights of convolutions and linear layers, told apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// What is to be encoded, in the order of the weights.
    pub chosen: Vec<Layer>,
    by_name: Vec<String>,
    small: Vec<String>,
    other_use: Vec<String>,
    absent: Vec<String>,
    min_elements: usize,
}

impl Selection {
    /// Looks over the weights of a graph that are not encoded yet.
    pub(crate) fn of(graph: &Graph, rules: &KeepRules<'_>) -> Self {
        let mut selection = Selection {
            min_elements: rules.min_elements,
            ..Selection::default()
        };
        let uses = graph.use_counts();
        for layer in layers(graph) {
            let weight = &graph.weights()[layer.weight];
            let tensor = &weight.tensor;
            if tensor.encoding().is_some() {
                continue;
            }
            let mut names = layer.nodes.iter().map(|&n| &graph.nodes()[n].name);
            let is_meant = rules.keep.mean(&weight.name) || names.any(|n| rules.keep.mean(n));
            let list = if !tensor.is_present() {
                &mut selection.absent
            } else if uses[weight.value.index()] != layer.nodes.len() {
                &mut selection.other_use
            } else if is_meant && !rules.all {
                &mut selection.by_name
            } else if tensor.elements() < rules.min_elements && !rules.all || tensor.elements() == 0
            {
                &mut selection.small
            } else {
                selection.chosen.push(layer);
                continue;
            };
            list.push(weight.name.clone());
        }
        selection
    }

    /// How many are not chosen.
    pub(crate) fn kept(&self) -> usize {
        [&self.by_name, &self.small, &self.other_use, &self.absent]
            .into_iter()
            .map(Vec::len)
            .sum()
    }

    /// What is kept and why.
    pub(crate) fn notes(&self) -> Vec<String> {
        let few = format!("have less than {} elements", self.min_elements);
        let reasons = [
            (&self.by_name, "are in the list 'keep'"),
            (&self.small, few.as_str()),
            (&self.other_use, "serve other operators too"),
            (&self.absent, "have no data"),
        ];
        let kept = reasons.into_iter().filter(|(names, _)| !names.is_empty());
        kept.map(|(names, reason)| {
            format!(
                "{} weights stay, which {reason}: {}",
                names.len(),
                shortened(names)
            )
        })
        .collect()
    }
}

/// Every weight that is the second operand of a convolution or linear layer, in the order of the weights.
pub(crate) fn layers(graph: &Graph) -> Vec<Layer> {
    let mut nodes: Vec<Vec<usize>> = vec![Vec::new(); graph.weights().len()];
    for (position, node) in graph.nodes().iter().enumerate() {
        if !matches!(node.op, Op::Conv2d(_) | Op::Linear(_)) {
            continue;
        }
        if let Some(weight) = weight_index(graph, node.operands[1]) {
            nodes[weight].push(position);
        }
    }
    let used = nodes
        .into_iter()
        .enumerate()
        .filter(|(_, nodes)| !nodes.is_empty());
    used.map(|(weight, nodes)| Layer { weight, nodes })
        .collect()
}
