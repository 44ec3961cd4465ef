//! `snapc reference`: a reference file by the f32 evaluator, for checkpoints with no Python at hand.

use serde_json::json;
use snapc_ir::Program;
use snapc_pipeline::{InitLatents, Pipeline, Request, Tokenizer};
use snapc_target::manifest::SchedulerRecord;
use snapc_target::{schedule, tokenizer};

use crate::args::ReferenceArgs;
use crate::engines::{self, AnyEngine};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::StepBar;
use crate::staged_file::{StagedFile, check_file};
use crate::{recorder, reference_file, stages};

/// Path of the merges among the files of a checkpoint.
const MERGES: &str = "tokenizer/merges.txt";

/// Runs a checkpoint's graphs in f32 and records the run.
///
/// # Errors
/// When the checkpoint cannot be imported or the run fails; nothing is left behind then.
pub fn run(args: &ReferenceArgs, output: &Output) -> Result<Exit, Failure> {
    check_file(&args.output, args.force)?;
    let interrupt = Interrupt::install();
    let checkpoint = stages::open(&args.checkpoint, &args.checkpoint_args)?;
    for note in checkpoint.notes() {
        output.note(&format!("note: {note}"));
    }
    let program = checkpoint.import()?;
    let spec = &program.pipeline.scheduler;
    let timesteps = schedule::timesteps(spec, args.steps)?;
    let record = SchedulerRecord::from(spec);
    let mut pipeline = pipeline(program)?;
    let request = Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative.clone(),
        steps: args.steps,
        guidance: args.guidance,
        init_latents: InitLatents::Seed(args.seed),
    };
    let bar = StepBar::new(output.shows_progress(), "step", args.steps);
    let (generation, steps) = recorder::record(&mut pipeline, &request, &interrupt, |_| {
        bar.advance();
        Ok(())
    })?;
    drop(bar);
    let settings = recorder::settings(&request, &record, timesteps, "evaluator");
    let reference = recorder::reference(&pipeline, settings, &generation, steps);
    let bytes = reference_file::encode(&reference)
        .map_err(|e| Failure::new(Exit::Internal, anyhow::Error::new(e)))?;
    let mut file = StagedFile::new(&args.output, args.force)?;
    file.write_all(&bytes)?;
    file.commit()?;
    let document = json!({
        "command": "reference",
        "output": args.output.display().to_string(),
        "bytes": bytes.len(),
        "steps": args.steps,
        "guidance": args.guidance,
        "seed": args.seed,
    });
    output.result(&document, || {
        format!("{}: {} steps\n", args.output.display(), args.steps)
    })?;
    Ok(Exit::Done)
}

/// The checkpoint's pipeline over the evaluator.
fn pipeline(program: Program) -> Result<Pipeline<AnyEngine>, Failure> {
    let Program { graphs, pipeline } = program;
    let missing = |what: &str| {
        let error = anyhow::anyhow!("the checkpoint has no {what}, and prompts need one");
        Failure::new(Exit::InvalidInput, error)
    };
    let merges = pipeline.files.get(MERGES).ok_or_else(|| missing(MERGES))?;
    let pad = tokenizer::pad_token_id(&pipeline.files)
        .ok_or_else(|| missing("tokenizer/vocab.json with the padding token"))?;
    let tokenizer = Tokenizer::new(merges, pad, pipeline.tokens)?;
    let engine = engines::engine(engines::evaluator(graphs), &[])?;
    let scale = pipeline.latent.scaling_factor as f32;
    let scheduler = schedule::config(&pipeline.scheduler);
    Ok(Pipeline::new(engine, tokenizer, scheduler, scale)?)
}
