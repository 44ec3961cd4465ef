//! `snapc bench`: how long the networks of an artifact take.

mod profile;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapc_pipeline::{Engine, NetworkKind, UnetInput, standard_normal};

use crate::args::BenchArgs;
use crate::artifact::Artifact;
use crate::engines::{AnyEngine, EngineError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::table::{Table, seconds};

use profile::{Profile, Profiler};

/// Rows of the timed UNet calls: those of a guided run.
const UNET_BATCH: usize = 2;

/// Times every network and tells minimum and median.
///
/// # Errors
/// When the artifact cannot be opened or a network cannot run.
pub fn run(args: &BenchArgs, output: &Output) -> Result<Exit, Failure> {
    let interrupt = Interrupt::install();
    let artifact = Artifact::open(&args.artifact)?.at_size(args.engine.size)?;
    let opening = Instant::now();
    let (mut engine, profiler) = if args.profile {
        let (engine, profiler) = Profiler::open(&artifact, args.engine, UNET_BATCH)?;
        (engine, Some(profiler))
    } else {
        (artifact.engine(args.engine, UNET_BATCH)?, None)
    };
    let opening = opening.elapsed();
    let inputs = Inputs::new(&engine, &artifact)?;

    let mut timings = Vec::new();
    for network in NetworkKind::ALL {
        let mut times = Vec::new();
        // The first call allocates and fills caches; it is not counted.
        for call in 0..=args.iterations {
            interrupt.check()?;
            let start = Instant::now();
            inputs
                .call(&mut engine, network)
                .map_err(|e| failed(network, e))?;
            if call > 0 {
                times.push(start.elapsed());
            } else if let Some(profiler) = &profiler {
                profiler.take(1);
            }
        }
        let profile = profiler
            .as_ref()
            .map(|profiler| profiler.take(args.iterations));
        timings.push(Timing::new(network, times, profile));
    }

    let document = json!({
        "command": "bench",
        "engine": args.engine.kind().name(),
        "threads": args.engine.threads,
        "iterations": args.iterations,
        "open_ms": milliseconds(opening),
        "networks": timings.iter().map(Timing::document).collect::<Vec<_>>(),
    });
    output.result(&document, || text(opening, &timings))?;
    Ok(Exit::Done)
}

/// What the networks are given: noise, and the tokens of an empty prompt.
struct Inputs {
    ids: Vec<u32>,
    embeddings: Vec<f32>,
    latents: Vec<f32>,
    timestep: usize,
}

impl Inputs {
    fn new(engine: &AnyEngine, artifact: &Artifact) -> Result<Self, Failure> {
        let geometry = engine.geometry();
        let first = artifact.manifest.timesteps.first().copied();
        Ok(Inputs {
            ids: vec![0; geometry.text_length],
            embeddings: standard_normal(1, UNET_BATCH * engine.text_values()),
            latents: standard_normal(0, geometry.latent_values()),
            timestep: first.ok_or_else(|| artifact.invalid("the manifest has no timesteps"))?,
        })
    }

    /// Runs a network once.
    fn call(&self, engine: &mut AnyEngine, network: NetworkKind) -> Result<(), EngineError> {
        let geometry = engine.geometry();
        match network {
            NetworkKind::TextEncoder => {
                let mut values = vec![0.0; engine.text_values()];
                engine.encode_text(&self.ids, &mut values)
            }
            NetworkKind::Unet => {
                let input = UnetInput {
                    step: 0,
                    timestep: self.timestep,
                    batch: UNET_BATCH,
                    latents: &self.latents,
                    text_embeddings: &self.embeddings,
                };
                engine.denoise(input, &mut vec![0.0; UNET_BATCH * geometry.latent_values()])
            }
            NetworkKind::VaeDecoder => {
                engine.decode(&self.latents, &mut vec![0.0; geometry.image_values()])
            }
        }
    }
}

fn failed(network: NetworkKind, error: EngineError) -> Failure {
    let error = anyhow::Error::new(error).context(format!("{network}: the engine failed"));
    Failure::new(Exit::Internal, error)
}

/// The times of one network.
struct Timing {
    network: NetworkKind,
    /// Ascending.
    times: Vec<Duration>,
    profile: Option<Profile>,
}

impl Timing {
    fn new(network: NetworkKind, mut times: Vec<Duration>, profile: Option<Profile>) -> Self {
        times.sort();
        Timing {
            network,
            times,
            profile,
        }
    }

    fn min(&self) -> Duration {
        self.times.first().copied().unwrap_or_default()
    }

    /// The middle one, or the mean of the two in the middle.
    fn median(&self) -> Duration {
        let n = self.times.len();
        match n {
            0 => Duration::ZERO,
            n if n % 2 == 1 => self.times[n / 2],
            n => (self.times[n / 2 - 1] + self.times[n / 2]) / 2,
        }
    }

    fn batch(&self) -> usize {
        match self.network {
            NetworkKind::Unet => UNET_BATCH,
            _ => 1,
        }
    }

    fn document(&self) -> Value {
        let mut document = json!({
            "name": self.network.name(),
            "batch": self.batch(),
            "min_ms": milliseconds(self.min()),
            "median_ms": milliseconds(self.median()),
        });
        if let Some(profile) = &self.profile {
            document["profile"] = profile.document();
        }
        document
    }
}

fn milliseconds(duration: Duration) -> f64 {
    1000.0 * duration.as_secs_f64()
}

fn text(opening: Duration, timings: &[Timing]) -> String {
    let mut table = Table::new(&["network", "batch", "minimum", "median"]);
    for timing in timings {
        table.row([
            timing.network.name().to_owned(),
            timing.batch().to_string(),
            seconds(timing.min()),
            seconds(timing.median()),
        ]);
    }
    let mut text = table.render();
    for timing in timings {
        if let Some(profile) = &timing.profile {
            text.push('\n');
            text.push_str(&profile.text(timing.network.name()));
        }
    }
    text.push_str(&format!("\nopened in {}\n", seconds(opening)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_lie_in_the_middle() {
        let timing = |times: &[u64]| {
            let times = times.iter().map(|&ms| Duration::from_millis(ms)).collect();
            Timing::new(NetworkKind::Unet, times, None)
        };
        let odd = timing(&[9, 1, 4]);
        assert_eq!(
            (milliseconds(odd.min()), milliseconds(odd.median())),
            (1.0, 4.0)
        );
        assert_eq!(milliseconds(timing(&[9, 1, 4, 6]).median()), 5.0);
    }
}
