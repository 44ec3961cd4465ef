//! Arguments of `bundle`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `bundle`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  snapc bundle out/coreml -o my-model.zip")]
pub struct BundleArgs {
    /// Artifact folder
    pub artifact: PathBuf,
    /// Zip file to write; refused when it exists, unless --force is given
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}
