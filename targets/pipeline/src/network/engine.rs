//! Three networks as an [`Engine`]: axis orders, element types and batches.

use super::interface::{
    StatesLayout, StatesPort, TextEncoderPorts, UnetPorts, VaeDecoderPorts, geometry,
};
use super::{Data, InterfaceError, Network, Port, PortType};
use crate::engine::{Engine, Geometry, UnetInput};

/// Three networks of one artifact, run as one [`Engine`].
///
/// The features are those of diffusers (`input_ids` → `last_hidden_state`; `sample`, `timestep`, `encoder_hidden_states` →
/// `out_sample`; `latent_sample` → `sample`) or those of Apple's packages (`input_ids` f32 → `last_hidden_state`; `sample`,
/// `timestep` `[N]`, `encoder_hidden_states` `[N, width, 1, tokens]` → `noise_pred`; `z` → `image`). Other outputs may be
/// there and are not asked for.
///
/// A UNet may be specialised to a run. It takes `step`, the row of its table of timesteps, in place of `timestep`; with both,
/// the number one past the table stands for any other timestep. In place of `encoder_hidden_states` it may take further
/// outputs of the text encoder, under their names: they are computed once per prompt ([`Engine::text_values`]).
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
    /// Of the rows of the UNet's table, when it has one.
    timesteps: Vec<usize>,
}

impl<N: Network> NetworkEngine<N> {
    /// An engine of networks whose UNet takes any timestep.
    ///
    /// # Errors
    /// When a feature is missing, unknown or misshapen, or when the sizes of the networks differ.
    pub fn new(text_encoder: N, unet: N, vae_decoder: N) -> Result<Self, InterfaceError> {
        Self::with_timesteps(text_encoder, unet, vae_decoder, &[])
    }

    /// An engine of networks that were made for a run of these timesteps, the first step first. They mean nothing to a UNet
    /// that takes any timestep.
    ///
    /// # Errors
    /// As [`NetworkEngine::new`], and when the UNet needs timesteps and there are none.
    pub fn with_timesteps(
        text_encoder: N,
        unet: N,
        vae_decoder: N,
        timesteps: &[usize],
    ) -> Result<Self, InterfaceError> {
        let text_encoder_ports = TextEncoderPorts::of(&text_encoder)?;
        let unet_ports = UnetPorts::of(&unet, text_encoder.outputs())?;
        if unet_ports.step.is_some() && timesteps.is_empty() {
            return Err(InterfaceError::NoTimesteps);
        }
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
            timesteps: timesteps.to_vec(),
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
/// The methods panic when a slice does not have the number of values that [`Engine::geometry`] and [`Engine::text_values`]
/// give it, and at a timestep that is none of [`Engine::timesteps`].
impl<N: Network> Engine for NetworkEngine<N> {
    type Error = N::Error;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn text_values(&self) -> usize {
        let projections = self.unet_ports.projections.iter().map(|p| p.values);
        self.geometry.embedding_values() + projections.sum::<usize>()
    }

    fn timesteps(&self) -> Option<&[usize]> {
        let ports = &self.unet_ports;
        let only_tabled = ports.step.is_some() && ports.timestep.is_none();
        only_tabled.then_some(&self.timesteps)
    }

    fn encode_text(
        &mut self,
        input_ids: &[u32],
        embeddings: &mut [f32],
    ) -> Result<(), Self::Error> {
        let ports = &self.text_encoder_ports;
        assert_eq!(input_ids.len(), ports.length, "token ids of one prompt");
        assert_eq!(embeddings.len(), self.text_values());
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
        let (states, mut rest) = embeddings.split_at_mut(self.geometry.embedding_values());
        let mut wanted = vec![(ports.embeddings, states)];
        for projection in &self.unet_ports.projections {
            let (values, behind) = rest.split_at_mut(projection.values);
            wanted.push((projection.output, values));
            rest = behind;
        }
        run_rows(&mut self.text_encoder, size, &[input], wanted)
    }

    fn denoise(
        &mut self,
        input: UnetInput<'_>,
        predictions: &mut [f32],
    ) -> Result<(), Self::Error> {
        let UnetInput { batch, latents, .. } = input;
        let row = self.geometry.latent_values();
        let text_row = self.text_values();
        assert_eq!(latents.len(), row, "latents of one picture");
        assert_eq!(input.text_embeddings.len(), batch * text_row);
        assert_eq!(predictions.len(), batch * row);

        let ports = &self.unet_ports;
        let size = ports.batch.unwrap_or(batch);
        let samples = latents.repeat(size);
        let timesteps = ports.timestep.map(|index| {
            let port = &self.unet.inputs()[index];
            (index, Timesteps::new(port, input.timestep, size))
        });
        let step = ports.step.map(|index| (index, [self.row(input.timestep)]));
        let mut states = Vec::new();
        let mut projections = vec![Vec::new(); ports.projections.len()];
        for first in (0..batch).step_by(size.max(1)) {
            let last = (first + size).min(batch);
            states.clear();
            projections.iter_mut().for_each(Vec::clear);
            for index in first..first + size {
                let source = index.min(batch - 1);
                let text = &input.text_embeddings[source * text_row..][..text_row];
                let (embeddings, mut rest) = text.split_at(self.geometry.embedding_values());
                if let Some(port) = &ports.states {
                    push_states(embeddings, port, &mut states);
                }
                for (projection, rows) in ports.projections.iter().zip(&mut projections) {
                    let (values, behind) = rest.split_at(projection.values);
                    rows.extend_from_slice(values);
                    rest = behind;
                }
            }
            let mut inputs = vec![Data::F32(&[]); self.unet.inputs().len()];
            inputs[ports.sample] = Data::F32(&samples);
            if let Some((index, timesteps)) = &timesteps {
                inputs[*index] = timesteps.data();
            }
            if let Some((index, step)) = &step {
                inputs[*index] = Data::I32(step);
            }
            if let Some(port) = &ports.states {
                inputs[port.input] = Data::F32(&states);
            }
            for (projection, rows) in ports.projections.iter().zip(&projections) {
                inputs[projection.input] = Data::F32(rows);
            }
            let wanted = vec![(ports.prediction, &mut predictions[first * row..last * row])];
            run_rows(&mut self.unet, size, &inputs, wanted)?;
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
        run_rows(
            &mut self.vae_decoder,
            size,
            &inputs,
            vec![(ports.image, image)],
        )
    }
}

impl<N> NetworkEngine<N> {
    /// The row of the UNet's table for a timestep; one past the table for a timestep that the UNet computes itself.
    fn row(&self, timestep: usize) -> i32 {
        let row = self.timesteps.iter().position(|&t| t == timestep);
        let row = row.unwrap_or_else(|| {
            let computed = self.unet_ports.timestep.is_some();
            assert!(computed, "timestep {timestep} is none of Engine::timesteps");
            self.timesteps.len()
        });
        // Runs have fewer steps than there are training steps, about a thousand.
        row as i32
    }
}

/// Runs a network at a batch and keeps the leading rows of the outputs at some positions, as many as the slices hold.
fn run_rows<N: Network>(
    network: &mut N,
    batch: usize,
    inputs: &[Data<'_>],
    wanted: Vec<(usize, &mut [f32])>,
) -> Result<(), N::Error> {
    let outputs = network.outputs();
    let mut results: Vec<Option<&mut [f32]>> = Vec::new();
    results.resize_with(outputs.len(), || None);
    let mut whole: Vec<Vec<f32>> = vec![Vec::new(); outputs.len()];
    let mut cut = Vec::new();
    for ((output, slice), values) in wanted.into_iter().zip(&mut whole) {
        let count = outputs[output]
            .values(batch)
            .expect("sizes are checked when the engine is made");
        if count == slice.len() {
            results[output] = Some(slice);
            continue;
        }
        values.resize(count, 0.0);
        cut.push((output, slice));
        results[output] = Some(values);
    }
    network.run(batch, inputs, &mut results)?;
    for (output, slice) in cut {
        if let Some(values) = &results[output] {
            slice.copy_from_slice(&values[..slice.len()]);
        }
    }
    Ok(())
}

/// Appends one row of embeddings `[tokens, width]` in the axis order that the UNet takes.
fn push_states(embeddings: &[f32], port: &StatesPort, states: &mut Vec<f32>) {
    match port.layout {
        StatesLayout::TokensFirst => states.extend_from_slice(embeddings),
        StatesLayout::WidthFirst => {
            for column in 0..port.width {
                states.extend(embeddings[column..].iter().step_by(port.width));
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
    fn new(port: &Port, timestep: usize, batch: usize) -> Self {
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
