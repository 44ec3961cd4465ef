//! The record of a conversion, beside its artifact: what it was made from. It holds times and so differs from machine to
//! machine, which is why it is no part of the artifact, whose bytes are the same everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use crate::failure::Failure;
use crate::staged_file::StagedFile;
use crate::staging::parent_of;

/// Version of the record's form; a record of another one counts as none.
const SCHEMA_VERSION: u32 = 1;

/// What a conversion was made from, and what it made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    schema_version: u32,
    /// Version of the snapc that converted.
    pub snapc_version: String,
    /// The flags that matter, those of the settings file among them.
    pub flags: BTreeMap<String, String>,
    /// The files that were read.
    pub inputs: Vec<RecordedFile>,
    /// The files of the artifact.
    pub artifact: Vec<RecordedFile>,
}

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedFile {
    /// What it is to the conversion (`checkpoint/unet/config.json`, `plan`), or its path in the artifact.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the content, in lower-case hexadecimal.
    pub sha256: String,
    /// Its stamp; absent when it was changed so shortly before that the stamp proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<Stamp>,
}

impl BuildRecord {
    /// A record by this snapc.
    pub fn new(
        flags: BTreeMap<String, String>,
        inputs: Vec<RecordedFile>,
        artifact: Vec<RecordedFile>,
    ) -> Self {
        BuildRecord {
            schema_version: SCHEMA_VERSION,
            snapc_version: env!("CARGO_PKG_VERSION").to_owned(),
            flags,
            inputs,
            artifact,
        }
    }

    /// Where the record of an artifact is: hidden beside it.
    pub fn path(artifact: &Path) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(artifact.file_name().unwrap_or_default());
        name.push(".snapc-build.json");
        parent_of(artifact).join(name)
    }

    /// Reads the record of an artifact; `None` when there is none of this form. Then the artifact is made anew, so that
    /// nothing depends on a damaged one.
    pub fn read(artifact: &Path) -> Option<Self> {
        let text = fs::read(BuildRecord::path(artifact)).ok()?;
        let record: BuildRecord = serde_json::from_slice(&text).ok()?;
        (record.schema_version == SCHEMA_VERSION).then_some(record)
    }

    /// Writes the record of an artifact, or replaces it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, artifact: &Path) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(self).expect("the record has string keys only");
        text.push('\n');
        let mut file = StagedFile::new(&BuildRecord::path(artifact), true)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> BuildRecord {
        let file = RecordedFile {
            name: "plan".to_owned(),
            bytes: 3,
            sha256: "00".to_owned(),
            stamp: None,
        };
        let flags = BTreeMap::from([("steps".to_owned(), "4".to_owned())]);
        BuildRecord::new(flags, vec![file], Vec::new())
    }

    #[test]
    fn written_hidden_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = dir.path().join("out");
        assert_eq!(BuildRecord::read(&artifact), None);
        record().write(&artifact).unwrap();
        assert!(dir.path().join(".out.snapc-build.json").is_file());
        assert_eq!(BuildRecord::read(&artifact), Some(record()));
        assert_eq!(
            BuildRecord::path(Path::new("out")),
            Path::new("./.out.snapc-build.json")
        );
    }

    #[test]
    fn what_cannot_be_read_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = dir.path().join("out");
        record().write(&artifact).unwrap();
        let path = BuildRecord::path(&artifact);
        let text = fs::read_to_string(&path).unwrap();
        let other = text.replace("\"schema_version\": 1", "\"schema_version\": 2");
        assert_ne!(other, text);
        for damaged in [&text[..text.len() / 2], "", "{}", "[]", other.as_str()] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(BuildRecord::read(&artifact), None, "{damaged}");
        }
    }
}
