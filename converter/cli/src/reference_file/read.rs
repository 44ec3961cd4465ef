//! Reading reference files, which may come from anywhere.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use snapc_pipeline::Geometry;

use super::{METADATA_KEY, Reference, Settings, StepRecord};
use crate::exit::Exit;
use crate::failure::Failure;

/// Steps of a run at most: those of a training schedule.
const MAX_STEPS: usize = 1000;

/// Reads a reference file.
///
/// # Errors
/// When it is not one: the failure names the tensor or the metadata that is missing or wrong.
pub fn read(path: &Path) -> Result<Reference, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::read(path, e))?;
    let file = File::open(path, &bytes)?;
    let settings = file.settings()?;
    let [batch, text_length] = file.shape("input_ids")?;
    let [_, _, text_width] = file.shape("text_embeddings")?;
    let [_, latent_channels, latent_height, latent_width] = file.shape("init_latents")?;
    let [_, _, image_height, _] = file.shape("image")?;
    let geometry = Geometry {
        text_length,
        text_width,
        latent_channels,
        latent_height,
        latent_width,
        pixels_per_latent: image_height / latent_height,
    };
    if !(1..=2).contains(&batch) {
        return Err(file.wrong("input_ids", "1 or 2 rows"));
    }
    if settings.timesteps.len() != settings.steps
        || settings.steps == 0
        || settings.steps > MAX_STEPS
    {
        let reason = format!(
            "the metadata names {} steps and {} timesteps",
            settings.steps,
            settings.timesteps.len()
        );
        return Err(file.failure(&reason));
    }
    let latents = |rows| [rows, latent_channels, latent_height, latent_width];
    let step = |k: usize| -> Result<StepRecord, Failure> {
        Ok(StepRecord {
            noise_pred: file.floats(&format!("step_{k}.noise_pred"), &latents(batch))?,
            latents: file.floats(&format!("step_{k}.latents"), &latents(1))?,
        })
    };
    let image = [1, 3, geometry.image_height(), geometry.image_width()];
    Ok(Reference {
        geometry,
        batch,
        input_ids: file.ids("input_ids")?,
        text_embeddings: file.floats("text_embeddings", &[batch, text_length, text_width])?,
        init_latents: file.floats("init_latents", &latents(1))?,
        steps: (0..settings.steps).map(step).collect::<Result<_, _>>()?,
        image: file.floats("image", &image)?,
        settings,
    })
}

/// Reads `init_latents` of a safetensors file, which need not hold anything else.
///
/// # Errors
/// When it has no such f32 tensor.
pub fn read_init_latents(path: &Path) -> Result<Vec<f32>, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::read(path, e))?;
    let file = File::open(path, &bytes)?;
    let shape: [usize; 4] = file.shape("init_latents")?;
    file.floats("init_latents", &shape)
}

/// A safetensors file with the failures about it.
struct File<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    tensors: SafeTensors<'a>,
}

impl<'a> File<'a> {
    fn open(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Failure> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| {
            let reason = format!("'{}' is not a safetensors file", path.display());
            Failure::new(Exit::InvalidInput, anyhow::Error::new(e).context(reason))
        })?;
        Ok(File {
            path,
            bytes,
            tensors,
        })
    }

    fn failure(&self, reason: &str) -> Failure {
        let error = anyhow::anyhow!(
            "'{}' is not a reference file: {reason}",
            self.path.display()
        );
        Failure::new(Exit::InvalidInput, error)
            .help("`snapc reference` makes one from the checkpoint")
    }

    fn wrong(&self, name: &str, expected: &str) -> Failure {
        let found = self.tensors.tensor(name).map_or_else(
            |_| "it is missing".to_owned(),
            |t| format!("found {:?} {:?}", t.dtype(), t.shape()),
        );
        self.failure(&format!("tensor '{name}' must be {expected}, {found}"))
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let (_, header) =
            SafeTensors::read_metadata(self.bytes).map_err(|e| self.failure(&e.to_string()))?;
        let metadata = header.metadata().as_ref();
        let text = metadata
            .and_then(|map| map.get(METADATA_KEY))
            .ok_or_else(|| self.failure(&format!("the metadata has no key '{METADATA_KEY}'")))?;
        serde_json::from_str(text)
            .map_err(|e| self.failure(&format!("the metadata key '{METADATA_KEY}': {e}")))
    }

    /// Dimensions of a tensor that has just so many, none of them zero.
    fn shape<const RANK: usize>(&self, name: &str) -> Result<[usize; RANK], Failure> {
        let wrong = || self.wrong(name, &format!("of {RANK} dimensions, none of them zero"));
        let tensor = self.tensors.tensor(name).map_err(|_| wrong())?;
        let shape: [usize; RANK] = tensor.shape().try_into().map_err(|_| wrong())?;
        if shape.contains(&0) {
            return Err(wrong());
        }
        Ok(shape)
    }

    fn words(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<[u8; 4]>, Failure> {
        let tensor = self.tensors.tensor(name).ok();
        let tensor = tensor.filter(|t| t.dtype() == dtype && t.shape() == shape);
        let tensor = tensor.ok_or_else(|| self.wrong(name, &format!("{dtype:?} {shape:?}")))?;
        let (words, _) = tensor.data().as_chunks::<4>();
        Ok(words.to_vec())
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Failure> {
        let words = self.words(name, Dtype::F32, shape)?;
        let values: Vec<f32> = words.into_iter().map(f32::from_le_bytes).collect();
        match values.iter().position(|v| !v.is_finite()) {
            Some(index) => {
                Err(self.failure(&format!("value {index} of tensor '{name}' is not finite")))
            }
            None => Ok(values),
        }
    }

    fn ids(&self, name: &str) -> Result<Vec<u32>, Failure> {
        let shape: [usize; 2] = self.shape(name)?;
        let words = self.words(name, Dtype::I32, &shape)?;
        Ok(words.into_iter().map(u32::from_le_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference_file::encode;

    fn tiny() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny/reference.safetensors")
    }

    #[test]
    fn the_record_of_diffusers_is_read_and_written_back() {
        let reference = read(&tiny()).unwrap();
        assert_eq!((reference.batch, reference.steps.len()), (2, 8));
        assert_eq!(reference.settings.negative, "blurry");
        assert_eq!(reference.settings.seed, Some(0));
        assert_eq!(reference.settings.timesteps[0], 876);
        assert_eq!(reference.geometry.pixels_per_latent, 8);
        assert_eq!(reference.input_ids[0], 49406);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("again.safetensors");
        std::fs::write(&path, encode(&reference).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), reference);
        assert_eq!(read_init_latents(&path).unwrap(), reference.init_latents);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = std::fs::read(tiny()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.safetensors");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let failure = read(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::InvalidInput);
            failure.messages().join("; ")
        };
        assert!(message(&whole[..1000]).contains("not a safetensors file"));
        // The header is text, so that a name can be changed in place.
        let renamed = |from: &str, to: &str| {
            let at = whole
                .windows(from.len())
                .position(|w| w == from.as_bytes())
                .unwrap();
            let mut bytes = whole.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            bytes
        };
        let text = message(&renamed("step_3.latents", "step_3.latentz"));
        assert!(
            text.contains("tensor 'step_3.latents'") && text.contains("missing"),
            "{text}"
        );
        let text = message(&renamed("\"snapc\"", "\"snapd\""));
        assert!(text.contains("no key 'snapc'"), "{text}");
        let mut reference = read(&tiny()).unwrap();
        reference.steps[2].latents[5] = f32::NAN;
        let text = message(&encode(&reference).unwrap());
        assert!(
            text.contains("value 5 of tensor 'step_2.latents'"),
            "{text}"
        );
    }
}
