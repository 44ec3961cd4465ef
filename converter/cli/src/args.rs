//! The command line: one struct per command. Help texts are doc comments.

mod bench;
mod bundle;
mod convert;
mod engine;
mod reference;
mod run;
mod size;
mod validate;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use bench::BenchArgs;
pub use bundle::BundleArgs;
pub use convert::{ConvertArgs, ConvertFlags};
pub use engine::{EngineArgs, EngineKind};
pub use reference::ReferenceArgs;
pub use run::RunArgs;
pub use size::{Size, Sizes};
pub use validate::ValidateArgs;

use crate::exit::EXIT_CODES;

/// Compiles Stable Diffusion pipelines to Core ML packages, ONNX models and .snap files, and runs them.
#[derive(Debug, Parser)]
#[command(name = "snapc", bin_name = "snapc", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(disable_help_subcommand = true, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Print one JSON document with a `schema_version` instead of text
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, display_order = 901)]
    pub quiet: bool,
    /// Say more about what is done
    #[arg(
        short,
        long,
        global = true,
        display_order = 902,
        conflicts_with = "quiet"
    )]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert a checkpoint to an artifact
    Convert(Box<ConvertArgs>),
    /// Show parameters, multiply-adds, bytes and peak memory of a checkpoint, or the contents of an artifact
    Inspect(InspectArgs),
    /// Make a picture with an artifact
    Run(RunArgs),
    /// Compare what an artifact computes with a reference file
    Validate(ValidateArgs),
    /// Make a reference file from a checkpoint, in f32
    Reference(ReferenceArgs),
    /// Time the networks of an artifact
    Bench(BenchArgs),
    /// Check the structure and the hashes of an artifact
    Verify(VerifyArgs),
    /// Pack an artifact into one zip file
    Bundle(BundleArgs),
    /// List the passes or show one
    Passes {
        /// What to show.
        #[command(subcommand)]
        command: ListCommand,
    },
    /// List the targets or show one
    Targets {
        /// What to show.
        #[command(subcommand)]
        command: ListCommand,
    },
    /// Write shell completions or man pages
    Generate {
        /// What to write.
        #[command(subcommand)]
        command: GenerateCommand,
    },
}

/// How a checkpoint is read; the same for every command that takes one.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckpointArgs {
    /// Image size in pixels, N or HxW [default: the checkpoint's]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,
    /// JSON file with the configurations (unet, vae, text_encoder, scheduler) of a single-file checkpoint
    #[arg(long, value_name = "FILE")]
    pub component_config: Option<PathBuf>,
    /// What the UNet predicts, when the checkpoint does not say or says it wrongly
    #[arg(long, value_enum, value_name = "TYPE")]
    pub prediction_type: Option<Prediction>,
}

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The added noise
    Epsilon,
    /// The velocity of SD 2.x and SnapFusion
    #[value(name = "v_prediction")]
    VPrediction,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  snapc inspect stable-diffusion-v1-5\n  snapc inspect stable-diffusion-v1-5 \
    --graph unet --stage legalized --target coreml --format text\n  snapc inspect out/coreml"
)]
pub struct InspectArgs {
    /// Checkpoint folder or file, or artifact folder
    pub path: PathBuf,
    /// How far the graphs are taken before they are shown
    #[arg(long, value_enum, default_value_t = Stage::Imported)]
    pub stage: Stage,
    /// The target whose passes and legalization apply at `--stage optimized` and `legalized`
    #[arg(long, default_value = crate::targets::default_name(), value_parser = crate::targets::parser())]
    pub target: String,
    /// Passes at `--stage optimized` and `legalized`, instead of the target's default ones; `convert --list-passes` tells those
    /// that flags stand for
    #[arg(long, value_name = "LIST")]
    pub passes: Option<String>,
    /// Only this graph
    #[arg(long, value_name = "NAME")]
    pub graph: Option<String>,
    /// Depth of the blocks in the table: how many parts of the module names
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub depth: u8,
    /// Form of the output; `text` is the IR's text form, `dot` a Graphviz graph
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Also write the tables and a chart of the blocks as one HTML page, which needs nothing else; it is replaced when it
    /// exists
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// How the checkpoint is read.
    #[command(flatten)]
    pub checkpoint: CheckpointArgs,
}

/// How far graphs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// As the checkpoint describes them
    Imported,
    /// After the target's default passes
    Optimized,
    /// As the target takes them
    Legalized,
}

/// Form of `inspect`'s output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables per graph and per block
    Table,
    /// The IR's text form
    Text,
    /// The document of `--json`
    Json,
    /// Graphviz
    Dot,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Artifact folder
    pub artifact: PathBuf,
}

/// Listing, or one entry.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// One line per entry
    List,
    /// All about one entry
    Show {
        /// Name of the entry
        name: String,
    },
}

/// What `generate` writes.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a man page per command
    Man {
        /// Folder for the pages; made when absent
        directory: PathBuf,
    },
}
