//! Artifacts as they are run: the manifest, and what lies around the networks.

use std::fs;
use std::path::{Path, PathBuf};

use snapc_pipeline::{Engine, Pipeline, SchedulerConfig, Tokenizer};
use snapc_target::known_prompt::KnownPrompt;
use snapc_target::manifest::Manifest;
use snapc_target::{Interface, alternatives, schedule};

use crate::args::{EngineArgs, Size};
use crate::engines::{self, AnyEngine, snap};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::staging::parent_of;

/// Where an artifact may have its merges, by target: Core ML packages have them beside them.
const MERGES: [&str; 2] = ["tokenizer/merges.txt", "merges.txt"];

/// The tokenizer's file of merges is half a megabyte; what is far larger is not one.
const MAX_MERGES_BYTES: u64 = 64 << 20;

/// An artifact folder with its manifest.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest. The size of the latents is that of the pictures that were asked for.
    pub manifest: Manifest,
    /// The function for that size, in the files that have one per size.
    pub function: Option<String>,
}

impl Artifact {
    /// Opens an artifact folder, or the one that a `.snap` file lies in.
    ///
    /// # Errors
    /// When it has no manifest that can be read.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let is_file = path.extension().is_some_and(|e| e == "snap") && path.is_file();
        let folder = if is_file { parent_of(path) } else { path };
        let manifest = Manifest::read(folder).map_err(|e| {
            Failure::new(Exit::InvalidInput, e)
                .help("give the folder that `snapc convert -o` wrote")
        })?;
        Ok(Artifact {
            folder: folder.to_owned(),
            manifest,
            function: None,
        })
    }

    /// The artifact for pictures of a size, the first of its sizes when none is given.
    ///
    /// # Errors
    /// When it has no such size.
    pub fn at_size(mut self, size: Option<Size>) -> Result<Self, Failure> {
        let Some(Size { height, width }) = size else {
            return Ok(self);
        };
        let latent = &mut self.manifest.latent;
        let cell = latent.pixels_per_cell;
        let own = [latent.height, latent.width].map(|cells| cells.saturating_mul(cell));
        if self.manifest.sizes.is_empty() && own == [height, width] {
            return Ok(self);
        }
        let sizes = &self.manifest.sizes;
        let found = sizes
            .iter()
            .find(|s| (s.height, s.width) == (height, width));
        let Some(found) = found.filter(|_| cell > 0) else {
            let known = sizes.iter().map(|s| format!("{}x{}", s.height, s.width));
            let mut known: Vec<String> = known.collect();
            if known.is_empty() {
                known.push(format!("{}x{}", own[0], own[1]));
            }
            let message = format!("the artifact makes no pictures of {height}x{width}");
            let help = format!("choose {}", alternatives(&known));
            return Err(Failure::usage(message).help(help));
        };
        (latent.height, latent.width) = (height / cell, width / cell);
        self.function = Some(found.function.clone());
        Ok(self)
    }

    /// The schedule that the manifest records.
    ///
    /// # Errors
    /// When it is of a kind that this snapc does not run.
    pub fn scheduler(&self) -> Result<SchedulerConfig, Failure> {
        schedule::recorded(&self.manifest.scheduler).ok_or_else(|| {
            let record = &self.manifest.scheduler;
            self.invalid(&format!(
                "the manifest asks for the scheduler '{}' with {}, {} and {}, which this snapc does not run",
                record.kind, record.beta_schedule, record.prediction_type, record.timestep_spacing
            ))
        })
    }

    /// The tokenizer, from the artifact's own files.
    ///
    /// # Errors
    /// When the artifact has none, or the files are malformed.
    pub fn tokenizer(&self) -> Result<Tokenizer, Failure> {
        if snap::runs_as_it_is(self) {
            return snap::tokenizer(self);
        }
        let path = MERGES.iter().map(|name| self.folder.join(name));
        let path = path
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| self.invalid("it has no merges.txt, and prompts need one"))?;
        let size = fs::metadata(&path)
            .map_err(|e| Failure::read(&path, e))?
            .len();
        if size > MAX_MERGES_BYTES {
            return Err(self.invalid(&format!(
                "merges.txt has {size} bytes, which is no list of merges"
            )));
        }
        let merges = fs::read(&path).map_err(|e| Failure::read(&path, e))?;
        let pad = self
            .manifest
            .pad_token_id
            .ok_or_else(|| self.invalid("the manifest names no pad_token_id"))?;
        Ok(Tokenizer::new(&merges, pad, self.manifest.tokens)?)
    }

    /// The networks, run by the engine that the flags ask for. `batch` is what the UNet will mostly be asked for.
    ///
    /// # Errors
    /// When the engine does not run this kind of artifact, a file of the artifact is missing or malformed, or the networks are not
    /// of the size that was asked for.
    pub fn engine(&self, args: EngineArgs, batch: usize) -> Result<AnyEngine, Failure> {
        let engine = engines::open(self, args, batch)?;
        let (latent, found) = (&self.manifest.latent, engine.geometry());
        let is_of_size = [found.latent_height, found.latent_width] == [latent.height, latent.width];
        match self.function.is_none() || is_of_size {
            true => Ok(engine),
            false => Err(self.invalid("its networks are of another size than its manifest says")),
        }
    }

    /// The whole pipeline.
    ///
    /// # Errors
    /// As [`Artifact::engine`], [`Artifact::tokenizer`] and [`Artifact::scheduler`].
    pub fn pipeline(&self, args: EngineArgs, batch: usize) -> Result<Pipeline<AnyEngine>, Failure> {
        // The small files first: what is wrong with them is told before the weights are read.
        let (tokenizer, scheduler) = (self.tokenizer()?, self.scheduler()?);
        let scale = self.manifest.latent.scaling_factor as f32;
        let known = self.known_prompt()?;
        let engine = self.engine(args, batch)?;
        let mut pipeline = Pipeline::new(engine, tokenizer, scheduler, scale)?;
        if let Some(prompt) = known {
            pipeline.remember(prompt.input_ids, prompt.values)?;
        }
        Ok(pipeline)
    }

    /// The prompt whose encoding the artifact keeps.
    fn known_prompt(&self) -> Result<Option<KnownPrompt>, Failure> {
        if self.manifest.interface != Interface::Snap.name() {
            return Ok(None);
        }
        if snap::runs_as_it_is(self) {
            return snap::known_prompt(self);
        }
        Ok(KnownPrompt::read(&self.folder)?)
    }

    /// A failure about the artifact.
    pub fn invalid(&self, reason: &str) -> Failure {
        let error = anyhow::anyhow!("artifact '{}': {reason}", self.folder.display());
        Failure::new(Exit::InvalidInput, error).help("convert the checkpoint again")
    }
}
