//! Three networks as an [`Engine`]: axis orders, element types and batches.

use super::interface::{StatesLayout, TextEncoderPorts, UnetPorts, VaeDecoderPorts, geometry};
use super::{Data, InterfaceError, Network, PortType};
use crate::engine::{Engine, Geometry, UnetInput};

/// Three networks of one artifact, run as one [`Engine`].
///
/// The features are those of diffusers (`input_ids` → `last_hidden_state`; `sample`, `timestep`, `encoder_hidden_states` →
/// `out_sample`; `latent_sample` → `sample`) or those of Apple's packages (`input_ids` f32 → `last_hidden_state`; `sample`,
/// `timestep` `[N]`, `encoder_hidden_states` `[N, width, 1, tokens]` → `noise_pred`; `z` → `image`). Other outputs may be
/// there and are not asked for.
///
/// A network whose batch is fixed serves every batch: what is missing is filled with the last row and its results are
/// dropped, and what is too much takes several calls.
#[derive(Clone, Debug)]
pub struct NetworkEngine<N> {
    text_encoder: N,
    unet: N,
    vae_decoder: N,
    text_encoder_ports: TextEncoderPorts,
    unet_ports: UnetPorts,
    vae_decoder_ports: VaeDecoderPorts,
    geometry: Geometry,
}

impl<N: Network> NetworkEngine<N> {
    /// An engine of these networks.
    ///
    /// # Errors
    /// When a feature is missing, unknown or misshapen, or when the sizes of the networks differ.
    pub fn new(text_encoder: N, unet: N, vae_decoder: N) -> Result<Self, InterfaceError> {
        let text_encoder_ports = TextEncoderPorts::of(&text_encoder)?;
        let unet_ports = UnetPorts::of(&unet)?;
        let vae_decoder_ports = VaeDecoderPorts::of(&vae_decoder)?;
        let geometry = geometry(&text_encoder_ports, &unet_ports, &vae_decoder_ports)?;
        Ok(Self {
            text_encoder,
            unet,
            vae_decoder,
            text_encoder_ports,
            unet_ports,
            vae_decoder_ports,
            geometry,
        })
    }

    /// The text encoder.
    pub fn text_encoder(&self) -> &N {
        &self.text_encoder
    }

    /// The UNet.
    pub fn unet(&self) -> &N {
        &self.unet
    }

    /// The VAE decoder.
    pub fn vae_decoder(&self) -> &N {
        &self.vae_decoder
    }

    /// The networks, to be changed between runs: text encoder, UNet, VAE decoder.
    pub fn networks_mut(&mut self) -> [&mut N; 3] {
        [
            &mut self.text_encoder,
            &mut self.unet,
            &mut self.vae_decoder,
        ]
    }
}

/// # Panics
/// The methods panic when a slice does not have the number of values that [`Engine::geometry`] gives it.
impl<N: Network> Engine for NetworkEngine<N> {
    type Error = N::Error;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn encode_text(
        &mut self,
        input_ids: &[u32],
        embeddings: &mut [f32],
    ) -> Result<(), Self::Error> {
        let ports = &self.text_encoder_ports;
        assert_eq!(input_ids.len(), ports.length, "token ids of one prompt");
        assert_eq!(embeddings.len(), self.geometry.embedding_values());
        let size = ports.batch.unwrap_or(1);
        let ids = input_ids.repeat(size);
        let floats: Vec<f32>;
        let integers: Vec<i32>;
        let input = match ports.ids {
            // Ids are below 2^24, so f32 holds them.
            PortType::F32 => {
                floats = ids.iter().map(|&id| id as f32).collect();
                Data::F32(&floats)
            }
            PortType::I32 => {
                integers = ids.iter().map(|&id| id.cast_signed()).collect();
                Data::I32(&integers)
            }
        };
        let output = ports.embeddings;
        run_rows(&mut self.text_encoder, size, &[input], output, embeddings)
    }

    fn denoise(
        &mut self,
        input: UnetInput<'_>,
        predictions: &mut [f32],
    ) -> Result<(), Self::Error> {
        let UnetInput { batch, latents, .. } = input;
        let row = self.geometry.latent_values();
        let states_row = self.geometry.embedding_values();
        assert_eq!(latents.len(), row, "latents of one picture");
        assert_eq!(input.text_embeddings.len(), batch * states_row);
        assert_eq!(predictions.len(), batch * row);

        let ports = &self.unet_ports;
        let size = ports.batch.unwrap_or(batch);
        let samples = latents.repeat(size);
        let timesteps = Timesteps::new(ports, input.timestep, size);
        let mut states = Vec::with_capacity(size * states_row);
        for first in (0..batch).step_by(size.max(1)) {
            let last = (first + size).min(batch);
            states.clear();
            for index in first..first + size {
                let source = index.min(batch - 1);
                let embeddings = &input.text_embeddings[source * states_row..][..states_row];
                push_states(embeddings, ports, &mut states);
            }
            let mut inputs = [Data::F32(&[]); 3];
            inputs[ports.sample] = Data::F32(&samples);
            inputs[ports.timestep] = timesteps.data();
            inputs[ports.states] = Data::F32(&states);
            let wanted = &mut predictions[first * row..last * row];
            run_rows(&mut self.unet, size, &inputs, ports.prediction, wanted)?;
        }
        Ok(())
    }

    fn decode(&mut self, latents: &[f32], image: &mut [f32]) -> Result<(), Self::Error> {
        assert_eq!(latents.len(), self.geometry.latent_values());
        assert_eq!(image.len(), self.geometry.image_values());
        let ports = &self.vae_decoder_ports;
        let size = ports.batch.unwrap_or(1);
        let latents = latents.repeat(size);
        let inputs = [Data::F32(&latents)];
        run_rows(&mut self.vae_decoder, size, &inputs, ports.image, image)
    }
}

/// Runs a network at a batch and keeps the leading rows of one output, as many as `wanted` holds.
fn run_rows<N: Network>(
    network: &mut N,
    batch: usize,
    inputs: &[Data<'_>],
    output: usize,
    wanted: &mut [f32],
) -> Result<(), N::Error> {
    let outputs = network.outputs();
    let count = outputs.len();
    let values = outputs[output]
        .values(batch)
        .expect("sizes are checked when the engine is made");
    let run = |network: &mut N, result: &mut [f32]| {
        let mut results: Vec<Option<&mut [f32]>> = Vec::new();
        results.resize_with(count, || None);
        results[output] = Some(result);
        network.run(batch, inputs, &mut results)
    };
    if values == wanted.len() {
        return run(network, wanted);
    }
    let mut all = vec![0.0; values];
    run(network, &mut all)?;
    wanted.copy_from_slice(&all[..wanted.len()]);
    Ok(())
}

/// Appends one row of embeddings `[tokens, width]` in the axis order that the UNet takes.
fn push_states(embeddings: &[f32], ports: &UnetPorts, states: &mut Vec<f32>) {
    match ports.states_layout {
        StatesLayout::TokensFirst => states.extend_from_slice(embeddings),
        StatesLayout::WidthFirst => {
            for column in 0..ports.width {
                states.extend(embeddings[column..].iter().step_by(ports.width));
            }
        }
    }
}

/// The timestep as often as the network takes it.
enum Timesteps {
    Floats(Vec<f32>),
    Integers(Vec<i32>),
}

impl Timesteps {
    fn new(ports: &UnetPorts, timestep: usize, batch: usize) -> Self {
        let port = &ports.timestep_port;
        let count = port
            .values(batch)
            .expect("a timestep port has one axis at most");
        // Timesteps count training steps, of which there are about a thousand.
        match port.dtype {
            PortType::F32 => Self::Floats(vec![timestep as f32; count]),
            PortType::I32 => Self::Integers(vec![timestep as i32; count]),
        }
    }

    fn data(&self) -> Data<'_> {
        match self {
            Self::Floats(values) => Data::F32(values),
            Self::Integers(values) => Data::I32(values),
        }
    }
}
