//! What the integration tests of this target share: emission of small programs, and ONNX Runtime through Python.

#![allow(dead_code, reason = "every test file uses a part")]

pub mod miniature;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use snapc_ir::tensor::Elements;
use snapc_ir::{
    About, DType, Graph, LatentSpec, PipelineSpec, PredictionType, Program, SchedulerSpec, Tensor,
    TimestepSpacing,
};
use snapc_onnx::OnnxTarget;
use snapc_target::{EmitOptions, Emitted, Silent, Target, TargetError, VerifiedProgram, legalize};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A pipeline whose only file is an empty index.
pub fn pipeline() -> PipelineSpec {
    PipelineSpec {
        scheduler: SchedulerSpec {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: snapc_ir::BetaSchedule::ScaledLinear,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 1,
            set_alpha_to_one: false,
        },
        latent: LatentSpec {
            channels: 4,
            height: 8,
            width: 8,
            pixels_per_cell: 8,
            scaling_factor: 0.18215,
        },
        tokens: 77,
        files: BTreeMap::from([("model_index.json".to_owned(), b"{}".to_vec())]),
        about: About::default(),
    }
}

/// Prepares, legalizes, verifies and emits.
pub fn emit(program: Program, dir: &Path) -> Emitted {
    try_emit(program, dir).expect("emits")
}

/// The same for a program that may not be emitted.
pub fn try_emit(program: Program, dir: &Path) -> Result<Emitted, TargetError> {
    let options = EmitOptions::default();
    let mut program = OnnxTarget.prepare(program, &options).expect("prepares");
    let caps = OnnxTarget.capabilities(&options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &caps).expect("legalizes");
    }
    let verified = VerifiedProgram::new(&program).expect("verifies");
    OnnxTarget.emit(&verified, &options, dir, &Silent)
}

/// Emits graphs without a pipeline around them.
pub fn emit_graphs(graphs: Vec<Graph>, dir: &Path) -> Emitted {
    emit(
        Program {
            graphs,
            pipeline: pipeline(),
        },
        dir,
    )
}

/// One run of a model.
pub struct Call {
    /// The model.
    pub model: PathBuf,
    /// Inputs by name.
    pub inputs: BTreeMap<String, Tensor>,
}

/// Checks the models with onnx's checker and gives what ONNX Runtime computes, call by call. Files are put in `dir`.
pub fn run_onnx(calls: &[Call], dir: &Path) -> Vec<BTreeMap<String, Tensor>> {
    run_calls(calls, false, dir)
}

/// As [`run_onnx`] without the optimisations of ONNX Runtime, which replace products of dequantized values by such in
/// integers.
pub fn run_onnx_as_written(calls: &[Call], dir: &Path) -> Vec<BTreeMap<String, Tensor>> {
    run_calls(calls, true, dir)
}

fn run_calls(calls: &[Call], plain: bool, dir: &Path) -> Vec<BTreeMap<String, Tensor>> {
    let mut list = Vec::new();
    for (i, call) in calls.iter().enumerate() {
        let inputs = dir.join(format!("{i}.inputs.safetensors"));
        write_tensors(&inputs, &call.inputs);
        list.push(serde_json::json!({
            "model": call.model,
            "inputs": inputs,
            "outputs": output_path(dir, i),
            "plain": plain,
        }));
    }
    let mut child = Command::new(python())
        .arg(workspace().join("tests/python/run_onnx.py"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(serde_json::Value::from(list).to_string().as_bytes())
        .expect("python reads");
    drop(stdin);
    assert!(
        child.wait().expect("python ends").success(),
        "run_onnx.py failed; its message is above"
    );
    (0..calls.len())
        .map(|i| read_tensors(&output_path(dir, i)))
        .collect()
}

fn output_path(dir: &Path, call: usize) -> PathBuf {
    dir.join(format!("{call}.outputs.safetensors"))
}

/// The interpreter that has ONNX Runtime.
pub fn python() -> PathBuf {
    let python = match std::env::var_os("SNAPC_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => workspace().join(".cache/venv-light/bin/python"),
    };
    assert!(
        python.exists(),
        "{} does not exist; run `cargo xtask setup`",
        python.display()
    );
    python
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let data: Vec<(&String, Dtype, &Tensor, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| match &tensor.elements {
            Elements::Float(v) => (
                name,
                Dtype::F32,
                tensor,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Elements::Int(v) => (
                name,
                Dtype::I64,
                tensor,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
        })
        .collect();
    let views = data.iter().map(|(name, dtype, tensor, bytes)| {
        (
            name.as_str(),
            TensorView::new(*dtype, tensor.shape.clone(), bytes).expect("sizes agree"),
        )
    });
    let bytes = safetensors::serialize(views, None).expect("serializes");
    std::fs::write(path, bytes).expect("writes");
}

/// All tensors of a safetensors file.
pub fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("is safetensors");
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, tensor(&view)))
        .collect()
}

fn tensor(view: &TensorView<'_>) -> Tensor {
    let data = view.data();
    let shape = view.shape();
    match view.dtype() {
        Dtype::F32 => Tensor::float(shape, elements(data, f32::from_le_bytes)),
        Dtype::F16 => Tensor::float(
            shape,
            elements(data, |b| half::f16::from_le_bytes(b).to_f32()),
        ),
        Dtype::I64 => Tensor::int(shape, elements(data, i64::from_le_bytes)),
        Dtype::I32 => Tensor::int(shape, elements(data, |b| i64::from(i32::from_le_bytes(b)))),
        Dtype::BOOL => Tensor::int(shape, elements(data, |[b]: [u8; 1]| i64::from(b))),
        other => panic!("unexpected element type {other:?}"),
    }
}

fn elements<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.chunks_exact(N)
        .map(|c| read(c.try_into().expect("exact")))
        .collect()
}

/// Values that look random, the same on every machine: floats in [low, high), integers below `bound`.
pub struct Noise(u64);

impl Noise {
    /// A sequence.
    pub fn new(seed: u64) -> Self {
        Noise(seed)
    }

    /// Knuth's MMIX generator; the upper bits are good enough for test data.
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as u32
    }

    /// Floats.
    pub fn floats(&mut self, shape: &[usize], low: f32, high: f32) -> Tensor {
        let n = shape.iter().product();
        let unit = |x: u32| x as f32 / (1 << 24) as f32;
        let data = (0..n)
            .map(|_| low + (high - low) * unit(self.next()))
            .collect();
        Tensor::float(shape, data)
    }

    /// Integers.
    pub fn ints(&mut self, shape: &[usize], bound: i64) -> Tensor {
        let n = shape.iter().product();
        let data = (0..n).map(|_| i64::from(self.next()) % bound).collect();
        Tensor::int(shape, data)
    }

    /// A tensor of that element type.
    pub fn tensor(
        &mut self,
        dtype: DType,
        shape: &[usize],
        range: (f32, f32),
        bound: i64,
    ) -> Tensor {
        if dtype.is_float() {
            let mut tensor = self.floats(shape, range.0, range.1);
            tensor.round_to(dtype);
            return tensor;
        }
        self.ints(shape, bound)
    }
}

/// PSNR in dB of the contract: 20 log10((max(ref) - min(ref)) / RMSE).
pub fn psnr(reference: &Tensor, found: &Tensor) -> f64 {
    assert_eq!(reference.shape, found.shape);
    let (r, f) = (reference.floats(), found.floats());
    let (mut low, mut high, mut squares) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
    for (&a, &b) in r.iter().zip(f) {
        let (a, b) = (f64::from(a), f64::from(b));
        low = low.min(a);
        high = high.max(a);
        squares += (a - b) * (a - b);
    }
    20.0 * ((high - low) / (squares / r.len() as f64).sqrt()).log10()
}
