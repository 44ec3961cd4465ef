//! Weights that are stored as codes, from the graph to the engine, against the reference evaluator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;

use snapc_format::Stage;
use snapc_ir::ops::{Conv2d, FakeQuantize, Gather, Linear, MatMul};
use snapc_ir::verify::verify;
use snapc_ir::{DType, Graph, LazyTensor, Op, Shape, Tensor, TensorType, eval};
use snapc_native::{Activations, Companions, Native, compile, lowered};
use snapc_program::{Codebook, Storage};
use snapc_target::{EmitOptions, Progress, Silent, Target, VerifiedProgram};
use support::encodings::{palette, scales, with_products};
use support::engine::{network, run};
use support::{Noise, fixtures, program, psnr, read_tensors};

fn weight(shape: &[usize]) -> LazyTensor {
    let count = shape.iter().product();
    LazyTensor::from_f32(shape, &Noise::new(3).floats(count, (-1.0, 1.0)))
}

/// A graph of one product with this weight.
fn product(op: Op, input: &[usize], weight: LazyTensor) -> Graph {
    let mut graph = Graph::new("g");
    let x = graph.input("x", TensorType::new(DType::F32, Shape::batched(input)));
    let w = graph.parameter("w", weight);
    let y = graph.add(op, &[x, w], "node").unwrap();
    graph.output("y", y);
    graph
}

/// Runs the graph here and there. The unit is the largest result.
fn assert_equal(name: &str, graph: &Graph) {
    let input = &graph.inputs()[0];
    let shape = graph.ty(input.value).shape.bind(2);
    let count = shape.iter().product();
    let x = Tensor::float(&shape, Noise::new(9).floats(count, (-2.0, 2.0)));
    let inputs = BTreeMap::from([("x".to_owned(), x)]);
    let expected = eval::run(graph, &inputs).unwrap();
    let mut network = network(graph, Activations::F32).unwrap();
    let found = &run(&mut network, 2, &inputs)["y"];
    let expected = expected["y"].floats();
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.1, "{name}");
    for (i, (e, f)) in expected.iter().zip(found).enumerate() {
        assert!(
            (e - f).abs() <= 4e-6 * largest,
            "{name}, element {i}: {e} expected, {f} found"
        );
    }
}

/// How the weight of a graph of one product is stored.
fn storage(graph: &Graph) -> Storage {
    let program = lowered(&verify(graph).unwrap(), Activations::F32).unwrap();
    program
        .weights()
        .iter()
        .find(|w| w.name == "w")
        .unwrap()
        .storage
}

fn conv(kernel: usize) -> Op {
    Op::Conv2d(Conv2d {
        strides: [1, 1],
        pads: [kernel / 2; 4],
        groups: 1,
    })
}

#[test]
fn every_encoding_of_a_linear_layer_is_kept() {
    let plain = weight(&[48, 96]);
    let kept = [
        ("int8 per tensor", scales(&plain, 8, &[1, 1], false)),
        ("int8 per column", scales(&plain, 8, &[48, 1], false)),
        (
            "int8 in groups of columns",
            scales(&plain, 8, &[12, 1], true),
        ),
        ("int4 per column", scales(&plain, 4, &[48, 1], false)),
        ("int4 in blocks of 32", scales(&plain, 4, &[48, 3], false)),
        (
            "int4 in blocks with zero points",
            scales(&plain, 4, &[48, 6], true),
        ),
        ("1 bit", palette(&plain, 1, &[1, 1])),
        ("2 bits", palette(&plain, 2, &[1, 1])),
        ("3 bits", palette(&plain, 3, &[1, 1])),
        ("4 bits", palette(&plain, 4, &[1, 1])),
        ("6 bits", palette(&plain, 6, &[1, 1])),
        ("8 bits", palette(&plain, 8, &[1, 1])),
        ("6 bits for 16 columns", palette(&plain, 6, &[3, 1])),
        ("2 bits per column", palette(&plain, 2, &[48, 1])),
    ];
    for (name, encoded) in kept {
        let bits = encoded.encoding().unwrap().bits();
        let graph = product(Op::Linear(Linear {}), &[5, 96], encoded);
        let Storage::Codes(codes) = storage(&graph) else {
            panic!("{name}: {:?}", storage(&graph));
        };
        assert_eq!(u32::from(codes.bits), bits, "{name}");
        assert_equal(name, &graph);
    }
}

#[test]
fn matrices_and_kernels_keep_their_codes() {
    let matrix = weight(&[96, 40]);
    let kernel = weight(&[40, 64, 3, 3]);
    let single = weight(&[40, 64, 1, 1]);
    let small = weight(&[8, 3, 3, 3]);
    for (name, op, input, encoded) in [
        (
            "matrix",
            Op::MatMul(MatMul {}),
            &[5, 96][..],
            scales(&matrix, 8, &[3, 40], true),
        ),
        (
            "matrix, 6 bits",
            Op::MatMul(MatMul {}),
            &[5, 96],
            palette(&matrix, 6, &[1, 5]),
        ),
        (
            "kernel",
            conv(3),
            &[64, 6, 5],
            scales(&kernel, 8, &[40, 1, 1, 1], false),
        ),
        (
            "kernel in blocks",
            conv(3),
            &[64, 6, 5],
            scales(&kernel, 4, &[40, 2, 1, 1], true),
        ),
        (
            "kernel, 6 bits",
            conv(3),
            &[64, 6, 5],
            palette(&kernel, 6, &[5, 1, 1, 1]),
        ),
        (
            "single pixels",
            conv(1),
            &[64, 6, 5],
            scales(&single, 4, &[20, 4, 1, 1], false),
        ),
        (
            "few channels",
            conv(3),
            &[3, 6, 5],
            scales(&small, 8, &[8, 3, 1, 1], true),
        ),
    ] {
        let graph = product(op, input, encoded);
        assert!(matches!(storage(&graph), Storage::Codes(_)), "{name}");
        assert_equal(name, &graph);
    }
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn start(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
    fn note(&self, note: &str) {
        self.0.lock().unwrap().push(note.to_owned());
    }
}

/// What compiling the graph says.
fn notes(graph: &Graph) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let stages = [(Stage::Unet, verify(graph).unwrap())];
    let (notes, path) = (Notes::default(), dir.path().join("graph.snap"));
    let companions = Companions::default();
    compile(&stages, &companions, Activations::F32, &path, &notes).unwrap();
    notes.0.into_inner().unwrap()
}

#[test]
fn what_the_device_has_no_form_for_is_stored_in_floats_and_said() {
    let matrix = weight(&[40, 96]);
    let kernel = weight(&[40, 64, 3, 3]);
    let moved = scales(&matrix, 8, &[40, 1], false)
        .permute(&[1, 0])
        .permute(&[1, 0]);
    for (op, input, encoded, reason) in [
        (
            conv(3),
            &[64, 6, 5][..],
            scales(&kernel, 8, &[1, 1, 3, 1], false),
            "its groups divide the pixels of the kernel",
        ),
        (
            Op::Linear(Linear {}),
            &[5, 96],
            palette(&matrix, 4, &[1, 3]),
            "its palettes divide the inputs of a column",
        ),
        (
            Op::Linear(Linear {}),
            &[5, 96],
            moved,
            "a movement behind the codes hides them",
        ),
    ] {
        let graph = product(op, input, encoded);
        assert_eq!(storage(&graph), Storage::Panels);
        let expected = format!("graph 'g': weight 'w' is stored in floats: {reason}");
        assert_eq!(notes(&graph), [expected]);
        assert_equal(reason, &graph);
    }
    let kept = product(
        Op::Linear(Linear {}),
        &[5, 96],
        scales(&matrix, 8, &[40, 1], false),
    );
    assert_eq!(notes(&kept), [""; 0]);
}

#[test]
fn a_table_that_is_gathered_from_is_stored_in_floats() {
    let mut graph = Graph::new("g");
    let ids = graph.input("x", TensorType::new(DType::I32, Shape::batched(&[3])));
    let table = graph.parameter("w", palette(&weight(&[7, 4]), 6, &[1, 1]));
    let op = Op::Gather(Gather {
        axis: 0,
        batch_dims: 0,
    });
    let y = graph.add(op, &[table, ids], "node").unwrap();
    graph.output("y", y);
    assert_eq!(storage(&graph), Storage::Rows);
    let note = "graph 'g': weight 'w' is stored in floats: the device gathers from floats";
    assert_eq!(notes(&graph), [note]);
    let inputs = BTreeMap::from([("x".to_owned(), Tensor::int(&[2, 3], vec![0, 6, 2, 3, 3, 1]))]);
    let expected = eval::run(&graph, &inputs).unwrap();
    let mut network = network(&graph, Activations::F32).unwrap();
    assert_eq!(run(&mut network, 2, &inputs)["y"], expected["y"].floats());
}

#[test]
fn a_weight_of_two_layers_is_stored_once() {
    let mut graph = Graph::new("g");
    let x = graph.input("x", TensorType::new(DType::F32, Shape::batched(&[2048])));
    let w = graph.parameter("w", scales(&weight(&[2048, 2048]), 8, &[2048, 1], true));
    let linear = Op::Linear(Linear {});
    let y = graph.add(linear.clone(), &[x, w], "first").unwrap();
    let y = graph.add(linear, &[y, w], "second").unwrap();
    graph.output("y", y);
    let program = lowered(&verify(&graph).unwrap(), Activations::F32).unwrap();
    let names: Vec<&str> = program.weights().iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["w.scale", "w.zero_point", "w"]);
}

#[test]
fn scales_that_half_precision_holds_take_half_the_bytes() {
    let half = weight(&[32, 8]).cast(DType::F16);
    let mut sizes = Vec::new();
    for scale in [0.0078125, 0.0078] {
        let encoding = snapc_ir::Encoding::affine(8, &[32, 1], vec![scale; 32], Vec::new());
        let encoded = half.clone().encode(std::sync::Arc::new(encoding.unwrap()));
        let mut graph = Graph::new("g");
        let x = graph.input("x", TensorType::new(DType::F16, Shape::batched(&[8])));
        let w = graph.parameter("w", encoded);
        let y = graph.add(Op::Linear(Linear {}), &[x, w], "node").unwrap();
        graph.output("y", y);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("graph.snap");
        let stages = [(Stage::Unet, verify(&graph).unwrap())];
        let (companions, notes) = (Companions::default(), Notes::default());
        compile(&stages, &companions, Activations::F32, &path, &notes).unwrap();
        let container = snapc_format::Container::open(&path).unwrap();
        let tensor = container.tensor(Stage::Unet, "w.scale").unwrap();
        sizes.push(tensor.variants()[0].length);
        let codes = container.tensor(Stage::Unet, "w").unwrap();
        assert_eq!(codes.shape(), [1, 8, 32]);
    }
    assert_eq!(sizes, [64, 128]);
}

/// A graph of a product that reads a value on a grid.
fn quantized_product(op: Op, input: &[usize], weight: LazyTensor, grid: FakeQuantize) -> Graph {
    let plain = product(op, input, weight);
    with_products(&plain, Clone::clone, Some(&Op::FakeQuantize(grid)))
}

#[test]
fn products_of_values_on_a_grid_equal_the_evaluator() {
    let matrix = scales(&weight(&[48, 96]), 8, &[48, 1], false);
    let kernel = weight(&[40, 64, 3, 3]);
    let kernel8 = scales(&kernel, 8, &[40, 1, 1, 1], false);
    let kernel4 = scales(&kernel, 4, &[40, 2, 1, 1], false);
    let few = scales(&weight(&[8, 3, 3, 3]), 8, &[1, 1, 1, 1], false);
    let grid = |zero_point| FakeQuantize {
        scale: 4.0 / 255.0,
        zero_point,
    };
    for (name, op, input, encoded) in [
        ("linear", Op::Linear(Linear {}), &[5, 96][..], matrix),
        ("kernel", conv(3), &[64, 6, 5], kernel8),
        ("kernel of four bits", conv(3), &[64, 6, 5], kernel4),
        ("kernel of floats", conv(3), &[64, 6, 5], kernel),
        ("few channels", conv(3), &[3, 6, 5], few),
    ] {
        for zero_point in [0, 121, 255] {
            let graph = quantized_product(op.clone(), input, encoded.clone(), grid(zero_point));
            assert_equal(&format!("{name}, zero is {zero_point}"), &graph);
        }
    }
}

/// The tiny UNet with its products' weights encoded, in dB against the evaluator on the same graph.
fn unet_parity(name: &str, encode: impl Fn(&LazyTensor) -> LazyTensor, before: Option<&Op>) -> f64 {
    let program = program("tiny", "f32");
    let graph = with_products(program.graph("unet").unwrap(), encode, before);
    let listed = lowered(&verify(&graph).unwrap(), Activations::F32).unwrap();
    for weight in listed.weights() {
        let codebook = [".scale", ".zero_point", ".palette"]
            .iter()
            .any(|s| weight.name.ends_with(s));
        let floats = weight.storage == Storage::Panels && !codebook;
        assert!(!floats, "{name}: {} is not encoded", weight.name);
    }
    parity(&graph)
}

/// A UNet as the engine runs it, in dB against the evaluator.
fn parity(graph: &Graph) -> f64 {
    let reference = read_tensors(&fixtures().join("tiny/graphs.safetensors"));
    let input = |input: &str| {
        (
            input.to_owned(),
            reference[&format!("unet.b1.{input}")].clone(),
        )
    };
    let inputs = ["sample", "timestep", "encoder_hidden_states"]
        .map(input)
        .into();
    let expected = eval::run(graph, &inputs).unwrap();
    let mut network = network(graph, Activations::F32).unwrap();
    let found = run(&mut network, 1, &inputs);
    psnr(expected["out_sample"].floats(), &found["out_sample"])
}

/// Groups of a product's weight: one per output, and blocks of so many inputs where they fit.
fn blocks(w: &LazyTensor, size: usize) -> Vec<usize> {
    let mut groups = vec![1; w.shape().len()];
    groups[0] = w.shape()[0];
    if w.shape()[1].is_multiple_of(size) {
        groups[1] = w.shape()[1] / size;
    }
    groups
}

#[test]
fn a_unet_of_codes_equals_the_evaluator() {
    let parities = [
        (
            "int8",
            unet_parity(
                "int8",
                |w| scales(w, 8, &blocks(w, usize::MAX), false),
                None,
            ),
        ),
        (
            "int4",
            unet_parity("int4", |w| scales(w, 4, &blocks(w, 8), true), None),
        ),
        (
            "6 bits",
            unet_parity("6 bits", |w| palette(w, 6, &vec![1; w.shape().len()]), None),
        ),
    ];
    for (name, db) in parities {
        assert!(db >= 100.0, "{name}: {db:.1} dB");
    }
}

#[test]
fn codes_that_the_passes_make_are_kept() {
    for form in [
        "int8",
        "int4",
        "palette2",
        "palette4",
        "palette6",
        "palette8,group=16",
    ] {
        let passes = format!("f32,quantize-weights{{form={form},all=true,graphs=unet}}");
        let program = program("tiny", &passes);
        let graph = program.graph("unet").unwrap();
        let listed = lowered(&verify(graph).unwrap(), Activations::F32).unwrap();
        let stored = listed.weights().iter();
        let codes = stored
            .filter(|w| matches!(w.storage, Storage::Codes(_)))
            .count();
        let encoded = graph
            .weights()
            .iter()
            .filter(|w| w.tensor.encoding().is_some());
        assert_eq!(codes, encoded.count(), "{form}");
        assert!(codes > 50, "{form}: {codes}");
        let db = parity(graph);
        assert!(db >= 100.0, "{form}: {db:.1} dB");
    }
}

/// A number in the middle between two codes may become the other one where sums before it are rounded otherwise, which
/// depends on the processor.
#[test]
fn a_unet_of_integers_is_close_to_the_evaluator() {
    let grid = Op::FakeQuantize(FakeQuantize {
        scale: 1.0 / 16.0,
        zero_point: 128,
    });
    let encode = |w: &LazyTensor| scales(w, 8, &blocks(w, usize::MAX), false);
    let db = unet_parity("integers", encode, Some(&grid));
    assert!(db >= 80.0, "{db:.1} dB");
}

#[test]
fn an_artifact_of_codes_keeps_every_rule_and_is_smaller() {
    let mut program = program("tiny", "f32");
    let options = EmitOptions::default();
    let plain = Native.artifact_bytes(&program, &options);
    for graph in &mut program.graphs {
        let encode = |w: &LazyTensor| palette(w, 6, &vec![1; w.shape().len()]);
        *graph = with_products(graph, encode, None);
    }
    let dir = tempfile::tempdir().unwrap();
    let verified = VerifiedProgram::new(&program).unwrap();
    let emitted = Native.emit(&verified, &options, dir.path(), &Silent);
    assert_eq!(Native.verify(dir.path()).unwrap(), []);
    let bytes: u64 = emitted.unwrap().files.iter().map(|f| f.bytes).sum();
    assert_eq!(Native.artifact_bytes(&program, &options), bytes);
    assert!(bytes < plain, "{bytes} of {plain}");
}

#[test]
fn codes_stand_behind_what_they_stand_for() {
    let graph = product(
        Op::Linear(Linear {}),
        &[5, 96],
        scales(&weight(&[48, 96]), 4, &[48, 3], true),
    );
    let program = lowered(&verify(&graph).unwrap(), Activations::F32).unwrap();
    let [scale, zero, codes] = program.weights() else {
        panic!("{:?}", program.weights())
    };
    assert_eq!(
        (&scale.dims[..], &zero.dims[..], &codes.dims[..]),
        (&[48, 3][..], &[48, 3][..], &[48, 96][..])
    );
    let Storage::Codes(codes) = codes.storage else {
        panic!("{codes:?}")
    };
    let book = Codebook::Scales {
        scale: 0,
        zero_point: Some(1),
    };
    assert_eq!((codes.bits, codes.book), (4, book));
}
