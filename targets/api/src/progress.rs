//! How a long emission tells how far it is, and learns that it should stop.

/// Receives progress; shared by all writing threads.
pub trait Progress: Sync {
    /// A stage begins, in which `total_bytes` will be written.
    fn start(&self, stage: &str, total_bytes: u64);

    /// That many more bytes of the stage are written.
    fn advance(&self, bytes: u64);

    /// Whether the user wants to stop. Asked between pieces of at most a few megabytes.
    fn cancelled(&self) -> bool;

    /// Something that the user asked for and the format does not hold, so that it is written in another way: one sentence.
    fn note(&self, _note: &str) {}
}

/// Shows nothing and never cancels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _total_bytes: u64) {}

    fn advance(&self, _bytes: u64) {}

    fn cancelled(&self) -> bool {
        false
    }
}
