//! Properties that every operator holds, tested over its examples.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use snapc_ir::ops::{AttributeMap, Example};
use snapc_ir::tensor::Elements;
use snapc_ir::{DType, Dim, Graph, Op, Shape, Tensor, TensorType, eval, text, verify};

/// Operators that only move elements, whatever their type; the others take their first operand of some types only.
const ANY_DTYPE: [&str; 6] = ["cast", "concat", "gather", "reshape", "slice", "transpose"];

fn label(example: &Example) -> String {
    let types: Vec<String> = example.operands.iter().map(ToString::to_string).collect();
    format!("{:?} of {}", example.op, types.join(", "))
}

fn infer(op: &Op, operands: &[TensorType]) -> Option<TensorType> {
    op.infer(&operands.iter().collect::<Vec<_>>()).ok()
}

/// A linear congruential generator (the constants of Knuth's MMIX), its upper half taken.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        let step = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = step.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Floats lie in [-2, 2), on the grid of the type; integers from 0 up to the bound, truth values below 2.
    fn tensor(&mut self, ty: &TensorType, batch: usize, int_bound: i64) -> Tensor {
        let shape = ty.shape.bind(batch);
        let n: usize = shape.iter().product();
        if !ty.dtype.is_float() {
            let bound = if ty.dtype == DType::Bool {
                2
            } else {
                int_bound
            };
            let elements = (0..n).map(|_| i64::from(self.next()) % bound);
            return Tensor::int(&shape, elements.collect());
        }
        let element = |_| self.next() as f32 / 2f32.powi(30) - 2.0;
        let mut tensor = Tensor::float(&shape, (0..n).map(element).collect());
        tensor.round_to(ty.dtype);
        tensor
    }

    fn tensors(&mut self, operands: &[TensorType], batch: usize, int_bound: i64) -> Vec<Tensor> {
        let tensor = |ty| self.tensor(ty, batch, int_bound);
        operands.iter().map(tensor).collect()
    }
}

fn evaluate(op: &Op, tensors: &[Tensor]) -> Tensor {
    op.eval(&tensors.iter().collect::<Vec<_>>())
}

/// A graph of one node, with inputs `0`, `1`, … and output `y`.
fn graph_of(op: &Op, operands: &[TensorType]) -> Graph {
    let mut graph = Graph::new("g");
    let input = |(i, ty): (usize, &TensorType)| graph.input(i.to_string(), ty.clone());
    let inputs: Vec<_> = operands.iter().enumerate().map(input).collect();
    let y = graph
        .add(op.clone(), &inputs, "node")
        .expect("operands that inference accepts");
    graph.output("y", y);
    graph
}

/// The graph with every composite operator replaced by simpler ones, until none is left.
fn decomposed(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    while graph.nodes().iter().any(|n| n.op.is_composite()) {
        graph = graph
            .rebuild::<snapc_ir::BuildError>(|rebuild, node| {
                let operands = rebuild.operands(node)?;
                match node
                    .op
                    .decompose(&mut rebuild.graph, &operands, &node.name)?
                {
                    Some(value) => Ok(Some(value)),
                    None => rebuild.copy(node).map(Some),
                }
            })
            .expect("decompositions of operators that inference accepts are sound");
    }
    graph
}

#[test]
fn every_operator_has_a_name_of_its_own_and_examples() {
    let names: BTreeSet<&str> = Op::NAMES.iter().copied().collect();
    assert_eq!(names.len(), Op::NAMES.len(), "a name is used twice");
    let shown: BTreeSet<&str> = Op::examples().iter().map(|e| e.op.name()).collect();
    assert_eq!(shown, names);
}

#[test]
fn inferred_shapes_are_those_of_the_results() {
    let mut random = Random(1);
    for example in Op::examples() {
        let ty =
            infer(&example.op, &example.operands).unwrap_or_else(|| panic!("{}", label(&example)));
        for batch in [1, 3] {
            let tensors = random.tensors(&example.operands, batch, example.int_bound);
            let y = evaluate(&example.op, &tensors);
            assert_eq!(y.shape, ty.shape.bind(batch), "{}", label(&example));
            let is_float = matches!(y.elements, Elements::Float(_));
            assert_eq!(is_float, ty.dtype.is_float(), "{}", label(&example));
        }
    }
}

#[test]
fn decompositions_mean_the_same() {
    let mut random = Random(2);
    for example in Op::examples().iter().filter(|e| e.op.is_composite()) {
        let whole = graph_of(&example.op, &example.operands);
        let parts = decomposed(&whole);
        verify::verify(&parts).unwrap_or_else(|v| panic!("{}: {v:?}", label(example)));
        let output = |g: &Graph| g.ty(g.outputs()[0].value).clone();
        assert_eq!(output(&parts), output(&whole), "{}", label(example));
        assert!(
            parts.nodes().iter().all(|n| n.name == "node"),
            "{}",
            label(example)
        );
        // In f16 every step of the parts is rounded, to 11 bits.
        let tolerance = if output(&whole).dtype == DType::F32 {
            1e-5
        } else {
            1e-2
        };
        for batch in [1, 3] {
            let tensors = random.tensors(&example.operands, batch, example.int_bound);
            let names = (0..).map(|i: usize| i.to_string());
            let inputs: BTreeMap<String, Tensor> = names.zip(tensors).collect();
            let [a, b] =
                [&whole, &parts].map(|g| eval::run(g, &inputs).unwrap().remove("y").unwrap());
            assert_eq!(a.shape, b.shape, "{}", label(example));
            let largest = a.floats().iter().fold(0f32, |m, v| m.max(v.abs()));
            for (a, b) in a.floats().iter().zip(b.floats()) {
                let near = (a - b).abs() <= tolerance * largest;
                assert!(near, "{}: {a} is not {b}", label(example));
            }
        }
    }
}

#[test]
fn only_composites_decompose() {
    for example in Op::examples() {
        let mut graph = graph_of(&example.op, &example.operands);
        let operands = graph.nodes()[0].operands.clone();
        let value = example.op.decompose(&mut graph, &operands, "node").unwrap();
        assert_eq!(
            value.is_some(),
            example.op.is_composite(),
            "{}",
            label(&example)
        );
    }
}

#[test]
fn attributes_make_the_same_operator_again() {
    for Example { op, .. } in Op::examples() {
        let attributes = op.attributes().into_iter().map(|(k, v)| (k.to_owned(), v));
        let map = AttributeMap(attributes.collect());
        let again = Op::from_parts(op.name(), map.clone());
        assert_eq!(again, Ok(op.clone()));
        for name in map.0.keys() {
            let mut fewer = map.clone();
            fewer.0.remove(name);
            assert!(
                Op::from_parts(op.name(), fewer).is_err(),
                "{op:?} without {name}"
            );
        }
    }
}

#[test]
fn the_text_of_every_operator_round_trips() {
    for example in Op::examples() {
        let whole = graph_of(&example.op, &example.operands);
        for graph in [decomposed(&whole), whole] {
            let printed = text::print(&graph);
            let again = text::parse(&printed).unwrap_or_else(|e| panic!("{e} in {printed}"));
            assert_eq!(text::print(&again), printed);
            let ops = |g: &Graph| g.nodes().iter().map(|n| n.op.clone()).collect::<Vec<_>>();
            assert_eq!(ops(&again), ops(&graph), "{printed}");
        }
    }
}

#[test]
fn wrong_numbers_of_operands_are_refused() {
    for example in Op::examples() {
        assert!(infer(&example.op, &[]).is_none(), "{:?}", example.op);
        if example.op.name() != "concat" {
            let many = vec![example.operands[0].clone(); 5];
            assert!(infer(&example.op, &many).is_none(), "{:?}", example.op);
        }
    }
}

#[test]
fn wrong_element_types_are_refused() {
    for example in Op::examples() {
        for i in 0..example.operands.len() {
            let mut operands = example.operands.clone();
            operands[i].dtype = DType::Bool;
            let free = i == 0 && (operands.len() == 1 || example.op.name() == "gather");
            if !free || !ANY_DTYPE.contains(&example.op.name()) {
                let ty = infer(&example.op, &operands);
                assert!(ty.is_none(), "{} with operand {i} bool", label(&example));
            }
        }
    }
}

fn any_type() -> impl Strategy<Value = TensorType> {
    let dim = prop_oneof![
        3 => (0usize..=6).prop_map(Dim::Fixed),
        1 => Just(Dim::Batch),
        1 => Just(Dim::Fixed(8)),
    ];
    let dtype = proptest::sample::select(DType::ALL.to_vec());
    let shape = proptest::collection::vec(dim, 0..=5).prop_map(Shape);
    (dtype, shape).prop_map(|(dtype, shape)| TensorType::new(dtype, shape))
}

/// An operator with any operands, and one with its own operands of which some are replaced.
fn any_use() -> impl Strategy<Value = (Op, Vec<TensorType>)> {
    let example = proptest::sample::select(Op::examples());
    let types = proptest::collection::vec(any_type(), 0..=5);
    let replaced = proptest::collection::vec(proptest::option::weighted(0.3, any_type()), 5);
    (example, types, replaced, any::<bool>()).prop_map(|(example, types, replaced, random)| {
        if random {
            return (example.op, types);
        }
        let own = example.operands.into_iter().zip(replaced);
        (
            example.op,
            own.map(|(own, other)| other.unwrap_or(own)).collect(),
        )
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(4096))]

    /// Inference gives a type or an error; what it accepts can be evaluated, counted and decomposed.
    #[test]
    fn inference_never_panics_and_is_right_when_it_accepts((op, operands) in any_use()) {
        let Some(ty) = infer(&op, &operands) else { return Ok(()); };
        let y = evaluate(&op, &Random(3).tensors(&operands, 2, 2));
        prop_assert_eq!(&y.shape, &ty.shape.bind(2));
        op.macs(&operands.iter().collect::<Vec<_>>(), &ty);
        let parts = decomposed(&graph_of(&op, &operands));
        prop_assert_eq!(parts.ty(parts.outputs()[0].value), &ty);
    }

    /// Sizes near the end of the address space overflow nothing.
    #[test]
    fn huge_sizes_never_panic((op, mut operands) in any_use(), which in any::<u64>()) {
        let dims = operands.iter_mut().flat_map(|ty| &mut ty.shape.0).enumerate();
        for (i, dim) in dims {
            if which >> (i % 64) & 1 == 1 {
                *dim = Dim::Fixed(usize::MAX - usize::from(which % 2 == 0));
            }
        }
        if let Some(ty) = infer(&op, &operands) {
            op.macs(&operands.iter().collect::<Vec<_>>(), &ty);
        }
    }
}
