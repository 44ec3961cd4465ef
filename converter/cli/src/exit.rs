//! What the process ends with.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// The exit codes of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The command ran, and what it checked does not hold.
    CheckFailed = 1,
    /// Wrong flags or settings, or an output that cannot be written.
    Usage = 2,
    /// The checkpoint or artifact is invalid or incomplete.
    InvalidInput = 3,
    /// The target cannot do what is asked.
    Unsupported = 4,
    /// A defect of snapc.
    Internal = 70,
    /// Stopped by a signal (128 + SIGINT).
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// The exit codes as help text.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    a check failed
  2    usage: wrong flags or settings, or an output that exists or cannot be written
  3    the input is invalid or incomplete
  4    not supported by the target
  70   internal error
  130  interrupted";

/// Prints clap's message where clap wants it and gives its exit code: 0 for help and version, 2 otherwise.
pub fn report_usage(error: &clap::Error) -> Exit {
    // A reader that closed the pipe early has what it wanted.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}

/// Replaces the default panic message by one that says how to report the defect.
pub fn install_panic_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        use std::io::Write as _;
        default(info);
        // Nothing can be done about a stderr that cannot be written.
        let _ = writeln!(
            std::io::stderr(),
            "error: internal error in snapc {}\nhelp: this is a defect; please report it with the message above, the \
             command line `snapc {}`, and the configuration files of the checkpoint (no weights are needed)",
            env!("CARGO_PKG_VERSION"),
            shown(std::env::args_os().skip(1)),
        );
    }));
}

/// Arguments as they are shown, whatever bytes they are of.
fn shown(arguments: impl Iterator<Item = OsString>) -> String {
    let words = arguments.map(|word| word.to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join(" ")
}

/// Runs `f`; `Err` when it panicked (the hook has reported it). Unwinding drops what `f` holds, so partial output goes.
pub fn catch_panic<T>(f: impl FnOnce() -> T) -> Result<T, ()> {
    catch_unwind(AssertUnwindSafe(f)).map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_code() {
        for exit in [
            Exit::Done,
            Exit::CheckFailed,
            Exit::Usage,
            Exit::InvalidInput,
            Exit::Unsupported,
            Exit::Internal,
            Exit::Interrupted,
        ] {
            let line = format!("\n  {:<4} ", exit as u8);
            assert!(EXIT_CODES.contains(&line), "{exit:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn arguments_may_be_any_bytes() {
        use std::os::unix::ffi::OsStringExt;
        let words = [b"convert".to_vec(), vec![b'a', 0xff]].map(OsString::from_vec);
        assert_eq!(shown(words.into_iter()), "convert a\u{fffd}");
    }

    #[test]
    fn a_panic_is_caught() {
        assert_eq!(catch_panic(|| -> u8 { panic!("seeded") }), Err(()));
        assert_eq!(catch_panic(|| 7), Ok(7));
    }
}
