//! Whether a conversion has to run (`--if-changed`): its inputs, its flags, the version of snapc and the artifact are compared
//! with the record of the conversion before.
//!
//! A file whose size and stamp are the recorded ones is not read. Any other is hashed, so that a touched file or a fresh
//! checkout of the same content does not count as a change.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use snapc_target::manifest::FILE_NAME;
use snapc_target::{ArtifactFile, TargetError, hash_file};

use super::build_record::{BuildRecord, RecordedFile};
use super::stamp::{FileState, nanoseconds};
use crate::exit::Exit;
use crate::failure::Failure;

/// A file that a conversion reads.
#[derive(Clone, Debug)]
pub struct Input {
    /// What it is to the conversion, wherever it lies.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// A conversion that is asked for.
pub struct Build {
    output: PathBuf,
    flags: BTreeMap<String, String>,
    inputs: Vec<Input>,
    /// The inputs before anything but configurations and headers was read.
    states: Vec<FileState>,
    /// Hashes of the inputs, where they are known.
    hashes: Vec<Option<String>>,
    started_ns: i64,
}

/// What the comparison found.
pub enum Verdict {
    /// The artifact is what the conversion would write.
    Unchanged(Box<Unchanged>),
    /// It is not, for this reason.
    Changed(String),
}

impl Build {
    /// A conversion to `output`, started at that time.
    ///
    /// # Errors
    /// When an input cannot be looked at.
    pub fn new(
        output: &Path,
        flags: BTreeMap<String, String>,
        inputs: Vec<Input>,
        started: SystemTime,
    ) -> Result<Self, Failure> {
        let state = |i: &Input| FileState::of(&i.path).map_err(|e| Failure::read(&i.path, e));
        Ok(Build {
            output: output.to_owned(),
            flags,
            states: inputs.iter().map(state).collect::<Result<_, _>>()?,
            hashes: vec![None; inputs.len()],
            inputs,
            started_ns: nanoseconds(started),
        })
    }

    /// Compares with the record of the conversion before.
    ///
    /// # Errors
    /// When a file that has to be hashed cannot be read.
    pub fn check(&mut self) -> Result<Verdict, Failure> {
        let shown = self.output.display();
        if !self.output.join(FILE_NAME).is_file() {
            return Ok(Verdict::Changed(format!(
                "there is no artifact '{shown}' yet"
            )));
        }
        let Some(record) = BuildRecord::read(&self.output) else {
            let reason = format!("there is no record of what '{shown}' was made from");
            return Ok(Verdict::Changed(reason));
        };
        if let Some(reason) = self.other_request(&record) {
            return Ok(Verdict::Changed(reason));
        }
        let mut artifact = Vec::new();
        for file in &record.artifact {
            let path = self.output.join(&file.name);
            match FileState::of(&path) {
                Ok(state) => artifact.push((file, path, state)),
                Err(_) => {
                    let reason = format!("'{}' is missing", path.display());
                    return Ok(Verdict::Changed(reason));
                }
            }
        }
        let inputs = record.inputs.iter().zip(&self.inputs).zip(&self.states);
        let files: Vec<(&RecordedFile, PathBuf, FileState)> = inputs
            .map(|((file, input), state)| (file, input.path.clone(), *state))
            .chain(artifact)
            .collect();
        if let Some((_, path, _)) = files.iter().find(|(file, _, now)| file.bytes != now.bytes) {
            let reason = format!("'{}' has another size", path.display());
            return Ok(Verdict::Changed(reason));
        }
        let hashes = files
            .par_iter()
            .with_max_len(1)
            .map(|(file, path, now)| match file.stamp == Some(now.stamp) {
                true => Ok(file.sha256.clone()),
                false => hash_file(path),
            })
            .collect::<Result<Vec<String>, TargetError>>()?;
        let known = self.hashes.iter_mut().zip(&hashes);
        known.for_each(|(known, hash)| *known = Some(hash.clone()));
        let mut compared = files.iter().zip(&hashes);
        if let Some(((_, path, _), _)) = compared.find(|((file, ..), hash)| file.sha256 != **hash) {
            let reason = format!("the content of '{}' has changed", path.display());
            return Ok(Verdict::Changed(reason));
        }
        Ok(Verdict::Unchanged(Box::new(Unchanged {
            output: self.output.clone(),
            fresh: self.refreshed(&record),
            record,
        })))
    }

    /// Why the record is of another request, when it is: another snapc, other flags, other files.
    fn other_request(&self, record: &BuildRecord) -> Option<String> {
        let shown = self.output.display();
        if record.snapc_version != env!("CARGO_PKG_VERSION") {
            let version = &record.snapc_version;
            return Some(format!("'{shown}' was made by snapc {version}"));
        }
        let mut keys = self.flags.keys().chain(record.flags.keys());
        if let Some(key) = keys.find(|key| self.flags.get(*key) != record.flags.get(*key)) {
            return Some(format!("'{shown}' was made with another --{key}"));
        }
        let is_new = |i: &&Input| record.inputs.iter().all(|file| file.name != i.name);
        if let Some(input) = self.inputs.iter().find(is_new) {
            return Some(format!("'{}' is new", input.path.display()));
        }
        let is_gone = |f: &&RecordedFile| self.inputs.iter().all(|input| input.name != f.name);
        if let Some(file) = record.inputs.iter().find(is_gone) {
            return Some(format!("'{}' is gone", file.name));
        }
        let mut pairs = record.inputs.iter().zip(&self.inputs);
        let in_order = record.inputs.len() == self.inputs.len()
            && pairs.all(|(file, input)| file.name == input.name);
        (!in_order).then(|| format!("the record of '{shown}' lists other files"))
    }

    /// The record with the stamps of now; those of the artifact are taken later.
    fn refreshed(&self, record: &BuildRecord) -> BuildRecord {
        let mut fresh = record.clone();
        for (file, state) in fresh.inputs.iter_mut().zip(&self.states) {
            if file.stamp != Some(state.stamp) {
                file.stamp = state.settled(self.started_ns);
            }
        }
        fresh
    }

    /// Starts to hash the inputs, beside the conversion.
    pub fn record(self) -> Recording {
        let missing: Vec<PathBuf> = self
            .inputs
            .iter()
            .zip(&self.hashes)
            .filter(|(_, hash)| hash.is_none())
            .map(|(input, _)| input.path.clone())
            .collect();
        let hash = move || {
            let hashes = missing
                .par_iter()
                .with_max_len(1)
                .map(|path| hash_file(path));
            hashes.collect()
        };
        Recording {
            build: self,
            hashes: thread::spawn(hash),
        }
    }
}

/// A conversion that runs and will be recorded.
pub struct Recording {
    build: Build,
    hashes: JoinHandle<Result<Vec<String>, TargetError>>,
}

impl Recording {
    /// Writes the record of the artifact, which is in its place now and has these files and a manifest.
    ///
    /// # Errors
    /// When an input was changed meanwhile, cannot be read any more, or the record cannot be written.
    pub fn finish(self, files: &[ArtifactFile], dependencies: &[PathBuf]) -> Result<(), Failure> {
        let build = self.build;
        let panicked = |_| Failure::new(Exit::Internal, anyhow::anyhow!("hashing panicked"));
        let mut hashes = self.hashes.join().map_err(panicked)??.into_iter();
        let mut inputs = Vec::new();
        for ((input, before), known) in build.inputs.iter().zip(&build.states).zip(build.hashes) {
            let path = &input.path;
            let now = FileState::of(path).map_err(|e| Failure::read(path, e))?;
            let hash = known.or_else(|| hashes.next());
            let was_at_rest = now == *before && before.stamp.changed_ns <= build.started_ns;
            let (true, Some(sha256)) = (was_at_rest, hash) else {
                let message = format!("'{}' was changed while it was read", path.display());
                return Err(Failure::new(
                    Exit::InvalidInput,
                    anyhow::Error::msg(message),
                ));
            };
            inputs.push(RecordedFile {
                name: input.name.clone(),
                bytes: before.bytes,
                sha256,
                stamp: before.settled(build.started_ns),
            });
        }
        renew(&build.output, dependencies)?;
        let manifest = hash_file(&build.output.join(FILE_NAME))?;
        let files = files.iter().map(|f| (f.path.as_str(), f.sha256.clone()));
        let files = files.chain([(FILE_NAME, manifest)]);
        let artifact = files
            .map(|(name, sha256)| written_file(&build.output, name, sha256))
            .collect::<Result<_, _>>()?;
        BuildRecord::new(build.flags, inputs, artifact).write(&build.output)
    }
}

/// Makes the manifest as new as the newest of the files that the artifact depends on, for build systems that compare times.
fn renew(output: &Path, dependencies: &[PathBuf]) -> Result<(), Failure> {
    let mut newest = i64::MIN;
    for path in dependencies {
        let state = FileState::of(path).map_err(|e| Failure::read(path, e))?;
        newest = newest.max(state.stamp.modified_ns);
    }
    let manifest = output.join(FILE_NAME);
    let state = FileState::of(&manifest).map_err(|e| Failure::read(&manifest, e))?;
    if newest > state.stamp.modified_ns {
        // A time that lies ahead is taken over as it is: at now the manifest would stay the older one.
        let newest = u64::try_from(newest).unwrap_or(0);
        let time = (UNIX_EPOCH + Duration::from_nanos(newest)).max(SystemTime::now());
        let file = File::options().write(true).open(&manifest);
        file.and_then(|file| file.set_modified(time))
            .map_err(|e| Failure::write(&manifest, e))?;
    }
    Ok(())
}

/// A file of the artifact as it is now. It was written before it got its name, so its stamp needs no time to settle.
fn written_file(output: &Path, name: &str, sha256: String) -> Result<RecordedFile, Failure> {
    let path = output.join(name);
    let state = FileState::of(&path).map_err(|e| Failure::read(&path, e))?;
    Ok(RecordedFile {
        name: name.to_owned(),
        bytes: state.bytes,
        sha256,
        stamp: Some(state.stamp),
    })
}

/// An artifact that is up to date.
pub struct Unchanged {
    output: PathBuf,
    /// As it is stored.
    record: BuildRecord,
    /// With new stamps of the inputs.
    fresh: BuildRecord,
}

impl Unchanged {
    /// Number of files of the artifact, manifest included.
    pub fn files(&self) -> usize {
        self.record.artifact.len()
    }

    /// Bytes of the files, manifest excluded.
    pub fn bytes(&self) -> u64 {
        let files = self.record.artifact.iter();
        files.filter(|f| f.name != FILE_NAME).map(|f| f.bytes).sum()
    }

    /// Renews the manifest's time and stores the stamps of now.
    ///
    /// # Errors
    /// When a file cannot be looked at or written.
    pub fn refresh(self, dependencies: &[PathBuf]) -> Result<(), Failure> {
        renew(&self.output, dependencies)?;
        let mut fresh = self.fresh;
        for file in &mut fresh.artifact {
            let hash = std::mem::take(&mut file.sha256);
            *file = written_file(&self.output, &file.name, hash)?;
        }
        match fresh == self.record {
            true => Ok(()),
            false => fresh.write(&self.output),
        }
    }
}
