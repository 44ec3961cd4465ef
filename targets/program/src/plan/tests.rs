use proptest::prelude::*;

use super::*;
use crate::op::{Binary, Unary};
use crate::types::{Dim, Type};

fn instruction(op: Op, operands: &[u32]) -> Instruction {
    Instruction {
        name: format!("{}{operands:?}", op.name()),
        op,
        operands: operands.iter().map(|&v| Operand::Value(v)).collect(),
        rounding: Rounding::None,
    }
}

const SILU: Op = Op::Unary(Unary::Silu);
const ADD: Op = Op::Binary(Binary::Add);

/// A graph with inputs `[N, size]` and these instructions; the last value is the output.
fn graph(inputs: &[u32], instructions: &[(Op, &[u32])]) -> Graph {
    let mut graph = Graph::new();
    for (i, &size) in inputs.iter().enumerate() {
        let ty = Type::f32([Dim::Batch, Dim::Fixed(size)]);
        graph.input(format!("input{i}"), ty).unwrap();
    }
    for (op, operands) in instructions {
        graph.push(instruction(op.clone(), operands)).unwrap();
    }
    let last = graph.values().len() - 1;
    graph.output("output", last as u32).unwrap();
    graph
}

/// Plays the graph on an arena whose words say which value wrote them last.
fn check(graph: &Graph, batch: usize) -> Plan {
    let plan = plan(graph, batch).unwrap();
    let inputs = graph.inputs().len();
    let mut arena = vec![u32::MAX; plan.words()];
    // What a view reads was written by the instruction at its root.
    let mut writer: Vec<u32> = (0..graph.values().len() as u32).collect();
    for value in 0..inputs as u32 {
        arena[plan.place(value)].fill(value);
    }
    for (i, instruction) in graph.instructions().iter().enumerate() {
        let result = (inputs + i) as u32;
        let place = plan.place(result);
        let elements: usize = graph.values()[result as usize].bind(batch).iter().product();
        assert_eq!(place.len(), elements);
        assert_eq!(place.start % ALIGN, 0);
        let is_view = matches!(instruction.op, Op::View { .. });
        for (position, operand) in instruction.operands.iter().enumerate() {
            let Operand::Value(v) = operand else { continue };
            let read = plan.place(*v);
            let expected = writer[*v as usize];
            assert!(
                arena[read.clone()].iter().all(|&w| w == expected),
                "instruction {i} reads value {v}, which is gone"
            );
            let apart = read.end <= place.start || place.end <= read.start;
            let over = position == 0 && read == place;
            assert!(
                apart || over,
                "instruction {i} writes into operand {position}"
            );
        }
        if is_view && instruction.rounding == Rounding::None {
            let Operand::Value(x) = instruction.operands[0] else {
                panic!("a value")
            };
            writer[result as usize] = writer[x as usize];
        }
        arena[place].fill(writer[result as usize]);
    }
    for port in graph.outputs() {
        let expected = writer[port.value as usize];
        assert!(
            arena[plan.place(port.value)].iter().all(|&w| w == expected),
            "{}",
            port.name
        );
    }
    plan
}

#[test]
fn a_chain_of_functions_needs_one_place() {
    let chain = graph(&[5], &[(SILU, &[0]), (SILU, &[1]), (SILU, &[2])]);
    assert_eq!(check(&chain, 3).words(), 15);
}

#[test]
fn a_value_that_is_read_again_is_kept() {
    // x and silu(x) at once; the sum goes over the first of them.
    let residual = graph(&[32], &[(SILU, &[0]), (ADD, &[1, 0])]);
    let plan = check(&residual, 1);
    assert_eq!(plan.words(), 64);
    assert_eq!(plan.place(2), plan.place(1));
    assert_eq!(plan.len(), 256);
}

#[test]
fn what_is_added_to_itself_is_not_overwritten() {
    let doubled = graph(&[16], &[(SILU, &[0]), (ADD, &[1, 1])]);
    let plan = check(&doubled, 1);
    assert_eq!(plan.words(), 32);
}

#[test]
fn a_broadcast_result_is_elsewhere() {
    let grown = graph(&[1, 16], &[(ADD, &[0, 1])]);
    let plan = check(&grown, 1);
    assert_ne!(plan.place(2), plan.place(0));
}

#[test]
fn views_share_and_keep_the_place_of_their_operand() {
    let view = Op::View {
        dims: vec![Dim::Fixed(4), Dim::Batch, Dim::Fixed(4)],
    };
    let back = Op::View {
        dims: vec![Dim::Batch, Dim::Fixed(16)],
    };
    let viewed = graph(
        &[16],
        &[(view, &[0]), (SILU, &[0]), (back, &[1]), (ADD, &[2, 3])],
    );
    let plan = check(&viewed, 2);
    assert_eq!(plan.place(1), plan.place(0));
    // The view is read at the end, so the function in between must not write over it.
    assert_ne!(plan.place(2), plan.place(0));
    assert_eq!(plan.words(), 64);
}

#[test]
fn a_rounded_view_is_a_copy() {
    let mut rounded = instruction(
        Op::View {
            dims: vec![Dim::Batch, Dim::Fixed(8)],
        },
        &[0],
    );
    rounded.rounding = Rounding::F16;
    let mut graph = graph(&[8], &[(SILU, &[0])]);
    graph.push(rounded).unwrap();
    graph.push(instruction(ADD, &[2, 0])).unwrap();
    graph.output("second", 3).unwrap();
    let plan = check(&graph, 1);
    assert_ne!(plan.place(2), plan.place(0));
}

#[test]
fn a_hole_is_filled_by_what_fits() {
    let slice = |end| Op::Slice {
        axis: 1,
        start: 0,
        end,
    };
    let steps = [
        (slice(64), &[0][..]),
        (slice(32), &[1]),
        (Op::Permute { order: vec![1, 0] }, &[2]),
    ];
    let holes = graph(&[96], &steps);
    let plan = check(&holes, 1);
    // The first slice (64) beside the input (96) is the peak; the others find room where the input was.
    assert_eq!(plan.words(), 160);
}

#[test]
fn sizes_that_cannot_be_are_errors() {
    let mut graph = Graph::new();
    let side = Dim::Fixed(1 << 20);
    graph
        .input("x", Type::f32([Dim::Batch, side, side]))
        .unwrap();
    assert_eq!(plan(&graph, 0), Err(PlanError::EmptyBatch));
    let (name, batch) = ("x".to_owned(), 1 << 30);
    assert_eq!(
        plan(&graph, batch),
        Err(PlanError::TooLarge { name, batch })
    );
    // Each of the two fits, both together do not.
    graph
        .input("y", Type::f32([Dim::Batch, side, side]))
        .unwrap();
    let (name, batch) = ("y".to_owned(), 1 << 20);
    assert_eq!(
        plan(&graph, batch),
        Err(PlanError::TooLarge { name, batch })
    );
}

/// Tries to append an instruction that reads values near the end, or anywhere.
fn grow(graph: &mut Graph, kind: u8, a: usize, b: usize) {
    let count = graph.values().len();
    let pick = |n: usize| (count - 1 - n % count.min(12)) as u32;
    let (x, y) = (pick(a), (b % count) as u32);
    let reversed = graph.values()[x as usize]
        .dims
        .iter()
        .rev()
        .copied()
        .collect();
    let (op, operands) = match kind % 8 {
        0 => (SILU, vec![x]),
        1 | 2 => (ADD, vec![x, y]),
        3 => (Op::View { dims: reversed }, vec![x]),
        4 => (Op::Permute { order: vec![1, 0] }, vec![x]),
        5 => (Op::Softmax, vec![x]),
        6 => (Op::Concat { axis: 1 }, vec![x, y]),
        _ => (
            Op::Slice {
                axis: 1,
                start: 0,
                end: 1 + b as u32 % 40,
            },
            vec![x],
        ),
    };
    let mut instruction = instruction(op, &operands);
    if b.is_multiple_of(5) {
        instruction.rounding = Rounding::F16;
    }
    // What does not fit is left out; enough does.
    let _ = graph.push(instruction);
}

proptest! {
    #[test]
    fn no_value_is_lost_while_it_is_needed(
        inputs in prop::collection::vec(1..40u32, 1..4),
        steps in prop::collection::vec((any::<u8>(), 0..64usize, 0..64usize), 0..60),
        outputs in prop::collection::vec(0..64usize, 1..4),
        batch in 1..4usize,
    ) {
        let mut graph = Graph::new();
        for (i, &size) in inputs.iter().enumerate() {
            graph.input(format!("x{i}"), Type::f32([Dim::Batch, Dim::Fixed(size)])).unwrap();
        }
        for (kind, a, b) in steps {
            grow(&mut graph, kind, a, b);
        }
        for (i, output) in outputs.into_iter().enumerate() {
            let value = output % graph.values().len();
            graph.output(format!("y{i}"), value as u32).unwrap();
        }
        check(&graph, batch);
    }
}
