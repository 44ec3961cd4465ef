//! `.snap` files taken apart, and their sections.

use std::io;

use crate::take_apart;
use snapc_format::{DType, LayoutId, Plan, Stage, TensorPlan};
use snapc_pipeline::{BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing};
use snapc_program::{ScheduleData, TokenizerData};

use super::{Seeds, programs};

/// Kinds of the target `program`.
const TOKENIZER: u8 = 0;
const SCHEDULE: u8 = 1;
const PROGRAM: u8 = 2;

/// Flag of the target `snap`: the bytes are the file.
const AS_IT_IS: u8 = 1;

/// Inputs of the target `snap`.
pub(super) fn files() -> io::Result<Seeds> {
    let mut seeds = Seeds::new();
    seeds.insert("empty".to_owned(), take_apart(&file(&Plan::new())?));

    let mut whole = Plan::new();
    whole.set_program(programs::network());
    whole.set_schedule(schedule());
    whole.set_tokenizer(tokenizer());
    whole.set_metadata("license", "MIT");
    whole.set_metadata("model", "tiny");
    for stage in Stage::ALL {
        let bias = TensorPlan::new("bias", &[2], DType::F32);
        whole.add_tensor(stage, bias);
    }
    seeds.insert("whole".to_owned(), take_apart(&file(&whole)?));

    let mut types = Plan::new();
    for dtype in [
        DType::F32,
        DType::F16,
        DType::Bf16,
        DType::I64,
        DType::U6,
        DType::U4,
    ] {
        let tensor = TensorPlan::new(dtype.to_string(), &[3, 5], dtype);
        types.add_tensor(Stage::Unet, tensor);
    }
    types.add_tensor(Stage::Unet, TensorPlan::new("scalar", &[], DType::I32));
    seeds.insert("types".to_owned(), take_apart(&file(&types)?));

    let mut packed = Plan::new();
    packed.set_segment_limit(256);
    let panels = TensorPlan::panels("panels", &[3, 2], DType::F16);
    packed.add_tensor(Stage::Unet, panels);
    let both = TensorPlan::new("both", &[3, 2], DType::F16);
    let both = both.with_packed(LayoutId(2), DType::F32, 100);
    packed.add_tensor(Stage::Unet, both);
    let large = TensorPlan::new("large", &[300], DType::U8);
    packed.add_tensor(Stage::Unet, large);
    seeds.insert("packed".to_owned(), take_apart(&file(&packed)?));

    let header = file(&Plan::new())?;
    let raw = [&[AS_IT_IS], &header[..64]].concat();
    seeds.insert("header-alone".to_owned(), raw);
    Ok(seeds)
}

/// Inputs of the target `program`.
pub(super) fn sections() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, kind, bytes) in [
        ("program", PROGRAM, programs::network()),
        ("schedule", SCHEDULE, schedule()),
        ("tokenizer", TOKENIZER, tokenizer()),
    ] {
        seeds.insert(name.to_owned(), [&[kind], bytes.as_slice()].concat());
    }
    seeds
}

fn file(plan: &Plan) -> io::Result<Vec<u8>> {
    let mut file = io::Cursor::new(Vec::new());
    let layout = plan.layout().expect("the plan is small");
    layout.write(&mut file, |place, out| {
        let data: Vec<u8> = (0..place.length).map(|i| i as u8).collect();
        out.write_all(&data)
    })?;
    Ok(file.into_inner())
}

fn tokenizer() -> Vec<u8> {
    let data = TokenizerData {
        pad: 515,
        length: 77,
        merges: b"#version: 0.2\nc a\nca t</w>\n".to_vec(),
    };
    data.encode()
}

fn schedule() -> Vec<u8> {
    let data = ScheduleData {
        scheduler: SchedulerConfig {
            train_steps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 1,
            set_alpha_to_one: false,
        },
        scaling_factor: 0.18215,
        steps: 8,
        guidance: 7.5,
    };
    data.encode()
}
