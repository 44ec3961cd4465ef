//! `NetworkEngine` over small networks whose results are known by hand, in diffusers' and in Apple's form.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::convert::Infallible;

use snapc_pipeline::{
    Data, Engine, Geometry, InterfaceError, Network, NetworkEngine, NetworkKind, Port, PortType,
    UnetInput,
};

const TOKENS: usize = 3;
const WIDTH: usize = 2;
/// Values of the latents, `[4, 1, 2]`.
const LATENTS: usize = 8;

type Body = fn(usize, &[Data<'_>], &mut [Option<&mut [f32]>]);

/// What a network is asked for, and how often.
struct Fake {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    calls: Vec<usize>,
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
        assert_eq!(self.inputs.len(), inputs.len());
        assert_eq!(self.outputs.len(), outputs.len());
        self.calls.push(batch);
        (self.body)(batch, inputs, outputs);
        Ok(())
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

/// Form of the features.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Plain,
    Apple,
}

/// Embedding `[t, c]` is ten times the id, plus c.
fn text_encoder(form: Form, batch: Option<usize>) -> Fake {
    let dims = [batch, Some(TOKENS)];
    let (dtype, pooled) = match form {
        Form::Plain => (PortType::I32, "pooler_output"),
        Form::Apple => (PortType::F32, "pooled_outputs"),
    };
    Fake {
        inputs: vec![Port::new("input_ids", dtype, &dims)],
        // The output that is not wanted comes first.
        outputs: vec![
            port(pooled, batch, &[WIDTH]),
            port("last_hidden_state", batch, &[TOKENS, WIDTH]),
        ],
        calls: Vec::new(),
        body: |_, inputs, outputs| {
            let ids: Vec<f32> = match inputs[0] {
                Data::F32(ids) => ids.to_vec(),
                Data::I32(ids) => ids.iter().map(|&id| id as f32).collect(),
            };
            assert!(outputs[0].is_none());
            let states = outputs[1].as_deref_mut().unwrap();
            for (index, value) in states.iter_mut().enumerate() {
                *value = 10.0 * ids[index / WIDTH] + (index % WIDTH) as f32;
            }
        },
    }
}

/// Latents plus the timestep plus the sum of `(100 t + c + 1) state[t, c]` of the row.
fn unet(form: Form, batch: Option<usize>, timestep: Port) -> Fake {
    let (states, output): (&[usize], _) = match form {
        Form::Plain => (&[TOKENS, WIDTH], "out_sample"),
        Form::Apple => (&[WIDTH, 1, TOKENS], "noise_pred"),
    };
    Fake {
        // Not in the order in which the engine names them.
        inputs: vec![
            port("encoder_hidden_states", batch, states),
            timestep,
            port("sample", batch, &[4, 1, 2]),
        ],
        outputs: vec![port(output, batch, &[4, 1, 2])],
        calls: Vec::new(),
        body: match form {
            Form::Plain => |_, inputs, outputs| run_unet(inputs, outputs, |t, c| t * WIDTH + c),
            Form::Apple => |_, inputs, outputs| run_unet(inputs, outputs, |t, c| c * TOKENS + t),
        },
    }
}

fn run_unet(
    inputs: &[Data<'_>],
    outputs: &mut [Option<&mut [f32]>],
    index: fn(usize, usize) -> usize,
) {
    let (states, samples) = (f32s(&inputs[0]), f32s(&inputs[2]));
    let times: Vec<f32> = match inputs[1] {
        Data::F32(times) => times.to_vec(),
        Data::I32(times) => times.iter().map(|&time| time as f32).collect(),
    };
    let output = outputs[0].as_deref_mut().unwrap();
    for (at, value) in output.iter_mut().enumerate() {
        let row = at / LATENTS;
        let states = &states[row * TOKENS * WIDTH..][..TOKENS * WIDTH];
        let mut sum = 0.0;
        for t in 0..TOKENS {
            for c in 0..WIDTH {
                sum += (100 * t + c + 1) as f32 * states[index(t, c)];
            }
        }
        *value = samples[at] + times[row % times.len()] + sum;
    }
}

/// Every pixel of a 2x4 picture is the first latent.
fn vae_decoder(form: Form, batch: Option<usize>) -> Fake {
    let (input, output) = match form {
        Form::Plain => ("latent_sample", "sample"),
        Form::Apple => ("z", "image"),
    };
    Fake {
        inputs: vec![port(input, batch, &[4, 1, 2])],
        outputs: vec![port(output, batch, &[3, 2, 4])],
        calls: Vec::new(),
        body: |_, inputs, outputs| {
            let first = f32s(&inputs[0])[0];
            outputs[0].as_deref_mut().unwrap().fill(first);
        },
    }
}

fn timestep(dims: &[Option<usize>]) -> Port {
    Port::new("timestep", PortType::F32, dims)
}

fn engine(form: Form, batches: [Option<usize>; 3], timestep: Port) -> NetworkEngine<Fake> {
    NetworkEngine::new(
        text_encoder(form, batches[0]),
        unet(form, batches[1], timestep),
        vae_decoder(form, batches[2]),
    )
    .unwrap()
}

/// Runs every network once, the UNet with two prompts, and checks the results.
fn check(engine: &mut impl Engine<Error = Infallible>) {
    let geometry = Geometry {
        text_length: TOKENS,
        text_width: WIDTH,
        latent_channels: 4,
        latent_height: 1,
        latent_width: 2,
        pixels_per_latent: 2,
    };
    assert_eq!(engine.geometry(), geometry);

    let mut embeddings = [f32::NAN; TOKENS * WIDTH];
    engine.encode_text(&[5, 7, 9], &mut embeddings).unwrap();
    assert_eq!(embeddings, [50.0, 51.0, 70.0, 71.0, 90.0, 91.0]);

    let latents: Vec<f32> = (0..8).map(|v| v as f32 / 8.0).collect();
    let first = [1.0, 0.0, 0.0, 2.0, 0.0, 0.0];
    let second = [0.0, 0.0, 1.0, 0.0, 0.0, 3.0];
    let text_embeddings = [first, second].concat();
    let mut predictions = [f32::NAN; 2 * LATENTS];
    let input = UnetInput {
        step: 0,
        timestep: 601,
        batch: 2,
        latents: &latents,
        text_embeddings: &text_embeddings,
    };
    engine.denoise(input, &mut predictions).unwrap();
    // 1*1 + 2*102 and 1*101 + 3*202.
    let shifted = |shift: f32| latents.iter().map(move |v| v + 601.0 + shift);
    let expected: Vec<f32> = shifted(205.0).chain(shifted(707.0)).collect();
    assert_eq!(predictions[..], expected);

    let mut image = [f32::NAN; 3 * 2 * 4];
    engine.decode(&latents, &mut image).unwrap();
    assert_eq!(image, [0.0; 24]);
    engine.decode(&[0.5; 8], &mut image).unwrap();
    assert_eq!(image, [0.5; 24]);
}

fn calls(engine: &NetworkEngine<Fake>) -> [&[usize]; 3] {
    [
        &engine.text_encoder().calls,
        &engine.unet().calls,
        &engine.vae_decoder().calls,
    ]
}

#[test]
fn plain_features_with_an_open_batch() {
    for dims in [&[][..], &[Some(1)], &[None]] {
        let mut engine = engine(Form::Plain, [None; 3], timestep(dims));
        check(&mut engine);
        assert_eq!(calls(&engine), [&[1][..], &[2], &[1, 1]]);
    }
}

#[test]
fn integer_timesteps() {
    let port = Port::new("timestep", PortType::I32, &[]);
    check(&mut engine(Form::Plain, [None; 3], port));
}

#[test]
fn apple_features() {
    let batches = [Some(1), Some(2), Some(1)];
    let mut engine = engine(Form::Apple, batches, timestep(&[Some(2)]));
    check(&mut engine);
    assert_eq!(calls(&engine), [&[1][..], &[2], &[1, 1]]);
}

#[test]
fn a_batch_too_large_is_filled() {
    let mut engine = engine(
        Form::Apple,
        [Some(2), Some(3), Some(2)],
        timestep(&[Some(3)]),
    );
    check(&mut engine);
    assert_eq!(calls(&engine), [&[2][..], &[3], &[2, 2]]);
}

#[test]
fn a_batch_too_small_takes_several_calls() {
    let mut engine = engine(Form::Plain, [Some(1); 3], timestep(&[Some(1)]));
    check(&mut engine);
    assert_eq!(calls(&engine), [&[1][..], &[1, 1], &[1, 1]]);
}

#[test]
fn the_last_of_several_calls_is_filled() {
    let mut engine = engine(Form::Plain, [None, Some(2), None], timestep(&[]));
    let latents = [0.0; LATENTS];
    let mut text_embeddings = [0.0; 3 * TOKENS * WIDTH];
    // The first value of each prompt, which counts once.
    for (prompt, value) in [1.0, 2.0, 3.0].into_iter().enumerate() {
        text_embeddings[prompt * TOKENS * WIDTH] = value;
    }
    let mut predictions = [f32::NAN; 3 * LATENTS];
    let input = UnetInput {
        step: 0,
        timestep: 0,
        batch: 3,
        latents: &latents,
        text_embeddings: &text_embeddings,
    };
    engine.denoise(input, &mut predictions).unwrap();
    assert_eq!(engine.unet().calls, [2, 2]);
    let rows = [[1.0; LATENTS], [2.0; LATENTS], [3.0; LATENTS]];
    assert_eq!(predictions[..], rows.concat());
}

#[test]
fn boxes_are_networks_and_engines() {
    let boxed = |fake: Fake| -> Box<dyn Network<Error = Infallible>> { Box::new(fake) };
    let engine = NetworkEngine::new(
        boxed(text_encoder(Form::Plain, None)),
        boxed(unet(Form::Plain, None, timestep(&[]))),
        boxed(vae_decoder(Form::Plain, None)),
    );
    let mut engine: Box<dyn Engine<Error = Infallible>> = Box::new(engine.unwrap());
    check(&mut engine);
}

/// The error for networks in plain form after a change to one of them.
fn error(kind: NetworkKind, change: fn(&mut Fake)) -> InterfaceError {
    let mut networks = [
        text_encoder(Form::Plain, None),
        unet(Form::Plain, None, timestep(&[])),
        vae_decoder(Form::Plain, None),
    ];
    change(&mut networks[kind as usize]);
    let [text_encoder, unet, vae_decoder] = networks;
    let engine = NetworkEngine::new(text_encoder, unet, vae_decoder);
    engine.err().expect("the networks do not fit")
}

#[test]
fn missing_and_unknown_features_are_named() {
    let missing = error(NetworkKind::Unet, |fake| {
        fake.outputs[0].name = "eps".to_owned()
    });
    assert_eq!(
        missing.to_string(),
        "unet: no output is named 'out_sample' or 'noise_pred'; it has 'eps' f32 [N,4,1,2]"
    );
    let unknown = error(NetworkKind::Unet, |fake| {
        fake.inputs.push(port("time_ids", None, &[6]));
    });
    assert_eq!(
        unknown.to_string(),
        "unet: a pipeline has no value for the input 'time_ids' f32 [N,6]; \
         expected 'sample', 'timestep', 'encoder_hidden_states'"
    );
    let empty = error(NetworkKind::TextEncoder, |fake| fake.inputs.clear());
    assert_eq!(
        empty.to_string(),
        "text_encoder: no input is named 'input_ids'; it has none"
    );
}

#[test]
fn misshapen_features_are_refused() {
    type Case = (NetworkKind, fn(&mut Fake), &'static str);
    let changes: [Case; 9] = [
        (
            NetworkKind::TextEncoder,
            |fake| fake.outputs[1].dims[1] = Some(4),
            "'last_hidden_state' f32 [N,4,2] does not fit; expected f32 [N, 3, width]",
        ),
        (
            NetworkKind::TextEncoder,
            |fake| fake.inputs[0].dims[1] = None,
            "'input_ids' i32 [N,N] does not fit; expected [N, tokens] with at most N open",
        ),
        (
            NetworkKind::Unet,
            |fake| fake.inputs[2].dims[1] = Some(0),
            "'sample' f32 [N,0,1,2] does not fit",
        ),
        (
            NetworkKind::Unet,
            |fake| fake.inputs[2].dims = vec![None, Some(1 << 40), Some(1 << 40), Some(1)],
            "'sample' f32 [N,1099511627776,1099511627776,1] does not fit",
        ),
        (
            NetworkKind::Unet,
            |fake| fake.outputs[0].dims[3] = Some(3),
            "'out_sample' f32 [N,4,1,3] does not fit; expected f32 [N, 4, 1, 2] like 'sample'",
        ),
        (
            NetworkKind::Unet,
            |fake| fake.inputs[1].dims = vec![Some(2)],
            "'timestep' f32 [2] does not fit; expected a scalar, [1] or [N]",
        ),
        (
            NetworkKind::Unet,
            |fake| fake.inputs[0].dims = vec![None, Some(2), Some(2), Some(3)],
            "'encoder_hidden_states' f32 [N,2,2,3] does not fit; \
             expected f32 [N, tokens, width], or Apple's [N, width, 1, tokens]",
        ),
        (
            NetworkKind::VaeDecoder,
            |fake| fake.outputs[0].dims[2] = Some(3),
            "'sample' f32 [N,3,3,4] does not fit; expected f32 [N, 3, k*1, k*2] with a whole k",
        ),
        (
            NetworkKind::VaeDecoder,
            |fake| fake.outputs[0].dtype = PortType::I32,
            "'sample' i32 [N,3,2,4] does not fit",
        ),
    ];
    for (kind, change, expected) in changes {
        let message = error(kind, change).to_string();
        let expected = format!("{kind}: {expected}");
        assert!(message.starts_with(&expected), "{message}\n{expected}");
    }
}

#[test]
fn networks_of_two_pipelines_are_refused() {
    let text = error(NetworkKind::TextEncoder, |fake| {
        fake.outputs[1].dims[2] = Some(5);
    });
    assert_eq!(
        text.to_string(),
        "text embeddings: unet has 3 tokens of width 2, but text_encoder has 3 tokens of width 5; \
         take the networks of one conversion"
    );
    let latents = error(NetworkKind::VaeDecoder, |fake| {
        fake.inputs[0].dims[2] = Some(2);
        fake.outputs[0].dims[2] = Some(4);
    });
    assert_eq!(
        latents.to_string(),
        "latents: unet has [4, 1, 2], but vae_decoder has [4, 2, 2]; \
         take the networks of one conversion"
    );
}
