//! Networks of several instructions: batches, ports, memory, observers, rounding.

mod support;

use half::f16;
use snapc_format::{DType, Stage};
use snapc_ir::Tensor;
use snapc_pipeline::{Data, Network, PortType};
use snapc_program::{Activation, Binary, Dim, Op, Rounding, Storage, Type, Unary};
use snapc_runtime::RuntimeError;
use support::{Model, Numbers, Values, run};

const BATCHED: [Dim; 2] = [Dim::Batch, Dim::Fixed(3)];

/// `y = 2 x + x`, `doubled = 2 x`.
fn tripled() -> Model {
    let mut model = Model::default();
    let x = model.input("x", Type::f32(BATCHED));
    let two = model.weight(Storage::F32, DType::F32, &Tensor::float(&[], vec![2.0]));
    let doubled = model.push(Op::Binary(Binary::Mul), &[x, two]);
    let y = model.push(Op::Binary(Binary::Add), &[doubled, x]);
    model.output("y", y);
    model.output("doubled", doubled);
    model
}

#[test]
fn a_network_runs_at_every_batch_and_again() {
    let mut network = tripled().network(2);
    for batch in [1, 3, 2, 3, 1] {
        let x = Numbers::new(batch as u64).floats(&[batch, 3]);
        let expected: Vec<f32> = x.floats().iter().map(|x| 2.0 * x + x).collect();
        let doubled: Vec<f32> = x.floats().iter().map(|x| 2.0 * x).collect();
        let found = run(&mut network, batch, &[Values::of(&x)]);
        assert_eq!(found, [expected, doubled]);
    }
}

#[test]
fn clones_share_memory_that_can_be_released() {
    let mut network = tripled().network(1);
    let mut other = network.clone();
    let x = [Values::Floats(vec![1.0, 2.0, 3.0])];
    assert_eq!(network.held_bytes(), 0);
    let first = run(&mut network, 1, &x);
    let held = other.held_bytes();
    assert!(held >= network.arena_bytes(1).unwrap(), "{held}");
    assert_eq!(run(&mut other, 1, &x), first);
    assert_eq!(other.held_bytes(), held);
    network.release_memory();
    assert_eq!(other.held_bytes(), 0);
    assert_eq!(run(&mut network, 1, &x), first);
}

#[test]
fn ports_are_those_of_the_graph() {
    let mut model = Model::default();
    let ids = model.input("ids", Type::i32([Dim::Batch, Dim::Fixed(2)]));
    model.input("t", Type::f32([]));
    let found = model.push(Op::ArgMax { axis: 1 }, &[ids]);
    model.output("found", found);
    let mut network = model.network(1);
    assert_eq!(network.stage(), Stage::Unet);
    let port = &network.inputs()[0];
    assert_eq!(
        (port.dtype, &port.dims[..]),
        (PortType::I32, &[None, Some(2)][..])
    );
    assert!(network.inputs()[1].dims.is_empty());
    assert_eq!(network.outputs()[0].dtype, PortType::I32);
    let inputs = [Values::Ints(vec![4, 9, 8, 7]), Values::Floats(vec![0.5])];
    assert_eq!(run(&mut network, 2, &inputs), [[1.0, 0.0]]);
}

#[test]
fn outputs_that_are_not_wanted_are_left_alone() {
    let mut network = tripled().network(1);
    let mut doubled = [0.0; 3];
    let mut outputs = [None, Some(&mut doubled[..])];
    network
        .run(1, &[Data::F32(&[1.0, 2.0, 3.0])], &mut outputs)
        .unwrap();
    assert_eq!(doubled, [2.0, 4.0, 6.0]);
}

#[test]
fn what_does_not_go_with_a_port_is_refused() {
    let mut network = tripled().network(1);
    let mut message = |batch: usize, inputs: &[Data<'_>], sizes: &[usize]| {
        let mut results: Vec<Vec<f32>> = sizes.iter().map(|&n| vec![0.0; n]).collect();
        let mut outputs: Vec<_> = results.iter_mut().map(|r| Some(r.as_mut_slice())).collect();
        let error = network.run(batch, inputs, &mut outputs).unwrap_err();
        error.to_string()
    };
    let x = [1.0; 3];
    assert_eq!(
        message(1, &[], &[3, 3]),
        "unet: 0 inputs are given, the graph has 1"
    );
    assert_eq!(
        message(1, &[Data::F32(&x)], &[3]),
        "unet: 1 outputs are given, the graph has 2"
    );
    assert_eq!(
        message(2, &[Data::F32(&x)], &[6, 6]),
        "unet: 'x' must have 6 values of f32, has 3 of f32"
    );
    assert_eq!(
        message(1, &[Data::I32(&[1, 2, 3])], &[3, 3]),
        "unet: 'x' must have 3 values of f32, has 3 of i32"
    );
    assert_eq!(
        message(1, &[Data::F32(&x)], &[3, 4]),
        "unet: 'doubled' must have 3 values of f32, has 4"
    );
    assert_eq!(
        message(0, &[Data::F32(&x)], &[3, 3]),
        "unet: a batch of 0 has no values; ask for at least 1"
    );
    assert_eq!(
        message(usize::MAX, &[Data::F32(&x)], &[3, 3]),
        format!(
            "unet: 'x' does not fit the address space at batch {}; choose a smaller one",
            usize::MAX
        )
    );
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let mut model = Model::default();
    let x = model.input("x", Type::f32([Dim::Fixed(1); 4]));
    // 2^56 bytes are in the address space of 64 bits and in no memory.
    let large = model.push(Op::UpsampleNearest { scale: 1 << 27 }, &[x]);
    model.output("y", large);
    let mut network = model.network(1);
    let error = network
        .run(1, &[Data::F32(&[1.0])], &mut [None])
        .unwrap_err();
    assert!(matches!(error, RuntimeError::Memory { .. }), "{error}");
}

#[test]
fn an_observer_sees_every_result() {
    let mut network = tripled().network(1);
    let mut seen = Vec::new();
    let x = [1.0, 2.0, 3.0];
    let mut observer = |o: snapc_runtime::Observation<'_>| {
        let Data::F32(data) = o.data else {
            panic!("floats")
        };
        seen.push((
            o.index,
            o.instruction.op.name(),
            o.dims.to_vec(),
            data.to_vec(),
        ));
    };
    network
        .run_observed(1, &[Data::F32(&x)], &mut [None, None], &mut observer)
        .unwrap();
    let dims = vec![1, 3];
    assert_eq!(
        seen,
        [
            (0, "mul", dims.clone(), vec![2.0, 4.0, 6.0]),
            (1, "add", dims, vec![3.0, 6.0, 9.0]),
        ]
    );
}

#[test]
fn results_are_rounded_where_the_program_says() {
    let mut model = Model::default();
    let x = model.input("x", Type::f32(BATCHED));
    let roots = model.push_rounded(Op::Unary(Unary::Sqrt), &[x], Rounding::F16);
    let coarse = model.push_rounded(
        Op::View {
            dims: vec![Dim::Fixed(3), Dim::Batch],
        },
        &[roots],
        Rounding::Bf16,
    );
    model.output("roots", roots);
    model.output("coarse", coarse);
    let mut network = model.network(1);
    let x = [2.0f32, 3.0, 1e10];
    let found = run(&mut network, 1, &[Values::Floats(x.to_vec())]);
    let roots: Vec<f32> = x.iter().map(|x| f16::from_f32(x.sqrt()).to_f32()).collect();
    assert_eq!(roots[2], f32::INFINITY);
    let coarse: Vec<f32> = roots
        .iter()
        .map(|&x| half::bf16::from_f32(x).to_f32())
        .collect();
    assert_ne!(roots, coarse);
    assert_eq!(found, [roots, coarse]);
}

#[test]
fn threads_do_not_change_a_bit() {
    let mut numbers = Numbers::new(7);
    let mut model = Model::default();
    let x = model.input(
        "x",
        Type::f32([Dim::Batch, Dim::Fixed(9), Dim::Fixed(9), Dim::Fixed(40)]),
    );
    let kernel = model.weight(Storage::Panels, DType::F16, &{
        let mut weight = numbers.floats(&[40, 3, 3, 40]);
        weight.round_to(snapc_ir::DType::F16);
        weight
    });
    let vector = model.weight(Storage::F32, DType::F32, &numbers.floats(&[40]));
    let conv = Op::Conv2d {
        strides: [1, 1],
        pads: [1; 4],
        bias: true,
        activation: Activation::None,
        residual: true,
    };
    let conv = model.push(conv, &[x, kernel, vector, x]);
    let norm = Op::GroupNorm {
        groups: 8,
        epsilon: 1e-5,
        activation: Activation::Silu,
    };
    let norm = model.push(norm, &[conv, vector, vector]);
    let tokens = vec![Dim::Batch, Dim::Fixed(81), Dim::Fixed(40)];
    let tokens = model.push(Op::View { dims: tokens }, &[norm]);
    let attention = Op::Attention {
        heads: 5,
        scale: 0.3,
        mask: false,
    };
    let y = model.push(attention, &[tokens, tokens, tokens]);
    model.output("y", y);
    let input = [Values::of(&numbers.floats(&[2, 9, 9, 40]))];
    let expected = run(&mut model.network(1), 2, &input);
    for threads in [2, 3] {
        assert_eq!(run(&mut model.network(threads), 2, &input), expected);
    }
}
