//! The part of a graph that one input decides alone.

use std::collections::BTreeSet;

use snapc_ir::{BuildError, Graph, TensorType, ValueDef, ValueId};

/// The values that depend on one input and on constants, and on nothing else.
pub(crate) struct InputCone<'a> {
    graph: &'a Graph,
    input: ValueId,
    /// By value index.
    member: Vec<bool>,
    frontier: Vec<ValueId>,
}

impl<'a> InputCone<'a> {
    /// The largest cone of an input in which every result is of a type that `admits` takes.
    pub(crate) fn of(
        graph: &'a Graph,
        input: ValueId,
        admits: impl Fn(&TensorType) -> bool,
    ) -> Self {
        let mut member = vec![false; graph.values().len()];
        member[input.index()] = true;
        let is_weight = |v: ValueId| matches!(graph.value(v).def, ValueDef::Weight(_));
        for node in graph.nodes() {
            let mut operands = node.operands.iter();
            let touched = node.operands.iter().any(|v| member[v.index()]);
            member[node.result.index()] = touched
                && operands.all(|&v| member[v.index()] || is_weight(v))
                && admits(graph.ty(node.result));
        }
        let mut left = BTreeSet::new();
        for node in graph.nodes() {
            if !member[node.result.index()] {
                left.extend(node.operands.iter().filter(|v| member[v.index()]));
            }
        }
        let outputs = graph.outputs().iter().map(|o| o.value);
        left.extend(outputs.filter(|v| member[v.index()]));
        InputCone {
            graph,
            input,
            member,
            frontier: left.into_iter().collect(),
        }
    }

    /// Whether a value belongs to the cone; the input does.
    pub(crate) fn contains(&self, value: ValueId) -> bool {
        self.member[value.index()]
    }

    /// The values of the cone that the rest of the graph or an output uses, in the order of their definition; the input may be
    /// among them.
    pub(crate) fn frontier(&self) -> &[ValueId] {
        &self.frontier
    }

    /// Name of what defines a value of the cone.
    pub(crate) fn name(&self, value: ValueId) -> &'a str {
        let input = |i: usize| self.graph.inputs()[i].name.as_str();
        match self.graph.value(value).def {
            ValueDef::Input(i) => input(i),
            ValueDef::Weight(w) => &self.graph.weights()[w.index()].name,
            ValueDef::Node(n) => &self.graph.nodes()[n.index()].name,
        }
    }

    /// Adds what the frontier is computed by to another graph, where `source` stands for the input, and gives the values
    /// that stand for the frontier. A weight whose name is taken there gets the name of this graph in front.
    ///
    /// # Errors
    /// When `source` is of another type than an operator takes.
    pub(crate) fn copy_into(
        &self,
        target: &mut Graph,
        source: ValueId,
    ) -> Result<Vec<ValueId>, BuildError> {
        let needed = self.needed();
        let mut taken: BTreeSet<String> = target.weights().iter().map(|w| w.name.clone()).collect();
        let mut map: Vec<Option<ValueId>> = vec![None; self.member.len()];
        map[self.input.index()] = Some(source);
        for node in self.graph.nodes() {
            if !needed[node.result.index()] {
                continue;
            }
            let mut operands = Vec::with_capacity(node.operands.len());
            for &operand in &node.operands {
                let new = match (map[operand.index()], self.graph.weight_of(operand)) {
                    (Some(new), _) => new,
                    (None, Some(weight)) => {
                        let mut name = weight.name.clone();
                        while !taken.insert(name.clone()) {
                            name = format!("{}.{name}", self.graph.name());
                        }
                        let tensor = weight.tensor.clone();
                        match weight.is_parameter {
                            true => target.parameter(name, tensor),
                            false => target.constant(name, tensor),
                        }
                    }
                    (None, None) => unreachable!("a cone holds what its values are computed from"),
                };
                map[operand.index()] = Some(new);
                operands.push(new);
            }
            let value = target.add(node.op.clone(), &operands, node.name.clone())?;
            map[node.result.index()] = Some(value);
        }
        let copied = self.frontier.iter().map(|v| map[v.index()]);
        Ok(copied
            .map(|v| v.expect("the frontier is in the cone"))
            .collect())
    }

    /// The members that the frontier is computed from, itself included, by value index.
    fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.member.len()];
        self.frontier.iter().for_each(|v| needed[v.index()] = true);
        for node in self.graph.nodes().iter().rev() {
            if needed[node.result.index()] {
                node.operands.iter().for_each(|v| needed[v.index()] = true);
            }
        }
        needed
    }
}

/// Number of trained values in a graph.
pub(crate) fn parameters(graph: &Graph) -> usize {
    let parameters = graph.weights().iter().filter(|w| w.is_parameter);
    parameters.map(|w| w.tensor.elements()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Add, Exp, Mul, Silu};
    use snapc_ir::{DType, LazyTensor, Shape, verify};

    #[test]
    fn the_frontier_is_where_other_inputs_come_in() {
        let mut g = Graph::new("g");
        let ty = TensorType::new(DType::F32, Shape::batched(&[2]));
        let (x, t) = (g.input("x", ty.clone()), g.input("t", ty));
        let w = g.parameter("w", LazyTensor::from_f32(&[2], &[1.0, 2.0]));
        let constant = g.add(Exp {}, &[w], "constant").unwrap();
        let inner = g.add(Silu {}, &[t], "inner").unwrap();
        let edge = g.add(Mul {}, &[inner, w], "edge").unwrap();
        let unused = g.add(Exp {}, &[edge], "unused").unwrap();
        let mixed = g.add(Add {}, &[edge, x], "mixed").unwrap();
        let y = g.add(Add {}, &[mixed, constant], "y").unwrap();
        g.output("y", y);
        let cone = InputCone::of(&g, t, |_| true);
        assert_eq!(cone.frontier(), [edge]);
        let inside = [t, inner, edge, unused].map(|v| cone.contains(v));
        let outside = [x, w, constant, mixed, y].map(|v| cone.contains(v));
        assert_eq!((inside, outside), ([true; 4], [false; 5]));

        // A name that is taken means another weight there.
        let mut other = Graph::new("other");
        let source = other.input("s", g.ty(t).clone());
        let w = other.parameter("w", LazyTensor::from_f32(&[2], &[3.0, 4.0]));
        let copied = cone.copy_into(&mut other, source).unwrap();
        let z = other.add(Mul {}, &[copied[0], w], "z").unwrap();
        other.output("z", z);
        verify::verify(&other).unwrap();
        let names: Vec<&str> = other.nodes().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["inner", "edge", "z"]);
        let weights: Vec<&str> = other.weights().iter().map(|w| w.name.as_str()).collect();
        assert_eq!(weights, ["w", "g.w"]);
    }

    #[test]
    fn a_type_that_is_not_admitted_ends_the_cone() {
        let mut g = Graph::new("g");
        let t = g.input("t", TensorType::new(DType::F32, Shape::batched(&[2])));
        let a = g.add(Silu {}, &[t], "a").unwrap();
        let b = g
            .add(snapc_ir::ops::Cast { to: DType::F16 }, &[a], "b")
            .unwrap();
        g.output("b", b);
        let cone = InputCone::of(&g, t, |ty| ty.dtype == DType::F32);
        assert_eq!(cone.frontier(), [a]);
    }
}
