//! `NetworkEngine` and `Pipeline` over networks that are specialised to a run: `step` in place of the timestep, and further
//! outputs of the text encoder in place of the embeddings.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::rc::Rc;

use snapc_pipeline::{
    BetaSchedule, Data, Engine, InitLatents, InterfaceError, Network, NetworkEngine, Pipeline,
    PipelineError, Port, PortType, PredictionType, Request, SchedulerConfig, TimestepSpacing,
    Tokenizer, UnetInput,
};

const TOKENS: usize = 3;
/// Values of the latents, `[4, 1, 2]`.
const LATENTS: usize = 8;
/// Timesteps of two steps of the scheduler below.
const TIMESTEPS: [usize; 2] = [501, 1];

type Body = fn(usize, &[Data<'_>], &mut [Option<&mut [f32]>]);

/// A network that counts its calls.
struct Fake {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    calls: Rc<RefCell<usize>>,
    body: Body,
}

impl Network for Fake {
    type Error = Infallible;

    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), Infallible> {
        for (port, data) in self.inputs.iter().zip(inputs) {
            assert_eq!(port.dtype, data.dtype(), "{port}");
            assert_eq!(port.values(batch), Some(data.len()), "{port}");
        }
        for (port, data) in self.outputs.iter().zip(outputs.iter()) {
            if let Some(data) = data {
                assert_eq!(port.values(batch), Some(data.len()), "{port}");
            }
        }
        *self.calls.borrow_mut() += 1;
        (self.body)(batch, inputs, outputs);
        Ok(())
    }
}

fn fake(inputs: Vec<Port>, outputs: Vec<Port>, body: Body) -> Fake {
    Fake {
        inputs,
        outputs,
        calls: Rc::default(),
        body,
    }
}

fn f32s<'a>(data: &Data<'a>) -> &'a [f32] {
    match data {
        Data::F32(values) => values,
        Data::I32(_) => panic!("integers"),
    }
}

fn port(name: &str, batch: Option<usize>, rest: &[usize]) -> Port {
    let rest = rest.iter().map(|&size| Some(size));
    let dims: Vec<_> = [batch].into_iter().chain(rest).collect();
    Port::new(name, PortType::F32, &dims)
}

/// Of a prompt's first id: embeddings that are it, `to_k` that is twice it, `to_v` that is three times it.
fn text_encoder(batch: Option<usize>) -> Fake {
    let outputs = vec![
        port("to_v", batch, &[5]),
        port("last_hidden_state", batch, &[TOKENS, 1]),
        port("pooler_output", batch, &[1]),
        port("to_k", batch, &[2, 2]),
    ];
    let ids = Port::new("input_ids", PortType::I32, &[batch, Some(TOKENS)]);
    fake(vec![ids], outputs, |_, inputs, outputs| {
        let Data::I32(ids) = inputs[0] else {
            panic!("floats")
        };
        assert!(outputs[2].is_none());
        for (output, factor) in [(0, 3.0), (1, 1.0), (3, 2.0)] {
            let Some(values) = outputs[output].as_deref_mut() else {
                continue;
            };
            let row = values.len() * TOKENS / ids.len();
            for (i, value) in values.iter_mut().enumerate() {
                *value = factor * ids[i / row * TOKENS] as f32;
            }
        }
    })
}

/// What stands beside `sample`.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `step`, `to_k`, `to_v`.
    Specialized,
    /// `step`, `timestep`, `to_k`, `encoder_hidden_states`.
    Kept,
}

/// The prediction of a row is 100 times `to_k`, plus `to_v` or the embedding, plus 10000 times the step, plus the timestep.
fn unet(form: Form, batch: Option<usize>) -> Fake {
    let step = Port::new("step", PortType::I32, &[Some(1)]);
    let timestep = Port::new("timestep", PortType::F32, &[]);
    let k = port("to_k", batch, &[2, 2]);
    let sample = port("sample", batch, &[4, 1, 2]);
    let inputs = match form {
        Form::Specialized => vec![port("to_v", batch, &[5]), step, k, sample],
        Form::Kept => {
            let states = port("encoder_hidden_states", batch, &[TOKENS, 1]);
            vec![states, step, k, sample, timestep]
        }
    };
    let outputs = vec![port("out_sample", batch, &[4, 1, 2])];
    fake(inputs, outputs, |batch, inputs, outputs| {
        let (more, k) = (f32s(&inputs[0]), f32s(&inputs[2]));
        let Data::I32(&[step]) = inputs[1] else {
            panic!("one step")
        };
        let timestep = inputs.get(4).map_or(0.0, |t| f32s(t)[0]);
        let result = outputs[0].as_deref_mut().unwrap();
        for (i, value) in result.iter_mut().enumerate() {
            let row = i / LATENTS;
            let text = 100.0 * k[4 * row + 3] + more[(row + 1) * more.len() / batch - 1];
            *value = text + 10_000.0 * step as f32 + timestep;
        }
    })
}

fn vae_decoder() -> Fake {
    fake(
        vec![port("latent_sample", None, &[4, 1, 2])],
        vec![port("sample", None, &[3, 2, 4])],
        |_, _, outputs| outputs[0].as_deref_mut().unwrap().fill(0.0),
    )
}

fn engine(form: Form, batches: [Option<usize>; 2]) -> NetworkEngine<Fake> {
    let [texts, predictions] = batches;
    NetworkEngine::with_timesteps(
        text_encoder(texts),
        unet(form, predictions),
        vae_decoder(),
        &TIMESTEPS,
    )
    .unwrap()
}

/// Predictions of two prompts, of ids 5 and 7, at a timestep.
fn predict(engine: &mut NetworkEngine<Fake>, timestep: usize) -> [f32; 2] {
    let size = engine.text_values();
    let mut texts = vec![f32::NAN; 2 * size];
    for (id, values) in [5, 7].into_iter().zip(texts.chunks_exact_mut(size)) {
        engine.encode_text(&[id, 0, 0], values).unwrap();
        assert_eq!(values[..TOKENS], [id as f32; TOKENS]);
    }
    let mut predictions = [f32::NAN; 2 * LATENTS];
    let input = UnetInput {
        step: 0,
        timestep,
        batch: 2,
        latents: &[0.0; LATENTS],
        text_embeddings: &texts,
    };
    engine.denoise(input, &mut predictions).unwrap();
    let [first, second] = [predictions[0], predictions[LATENTS]];
    assert_eq!(predictions[..LATENTS], [first; LATENTS]);
    assert_eq!(predictions[LATENTS..], [second; LATENTS]);
    [first, second]
}

#[test]
fn the_row_of_a_timestep_and_the_projections_of_a_prompt_are_fed() {
    for batches in [
        [None, None],
        [Some(1), Some(2)],
        [Some(2), Some(1)],
        [None, Some(4)],
    ] {
        let mut engine = engine(Form::Specialized, batches);
        assert_eq!(engine.timesteps(), Some(&TIMESTEPS[..]));
        // Three embeddings, then `to_v` and `to_k`.
        assert_eq!(engine.text_values(), 3 + 5 + 4);
        assert_eq!(engine.geometry().embedding_values(), 3);
        // 100 * 2 * id + 3 * id + 10000 * step.
        assert_eq!(predict(&mut engine, 501), [1015.0, 1421.0]);
        assert_eq!(predict(&mut engine, 1), [11_015.0, 11_421.0]);
    }
}

#[test]
fn a_kept_timestep_has_the_row_behind_the_table() {
    let mut engine = engine(Form::Kept, [None, None]);
    assert_eq!(engine.timesteps(), None);
    assert_eq!(engine.text_values(), 3 + 4);
    // 100 * 2 * id + id + 10000 * step + timestep.
    assert_eq!(predict(&mut engine, 1), [11_006.0, 11_408.0]);
    assert_eq!(predict(&mut engine, 333), [21_338.0, 21_740.0]);
}

#[test]
#[should_panic(expected = "timestep 333 is none of Engine::timesteps")]
fn a_timestep_without_a_row_is_a_mistake_of_the_caller() {
    predict(&mut engine(Form::Specialized, [None, None]), 333);
}

/// Changes the text encoder and the UNet.
type Tamper = fn(&mut Fake, &mut Fake);

fn error(change: Tamper, timesteps: &[usize]) -> InterfaceError {
    let (mut texts, mut unet) = (text_encoder(None), unet(Form::Specialized, None));
    change(&mut texts, &mut unet);
    let engine = NetworkEngine::with_timesteps(texts, unet, vae_decoder(), timesteps);
    engine.err().expect("the networks do not fit")
}

#[test]
fn what_does_not_fit_is_named() {
    let none = error(|_, _| {}, &[]).to_string();
    assert!(none.contains("no list of the timesteps"), "{none}");
    let cases: [(Tamper, &str); 6] = [
        (
            |_, unet| unet.inputs[1].dtype = PortType::F32,
            "unet: 'step' f32 [1] does not fit; expected an i32 scalar or [1]",
        ),
        (
            |_, unet| unet.inputs[1].dims = vec![None],
            "unet: 'step' i32 [N] does not fit",
        ),
        (
            |texts, _| texts.outputs[0].dims[1] = Some(6),
            "unet: 'to_v' f32 [N,5] does not fit; expected f32 [N, ...] like the output 'to_v' f32 [N,6] of the text encoder",
        ),
        (
            |texts, unet| {
                texts.outputs[0].dims[1] = Some(1 << 40);
                unet.inputs[0].dims[1] = Some(1 << 40);
            },
            "unet: 'to_v' f32 [N,1099511627776] does not fit",
        ),
        (
            |texts, _| texts.outputs[0].name = "other".to_owned(),
            "unet: a pipeline has no value for the input 'to_v' f32 [N,5]",
        ),
        (
            |_, unet| {
                unet.inputs.remove(2);
                unet.inputs.remove(0);
            },
            "unet: no input is named 'encoder_hidden_states'",
        ),
    ];
    for (change, expected) in cases {
        let message = error(change, &TIMESTEPS).to_string();
        assert!(message.starts_with(expected), "{message}\n{expected}");
    }
}

fn pipeline() -> (Pipeline<NetworkEngine<Fake>>, Rc<RefCell<usize>>) {
    let texts = text_encoder(None);
    let calls = Rc::clone(&texts.calls);
    let unet = unet(Form::Specialized, None);
    let engine = NetworkEngine::with_timesteps(texts, unet, vae_decoder(), &TIMESTEPS);
    let tokenizer = Tokenizer::new(b"#version: 0.2\nc a\nca t</w>\n", 515, TOKENS).unwrap();
    let scheduler = SchedulerConfig {
        train_steps: 1000,
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: BetaSchedule::ScaledLinear,
        prediction_type: PredictionType::Epsilon,
        timestep_spacing: TimestepSpacing::Leading,
        steps_offset: 1,
        set_alpha_to_one: false,
    };
    let pipeline = Pipeline::new(engine.unwrap(), tokenizer, scheduler, 1.0).unwrap();
    (pipeline, calls)
}

fn request(steps: usize) -> Request {
    Request {
        prompt: "cat".to_owned(),
        negative_prompt: String::new(),
        steps,
        guidance: 7.5,
        init_latents: InitLatents::Given(vec![0.0; LATENTS]),
    }
}

#[test]
fn a_run_of_other_steps_is_refused_before_anything_runs() {
    let (mut pipeline, calls) = pipeline();
    for steps in [1, 3, 8] {
        let error = pipeline.generate(&request(steps), |_| ControlFlow::Continue(()));
        let error = error.unwrap_err();
        assert!(matches!(error, PipelineError::Steps { .. }), "{error}");
        let text = error.to_string();
        let expected =
            "the model was converted for 2 steps, at timesteps [501, 1], and this run takes";
        assert!(text.starts_with(expected), "{text}");
        let advice = format!("convert again with --steps {steps} or with --interface plain");
        assert!(text.ends_with(&advice), "{text}");
    }
    assert_eq!(*calls.borrow(), 0);
}

#[test]
fn the_text_encoder_runs_once_per_prompt_and_not_for_known_ones() {
    let (mut pipeline, calls) = pipeline();
    let run =
        |pipeline: &mut Pipeline<_>| pipeline.generate(&request(2), |_| ControlFlow::Continue(()));
    let first = run(&mut pipeline).unwrap();
    assert_eq!(*calls.borrow(), 2);
    // The record has the embeddings alone.
    assert_eq!(first.text_embeddings.len(), 2 * TOKENS);

    let ids = first.input_ids[..TOKENS].to_vec();
    let mut values = vec![0.0; 12];
    pipeline
        .engine_mut()
        .encode_text(&ids, &mut values)
        .unwrap();
    *calls.borrow_mut() = 0;
    let short = pipeline.remember(ids.clone(), values[..3].to_vec());
    assert!(matches!(
        short,
        Err(PipelineError::KnownPrompt { values: 3, .. })
    ));
    pipeline.remember(ids, values).unwrap();
    assert_eq!(run(&mut pipeline).unwrap(), first);
    assert_eq!(*calls.borrow(), 1);
}
