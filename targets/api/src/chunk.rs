//! Graphs in two chunks, for systems that cannot load the weights of a whole one: Apple's converter cuts the UNet into two
//! packages for iOS (`--chunk-unet` of apple/ml-stable-diffusion).

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::{BuildError, DType, Graph, Op, Rebuild, ValueDef, ValueId};

/// The larger chunk has at most this part of the weights, if a cut allows it.
const LARGEST_PART: f64 = 0.6;

/// Why two chunks do not make a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The second chunk takes what the first one gives, with another type.
    #[error("graph '{second}' takes '{feature}' as {wanted}, and '{first}' has it as {found}")]
    Feature {
        /// The first chunk.
        first: String,
        /// The second chunk.
        second: String,
        /// Name of the feature.
        feature: String,
        /// Type in the second chunk.
        wanted: String,
        /// Type in the first chunk.
        found: String,
    },
    /// The joined graph does not hold together.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// The names of the chunks of a graph.
pub fn chunk_names(graph: &str) -> [String; 2] {
    [1, 2].map(|part| format!("{graph}_chunk{part}"))
}

/// Cuts a graph in two. The second chunk takes what the first one makes for it as inputs, named by the nodes that make them,
/// beside inputs of the graph; what is only a view of an input is made anew. Of the cuts that leave at most 60 % of the bytes
/// of the weights in one chunk, it is the one with the fewest bytes between the chunks, then the more even one, then the
/// first one; when no cut is that even, it is the most even one. Outputs stay with the chunk that makes them.
///
/// `None` when there is no place to cut: all cuts leave a chunk without a node, or hand over scalars or elements that are
/// not f16, f32 or i32.
///
/// # Errors
/// Only for a graph that breaks the invariants of [`snapc_ir::verify`].
pub fn cut(graph: &Graph) -> Result<Option<[Graph; 2]>, BuildError> {
    let uses = Uses::of(graph);
    let cuts = (1..graph.nodes().len()).filter_map(|at| uses.cut(graph, at));
    let cuts: Vec<Cut> = cuts.collect();
    let total = uses.weight_bytes(graph);
    let even = |c: &Cut| c.larger as f64 <= LARGEST_PART * total as f64;
    let best = match cuts
        .iter()
        .filter(|c| even(c))
        .min_by_key(|c| c.boundary_first())
    {
        Some(best) => Some(best),
        None => cuts.iter().min_by_key(|c| c.evenness_first()),
    };
    let Some(best) = best else {
        return Ok(None);
    };
    let names = boundary_names(graph, &best.boundary);
    let [first, second] = chunk_names(graph.name());
    let first = first_chunk(graph, first, best, &names, &uses)?;
    let second = second_chunk(graph, second, best, &names, &uses)?;
    Ok(Some([first, second]))
}

/// Joins two chunks to one graph: inputs of the second one that are outputs of the first one disappear, and inputs of both
/// are one.
///
/// # Errors
/// When a feature has two types.
pub fn join(first: &Graph, second: &Graph, name: &str) -> Result<Graph, ChunkError> {
    let mut features: BTreeMap<&str, ValueId> = BTreeMap::new();
    let mut rebuild = Rebuild::new(first);
    rebuild.graph = Graph::new(name);
    for input in first.inputs() {
        let ty = first.ty(input.value).clone();
        let value = rebuild.graph.input(input.name.clone(), ty);
        rebuild.bind(input.value, value);
        features.insert(&input.name, value);
    }
    copy_nodes(&mut rebuild, |_| true)?;
    let taken: BTreeSet<&str> = second.inputs().iter().map(|i| i.name.as_str()).collect();
    let mut outputs = Vec::new();
    for output in first.outputs() {
        let value = rebuild.operand(output.value)?;
        features.insert(&output.name, value);
        if !taken.contains(output.name.as_str()) {
            outputs.push((output.name.clone(), value));
        }
    }
    let graph = rebuild.graph;
    let mut rebuild = Rebuild::new(second);
    rebuild.graph = graph;
    for input in second.inputs() {
        let ty = second.ty(input.value);
        let value = match features.get(input.name.as_str()) {
            None => rebuild.graph.input(input.name.clone(), ty.clone()),
            Some(&value) if rebuild.graph.ty(value) == ty => value,
            Some(&value) => {
                return Err(ChunkError::Feature {
                    first: first.name().to_owned(),
                    second: second.name().to_owned(),
                    feature: input.name.clone(),
                    wanted: ty.to_string(),
                    found: rebuild.graph.ty(value).to_string(),
                });
            }
        };
        rebuild.bind(input.value, value);
    }
    copy_nodes(&mut rebuild, |_| true)?;
    for output in second.outputs() {
        let value = rebuild.operand(output.value)?;
        outputs.push((output.name.clone(), value));
    }
    for (name, value) in outputs {
        rebuild.graph.output(name, value);
    }
    Ok(rebuild.graph)
}

/// Adds the nodes whose position is wanted.
fn copy_nodes(rebuild: &mut Rebuild<'_>, wanted: impl Fn(usize) -> bool) -> Result<(), BuildError> {
    let nodes = rebuild.old().nodes().iter().enumerate();
    for (_, node) in nodes.filter(|(position, _)| wanted(*position)) {
        let value = rebuild.copy(node)?;
        rebuild.bind(node.result, value);
    }
    Ok(())
}

/// A place to cut.
struct Cut {
    /// Nodes before it.
    at: usize,
    /// What the first chunk hands over.
    boundary: Vec<ValueId>,
    /// Bytes of that, at batch 1.
    boundary_bytes: u64,
    /// Bytes of the weights in the larger chunk.
    larger: u64,
}

impl Cut {
    fn boundary_first(&self) -> (u64, u64, usize) {
        (self.boundary_bytes, self.larger, self.at)
    }

    fn evenness_first(&self) -> (u64, u64, usize) {
        (self.larger, self.boundary_bytes, self.at)
    }
}

/// Where values are used, by position of nodes.
struct Uses {
    /// First and last node that uses a value.
    range: Vec<Option<(usize, usize)>>,
    /// Whether a value is an input or only a view of one.
    is_view: Vec<bool>,
}

impl Uses {
    fn of(graph: &Graph) -> Self {
        let mut range: Vec<Option<(usize, usize)>> = vec![None; graph.values().len()];
        let mut is_view = vec![false; graph.values().len()];
        for input in graph.inputs() {
            is_view[input.value.index()] = true;
        }
        for (position, node) in graph.nodes().iter().enumerate() {
            for operand in &node.operands {
                let range = &mut range[operand.index()];
                *range = Some((range.map_or(position, |(first, _)| first), position));
            }
            let moves = matches!(node.op, Op::Cast(_) | Op::Reshape(_) | Op::Transpose(_));
            is_view[node.result.index()] = moves && is_view[node.operands[0].index()];
        }
        Uses { range, is_view }
    }

    fn weight_bytes(&self, graph: &Graph) -> u64 {
        let used = graph.weights().iter();
        let used = used.filter(|w| self.range[w.value.index()].is_some());
        used.map(|w| w.tensor.stored_bytes_len() as u64).sum()
    }

    /// The cut behind so many nodes; `None` when something that it would hand over can be no feature.
    fn cut(&self, graph: &Graph, at: usize) -> Option<Cut> {
        let mut boundary = Vec::new();
        let mut boundary_bytes = 0;
        for node in &graph.nodes()[..at] {
            let value = node.result;
            let is_used_later = self.range[value.index()].is_some_and(|(_, last)| last >= at);
            if !is_used_later || self.is_view[value.index()] {
                continue;
            }
            let ty = graph.ty(value);
            if ty.shape.rank() == 0 || !matches!(ty.dtype, DType::F16 | DType::F32 | DType::I32) {
                return None;
            }
            let elements: usize = ty.shape.bind(1).iter().product();
            boundary_bytes += (elements * ty.dtype.size()) as u64;
            boundary.push(value);
        }
        let mut parts = [0, 0];
        for weight in graph.weights() {
            let bytes = weight.tensor.stored_bytes_len() as u64;
            if let Some((first, last)) = self.range[weight.value.index()] {
                parts[0] += if first < at { bytes } else { 0 };
                parts[1] += if last >= at { bytes } else { 0 };
            }
        }
        Some(Cut {
            at,
            boundary,
            boundary_bytes,
            larger: parts[0].max(parts[1]),
        })
    }

    /// By position, whether a node is in the second chunk: those behind the cut, and the views that they need.
    fn second(&self, graph: &Graph, cut: &Cut) -> Vec<bool> {
        let mut is_second: Vec<bool> = (0..graph.nodes().len()).map(|i| i >= cut.at).collect();
        let mut needed = vec![false; graph.values().len()];
        for (position, node) in graph.nodes().iter().enumerate().rev() {
            let is_view = self.is_view[node.result.index()];
            is_second[position] |= is_view && needed[node.result.index()];
            if is_second[position] {
                node.operands.iter().for_each(|v| needed[v.index()] = true);
            }
        }
        is_second
    }
}

/// A name for each value that is handed over, which no feature of the graph has: that of its node, with letters, digits and
/// underscores alone, as the strictest format wants it.
fn boundary_names(graph: &Graph, boundary: &[ValueId]) -> Vec<String> {
    let inputs = graph.inputs().iter().map(|i| i.name.clone());
    let outputs = graph.outputs().iter().map(|o| o.name.clone());
    let mut taken: BTreeSet<String> = inputs.chain(outputs).collect();
    let fresh = |value: &ValueId| {
        let node = graph.node_of(*value).map_or("", |node| node.name.as_str());
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let stem: String = format!("{node}.out").chars().map(plain).collect();
        let numbered = (1..).map(|n| format!("{stem}_{n}"));
        let mut names = std::iter::once(stem.clone()).chain(numbered);
        let name = names.find(|name| taken.insert(name.clone()));
        name.expect("there are more numbers than values")
    };
    boundary.iter().map(fresh).collect()
}

fn first_chunk(
    graph: &Graph,
    name: String,
    cut: &Cut,
    names: &[String],
    uses: &Uses,
) -> Result<Graph, BuildError> {
    let is_second = uses.second(graph, cut);
    let outputs = graph.outputs().iter();
    let early = |value: ValueId| match graph.value(value).def {
        ValueDef::Node(position) => position.index() < cut.at,
        _ => true,
    };
    let outputs = outputs.filter(|o| early(o.value));
    let mut given: Vec<(&str, ValueId)> = outputs.map(|o| (o.name.as_str(), o.value)).collect();
    given.extend(
        names
            .iter()
            .map(String::as_str)
            .zip(cut.boundary.iter().copied()),
    );
    // Nodes that only the second chunk uses are views, which it makes itself.
    let mut needed = vec![false; graph.values().len()];
    given
        .iter()
        .for_each(|(_, value)| needed[value.index()] = true);
    for node in graph.nodes()[..cut.at].iter().rev() {
        if needed[node.result.index()] {
            node.operands.iter().for_each(|v| needed[v.index()] = true);
        }
    }
    let taken_later = taken_inputs(graph, |position| is_second[position]);
    let mut rebuild = Rebuild::new(graph);
    rebuild.graph = Graph::new(name);
    for input in graph.inputs() {
        // An input that nothing uses is still one of the graph.
        if needed[input.value.index()] || !taken_later.contains(&input.value) {
            let ty = graph.ty(input.value).clone();
            let value = rebuild.graph.input(input.name.clone(), ty);
            rebuild.bind(input.value, value);
        }
    }
    copy_nodes(&mut rebuild, |position| {
        position < cut.at && needed[graph.nodes()[position].result.index()]
    })?;
    for (name, value) in given {
        let value = rebuild.operand(value)?;
        rebuild.graph.output(name, value);
    }
    Ok(rebuild.graph)
}

fn second_chunk(
    graph: &Graph,
    name: String,
    cut: &Cut,
    names: &[String],
    uses: &Uses,
) -> Result<Graph, BuildError> {
    let is_second = uses.second(graph, cut);
    let taken = taken_inputs(graph, |position| is_second[position]);
    let mut rebuild = Rebuild::new(graph);
    rebuild.graph = Graph::new(name);
    let inputs = graph.inputs().iter();
    let inputs = inputs.filter(|input| taken.contains(&input.value));
    let inputs = inputs.map(|input| (input.name.as_str(), input.value));
    let boundary = names
        .iter()
        .map(String::as_str)
        .zip(cut.boundary.iter().copied());
    for (name, value) in inputs.chain(boundary) {
        let input = rebuild.graph.input(name, graph.ty(value).clone());
        rebuild.bind(value, input);
    }
    copy_nodes(&mut rebuild, |position| is_second[position])?;
    for output in graph.outputs() {
        if let ValueDef::Node(position) = graph.value(output.value).def
            && position.index() >= cut.at
        {
            let value = rebuild.operand(output.value)?;
            rebuild.graph.output(output.name.clone(), value);
        }
    }
    Ok(rebuild.graph)
}

/// The inputs of the graph that nodes at wanted positions use.
fn taken_inputs(graph: &Graph, wanted: impl Fn(usize) -> bool) -> BTreeSet<ValueId> {
    let nodes = graph.nodes().iter().enumerate();
    let nodes = nodes.filter(|(position, _)| wanted(*position));
    let operands = nodes.flat_map(|(_, node)| node.operands.iter().copied());
    let is_input = |v: &ValueId| matches!(graph.value(*v).def, ValueDef::Input(_));
    operands.filter(is_input).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Add, Linear, Reshape, Silu};
    use snapc_ir::verify::verify;
    use snapc_ir::{Dim, LazyTensor, Shape, Tensor, TensorType, eval};

    /// Four linear layers of 16 weights, with a skip connection over the middle two, and a view of an input at both ends.
    fn graph() -> Graph {
        let mut g = Graph::new("unet");
        let float = |shape: &[usize]| TensorType::new(DType::F32, Shape::fixed(shape));
        let x = g.input("x", float(&[2, 4]));
        let t = g.input("t", float(&[4]));
        let shape = vec![Dim::Fixed(1), Dim::Fixed(4)];
        let row = g.add(Reshape { shape }, &[t], "row").unwrap();
        let weight = |g: &mut Graph, name: &str, rows: usize, columns: usize| {
            let data: Vec<f32> = (0..rows * columns).map(|i| (i % 5) as f32 - 2.0).collect();
            g.parameter(name, LazyTensor::from_f32(&[rows, columns], &data))
        };
        let [a, b] = ["a", "b"].map(|name| weight(&mut g, name, 4, 4));
        let c = weight(&mut g, "c", 4, 4);
        let d = weight(&mut g, "d", 4, 4);
        let x = g.add(Add {}, &[x, row], "add.in").unwrap();
        let skip = g.add(Linear {}, &[x, a], "layer.1").unwrap();
        let y = g.add(Linear {}, &[skip, b], "layer.2").unwrap();
        let y = g.add(Silu {}, &[y], "layer.2").unwrap();
        let y = g.add(Linear {}, &[y, c], "layer.3").unwrap();
        let y = g.add(Add {}, &[y, skip], "join").unwrap();
        let y = g.add(Linear {}, &[y, d], "layer.4").unwrap();
        let y = g.add(Add {}, &[y, row], "add.out").unwrap();
        g.output("y", y);
        g
    }

    fn inputs() -> BTreeMap<String, Tensor> {
        let x = Tensor::float(&[2, 4], (0..8).map(|i| i as f32 / 4.0 - 1.0).collect());
        let t = Tensor::float(&[4], vec![0.5, -0.25, 0.0, 2.0]);
        BTreeMap::from([("x".to_owned(), x), ("t".to_owned(), t)])
    }

    fn names<'a>(list: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
        list.map(String::as_str).collect()
    }

    /// Behind layer 2 and behind its activation, half of the weights are on each side, and two tensors of 8 elements are
    /// handed over. The first of these places is the cut.
    #[test]
    fn a_graph_is_cut_where_the_weights_are_even() {
        let [first, second] = cut(&graph()).unwrap().unwrap();
        assert_eq!(
            (first.name(), second.name()),
            ("unet_chunk1", "unet_chunk2")
        );
        assert_eq!(names(first.inputs().iter().map(|i| &i.name)), ["x", "t"]);
        let handed_over = ["layer_1_out", "layer_2_out"];
        assert_eq!(names(first.outputs().iter().map(|o| &o.name)), handed_over);
        // The view of `t` is made again.
        let taken = ["t", "layer_1_out", "layer_2_out"];
        assert_eq!(names(second.inputs().iter().map(|i| &i.name)), taken);
        assert_eq!(names(second.outputs().iter().map(|o| &o.name)), ["y"]);
        assert_eq!((first.weights().len(), second.weights().len()), (2, 2));
        // The view, the sum and two layers; the view again and the other five nodes.
        assert_eq!((first.nodes().len(), second.nodes().len()), (4, 6));
    }

    #[test]
    fn chunks_one_after_the_other_compute_what_the_graph_computes() {
        let graph = graph();
        let whole = eval::run(&graph, &inputs()).unwrap();
        let [first, second] = cut(&graph).unwrap().unwrap();
        verify(&first).unwrap();
        verify(&second).unwrap();
        let mut given = inputs();
        given.extend(eval::run(&first, &given).unwrap());
        let taken = |name: &String| second.inputs().iter().any(|i| i.name == *name);
        given.retain(|name, _| taken(name));
        assert_eq!(eval::run(&second, &given).unwrap(), whole);

        let joined = join(&first, &second, "unet").unwrap();
        verify(&joined).unwrap();
        assert_eq!(joined.name(), "unet");
        assert_eq!(names(joined.inputs().iter().map(|i| &i.name)), ["x", "t"]);
        assert_eq!(eval::run(&joined, &inputs()).unwrap(), whole);
    }

    /// A weight of nine tenths of the bytes leaves no even cut.
    #[test]
    fn the_most_even_cut_is_taken_when_none_is_even() {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::fixed(&[1, 3])));
        let large = g.parameter("large", LazyTensor::from_f32(&[30, 3], &[0.5; 90]));
        let y = g.add(Linear {}, &[x, large], "first").unwrap();
        let y = g.add(Silu {}, &[y], "second").unwrap();
        g.output("y", y);
        let [first, second] = cut(&g).unwrap().unwrap();
        assert_eq!((first.nodes().len(), second.nodes().len()), (1, 1));
    }

    #[test]
    fn a_graph_of_one_node_is_not_cut() {
        let mut g = Graph::new("g");
        let x = g.input("x", TensorType::new(DType::F32, Shape::fixed(&[3])));
        let y = g.add(Silu {}, &[x], "only").unwrap();
        g.output("y", y);
        assert!(cut(&g).unwrap().is_none());
    }

    #[test]
    fn chunks_that_disagree_are_not_joined() {
        let [first, _] = cut(&graph()).unwrap().unwrap();
        let mut other = Graph::new("other");
        let ty = TensorType::new(DType::F16, Shape::fixed(&[2, 4]));
        let x = other.input("layer_1_out", ty);
        let y = other.add(Silu {}, &[x], "y").unwrap();
        other.output("y", y);
        let error = join(&first, &other, "unet").unwrap_err().to_string();
        assert_eq!(
            error,
            "graph 'other' takes 'layer_1_out' as f16[2,4], and 'unet_chunk1' has it as f32[2,4]"
        );
    }
}
