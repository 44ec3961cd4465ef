//! What runs the three networks.

use std::error::Error;

/// Sizes that a pipeline's networks are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Tokens of a prompt, padded (77).
    pub text_length: usize,
    /// Width of a token's embedding (768 for SD v1.x).
    pub text_width: usize,
    /// Channels of the latents (4).
    pub latent_channels: usize,
    /// Rows of the latents (64).
    pub latent_height: usize,
    /// Columns of the latents (64).
    pub latent_width: usize,
    /// Picture pixels per latent along each side (8).
    pub pixels_per_latent: usize,
}

impl Geometry {
    /// Values of one prompt's embeddings, `[1, text_length, text_width]`.
    pub fn embedding_values(&self) -> usize {
        self.text_length * self.text_width
    }

    /// Values of one picture's latents, `[1, latent_channels, latent_height, latent_width]`.
    pub fn latent_values(&self) -> usize {
        self.latent_channels * self.latent_height * self.latent_width
    }

    /// Width of the picture in pixels.
    pub fn image_width(&self) -> usize {
        self.latent_width * self.pixels_per_latent
    }

    /// Height of the picture in pixels.
    pub fn image_height(&self) -> usize {
        self.latent_height * self.pixels_per_latent
    }

    /// Values of the decoded picture, `[1, 3, image_height, image_width]`.
    pub fn image_values(&self) -> usize {
        3 * self.image_height() * self.image_width()
    }
}

/// Input of one UNet call. The batch is 2 with guidance, the negative prompt first, and 1 without.
#[derive(Clone, Copy, Debug)]
pub struct UnetInput<'a> {
    /// Number of the step, from 0; what an engine keeps per prompt is stale when it is 0.
    pub step: usize,
    /// Timestep of the noise schedule.
    pub timestep: usize,
    /// Number of predictions wanted.
    pub batch: usize,
    /// Latents `[1, latent_channels, latent_height, latent_width]`, the same for the whole batch.
    pub latents: &'a [f32],
    /// What [`Engine::encode_text`] wrote for every prompt: `batch` times [`Engine::text_values`].
    pub text_embeddings: &'a [f32],
}

/// Runs the three networks of one artifact. All tensors are f32, row-major, in diffusers' axis order; results are written
/// over the whole of the given slice.
pub trait Engine {
    /// Why a network could not run.
    type Error: Error + Send + Sync + 'static;

    /// The sizes that the networks take.
    fn geometry(&self) -> Geometry;

    /// Values that [`Engine::encode_text`] writes for a prompt: its embeddings, and behind them what else the UNet takes
    /// of a prompt.
    fn text_values(&self) -> usize {
        self.geometry().embedding_values()
    }

    /// The timesteps that the UNet was made for, the first step first; `None` when it takes any. Runs with others are
    /// refused.
    fn timesteps(&self) -> Option<&[usize]> {
        None
    }

    /// Text encoder: writes [`Engine::text_values`] values for `text_length` token ids. They begin with the embeddings
    /// `[1, text_length, text_width]` (the last hidden state, after the final norm).
    ///
    /// # Errors
    /// When the network cannot run.
    fn encode_text(&mut self, input_ids: &[u32], embeddings: &mut [f32])
    -> Result<(), Self::Error>;

    /// UNet: writes its output `[batch, latent_channels, latent_height, latent_width]`, before guidance.
    ///
    /// # Errors
    /// When the network cannot run.
    fn denoise(&mut self, input: UnetInput<'_>, predictions: &mut [f32])
    -> Result<(), Self::Error>;

    /// VAE decoder: writes the picture `[1, 3, image_height, image_width]`, -1 black and 1 white, of latents that are
    /// already divided by the scaling factor.
    ///
    /// # Errors
    /// When the network cannot run.
    fn decode(&mut self, latents: &[f32], image: &mut [f32]) -> Result<(), Self::Error>;
}

impl<T: Engine + ?Sized> Engine for Box<T> {
    type Error = T::Error;

    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn text_values(&self) -> usize {
        (**self).text_values()
    }

    fn timesteps(&self) -> Option<&[usize]> {
        (**self).timesteps()
    }

    fn encode_text(
        &mut self,
        input_ids: &[u32],
        embeddings: &mut [f32],
    ) -> Result<(), Self::Error> {
        (**self).encode_text(input_ids, embeddings)
    }

    fn denoise(
        &mut self,
        input: UnetInput<'_>,
        predictions: &mut [f32],
    ) -> Result<(), Self::Error> {
        (**self).denoise(input, predictions)
    }

    fn decode(&mut self, latents: &[f32], image: &mut [f32]) -> Result<(), Self::Error> {
        (**self).decode(latents, image)
    }
}
