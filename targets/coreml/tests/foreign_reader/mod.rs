//! The foreign reader: coremltools in Python loads packages, and its program is evaluated in numpy
//! (`tests/python/run_coreml.py`).

#![allow(dead_code, reason = "every test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use snapc_coreml::CoreMl;
use snapc_ir::tensor::Elements;
use snapc_ir::{
    About, DType, Graph, LatentSpec, PipelineSpec, PredictionType, Program, SchedulerSpec, Tensor,
    TimestepSpacing,
};
use snapc_target::{EmitOptions, Emitted, Silent, Target, VerifiedProgram, legalize};

/// Named tensors.
pub type Tensors = BTreeMap<String, Tensor>;

/// A package to be read, with its inputs.
pub struct Job {
    /// What the test calls it.
    pub name: String,
    /// The package.
    pub package: PathBuf,
    /// One tensor per input of the package.
    pub inputs: Tensors,
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The Python that tests run.
pub fn python() -> PathBuf {
    let chosen = std::env::var_os("SNAPC_PYTHON").map(PathBuf::from);
    let python = chosen.unwrap_or_else(|| repository().join(".cache/venv-light/bin/python"));
    assert!(
        python.exists(),
        "'{}' does not exist; run 'cargo xtask setup', or set SNAPC_PYTHON to a Python with \
         tests/python/requirements-light.txt",
        python.display()
    );
    python
}

/// Reads and evaluates all packages in one Python process and gives their outputs in order.
pub fn run(jobs: &[&Job]) -> Vec<Tensors> {
    let jobs: Vec<(&Job, &str)> = jobs.iter().map(|job| (*job, "main")).collect();
    run_functions(&jobs)
}

/// The same, each with the function of the package that is evaluated.
pub fn run_functions(jobs: &[(&Job, &str)]) -> Vec<Tensors> {
    let dir = tempfile::tempdir().unwrap();
    let file = |i: usize, what: &str| dir.path().join(format!("{i}.{what}.safetensors"));
    let mut list = Vec::new();
    for (i, (job, function)) in jobs.iter().enumerate() {
        std::fs::write(file(i, "in"), to_safetensors(&job.inputs)).unwrap();
        list.push(serde_json::json!({
            "package": job.package,
            "function": function,
            "inputs": file(i, "in"),
            "outputs": file(i, "out"),
        }));
    }
    let jobs_file = dir.path().join("jobs.json");
    std::fs::write(&jobs_file, serde_json::to_vec(&list).unwrap()).unwrap();
    let script = repository().join("tests/python/run_coreml.py");
    let output = Command::new(python())
        .arg(script)
        .arg(jobs_file)
        .output()
        .unwrap();
    let errors: Vec<Option<String>> = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!(
            "no answer: {e}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    assert_eq!(errors.len(), jobs.len());
    let failed = jobs
        .iter()
        .zip(&errors)
        .filter_map(|((job, _), e)| Some(format!("{}: {}", job.name, e.as_ref()?)));
    let failed: Vec<String> = failed.collect();
    assert!(
        failed.is_empty(),
        "coremltools refuses:\n{}",
        failed.join("\n")
    );
    (0..jobs.len())
        .map(|i| read_safetensors(&std::fs::read(file(i, "out")).unwrap()))
        .collect()
}

/// What coremltools shows of packages (`tests/python/load_packages.py`), in order; the work is shared out between two
/// processes.
pub fn show(packages: &[PathBuf]) -> Vec<serde_json::Value> {
    let script = repository().join("tests/python/load_packages.py");
    let load = |packages: &[PathBuf]| -> Vec<serde_json::Value> {
        let mut command = Command::new(python());
        let output = command.arg(&script).args(packages).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            let stderr = String::from_utf8_lossy(&output.stderr);
            panic!("no answer: {e}: {stderr}")
        })
    };
    let (first, second) = packages.split_at(packages.len() / 2);
    let (mut shown, rest) = rayon::join(|| load(first), || load(second));
    shown.extend(rest);
    assert_eq!(shown.len(), packages.len());
    shown
}

fn to_safetensors(tensors: &Tensors) -> Vec<u8> {
    let bytes: BTreeMap<&String, (Dtype, Vec<u8>)> = tensors
        .iter()
        .map(|(name, t)| match &t.elements {
            Elements::Float(v) => (
                name,
                (Dtype::F32, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            ),
            Elements::Int(v) => (
                name,
                (Dtype::I64, v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            ),
        })
        .collect();
    let views = bytes.iter().map(|(name, (dtype, data))| {
        let view = TensorView::new(*dtype, tensors[*name].shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// All tensors of a safetensors file.
pub fn read_safetensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).unwrap();
    file.iter()
        .map(|(name, view)| (name.to_owned(), to_tensor(&view)))
        .collect()
}

fn to_tensor(view: &TensorView<'_>) -> Tensor {
    let (shape, data) = (view.shape(), view.data());
    match view.dtype() {
        Dtype::F32 => {
            let words = data.as_chunks::<4>().0;
            Tensor::float(
                shape,
                words.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            )
        }
        Dtype::F16 => {
            let words = data.as_chunks::<2>().0;
            Tensor::float(
                shape,
                words
                    .iter()
                    .map(|b| f16::from_le_bytes(*b).to_f32())
                    .collect(),
            )
        }
        Dtype::I32 => {
            let words = data.as_chunks::<4>().0;
            Tensor::int(
                shape,
                words
                    .iter()
                    .map(|b| i64::from(i32::from_le_bytes(*b)))
                    .collect(),
            )
        }
        other => panic!("unexpected element type {other:?}"),
    }
}

/// `20 log10((max - min) / rmse)` of a result against its reference; infinite when they are equal.
pub fn psnr(reference: &Tensor, result: &Tensor) -> f64 {
    assert_eq!(reference.shape, result.shape);
    let floats = |t: &Tensor| -> Vec<f64> {
        match &t.elements {
            Elements::Float(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Elements::Int(v) => v.iter().map(|&x| x as f64).collect(),
        }
    };
    let (a, b) = (floats(reference), floats(result));
    assert!(b.iter().all(|x| x.is_finite()), "a result is not finite");
    let squares: f64 = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum();
    let max = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = a.iter().copied().fold(f64::INFINITY, f64::min);
    20.0 * ((max - min) / (squares / a.len() as f64).sqrt()).log10()
}

/// Prepares and legalizes a program, emits it to `dir`, and asserts that the verifier finds nothing. Gives the legalized
/// program and what was written.
pub fn emit_program(program: Program, options: &EmitOptions, dir: &Path) -> (Program, Emitted) {
    emit_sizes(vec![program], options, dir)
}

/// The same for one program per picture size; gives the first of them.
pub fn emit_sizes(programs: Vec<Program>, options: &EmitOptions, dir: &Path) -> (Program, Emitted) {
    let capabilities = CoreMl.capabilities(options);
    let legal = programs.into_iter().map(|program| {
        let mut program = CoreMl.prepare(program, options).unwrap();
        for graph in &mut program.graphs {
            *graph = legalize(graph, &capabilities).unwrap();
        }
        program
    });
    let mut legal: Vec<Program> = legal.collect();
    let others = legal[1..].iter().map(|p| VerifiedProgram::new(p).unwrap());
    let others = others.collect();
    let verified = VerifiedProgram::new(&legal[0])
        .unwrap()
        .with_other_sizes(others);
    let emitted = CoreMl.emit(&verified, options, dir, &Silent).unwrap();
    assert_eq!(CoreMl.verify(dir).unwrap(), [], "{options:?}");
    (legal.swap_remove(0), emitted)
}

/// A program of these graphs; no package depends on the facts around them.
pub fn program(graphs: Vec<Graph>) -> Program {
    let pipeline = PipelineSpec {
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
            height: 16,
            width: 16,
            pixels_per_cell: 8,
            scaling_factor: 0.18215,
        },
        tokens: 77,
        files: BTreeMap::new(),
        about: About::default(),
    };
    Program { graphs, pipeline }
}

/// The element type that a feature of an artifact rounds to.
pub fn rounded(tensor: &Tensor, dtype: DType) -> Tensor {
    let mut tensor = tensor.clone();
    tensor.round_to(dtype);
    tensor
}
