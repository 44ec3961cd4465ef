//! What a file system tells of a file without reading it.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Times and identity of a file. Equal stamps mean equal content, provided that the file was at rest when the stamp was
/// taken (see [`FileState::settled`]). Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Last change of the content, as programs may set it.
    pub modified_ns: i64,
    /// Last change of content or attributes, which programs cannot set; where a system has none, `modified_ns`.
    pub changed_ns: i64,
    /// Number of the file in its file system; 0 where a system has none.
    pub inode: u64,
}

/// Times on file systems are as coarse as this, at most: FAT's two seconds.
const COARSEST_NS: i64 = 2_000_000_000;

/// Size and stamp of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Size.
    pub bytes: u64,
    /// Times and identity.
    pub stamp: Stamp,
}

impl FileState {
    /// The state of a file, or of the one that a link leads to.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(FileState {
            bytes: metadata.len(),
            stamp: stamp(&metadata),
        })
    }

    /// The stamp, when the file had been at rest for long enough at `now_ns` that a later change cannot give the same one.
    pub fn settled(&self, now_ns: i64) -> Option<Stamp> {
        let at_rest = self.stamp.changed_ns.saturating_add(COARSEST_NS) <= now_ns;
        at_rest.then_some(self.stamp)
    }
}

#[cfg(unix)]
fn stamp(metadata: &Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let nanoseconds =
        |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Stamp {
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
    }
}

#[cfg(not(unix))]
fn stamp(metadata: &Metadata) -> Stamp {
    let modified_ns = metadata.modified().map_or(0, nanoseconds);
    Stamp {
        modified_ns,
        changed_ns: modified_ns,
        inode: 0,
    }
}

/// A time as nanoseconds since 1970; times that do not fit are the nearest that does.
pub fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stamp_tells_two_files_apart() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        fs::write(&one, "abc").unwrap();
        fs::write(&two, "abc").unwrap();
        let first = FileState::of(&one).unwrap();
        assert_eq!(first.bytes, 3);
        assert_eq!(FileState::of(&one).unwrap(), first);
        assert_ne!(FileState::of(&two).unwrap(), first);
        let file = fs::File::options().write(true).open(&one).unwrap();
        let time = UNIX_EPOCH + Duration::from_nanos(1_500_000_000_000_000_007);
        file.set_modified(time).unwrap();
        let touched = FileState::of(&one).unwrap().stamp;
        assert_eq!(touched.modified_ns, nanoseconds(time));
        assert!(touched.changed_ns >= first.stamp.changed_ns);
    }

    #[test]
    fn a_fresh_file_is_not_at_rest() {
        let state = FileState {
            bytes: 0,
            stamp: Stamp {
                modified_ns: 0,
                changed_ns: 10_000_000_000,
                inode: 1,
            },
        };
        assert_eq!(state.settled(11_999_999_999), None);
        assert_eq!(state.settled(12_000_000_000), Some(state.stamp));
        assert_eq!(state.settled(i64::MIN), None);
    }

    #[test]
    fn times_before_1970_are_negative() {
        assert_eq!(
            nanoseconds(UNIX_EPOCH - Duration::from_secs(1)),
            -1_000_000_000
        );
    }
}
