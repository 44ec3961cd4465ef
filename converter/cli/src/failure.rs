//! An error with its exit code and its advice.

use std::error::Error;
use std::io::ErrorKind;

use snapc_import::{ExportError, ImportError};
use snapc_passes::{PassError, PipelineError};
use snapc_pipeline::{PipelineError as RunError, ScheduleError, TokenizerError};
use snapc_target::TargetError;

use crate::exit::Exit;

/// Why a command did not finish.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with.
    pub exit: Exit,
    /// What happened, outermost first.
    pub error: anyhow::Error,
    /// What to do about it.
    pub help: Option<String>,
}

impl Failure {
    /// A failure of that kind.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Failure {
            exit,
            error: error.into(),
            help: None,
        }
    }

    /// Wrong flags, settings or output path.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, anyhow::Error::msg(message.into()))
    }

    /// A file that cannot be written.
    pub fn write(path: &std::path::Path, source: std::io::Error) -> Self {
        let help = io_help(&source);
        let error =
            anyhow::Error::new(source).context(format!("cannot write '{}'", path.display()));
        Failure {
            help,
            ..Failure::new(Exit::Usage, error)
        }
    }

    /// A file that cannot be read.
    pub fn read(path: &std::path::Path, source: std::io::Error) -> Self {
        Failure::new(
            Exit::InvalidInput,
            anyhow::Error::new(source).context(format!("cannot read '{}'", path.display())),
        )
    }

    /// Stopped by a signal.
    pub fn interrupted() -> Self {
        Failure::new(
            Exit::Interrupted,
            anyhow::anyhow!("interrupted; nothing was written"),
        )
    }

    /// The same with advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The messages, outermost first; a cause whose text the message before it already ends with is left out.
    pub fn messages(&self) -> Vec<String> {
        let mut messages: Vec<String> = Vec::new();
        for cause in self.error.chain() {
            let text = cause.to_string();
            if messages.last().is_none_or(|last| !last.ends_with(&text)) {
                messages.push(text);
            }
        }
        messages
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let exit = match &error {
            ImportError::Size { .. } | ImportError::UnexpectedConfig { .. } => Exit::Usage,
            _ => Exit::InvalidInput,
        };
        Failure::new(exit, error)
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let exit = match &error {
            ExportError::Io { .. } | ExportError::Exists(_) => Exit::Usage,
            _ => Exit::InvalidInput,
        };
        Failure::new(exit, error)
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        Failure::new(Exit::Usage, error)
            .help("`snapc passes list` shows the passes and the default pipelines")
    }
}

impl From<PassError> for Failure {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Cancelled => Failure::interrupted(),
            PassError::Weights { .. } => Failure::new(Exit::InvalidInput, error)
                .help("--precision f32 keeps every value as the checkpoint has it"),
            PassError::Refused { .. } => {
                Failure::new(Exit::Usage, error).help("`snapc passes show` tells what a pass takes")
            }
            PassError::Calibration { .. } => Failure::new(Exit::InvalidInput, error)
                .help("make the calibration file from the same checkpoint with `snapc reference`"),
            _ => Failure::new(Exit::Internal, error),
        }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let exit = match &error {
            TargetError::Cancelled => return Failure::interrupted(),
            TargetError::Unsupported { .. } | TargetError::Capacity { .. } => Exit::Unsupported,
            TargetError::Option { .. } | TargetError::Schedule(_) | TargetError::Io { .. } => {
                Exit::Usage
            }
            TargetError::Weight { .. }
            | TargetError::Malformed { .. }
            | TargetError::ReadBack { .. } => Exit::InvalidInput,
            _ => Exit::Internal,
        };
        let help = io_help(&error);
        Failure {
            help,
            ..Failure::new(exit, error)
        }
    }
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Self {
        Failure::new(Exit::InvalidInput, error)
    }
}

impl From<ScheduleError> for Failure {
    fn from(error: ScheduleError) -> Self {
        let exit = match &error {
            ScheduleError::Betas { .. } => Exit::InvalidInput,
            _ => Exit::Usage,
        };
        Failure::new(exit, error)
    }
}

impl<E: Error + Send + Sync + 'static> From<RunError<E>> for Failure {
    fn from(error: RunError<E>) -> Self {
        let exit = match error {
            RunError::Schedule(error) => return error.into(),
            RunError::Cancelled { .. } => return Failure::interrupted(),
            RunError::Guidance { .. } | RunError::Steps { .. } => Exit::Usage,
            RunError::InitLatents { .. }
            | RunError::InitLatentsNotFinite { .. }
            | RunError::NotFinite { .. }
            | RunError::TextLength { .. }
            | RunError::ScalingFactor { .. }
            | RunError::KnownPrompt { .. } => Exit::InvalidInput,
            _ => Exit::Internal,
        };
        Failure::new(exit, error)
    }
}

/// Advice on the IO error that lies below, where there is any.
fn io_help(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    Some("free some space, or choose an -o on another disk; --dry-run tells how much is needed".to_owned())
                }
                ErrorKind::FileTooLarge => {
                    Some("the file system or a limit of this process does not allow a file of that size".to_owned())
                }
                _ => None,
            };
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_causes_are_told_once() {
        let error = anyhow::anyhow!("disk full").context("cannot write 'a': disk full");
        let failure = Failure::new(Exit::Usage, error);
        assert_eq!(failure.messages(), ["cannot write 'a': disk full"]);
    }
}
