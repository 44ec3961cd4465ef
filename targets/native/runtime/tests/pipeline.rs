//! A whole pipeline from one file, with networks small enough to compute by hand.

mod support;

use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::Arc;

use snapc_format::{Container, Plan, Stage};
use snapc_pipeline::{
    BetaSchedule, InitLatents, PredictionType, Request, SchedulerConfig, TimestepSpacing, schedule,
};
use snapc_program::{Binary, Dim, Op, Program, ScheduleData, Storage, TokenizerData, Type};
use snapc_runtime::{Options, Runtime};
use support::{Model, StoredWeight};

const SIDE: u32 = 2;

/// Ids of two tokens `[N,2]` to embeddings `[N,2,4]`, a quarter each.
fn text_encoder() -> Model {
    let mut model = Model::default();
    let ids = model.input("input_ids", Type::i32([Dim::Batch, Dim::Fixed(2)]));
    let table = snapc_ir::Tensor::float(&[516, 4], vec![0.25; 516 * 4]);
    let table = model.weight(Storage::Rows, snapc_format::DType::F32, &table);
    let embedded = model.push(
        Op::Gather {
            axis: 0,
            batch_dims: 0,
        },
        &[table, ids],
    );
    model.output("last_hidden_state", embedded);
    model
}

/// Predicts half of the latents as noise.
fn unet() -> Model {
    let latents = Type::f32([
        Dim::Batch,
        Dim::Fixed(4),
        Dim::Fixed(SIDE),
        Dim::Fixed(SIDE),
    ]);
    let mut model = Model::default();
    let sample = model.input("sample", latents);
    model.input("timestep", Type::f32([]));
    let states = Type::f32([Dim::Batch, Dim::Fixed(2), Dim::Fixed(4)]);
    model.input("encoder_hidden_states", states);
    let half = snapc_ir::Tensor::float(&[], vec![0.5]);
    let half = model.weight(Storage::F32, snapc_format::DType::F32, &half);
    let noise = model.push(Op::Binary(Binary::Mul), &[sample, half]);
    model.output("out_sample", noise);
    model
}

/// Shows three channels of the latents, eight pixels each way.
fn vae_decoder() -> Model {
    let latents = Type::f32([
        Dim::Batch,
        Dim::Fixed(4),
        Dim::Fixed(SIDE),
        Dim::Fixed(SIDE),
    ]);
    let mut model = Model::default();
    let x = model.input("latent_sample", latents);
    let x = model.push(
        Op::Slice {
            axis: 1,
            start: 0,
            end: 3,
        },
        &[x],
    );
    let x = model.push(
        Op::Permute {
            order: vec![0, 2, 3, 1],
        },
        &[x],
    );
    let x = model.push(Op::UpsampleNearest { scale: 8 }, &[x]);
    let x = model.push(
        Op::Permute {
            order: vec![0, 3, 1, 2],
        },
        &[x],
    );
    model.output("sample", x);
    model
}

fn scheduler() -> SchedulerConfig {
    SchedulerConfig {
        train_steps: 1000,
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: BetaSchedule::ScaledLinear,
        prediction_type: PredictionType::Epsilon,
        timestep_spacing: TimestepSpacing::Leading,
        steps_offset: 1,
        set_alpha_to_one: false,
    }
}

fn runtime() -> Runtime {
    let stages = [
        (Stage::TextEncoder, text_encoder()),
        (Stage::Unet, unet()),
        (Stage::VaeDecoder, vae_decoder()),
    ];
    let mut program = Program::new();
    let mut plan = Plan::new();
    for (stage, model) in &stages {
        program.insert(*stage, model.graph.clone());
        for StoredWeight { plan: tensor, .. } in &model.weights {
            plan.add_tensor(*stage, tensor.clone());
        }
    }
    plan.set_program(program.encode().expect("a small program"));
    let merges = b"#version: 0.2\nc a\nca t</w>\n".to_vec();
    let tokenizer = TokenizerData {
        pad: 515,
        length: 2,
        merges,
    };
    plan.set_tokenizer(tokenizer.encode());
    let defaults = ScheduleData {
        scheduler: scheduler(),
        scaling_factor: 0.5,
        steps: 4,
        guidance: 3.0,
    };
    plan.set_schedule(defaults.encode());
    let layout = plan.layout().expect("a small file");
    let mut file = Cursor::new(Vec::new());
    let wrote = layout.write(&mut file, |placement, out| {
        let (_, model) = &stages[placement.stage as usize];
        out.write_all(&model.weights[0].bytes)
    });
    wrote.expect("memory takes it all");
    let container = Container::from_bytes("memory", Arc::new(file.into_inner()));
    let container = container.expect("the file is valid");
    Runtime::from_container("memory", container, &Options::with_threads(2)).expect("it opens")
}

#[test]
fn a_prompt_becomes_a_picture() {
    let runtime = runtime();
    let defaults = runtime.schedule().unwrap();
    assert_eq!((defaults.steps, defaults.guidance), (4, 3.0));
    let mut pipeline = runtime.into_pipeline().unwrap();
    let init: Vec<f32> = (0..16).map(|i| i as f32 / 8.0 - 1.0).collect();
    let request = Request {
        prompt: "cat".to_owned(),
        negative_prompt: String::new(),
        steps: 4,
        guidance: 3.0,
        init_latents: InitLatents::Given(init.clone()),
    };
    let mut calls = 0;
    let made = pipeline.generate(&request, |_| {
        calls += 1;
        ControlFlow::Continue(())
    });
    let made = made.unwrap();
    assert_eq!(calls, 4);
    assert_eq!(made.input_ids, [514, 515, 514, 515]);
    assert_eq!(made.text_embeddings, [0.25; 16]);

    // Both predictions are half of the latents, and so is their guided sum.
    let mut latents = init;
    for step in schedule(&scheduler(), 4).unwrap() {
        let noise: Vec<f32> = latents.iter().map(|x| x / 2.0).collect();
        let before = latents.clone();
        step.advance(&before, &noise, &mut latents);
    }
    assert_eq!(made.latents, latents);
    for (i, &pixel) in made.decoded.iter().enumerate() {
        let (channel, y, x) = (i / 256, i / 16 % 16, i % 16);
        let at = channel * 4 + y / 8 * 2 + x / 8;
        assert_eq!(pixel, latents[at] / 0.5, "{i}");
    }
}
