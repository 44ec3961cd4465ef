//! Every example of every operator, at every level and precision: emitted, clean for the verifier, loaded by coremltools,
//! and evaluated there to what the reference evaluator says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;

use foreign_reader::{Job, Tensors, emit_program, program, psnr, rounded, run};
use snapc_coreml::{CoreMl, Level};
use snapc_ir::ops::{Cast, Equal, Example, LayerNorm};
use snapc_ir::{DType, Graph, LazyTensor, Op, Shape, Tensor, TensorType, ValueId, eval};
use snapc_target::{AttentionForm, EmitOptions, Precision, Target, TargetError, legalize};

const BATCH: usize = 2;

/// A sequence of numbers in -1..1 that is the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn tensor(&mut self, example: &Example, ty: &TensorType) -> Tensor {
        let shape = ty.shape.bind(BATCH);
        let n = shape.iter().product();
        if !ty.dtype.is_float() {
            let ints =
                (0..n).map(|_| ((self.next() + 1.0) / 2.0 * example.int_bound as f32) as i64);
            return Tensor::int(&shape, ints.collect());
        }
        let positive = matches!(example.op, Op::Sqrt(_) | Op::Div(_));
        let floats = (0..n).map(|_| match positive {
            true => 1.25 + self.next(),
            false => 2.0 * self.next(),
        });
        rounded(&Tensor::float(&shape, floats.collect()), ty.dtype)
    }
}

/// The example with its floats of `float`; `None` when the operator does not take that.
fn with_float(example: &Example, float: DType) -> Option<Example> {
    let mut example = example.clone();
    for ty in &mut example.operands {
        if ty.dtype.is_float() {
            ty.dtype = float;
        }
    }
    if let Op::Cast(cast) = &mut example.op {
        // Casts between float types stay what they are.
        cast.to = if cast.to == DType::BF16 {
            float
        } else {
            cast.to
        };
    }
    let types: Vec<&TensorType> = example.operands.iter().collect();
    example.op.infer(&types).ok().map(|_| example)
}

/// Whether an operand is a parameter wherever the operator occurs in a network.
fn is_parameter(op: &Op, operand: usize) -> bool {
    match op {
        Op::Conv2d(_) | Op::Linear(_) | Op::LayerNorm(_) | Op::GroupNorm(_) => operand > 0,
        Op::Attention(_) => operand == 3,
        _ => false,
    }
}

/// A graph of the example alone, and its inputs. Operands without dimensions, which no feature can be, are constants.
fn graph_of(name: &str, example: &Example, numbers: &mut Numbers) -> (Graph, Tensors) {
    let mut graph = Graph::new(name);
    let mut inputs = Tensors::new();
    let mut operands = Vec::new();
    for (i, ty) in example.operands.iter().enumerate() {
        let tensor = numbers.tensor(example, ty);
        let constant =
            !ty.shape.has_batch() && (is_parameter(&example.op, i) || ty.shape.rank() == 0);
        let operand = if constant {
            graph.constant(format!("{name}.{i}"), to_lazy(&tensor, ty.dtype))
        } else {
            let feature = format!("operand{i}");
            inputs.insert(feature.clone(), tensor);
            input(&mut graph, &feature, ty)
        };
        operands.push(operand);
    }
    let result = graph
        .add(example.op.clone(), &operands, format!("{name}.op"))
        .unwrap();
    let result = match graph.ty(result).dtype {
        DType::Bool => graph
            .add(Cast { to: DType::I32 }, &[result], "numbers")
            .unwrap(),
        _ => result,
    };
    graph.output("result", result);
    (graph, inputs)
}

/// A feature cannot hold truth values, so they come as integers.
fn input(graph: &mut Graph, feature: &str, ty: &TensorType) -> ValueId {
    if ty.dtype != DType::Bool {
        return graph.input(feature, ty.clone());
    }
    let numbers = graph.input(feature, TensorType::new(DType::I32, ty.shape.clone()));
    let one = graph.constant("one", LazyTensor::from_i32(&[], &[1]));
    graph.add(Equal {}, &[numbers, one], "truth").unwrap()
}

fn to_lazy(tensor: &Tensor, dtype: DType) -> LazyTensor {
    if dtype.is_float() {
        return LazyTensor::from_f32(&tensor.shape, tensor.floats()).cast(dtype);
    }
    let ints: Vec<i32> = tensor
        .ints()
        .iter()
        .map(|&x| i32::try_from(x).unwrap())
        .collect();
    LazyTensor::from_i32(&tensor.shape, &ints).cast(dtype)
}

/// Whether Core ML has the element types of a graph, and its result can be a feature.
fn is_expressible(graph: &Graph) -> bool {
    let lacks = |d: DType| matches!(d, DType::I64 | DType::BF16);
    let divides_ints = graph
        .nodes()
        .iter()
        .any(|n| matches!(n.op, Op::Div(_)) && !graph.ty(n.result).dtype.is_float());
    let result = graph.ty(graph.outputs()[0].value);
    !divides_ints && result.shape.rank() > 0 && !graph.values().iter().any(|v| lacks(v.ty.dtype))
}

fn options(level: Level, float: DType, attention: AttentionForm) -> EmitOptions {
    EmitOptions {
        min_ios: Some(level.ios()),
        precision: if float == DType::F16 {
            Precision::F16
        } else {
            Precision::F32
        },
        attention,
        batch: Some(BATCH),
        ..EmitOptions::default()
    }
}

#[test]
fn every_example_is_read_and_evaluated_by_coremltools() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(7);
    let (mut jobs, mut expected) = (Vec::new(), Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    for level in Level::ALL {
        for float in [DType::F32, DType::F16] {
            use AttentionForm::{Decomposed, Sdpa, SplitEinsum};
            for attention in [Decomposed, Sdpa, SplitEinsum] {
                if attention == Sdpa && level < Level::Ios18 {
                    continue;
                }
                let folder = dir
                    .path()
                    .join(format!("{}-{float}-{attention}", level.ios()));
                std::fs::create_dir(&folder).unwrap();
                let mut graphs = Vec::new();
                for (i, example) in Op::examples().iter().enumerate() {
                    let is_attention = matches!(example.op, Op::Attention(_));
                    let is_fake_quantize = matches!(example.op, Op::FakeQuantize(_));
                    if is_fake_quantize && level < Level::Ios17 {
                        continue;
                    }
                    if attention == Sdpa && !is_attention {
                        continue;
                    }
                    let Some(example) = with_float(example, float) else {
                        continue;
                    };
                    let (graph, inputs) = graph_of(&format!("example{i}"), &example, &mut numbers);
                    if !is_expressible(&graph) {
                        continue;
                    }
                    seen.insert(example.op.name());
                    let name = format!("{level} {float} {attention} {:?}", example.op);
                    let package = folder.join(format!("{}.mlpackage", graph.name()));
                    jobs.push(Job {
                        name,
                        package,
                        inputs,
                    });
                    graphs.push(graph);
                }
                for graph in &graphs {
                    let job: &Job = &jobs[expected.len()];
                    let outputs = eval::run(graph, &job.inputs).unwrap();
                    let floor = if float == DType::F16 { 60.0 } else { 110.0 };
                    expected.push((outputs["result"].clone(), floor));
                }
                emit_program(program(graphs), &options(level, float, attention), &folder);
            }
        }
    }
    let all: std::collections::BTreeSet<&str> = Op::NAMES.iter().copied().collect();
    let missing: Vec<&&str> = all.difference(&seen).collect();
    assert!(missing.is_empty(), "no example of {missing:?} was emitted");

    let mut failures = Vec::new();
    for ((job, outputs), (expected, floor)) in jobs
        .iter()
        .zip(run(&jobs.iter().collect::<Vec<_>>()))
        .zip(&expected)
    {
        let psnr = psnr(expected, &outputs["result"]);
        // Equal results of one element have no range, and no error either.
        if psnr.is_nan() || psnr >= *floor {
            continue;
        }
        failures.push(format!("{}: {psnr:.1} dB, not {floor}", job.name));
    }
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        jobs.len(),
        failures.join("\n")
    );
}

#[test]
fn what_core_ml_lacks_is_declined_by_name() {
    let mut graph = Graph::new("unet");
    let ids = graph.input("ids", TensorType::new(DType::I32, Shape::fixed(&[2])));
    let wide = graph.add(Cast { to: DType::I64 }, &[ids], "widen").unwrap();
    let narrow = graph
        .add(Cast { to: DType::I32 }, &[wide], "narrow")
        .unwrap();
    graph.output("y", narrow);
    let options = EmitOptions::default();
    let legal = legalize(&graph, &CoreMl.capabilities(&options)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = emit_one(legal, &options, dir.path()).unwrap_err();
    assert!(
        matches!(&error, TargetError::Unsupported { node, op: "cast", .. } if node == "widen"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// 1e-12 is below half of the smallest f16, 2^-24.
#[test]
fn an_epsilon_that_vanishes_in_f16_is_declined() {
    let emit = |dtype: DType| {
        let mut graph = Graph::new("unet");
        let x = graph.input("x", TensorType::new(dtype, Shape::fixed(&[1, 4])));
        let [scale, bias] =
            ["scale", "bias"].map(|n| graph.parameter(n, to_lazy(&ones(&[4]), dtype)));
        let norm = LayerNorm { epsilon: 1e-12 };
        let y = graph.add(norm, &[x, scale, bias], "norm").unwrap();
        graph.output("y", y);
        let dir = tempfile::tempdir().unwrap();
        emit_one(graph, &EmitOptions::default(), dir.path())
    };
    let error = emit(DType::F16).unwrap_err().to_string();
    assert!(error.starts_with("graph 'unet', node 'norm': "), "{error}");
    assert!(error.contains("choose --precision f32"), "{error}");
    emit(DType::F32).unwrap();
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::float(shape, vec![1.0; shape.iter().product()])
}

fn emit_one(graph: Graph, options: &EmitOptions, dir: &std::path::Path) -> Result<(), TargetError> {
    let program = program(vec![graph]);
    let verified = snapc_target::VerifiedProgram::new(&program)?;
    CoreMl
        .emit(&verified, options, dir, &snapc_target::Silent)
        .map(|_| ())
}
