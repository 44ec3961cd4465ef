//! Bars with the time left: bytes of a writing, steps of a run.

use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use snapc_target::Progress;

use crate::interrupt::Interrupt;

/// Shows how far the writing is, and stops it on Ctrl-C.
pub struct Bar {
    bar: ProgressBar,
    interrupt: Interrupt,
    notes: Mutex<Vec<String>>,
}

impl Bar {
    /// A bar, drawn on stderr when `visible`.
    pub fn new(visible: bool, interrupt: Interrupt) -> Self {
        let template = "{msg} [{bar:32}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        Bar {
            bar: draw(visible, template),
            interrupt,
            notes: Mutex::default(),
        }
    }

    /// What the target had to write in another way than asked for.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock();
        notes.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn draw(visible: bool, template: &str) -> ProgressBar {
    let target = if visible {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(template);
    let bar = ProgressBar::with_draw_target(Some(0), target);
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    bar
}

/// Shows how many steps are done.
pub struct StepBar(ProgressBar);

impl StepBar {
    /// A bar of `steps` steps, drawn on stderr when `visible`.
    pub fn new(visible: bool, what: &str, steps: usize) -> Self {
        let bar = draw(visible, "{msg} [{bar:32}] {pos} of {len}, {eta} left");
        bar.set_length(steps as u64);
        bar.set_message(what.to_owned());
        bar.tick();
        StepBar(bar)
    }

    /// Another step is done.
    pub fn advance(&self) {
        self.0.inc(1);
    }
}

impl Drop for StepBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn start(&self, stage: &str, total_bytes: u64) {
        self.bar.reset();
        self.bar.set_length(total_bytes);
        self.bar.set_message(stage.to_owned());
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn cancelled(&self) -> bool {
        self.interrupt.is_set()
    }

    fn note(&self, note: &str) {
        let notes = self.notes.lock();
        let mut notes = notes.unwrap_or_else(PoisonError::into_inner);
        notes.push(note.to_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_cancels() {
        let interrupt = Interrupt::default();
        let bar = Bar::new(false, interrupt.clone());
        bar.start("unet", 10);
        bar.advance(4);
        assert_eq!((bar.bar.position(), bar.cancelled()), (4, false));
        interrupt.set();
        assert!(bar.cancelled());
    }
}
