//! Which port of a network is which, by name and shape.
//!
//! Two sets of names are known: that of diffusers' modules, as in Optimum's ONNX exports, and that of Apple's Stable
//! Diffusion packages. They may be mixed. A UNet that is specialised to a run has `step` in place of `timestep`, and in place
//! of `encoder_hidden_states` inputs of the same names as further outputs of the text encoder.

use super::{InterfaceError, Network, NetworkKind, Port, PortType};
use crate::engine::Geometry;

/// Values of a port at most, 1 GiB of f32: four times a picture of 4096x4096. What declares more is broken or hostile.
const MAX_VALUES: usize = 1 << 28;

/// Axis order of the text embeddings that a UNet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatesLayout {
    /// `[N, tokens, width]`.
    TokensFirst,
    /// `[N, width, 1, tokens]`, Apple's.
    WidthFirst,
}

/// Ports of the text encoder.
#[derive(Clone, Debug)]
pub(super) struct TextEncoderPorts {
    pub batch: Option<usize>,
    pub ids: PortType,
    pub embeddings: usize,
    pub length: usize,
    pub width: usize,
}

/// Ports of the UNet.
#[derive(Clone, Debug)]
pub(super) struct UnetPorts {
    pub batch: Option<usize>,
    pub sample: usize,
    /// The timestep of the noise schedule.
    pub timestep: Option<usize>,
    /// The row of the table that the UNet was specialised with.
    pub step: Option<usize>,
    pub states: Option<StatesPort>,
    pub projections: Vec<Projection>,
    pub prediction: usize,
    pub latents: [usize; 3],
}

/// The input of a UNet that takes the text embeddings.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatesPort {
    pub input: usize,
    pub layout: StatesLayout,
    pub length: usize,
    pub width: usize,
}

/// What the UNet takes of a prompt besides the embeddings: an output of the text encoder as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projection {
    pub input: usize,
    pub output: usize,
    /// Values of one prompt.
    pub values: usize,
}

/// Ports of the VAE decoder.
#[derive(Clone, Debug)]
pub(super) struct VaeDecoderPorts {
    pub batch: Option<usize>,
    pub image: usize,
    pub latents: [usize; 3],
    pub pixels_per_latent: usize,
}

impl TextEncoderPorts {
    pub(super) fn of(network: &impl Network) -> Result<Self, InterfaceError> {
        let network = Ports::new(NetworkKind::TextEncoder, network);
        let ids = network.input(&["input_ids"])?;
        network.only_inputs(&["'input_ids'"], &[ids])?;
        let embeddings = network.output(&["last_hidden_state"])?;

        let ids = &network.inputs[ids];
        let (batch, [length]) = network.sizes(ids, "[N, tokens] with at most N open")?;
        let port = &network.outputs[embeddings];
        let form = format!("f32 [{}, {length}, width]", batch_text(batch));
        let (same, [tokens, width]) = network.sizes(port, &form)?;
        network.check(port, tokens == length && same == batch, &form)?;
        network.check(port, port.dtype == PortType::F32, &form)?;
        Ok(Self {
            batch,
            ids: ids.dtype,
            embeddings,
            length,
            width,
        })
    }
}

impl UnetPorts {
    /// `texts` are the outputs of the text encoder.
    pub(super) fn of(network: &impl Network, texts: &[Port]) -> Result<Self, InterfaceError> {
        let network = Ports::new(NetworkKind::Unet, network);
        let sample = network.input(&["sample"])?;
        let step = network.position("step");
        // Without the number of the step there has to be a timestep.
        let timestep = match step {
            Some(_) => network.position("timestep"),
            None => Some(network.input(&["timestep"])?),
        };
        let states = network.position("encoder_hidden_states");
        let known = [Some(sample), step, timestep, states];
        let projections = network.projections(&known, texts);
        if projections.is_empty() {
            network.input(&["encoder_hidden_states"])?;
        }
        let mut names = vec!["'sample'", "'timestep'", "'encoder_hidden_states'"];
        if step.is_some() || !projections.is_empty() {
            names.extend(["'step'", "outputs of the text encoder"]);
        }
        let mut expected: Vec<usize> = known.into_iter().flatten().collect();
        expected.extend(projections.iter().map(|(input, _)| *input));
        network.only_inputs(&names, &expected)?;
        let prediction = network.output(&["out_sample", "noise_pred"])?;

        let port = &network.inputs[sample];
        let (batch, latents) = network.latents(port)?;
        let n = batch_text(batch);

        let port = &network.outputs[prediction];
        let [channels, height, width] = latents;
        let form = format!("f32 [{n}, {channels}, {height}, {width}] like 'sample'");
        let (same, predicted) = network.sizes(port, &form)?;
        let equal = same == batch && predicted == latents && port.dtype == PortType::F32;
        network.check(port, equal, &form)?;

        if let Some(timestep) = timestep {
            let port = &network.inputs[timestep];
            let fits = match port.dims[..] {
                [] | [Some(1)] => true,
                [n] => n == batch || n.is_none(),
                _ => false,
            };
            let form = format!("a scalar, [1] or [{n}], as the batch of 'sample'");
            network.check(port, fits, &form)?;
        }
        if let Some(step) = step {
            let port = &network.inputs[step];
            let fits = matches!(port.dims[..], [] | [Some(1)]) && port.dtype == PortType::I32;
            network.check(port, fits, "an i32 scalar or [1]")?;
        }
        let mut total = 0usize;
        let mut checked = Vec::with_capacity(projections.len());
        for (input, output) in projections {
            let projection = network.projection(input, output, batch, texts)?;
            total = total.saturating_add(projection.values);
            let port = &network.inputs[input];
            let form = format!("at most {MAX_VALUES} values of a prompt in all");
            network.check(port, total <= MAX_VALUES, &form)?;
            checked.push(projection);
        }
        Ok(Self {
            batch,
            sample,
            timestep,
            step,
            states: states.map(|s| network.states(s, batch)).transpose()?,
            projections: checked,
            prediction,
            latents,
        })
    }
}

impl VaeDecoderPorts {
    pub(super) fn of(network: &impl Network) -> Result<Self, InterfaceError> {
        let network = Ports::new(NetworkKind::VaeDecoder, network);
        let latents = network.input(&["latent_sample", "z"])?;
        network.only_inputs(&["'latent_sample' or 'z'"], &[latents])?;
        let image = network.output(&["sample", "image"])?;

        let (batch, latents) = network.latents(&network.inputs[latents])?;
        let [_, rows, columns] = latents;
        let port = &network.outputs[image];
        let form = format!(
            "f32 [{}, 3, k*{rows}, k*{columns}] with a whole k",
            batch_text(batch)
        );
        let (same, [channels, height, width]) = network.sizes(port, &form)?;
        let pixels_per_latent = height / rows;
        let scaled = |size: usize| size.checked_mul(pixels_per_latent);
        let fits = channels == 3 && scaled(rows) == Some(height) && scaled(columns) == Some(width);
        let fits = fits && same == batch && port.dtype == PortType::F32;
        network.check(port, fits, &form)?;
        Ok(Self {
            batch,
            image,
            latents,
            pixels_per_latent,
        })
    }
}

/// The sizes that the three networks agree on.
pub(super) fn geometry(
    text_encoder: &TextEncoderPorts,
    unet: &UnetPorts,
    vae_decoder: &VaeDecoderPorts,
) -> Result<Geometry, InterfaceError> {
    let mismatch = |quantity, first_size, second, second_size| InterfaceError::Mismatch {
        quantity,
        first: NetworkKind::Unet,
        first_size,
        second,
        second_size,
    };
    let embeddings = |length, width| format!("{length} tokens of width {width}");
    let (length, width) = (text_encoder.length, text_encoder.width);
    if let Some(states) = unet.states
        && (states.length, states.width) != (length, width)
    {
        return Err(mismatch(
            "text embeddings",
            embeddings(states.length, states.width),
            NetworkKind::TextEncoder,
            embeddings(length, width),
        ));
    }
    if unet.latents != vae_decoder.latents {
        return Err(mismatch(
            "latents",
            format!("{:?}", unet.latents),
            NetworkKind::VaeDecoder,
            format!("{:?}", vae_decoder.latents),
        ));
    }
    let [latent_channels, latent_height, latent_width] = unet.latents;
    Ok(Geometry {
        text_length: length,
        text_width: width,
        latent_channels,
        latent_height,
        latent_width,
        pixels_per_latent: vae_decoder.pixels_per_latent,
    })
}

fn batch_text(batch: Option<usize>) -> String {
    batch.map_or_else(|| "N".to_owned(), |n| n.to_string())
}

/// Ports of a network, with the errors about them.
struct Ports<'a> {
    network: NetworkKind,
    inputs: &'a [Port],
    outputs: &'a [Port],
}

impl<'a> Ports<'a> {
    fn new(kind: NetworkKind, network: &'a impl Network) -> Self {
        Self {
            network: kind,
            inputs: network.inputs(),
            outputs: network.outputs(),
        }
    }

    fn input(&self, names: &[&str]) -> Result<usize, InterfaceError> {
        self.find("input", self.inputs, names)
    }

    fn output(&self, names: &[&str]) -> Result<usize, InterfaceError> {
        self.find("output", self.outputs, names)
    }

    /// The input of that name, if there is one.
    fn position(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|port| port.name == name)
    }

    /// Inputs besides those known that have a namesake among the outputs of the text encoder, with its position.
    fn projections(&self, known: &[Option<usize>], texts: &[Port]) -> Vec<(usize, usize)> {
        let inputs = self.inputs.iter().enumerate();
        let unknown = inputs.filter(|(index, _)| !known.contains(&Some(*index)));
        let output = |name: &str| texts.iter().position(|port| port.name == name);
        unknown
            .filter_map(|(index, port)| Some((index, output(&port.name)?)))
            .collect()
    }

    /// Checks an input that takes an output of the text encoder as it is.
    fn projection(
        &self,
        input: usize,
        output: usize,
        batch: Option<usize>,
        texts: &[Port],
    ) -> Result<Projection, InterfaceError> {
        let (port, text) = (&self.inputs[input], &texts[output]);
        let form = format!(
            "f32 [{}, ...] like the output {text} of the text encoder",
            batch_text(batch)
        );
        let both_float = port.dtype == PortType::F32 && text.dtype == PortType::F32;
        let fits = || {
            let (first, rest) = port.dims.split_first()?;
            let (_, given) = text.dims.split_first()?;
            let closed = rest.iter().all(Option::is_some);
            if *first != batch || rest != given || !closed || !both_float {
                return None;
            }
            // Guidance takes an open batch of two.
            let values = port.values(batch.unwrap_or(2))?;
            (1..=MAX_VALUES).contains(&values).then_some(())?;
            port.values(batch.unwrap_or(1))
                .map(|values| values / batch.unwrap_or(1))
        };
        let values = fits().ok_or_else(|| self.misfit(port, &form))?;
        Ok(Projection {
            input,
            output,
            values,
        })
    }

    /// Checks the input that takes the text embeddings.
    fn states(&self, input: usize, batch: Option<usize>) -> Result<StatesPort, InterfaceError> {
        let port = &self.inputs[input];
        let n = batch_text(batch);
        let form = format!("f32 [{n}, tokens, width], or Apple's [{n}, width, 1, tokens]");
        let (layout, same, length, width) = if port.dims.len() == 4 {
            let (same, [width, one, length]) = self.sizes(port, &form)?;
            self.check(port, one == 1, &form)?;
            (StatesLayout::WidthFirst, same, length, width)
        } else {
            let (same, [length, width]) = self.sizes(port, &form)?;
            (StatesLayout::TokensFirst, same, length, width)
        };
        self.check(port, same == batch && port.dtype == PortType::F32, &form)?;
        Ok(StatesPort {
            input,
            layout,
            length,
            width,
        })
    }

    fn find(
        &self,
        side: &'static str,
        ports: &[Port],
        names: &[&str],
    ) -> Result<usize, InterfaceError> {
        let found = ports.iter().position(|p| names.contains(&p.name.as_str()));
        found.ok_or_else(|| {
            let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
            let found: Vec<String> = ports.iter().map(Port::to_string).collect();
            InterfaceError::Missing {
                network: self.network,
                side,
                expected: names.join(" or "),
                found: if found.is_empty() {
                    "none".to_owned()
                } else {
                    found.join(", ")
                },
            }
        })
    }

    /// Refuses inputs besides those at `known`.
    fn only_inputs(&self, names: &[&str], known: &[usize]) -> Result<(), InterfaceError> {
        let mut inputs = self.inputs.iter().enumerate();
        match inputs.find(|(index, _)| !known.contains(index)) {
            None => Ok(()),
            Some((_, port)) => Err(InterfaceError::UnknownInput {
                network: self.network,
                port: port.to_string(),
                expected: names.join(", "),
            }),
        }
    }

    fn latents(&self, port: &Port) -> Result<(Option<usize>, [usize; 3]), InterfaceError> {
        let form = "f32 [N, channels, rows, columns] with at most N open";
        self.check(port, port.dtype == PortType::F32, form)?;
        self.sizes(port, form)
    }

    /// The batch, `None` when open, and the other axes of a port that has just so many.
    fn sizes<const AXES: usize>(
        &self,
        port: &Port,
        expected: &str,
    ) -> Result<(Option<usize>, [usize; AXES]), InterfaceError> {
        let sizes = || {
            let (&batch, rest) = port.dims.split_first()?;
            let rest: Option<Vec<usize>> = rest.iter().copied().collect();
            let sizes: [usize; AXES] = rest?.try_into().ok()?;
            // Guidance takes an open batch of two.
            let values = port.values(batch.unwrap_or(2))?;
            (1..=MAX_VALUES).contains(&values).then_some((batch, sizes))
        };
        sizes().ok_or_else(|| self.misfit(port, expected))
    }

    fn check(&self, port: &Port, fits: bool, expected: &str) -> Result<(), InterfaceError> {
        if fits {
            Ok(())
        } else {
            Err(self.misfit(port, expected))
        }
    }

    fn misfit(&self, port: &Port, expected: &str) -> InterfaceError {
        InterfaceError::Port {
            network: self.network,
            port: port.to_string(),
            expected: expected.to_owned(),
        }
    }
}
