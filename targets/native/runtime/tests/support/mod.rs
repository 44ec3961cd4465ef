//! Small files in memory, and one instruction against the reference evaluator of the compiler.

#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

use bytemuck::cast_slice;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use snapc_format::{Container, DType, Plan, Stage, TensorPlan};
use snapc_ir::Tensor;
use snapc_ir::tensor::Elements;
use snapc_kernels::{PanelMatrix, Weights};
use snapc_pipeline::{Data, Network};
use snapc_program::{
    Dim, Graph, Instruction, Op, Operand, Program, Rounding, Storage, Type, Weight,
};
use snapc_runtime::{Options, Runtime, RuntimeError, RuntimeNetwork};

/// A weight as it goes to the file.
#[derive(Clone, Debug)]
pub struct StoredWeight {
    pub plan: TensorPlan,
    pub bytes: Vec<u8>,
}

/// A graph for the UNet stage and the data of its weights.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub graph: Graph,
    pub weights: Vec<StoredWeight>,
}

/// Integers and floats that come out the same on every machine.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(2).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        // Constants of Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Floats between -2 and 2.
    pub fn floats(&mut self, shape: &[usize]) -> Tensor {
        let float = |x: u64| (x % 4001) as f32 / 1000.0 - 2.0;
        let data = (0..shape.iter().product()).map(|_| float(self.next()));
        Tensor::float(shape, data.collect())
    }

    /// Integers from `low` to `high`, the latter excluded.
    pub fn ints(&mut self, shape: &[usize], low: i64, high: i64) -> Tensor {
        let span = (high - low).unsigned_abs();
        let data = (0..shape.iter().product()).map(|_| low + (self.next() % span) as i64);
        Tensor::int(shape, data.collect())
    }
}

/// Rounds the floats of a tensor to what a type holds.
pub fn rounded(mut tensor: Tensor, dtype: DType) -> Tensor {
    tensor.round_to(match dtype {
        DType::F16 => snapc_ir::DType::F16,
        DType::Bf16 => snapc_ir::DType::BF16,
        _ => snapc_ir::DType::F32,
    });
    tensor
}

fn float_bytes(floats: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F16 => {
            let mut narrow = vec![f16::ZERO; floats.len()];
            narrow.convert_from_f32_slice(floats);
            cast_slice(&narrow).to_vec()
        }
        DType::Bf16 => {
            let mut narrow = vec![bf16::ZERO; floats.len()];
            narrow.convert_from_f32_slice(floats);
            cast_slice(&narrow).to_vec()
        }
        _ => cast_slice(floats).to_vec(),
    }
}

impl Model {
    pub fn input(&mut self, name: &str, ty: Type) -> Operand {
        self.graph.input(name, ty).expect("an input")
    }

    /// Adds a weight with these elements, which the type holds exactly.
    pub fn weight(&mut self, storage: Storage, dtype: DType, tensor: &Tensor) -> Operand {
        let name = format!("weight{}", self.weights.len());
        let shape: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
        let mut plan = TensorPlan::new(&name, &shape, dtype);
        let bytes = match (&tensor.elements, storage) {
            (Elements::Float(floats), Storage::Panels) => {
                plan = TensorPlan::panels(&name, &shape, dtype);
                let (columns, depth) = (tensor.shape[0], tensor.shape[1..].iter().product());
                let packed = PanelMatrix::pack(Weights::F32(floats), columns, depth);
                match packed.expect("the elements of the shape").panels() {
                    Some(Weights::F32(panels)) => float_bytes(panels, dtype),
                    _ => panic!("packing keeps the type"),
                }
            }
            (Elements::Float(floats), _) => float_bytes(floats, dtype),
            (Elements::Int(ints), _) => {
                let ints: Vec<i32> = ints.iter().map(|&x| x as i32).collect();
                cast_slice(&ints).to_vec()
            }
        };
        self.weights.push(StoredWeight { plan, bytes });
        let dims = tensor.shape.iter().map(|&n| n as u32).collect();
        let weight = Weight {
            name,
            storage,
            dims,
        };
        self.graph.weight(weight).expect("a weight")
    }

    pub fn push(&mut self, op: Op, operands: &[Operand]) -> Operand {
        self.push_rounded(op, operands, Rounding::None)
    }

    pub fn push_rounded(&mut self, op: Op, operands: &[Operand], rounding: Rounding) -> Operand {
        let instruction = Instruction {
            name: format!("module.{}", self.graph.instructions().len()),
            op,
            operands: operands.to_vec(),
            rounding,
        };
        self.graph.push(instruction).expect("an instruction")
    }

    pub fn output(&mut self, name: &str, operand: Operand) {
        let Operand::Value(value) = operand else {
            panic!("an output is a value")
        };
        self.graph.output(name, value).expect("an output");
    }

    /// The file with the graph as its UNet.
    pub fn bytes(&self) -> Vec<u8> {
        let mut program = Program::new();
        program.insert(Stage::Unet, self.graph.clone());
        let mut plan = Plan::new();
        plan.set_program(program.encode().expect("a small program"));
        for weight in &self.weights {
            plan.add_tensor(Stage::Unet, weight.plan.clone());
        }
        let mut file = std::io::Cursor::new(Vec::new());
        let layout = plan.layout().expect("a small file");
        let wrote = layout.write(&mut file, |placement, out| {
            let number = placement.name.trim_start_matches("weight");
            let number: usize = number.parse().expect("weights are numbered");
            out.write_all(&self.weights[number].bytes)
        });
        wrote.expect("memory takes it all");
        file.into_inner()
    }

    pub fn open(&self, threads: usize) -> Result<Runtime, RuntimeError> {
        let container = Container::from_bytes("memory", Arc::new(self.bytes()))?;
        Runtime::from_container("memory", container, &Options::with_threads(threads))
    }

    pub fn network(&self, threads: usize) -> RuntimeNetwork {
        let runtime = self.open(threads).expect("the file is valid");
        runtime.network(Stage::Unet).expect("the graph is there")
    }
}

/// An operand of an instruction under test.
#[derive(Clone, Debug)]
pub enum Given {
    /// An input of the graph; with the first dimension as the batch when it is true.
    Input(Tensor, bool),
    /// A weight.
    Weight(Storage, DType, Tensor),
}

pub use Given::{Input, Weight as Stored};

/// A fixed input.
pub fn fixed(tensor: &Tensor) -> Given {
    Input(tensor.clone(), false)
}

/// An input whose first dimension is the batch.
pub fn batched(tensor: &Tensor) -> Given {
    Input(tensor.clone(), true)
}

/// A vector or constant.
pub fn constant(tensor: &Tensor) -> Given {
    match tensor.elements {
        Elements::Float(_) => Stored(Storage::F32, DType::F32, tensor.clone()),
        Elements::Int(_) => Stored(Storage::I32, DType::I32, tensor.clone()),
    }
}

/// Values of all inputs of a graph, in order.
pub enum Values {
    Floats(Vec<f32>),
    Ints(Vec<i32>),
}

impl Values {
    pub fn of(tensor: &Tensor) -> Self {
        match &tensor.elements {
            Elements::Float(v) => Values::Floats(v.clone()),
            Elements::Int(v) => Values::Ints(v.iter().map(|&x| x as i32).collect()),
        }
    }

    pub fn data(&self) -> Data<'_> {
        match self {
            Values::Floats(v) => Data::F32(v),
            Values::Ints(v) => Data::I32(v),
        }
    }
}

/// Runs a network and gives its outputs, integers as floats.
pub fn run(network: &mut RuntimeNetwork, batch: usize, inputs: &[Values]) -> Vec<Vec<f32>> {
    let data: Vec<Data<'_>> = inputs.iter().map(Values::data).collect();
    let sizes = network.outputs().iter().map(|port| port.values(batch));
    let mut results: Vec<Vec<f32>> = sizes
        .map(|n| vec![f32::NAN; n.expect("small outputs")])
        .collect();
    let mut outputs: Vec<Option<&mut [f32]>> =
        results.iter_mut().map(|r| Some(r.as_mut_slice())).collect();
    let ran = network.run(batch, &data, &mut outputs);
    ran.expect("the network runs");
    results
}

fn assert_near(what: &str, found: &[f32], expected: &Tensor, tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = match &expected.elements {
        Elements::Float(v) => v
            .iter()
            .filter(|x| x.is_finite())
            .fold(1.0, |m: f32, x| m.max(x.abs())),
        Elements::Int(_) => 1.0,
    };
    for (i, &x) in found.iter().enumerate() {
        let (e, allowed) = match &expected.elements {
            Elements::Float(v) => (v[i], tolerance * largest),
            Elements::Int(v) => (v[i] as f32, 0.0),
        };
        let same = (x - e).abs() <= allowed || (x.is_nan() && e.is_nan()) || x == e;
        assert!(same, "{what}: element {i} is {x}, expected {e}");
    }
}

/// Runs one instruction on one thread and on two, with its operands needed no longer and needed later, and compares its
/// result with `expected`, `tolerance` times the largest element apart at most.
pub fn check(op: &Op, operands: &[Given], expected: &Tensor, tolerance: f32) {
    let mut batch = 1;
    for keep in [false, true] {
        let mut model = Model::default();
        let mut values = Vec::new();
        let mut names = Vec::new();
        // Inputs come first in a graph.
        for (i, operand) in operands.iter().enumerate() {
            if let Input(tensor, is_batched) = operand {
                let mut dims: Vec<Dim> =
                    tensor.shape.iter().map(|&n| Dim::Fixed(n as u32)).collect();
                if *is_batched {
                    batch = tensor.shape[0];
                    dims[0] = Dim::Batch;
                }
                let ty = match tensor.elements {
                    Elements::Float(_) => Type::f32(dims),
                    Elements::Int(_) => Type::i32(dims),
                };
                names.push(model.input(&format!("input{i}"), ty));
                values.push(Values::of(tensor));
            }
        }
        let mut inputs = names.iter();
        let ids: Vec<Operand> = operands
            .iter()
            .map(|operand| match operand {
                Input(..) => *inputs.next().expect("declared above"),
                Stored(storage, dtype, tensor) => model.weight(*storage, *dtype, tensor),
            })
            .collect();
        let result = model.push(op.clone(), &ids);
        model.output("result", result);
        for (i, name) in names.iter().enumerate().filter(|_| keep) {
            model.output(&format!("kept{i}"), *name);
        }
        for threads in [1, 2] {
            let mut network = model.network(threads);
            let results = run(&mut network, batch, &values);
            let what = format!("{} on {threads} threads, operands kept: {keep}", op.name());
            assert_near(&what, &results[0], expected, tolerance);
            for (kept, value) in results[1..].iter().zip(&values) {
                match value {
                    Values::Floats(v) => assert_eq!(kept, v, "{what}"),
                    Values::Ints(v) => {
                        let floats: Vec<f32> = v.iter().map(|&x| x as f32).collect();
                        assert_eq!(*kept, floats, "{what}");
                    }
                }
            }
        }
    }
}
