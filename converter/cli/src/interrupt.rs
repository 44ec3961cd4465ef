//! Ctrl-C: a flag that the stages poll, so that they stop in an orderly way and remove what they wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// Set once the process was asked to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that SIGINT and SIGTERM set from now on.
    pub fn install() -> Self {
        let interrupt = Interrupt::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Where a handler cannot be installed the signal ends the process, as it does by default.
            let _ = signal_hook::flag::register(signal, Arc::clone(&interrupt.0));
        }
        interrupt
    }

    /// Whether the process was asked to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks to stop.
    #[cfg(test)]
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// To be called between stages.
    ///
    /// # Errors
    /// When the process was asked to stop.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_set() {
            Err(Failure::interrupted())
        } else {
            Ok(())
        }
    }
}
