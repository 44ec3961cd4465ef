//! `snapc bundle`: an artifact as one zip file.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use serde_json::json;
use snapc_target::check_files;
use snapc_target::manifest::FILE_NAME;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::args::BundleArgs;
use crate::artifact::Artifact;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::staged_file::{StagedFile, check_file};
use crate::table::bytes;
use crate::targets;

/// Bytes copied at a time, with a look at the interrupt between them.
const CHUNK: usize = 1 << 20;

/// Checks an artifact and packs it. Equal artifacts give equal files: entries are sorted and stored as they are, with
/// the format's first date and fixed permissions.
///
/// # Errors
/// When the artifact is broken, or the file cannot be written; nothing is left behind then.
pub fn run(args: &BundleArgs, output: &Output) -> Result<Exit, Failure> {
    check_file(&args.output, args.force)?;
    let interrupt = Interrupt::install();
    let artifact = Artifact::open(&args.artifact)?;
    verify(&artifact)?;
    let mut names: Vec<&str> = artifact
        .manifest
        .files
        .iter()
        .map(|f| f.path.as_str())
        .collect();
    names.push(FILE_NAME);
    names.sort_unstable();

    let mut file = StagedFile::new(&args.output, args.force)?;
    let mut zip = ZipWriter::new(file.writer());
    for name in &names {
        add(&mut zip, &artifact.folder, name, &args.output, &interrupt)?;
    }
    let packed = zip.finish().map_err(|e| unwritten(&args.output, e))?;
    let size = packed
        .stream_position()
        .map_err(|e| Failure::write(&args.output, e))?;
    file.commit()?;

    let document = json!({
        "command": "bundle",
        "output": args.output.display().to_string(),
        "files": names.len(),
        "bytes": size,
    });
    output.result(&document, || {
        format!(
            "{}: {} files, {}\n",
            args.output.display(),
            names.len(),
            bytes(size)
        )
    })?;
    Ok(Exit::Done)
}

/// Refuses an artifact that `snapc verify` finds something about.
fn verify(artifact: &Artifact) -> Result<(), Failure> {
    let target = targets::find(&artifact.manifest.target)
        .map_err(|_| artifact.invalid("the manifest is of another snapc"))?;
    let mut findings = check_files(&artifact.folder, &artifact.manifest)?;
    findings.extend(target.verify(&artifact.folder)?);
    findings.sort();
    findings.dedup();
    if findings.is_empty() {
        return Ok(());
    }
    let lines: String = findings.iter().map(|f| format!("\n  {f}")).collect();
    let error = anyhow::anyhow!("artifact '{}' is broken:{lines}", artifact.folder.display());
    Err(Failure::new(Exit::CheckFailed, error).help("convert the checkpoint again"))
}

/// Packs one file of the artifact.
fn add(
    zip: &mut ZipWriter<impl Write + Seek>,
    folder: &Path,
    name: &str,
    output: &Path,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let path = folder.join(name);
    let unread = |e| Failure::read(&path, e);
    let mut source = File::open(&path).map_err(unread)?;
    let size = source.metadata().map_err(unread)?.len();
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
        .large_file(size >= u64::from(u32::MAX));
    zip.start_file(name, options)
        .map_err(|e| unwritten(output, e))?;
    let mut buffer = vec![0; CHUNK];
    loop {
        interrupt.check()?;
        let n = source.read(&mut buffer).map_err(unread)?;
        if n == 0 {
            return Ok(());
        }
        let written = zip.write_all(&buffer[..n]);
        written.map_err(|e| Failure::write(output, e))?;
    }
}

fn unwritten(output: &Path, error: zip::result::ZipError) -> Failure {
    match error {
        zip::result::ZipError::Io(source) => Failure::write(output, source),
        other => Failure::new(Exit::Internal, other),
    }
}
