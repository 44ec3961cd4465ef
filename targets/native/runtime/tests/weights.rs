//! Files whose tensor table does not go with their program.

mod support;

use snapc_format::{DType, LayoutId, Stage, TensorPlan};
use snapc_ir::Tensor;
use snapc_program::{Activation, Codebook, Codes, Dim, Op, Storage, Type, Weight};
use snapc_runtime::{Options, Runtime, RuntimeError, WeightFault};
use support::{Model, StoredWeight, Values, run};

/// A layer whose weight is `weight0` in panels `[2,3]` and whose bias is `weight1`.
fn layer() -> Model {
    let mut model = Model::default();
    let x = model.input("x", Type::f32([Dim::Batch, Dim::Fixed(3)]));
    let matrix = Tensor::float(&[2, 3], vec![1.0; 6]);
    let matrix = model.weight(Storage::Panels, DType::F32, &matrix);
    let bias = model.weight(Storage::F32, DType::F32, &Tensor::float(&[2], vec![0.0; 2]));
    let linear = Op::Linear {
        bias: true,
        activation: Activation::None,
        residual: false,
    };
    let y = model.push(linear, &[x, matrix, bias]);
    model.output("y", y);
    model
}

/// The fault of the file when the tensor `number` is replaced.
fn fault(number: usize, plan: TensorPlan, bytes: usize) -> (String, WeightFault) {
    let mut model = layer();
    model.weights[number] = StoredWeight {
        plan,
        bytes: vec![0; bytes],
    };
    match model.open(1) {
        Err(RuntimeError::Weight {
            file,
            stage: Stage::Unet,
            name,
            fault,
        }) => {
            assert_eq!(file, "memory");
            (name, fault)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_table_that_fits_opens() {
    let runtime = layer().open(1).unwrap();
    assert_eq!(runtime.stages().collect::<Vec<_>>(), [Stage::Unet]);
    let error = runtime.network(Stage::VaeDecoder).unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory: the program has no graph for vae_decoder; convert the whole pipeline"
    );
    assert!(matches!(
        runtime.engine(),
        Err(RuntimeError::NoGraph { .. })
    ));
    assert!(matches!(runtime.tokenizer(), Err(RuntimeError::Format(_))));
}

#[test]
fn a_missing_weight_is_named() {
    let mut model = layer();
    model.weights.pop();
    let error = model.open(1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory: unet, weight 'weight1': is not in the tensor table; convert the checkpoint again"
    );
}

#[test]
fn another_shape_is_refused() {
    let plan = TensorPlan::panels("weight0", &[3, 2], DType::F32);
    let (name, found) = fault(0, plan, 256);
    assert_eq!(name, "weight0");
    let (expected, shape) = (vec![2, 3], vec![3, 2]);
    assert_eq!(
        found,
        WeightFault::Shape {
            expected,
            found: shape
        }
    );
}

/// A layer of int8 codes `weight1` with the scales `weight0`.
fn coded_layer(plan: TensorPlan, bytes: usize) -> Model {
    let mut model = Model::default();
    let x = model.input("x", Type::f32([Dim::Batch, Dim::Fixed(3)]));
    let scale = Tensor::float(&[40, 1], vec![0.5; 40]);
    model.weight(Storage::Panels, DType::F32, &scale);
    let book = Codebook::Scales {
        scale: 0,
        zero_point: None,
    };
    let codes = Storage::Codes(Codes { bits: 8, book });
    let (name, dims) = ("weight1".to_owned(), vec![40, 3]);
    let weight = Weight {
        name,
        storage: codes,
        dims,
    };
    let weight = model.graph.weight(weight).expect("goes with its scales");
    model.weights.push(StoredWeight {
        plan,
        bytes: vec![1; bytes],
    });
    let linear = Op::Linear {
        bias: false,
        activation: Activation::None,
        residual: false,
    };
    let y = model.push(linear, &[x, weight]);
    model.output("y", y);
    model
}

#[test]
fn codes_are_packed_bytes_of_the_panels() {
    let plan = |shape: &[u64], dtype| TensorPlan::new("weight1", shape, dtype);
    let mut network = coded_layer(plan(&[2, 3, 32], DType::U8), 192).network(1);
    let x = Values::Floats(vec![1.0, 2.0, 4.0]);
    assert_eq!(run(&mut network, 1, &[x]), [[3.5; 40]]);
    let fault = |plan, bytes| match coded_layer(plan, bytes).open(1) {
        Err(RuntimeError::Weight { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    let (expected, found) = (vec![2, 3, 32], vec![2, 3, 16]);
    assert_eq!(
        fault(plan(&found, DType::U8), 96),
        WeightFault::Shape { expected, found }
    );
    assert!(matches!(
        fault(plan(&[2, 3, 32], DType::I8), 192),
        WeightFault::DType {
            dtype: DType::I8,
            ..
        }
    ));
}

#[test]
fn another_layout_is_refused() {
    let layout = LayoutId::PANELS;
    let (_, found) = fault(0, TensorPlan::new("weight0", &[2, 3], DType::F32), 24);
    assert_eq!(found, WeightFault::Layout { layout });
}

#[test]
fn another_type_is_refused() {
    let (dtype, storage) = (DType::F16, Storage::F32);
    let (name, found) = fault(1, TensorPlan::new("weight1", &[2], dtype), 4);
    assert_eq!(name, "weight1");
    assert_eq!(found, WeightFault::DType { dtype, storage });
    let (dtype, storage) = (DType::I8, Storage::Panels);
    let (_, found) = fault(0, TensorPlan::panels("weight0", &[2, 3], dtype), 96);
    assert_eq!(found, WeightFault::DType { dtype, storage });
}

#[test]
fn a_file_on_the_disk_opens_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.snap");
    let error = Runtime::open(&path, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("model.snap"), "{error}");
    std::fs::write(&path, layer().bytes()).unwrap();
    let runtime = Runtime::open(&path, &Options::with_threads(1)).unwrap();
    let mut network = runtime.network(Stage::Unet).unwrap();
    let found = support::run(
        &mut network,
        1,
        &[support::Values::Floats(vec![1.0, 2.0, 3.0])],
    );
    assert_eq!(found, [[6.0, 6.0]]);
}

/// Whatever a program says, opening gives an error or a runtime.
#[test]
fn no_changed_byte_of_the_program_is_a_panic() {
    use std::io::Cursor;
    use std::sync::Arc;

    use snapc_format::{Container, Plan};
    use snapc_program::Program;

    let model = layer();
    let mut program = Program::new();
    program.insert(Stage::Unet, model.graph.clone());
    let bytes = program.encode().unwrap();
    let mut opened = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let mut plan = Plan::new();
            plan.set_program(changed);
            for weight in &model.weights {
                plan.add_tensor(Stage::Unet, weight.plan.clone());
            }
            let mut file = Cursor::new(Vec::new());
            let layout = plan.layout().unwrap();
            layout
                .write(&mut file, |placement, out| {
                    let number = usize::from(placement.name == "weight1");
                    out.write_all(&model.weights[number].bytes)
                })
                .unwrap();
            let container = Container::from_bytes("memory", Arc::new(file.into_inner())).unwrap();
            let options = Options::with_threads(1);
            opened += usize::from(Runtime::from_container("memory", container, &options).is_ok());
        }
    }
    // A changed name of a port or module, activation or rounding is another program that can run.
    assert!(opened > 0 && opened < 8 * bytes.len());
}
