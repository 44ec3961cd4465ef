//! ONNX models and Core ML packages.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use crate::join;
use snapc_coreml::CoreMl;
use snapc_ir::{
    About, BetaSchedule, Graph, LatentSpec, PipelineSpec, PredictionType, Program, SchedulerSpec,
    TimestepSpacing,
};
use snapc_onnx::OnnxTarget;
use snapc_target::{EmitOptions, Silent, Target, VerifiedProgram, legalize};

use super::{Seeds, graphs};

/// `[length of the model: u16 LE] [model] [which graph] [data file]`
pub(super) fn onnx() -> io::Result<Seeds> {
    let mut seeds = Seeds::new();
    for (name, graph) in graphs::all() {
        let stage = graph.name().to_owned();
        let dir = tempfile::tempdir()?;
        emit(&OnnxTarget, &EmitOptions::default(), graph, dir.path());
        let folder = dir.path().join(&stage);
        let model = fs::read(folder.join("model.onnx"))?;
        let mut data = fs::read(folder.join("model.onnx_data")).unwrap_or_default();
        let stages = ["text_encoder", "unet", "vae_decoder"];
        let which = stages.iter().position(|s| *s == stage);
        data.insert(0, which.expect("graphs are called like stages") as u8);
        seeds.insert(name.to_owned(), join(&model, &data));
    }
    Ok(seeds)
}

/// `[length of the model: u16 LE] [model] [weight file]`
pub(super) fn core_ml() -> io::Result<Seeds> {
    let mut seeds = Seeds::new();
    let options = EmitOptions {
        min_ios: Some(18),
        ..EmitOptions::default()
    };
    for (name, graph) in graphs::all() {
        let dir = tempfile::tempdir()?;
        emit(&CoreMl, &options, graph, dir.path());
        let entries = fs::read_dir(dir.path())?.collect::<io::Result<Vec<_>>>()?;
        let mut paths = entries.iter().map(fs::DirEntry::path);
        let package = paths.find(|p| p.extension().is_some_and(|e| e == "mlpackage"));
        let data = package.expect("one package").join("Data/com.apple.CoreML");
        let model = fs::read(data.join("model.mlmodel"))?;
        let weights = fs::read(data.join("weights/weight.bin"))?;
        seeds.insert(name.to_owned(), join(&model, &weights));
    }
    Ok(seeds)
}

/// Prepares, legalizes and writes the artifact of one graph.
fn emit(target: &dyn Target, options: &EmitOptions, graph: Graph, dir: &Path) {
    let program = Program {
        graphs: vec![graph],
        pipeline: pipeline(),
    };
    let mut program = target.prepare(program, options).expect("prepares");
    let caps = target.capabilities(options);
    for graph in &mut program.graphs {
        *graph = legalize(graph, &caps).expect("legalizes");
    }
    let verified = VerifiedProgram::new(&program).expect("verifies");
    let emitted = target.emit(&verified, options, dir, &Silent);
    emitted.expect("emits");
}

fn pipeline() -> PipelineSpec {
    PipelineSpec {
        scheduler: SchedulerSpec {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
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
