//! `snapc run`: a picture from an artifact.

use std::path::Path;
use std::time::Instant;

use serde_json::json;
use snapc_pipeline::{Image, InitLatents, Progress, Request, is_guided, timesteps};

use crate::args::RunArgs;
use crate::artifact::Artifact;
use crate::engines::AnyEngine;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::StepBar;
use crate::staged_file::{StagedFile, check_file};
use crate::staging::{Staging, check_output};
use crate::table::seconds;
use crate::{recorder, reference_file};

/// Makes a picture and tells where it is.
///
/// # Errors
/// When anything stands in the way; nothing is left behind then.
pub fn run(args: &RunArgs, output: &Output) -> Result<Exit, Failure> {
    check_outputs(args)?;
    let interrupt = Interrupt::install();
    let artifact = Artifact::open(&args.artifact)?.at_size(args.engine.size)?;
    let request = request(args, &artifact)?;
    let timesteps = timesteps(&artifact.scheduler()?, request.steps)?;
    let batch = if is_guided(request.guidance) { 2 } else { 1 };

    let opening = Instant::now();
    let mut pipeline = artifact.pipeline(args.engine, batch)?;
    let opening = opening.elapsed();
    interrupt.check()?;
    let mut previews = Previews::new(args.preview.as_deref())?;

    let running = Instant::now();
    let bar = StepBar::new(output.shows_progress(), "step", request.steps);
    let observe = |progress: &mut Progress<'_, AnyEngine>| {
        bar.advance();
        output.detail(&format!(
            "step {} of {}: timestep {}, {}",
            progress.step + 1,
            progress.steps,
            progress.timestep(),
            seconds(running.elapsed()),
        ));
        previews.add(progress)
    };
    let (generation, steps) = recorder::record(&mut pipeline, &request, &interrupt, observe)?;
    drop(bar);
    let running = running.elapsed();

    let image = &generation.image;
    let mut picture = StagedFile::new(&args.output, args.force)?;
    picture.write_all(&png(image)?)?;
    let mut saved = None;
    if let Some(path) = &args.save {
        let engine = args.engine.kind().name();
        let record = &artifact.manifest.scheduler;
        let settings = recorder::settings(&request, record, timesteps, engine);
        let reference = recorder::reference(&pipeline, settings, &generation, steps);
        saved = Some(StagedFile::new(path, args.force)?);
        if let Some(file) = &mut saved {
            file.write_all(&reference_file::encode(&reference).map_err(internal)?)?;
        }
    }
    // Everything is written; what is left is renaming.
    saved.map_or(Ok(()), StagedFile::commit)?;
    previews.commit()?;
    picture.commit()?;

    let document = json!({
        "command": "run",
        "output": args.output.display().to_string(),
        "save": shown(args.save.as_deref()),
        "preview": shown(args.preview.as_deref()),
        "engine": args.engine.kind().name(),
        "width": image.width(),
        "height": image.height(),
        "steps": request.steps,
        "guidance": request.guidance,
        "seed": match request.init_latents {
            InitLatents::Seed(seed) => Some(seed),
            InitLatents::Given(_) => None,
        },
        "seconds": { "open": opening.as_secs_f64(), "run": running.as_secs_f64() },
    });
    output.result(&document, || {
        format!(
            "{}: {}x{}, {} steps, opened in {}, ran in {}\n",
            args.output.display(),
            image.width(),
            image.height(),
            request.steps,
            seconds(opening),
            seconds(running),
        )
    })?;
    Ok(Exit::Done)
}

/// A path in the document.
fn shown(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// Refuses outputs that cannot be written before anything is computed.
fn check_outputs(args: &RunArgs) -> Result<(), Failure> {
    check_file(&args.output, args.force)?;
    if let Some(path) = &args.save {
        check_file(path, args.force)?;
        if *path == args.output {
            return Err(Failure::usage("--save and -o name the same file"));
        }
    }
    match &args.preview {
        Some(dir) => {
            check_output(dir, false).map_err(|f| f.help("give --preview the name of a new folder"))
        }
        None => Ok(()),
    }
}

fn request(args: &RunArgs, artifact: &Artifact) -> Result<Request, Failure> {
    let init_latents = match &args.init_latents {
        Some(path) => InitLatents::Given(reference_file::read_init_latents(path)?),
        None => InitLatents::Seed(args.seed),
    };
    Ok(Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative.clone(),
        steps: args.steps.unwrap_or(artifact.manifest.steps),
        guidance: args.guidance.unwrap_or(artifact.manifest.guidance),
        init_latents,
    })
}

/// Pictures of the steps, when they are wanted.
struct Previews(Option<Staging>);

impl Previews {
    fn new(dir: Option<&Path>) -> Result<Self, Failure> {
        let staging = dir.map(|dir| Staging::new(dir, false)).transpose()?;
        Ok(Previews(staging))
    }

    fn add(&mut self, progress: &mut Progress<'_, AnyEngine>) -> Result<(), Failure> {
        let Some(staging) = &self.0 else {
            return Ok(());
        };
        let path = staging
            .folder()
            .join(format!("step-{:03}.png", progress.step + 1));
        let image = progress.preview()?;
        std::fs::write(&path, png(&image)?).map_err(|e| Failure::write(&path, e))
    }

    fn commit(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), Staging::commit)
    }
}

fn png(image: &Image) -> Result<Vec<u8>, Failure> {
    image.to_png().map_err(internal)
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Exit::Internal, error)
}
