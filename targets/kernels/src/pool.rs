//! Threads that wait for work, with the work divided in advance.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::KernelError;

/// Memory of one thread that outlives calls: it grows to the largest request and is then reused.
#[derive(Debug, Default)]
pub struct Scratch {
    data: Vec<f32>,
}

impl Scratch {
    /// Elements of a cache line.
    const LINE: usize = 16;

    /// `len` elements that start at a cache line. They hold what the last user left.
    pub fn take(&mut self, len: usize) -> &mut [f32] {
        if self.data.len() < len + Self::LINE {
            self.data.resize(len + Self::LINE, 0.0);
        }
        let start = self
            .data
            .as_ptr()
            .align_offset(4 * Self::LINE)
            .min(Self::LINE);
        &mut self.data[start..start + len]
    }
}

type Work<'a> = dyn Fn(usize, &mut Scratch) + Sync + 'a;

/// A call's work without its lifetime.
#[derive(Clone, Copy)]
struct Job(*const Work<'static>);

// SAFETY: the closure is `Sync`, and `Pool::run` does not return while a worker may use the pointer.
unsafe impl Send for Job {}

#[derive(Default)]
struct State {
    /// Counts calls, so that a worker knows a new one from the one it has done.
    call: u64,
    job: Option<Job>,
    /// Workers that have not finished the call.
    unfinished: usize,
    panic: Option<Box<dyn Any + Send>>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    start: Condvar,
    done: Condvar,
}

impl Shared {
    /// The state stays consistent when a thread panics, since work runs without the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fixed number of threads, the calling one included, that carry out one call at a time.
///
/// Work is divided statically: part `i` of `n` always gets the same share, so results do not depend on timing. Nothing is
/// allocated per call once the scratch memory has grown.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Scratch of the calling thread; held during a call, so that calls from several threads queue up.
    caller: Mutex<Scratch>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `threads` threads, at least one: the calling thread and `threads - 1` workers.
    ///
    /// # Errors
    /// [`KernelError::Thread`] when the system starts no more threads.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        let mut pool = Self {
            shared: Arc::default(),
            workers: Vec::new(),
            caller: Mutex::default(),
        };
        for part in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("snapc-kernel-{part}"))
                .spawn(move || work(&shared, part))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that share a call.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work(part, scratch)` once for every part below [`Pool::threads`], and returns when all are done.
    ///
    /// Must not be called from within `work`: it would wait for itself.
    ///
    /// # Panics
    /// When `work` panics in any part, after all parts have ended.
    pub fn run(&self, work: &Work<'_>) {
        let mut scratch = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        if self.workers.is_empty() {
            return work(0, &mut scratch);
        }
        // SAFETY: only the lifetime changes. This function waits below until no worker uses the pointer any more, also
        // when a part panics.
        let job = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let mut state = self.shared.lock();
        state.call += 1;
        state.job = Some(Job(job));
        state.unfinished = self.workers.len();
        drop(state);
        self.shared.start.notify_all();

        let own = catch_unwind(AssertUnwindSafe(|| work(0, &mut scratch)));

        let mut state = self.shared.lock();
        while state.unfinished > 0 {
            state = self
                .shared
                .done
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        let panic = state.panic.take();
        drop(state);
        if let Some(payload) = own.err().or(panic) {
            resume_unwind(payload);
        }
    }

    /// Calls `work` with an even share of `0..items` for each part; parts without a share are left out.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn split(&self, items: usize, work: impl Fn(Range<usize>, &mut Scratch) + Sync) {
        let threads = self.threads();
        self.run(&|part, scratch| {
            let range = share(items, part, threads);
            if !range.is_empty() {
                work(range, scratch);
            }
        });
    }

    /// Cuts `out` in `rows` rows of equal length and calls `work` with an even share of whole rows for each part: their
    /// range and their elements.
    ///
    /// # Panics
    /// When `out` is not `rows` whole rows, and as [`Pool::run`].
    pub fn split_rows(
        &self,
        out: &mut [f32],
        rows: usize,
        work: impl Fn(Range<usize>, &mut [f32], &mut Scratch) + Sync,
    ) {
        let width = out.len().checked_div(rows).unwrap_or(0);
        assert_eq!(width * rows, out.len(), "the output is whole rows");
        let out = Output::new(out);
        self.split(rows, |range, scratch| {
            // SAFETY: the shares of the parts are disjoint.
            let own = unsafe { out.slice(range.start * width..range.end * width) };
            work(range, own, scratch);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.start.notify_all();
        for worker in self.workers.drain(..) {
            // A worker does not panic: it catches the panics of its work.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, part: usize) {
    let mut scratch = Scratch::default();
    let mut seen = 0;
    loop {
        let mut state = shared.lock();
        while !state.stop && state.call == seen {
            state = shared
                .start
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let (Some(job), false) = (state.job, state.stop) else {
            return;
        };
        seen = state.call;
        drop(state);
        // SAFETY: `Pool::run` keeps the closure alive until this worker has counted itself out below.
        let job = unsafe { &*job.0 };
        let result = catch_unwind(AssertUnwindSafe(|| job(part, &mut scratch)));
        let mut state = shared.lock();
        if let Err(payload) = result {
            state.panic = Some(payload);
        }
        state.unfinished -= 1;
        if state.unfinished == 0 {
            shared.done.notify_all();
        }
    }
}

/// Share `part` of `parts` of `0..items`; the shares differ by at most one item.
pub(crate) fn share(items: usize, part: usize, parts: usize) -> Range<usize> {
    let (each, rest) = (items / parts, items % parts);
    let start = part * each + part.min(rest);
    start..start + each + usize::from(part < rest)
}

/// An output that several parts write, each its own elements.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    data: *mut f32,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: elements are reached only through unsafe methods whose callers keep the parts disjoint.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(crate) fn new(data: &'a mut [f32]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            lifetime: std::marker::PhantomData,
        }
    }

    /// The elements of `range`. Panics when it is out of bounds.
    ///
    /// # Safety
    /// No other reference to an element of `range` may be alive.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }

    /// Address of the first element of `range`. Panics when it is out of bounds.
    ///
    /// # Safety
    /// Through the pointer only elements may be written that no other reference or part uses.
    pub(crate) unsafe fn pointer(&self, range: Range<usize>) -> *mut f32 {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion.
        unsafe { self.data.add(range.start) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for (items, parts) in [(0, 3), (1, 3), (7, 3), (9, 3), (2, 5)] {
            let mut next = 0;
            for part in 0..parts {
                let range = share(items, part, parts);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, items);
        }
    }

    #[test]
    fn every_part_runs_once_per_call() {
        let pool = Pool::new(3).unwrap();
        let counts = [const { AtomicUsize::new(0) }; 3];
        for _ in 0..100 {
            pool.run(&|part, _| {
                counts[part].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(counts.map(AtomicUsize::into_inner), [100; 3]);
    }

    #[test]
    fn rows_go_to_the_parts_in_order() {
        let pool = Pool::new(2).unwrap();
        let mut out = [0.0; 15];
        pool.split_rows(&mut out, 5, |rows, out, _| {
            for (row, out) in rows.zip(out.chunks_mut(3)) {
                out.fill(row as f32);
            }
        });
        let expected: Vec<f32> = (0..15).map(|i| (i / 3) as f32).collect();
        assert_eq!(out.as_slice(), expected);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_stays_usable() {
        let pool = Pool::new(2).unwrap();
        for bad in 0..2 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|part, _| assert_ne!(part, bad));
            }));
            assert!(result.is_err(), "part {bad}");
        }
        let ran = AtomicUsize::new(0);
        pool.run(&|_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 2);
    }

    #[test]
    fn scratch_starts_at_a_cache_line() {
        let mut scratch = Scratch::default();
        for len in [1, 100, 5000] {
            let memory = scratch.take(len);
            assert_eq!(memory.len(), len);
            assert_eq!(memory.as_ptr() as usize % 64, 0);
        }
    }
}
