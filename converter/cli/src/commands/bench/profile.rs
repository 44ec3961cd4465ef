//! How the time of a network is shared among the kinds of its instructions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use snapc_pipeline::{Data, Network, Port};
use snapc_runtime::{RuntimeError, RuntimeNetwork};

use super::milliseconds;
use crate::args::{EngineArgs, EngineKind};
use crate::artifact::Artifact;
use crate::engines::{self, AnyEngine, snap};
use crate::failure::Failure;
use crate::table::{Table, seconds};

/// Instructions of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    count: usize,
    time: Duration,
}

/// What instructions of each kind have taken since the last [`Profiler::take`].
#[derive(Clone, Debug, Default)]
pub struct Profiler(Rc<RefCell<BTreeMap<&'static str, Total>>>);

/// The instructions of one network, as [`Profiler`] saw them in some calls.
#[derive(Clone, Debug)]
pub struct Profile {
    totals: Vec<(&'static str, Total)>,
    calls: usize,
}

impl Profiler {
    /// An engine whose instructions are timed.
    ///
    /// # Errors
    /// When the engine asked for has no instructions to time, or the artifact cannot be opened.
    pub fn open(
        artifact: &Artifact,
        args: EngineArgs,
        batch: usize,
    ) -> Result<(AnyEngine, Self), Failure> {
        if args.kind() != EngineKind::Snap {
            let message = format!(
                "the engine {} does not tell what its time goes to",
                args.kind().name()
            );
            return Err(Failure::usage(message).help("use --engine snap, or leave --profile out"));
        }
        let profiler = Profiler::default();
        let networks = snap::networks(artifact, args.threads, batch)?;
        let networks = networks.map(|network| Profiled {
            network,
            profiler: profiler.clone(),
        });
        let engine = engines::engine(networks, &artifact.manifest.timesteps)?;
        Ok((engine, profiler))
    }

    /// What `calls` calls have taken; the next ones count from zero.
    pub fn take(&self, calls: usize) -> Profile {
        let mut totals: Vec<_> = self.0.take().into_iter().collect();
        totals.sort_by_key(|(_, total)| std::cmp::Reverse(total.time));
        Profile { totals, calls }
    }

    fn add(&self, op: &'static str, elapsed: Duration) {
        let mut totals = self.0.borrow_mut();
        let total = totals.entry(op).or_default();
        total.count += 1;
        total.time += elapsed;
    }
}

impl Profile {
    /// As JSON: milliseconds per call, the longest first.
    pub fn document(&self) -> Value {
        let row = |(op, total): &(&str, Total)| {
            json!({
                "op": op,
                "instructions": total.count / self.calls.max(1),
                "ms": milliseconds(self.per_call(*total)),
            })
        };
        self.totals.iter().map(row).collect()
    }

    /// As a table under the network's name.
    pub fn text(&self, network: &str) -> String {
        let all: Duration = self.totals.iter().map(|(_, total)| total.time).sum();
        let mut table = Table::new(&[network, "instructions", "per call", "share"]);
        for (op, total) in &self.totals {
            let share = 100.0 * total.time.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE);
            table.row([
                (*op).to_owned(),
                (total.count / self.calls.max(1)).to_string(),
                seconds(self.per_call(*total)),
                format!("{share:.1} %"),
            ]);
        }
        table.render()
    }

    fn per_call(&self, total: Total) -> Duration {
        let calls = u32::try_from(self.calls).unwrap_or(u32::MAX);
        total.time / calls.max(1)
    }
}

/// A network whose instructions are timed.
struct Profiled {
    network: RuntimeNetwork,
    profiler: Profiler,
}

impl Network for Profiled {
    type Error = RuntimeError;

    fn inputs(&self) -> &[Port] {
        self.network.inputs()
    }

    fn outputs(&self) -> &[Port] {
        self.network.outputs()
    }

    fn run(
        &mut self,
        batch: usize,
        inputs: &[Data<'_>],
        outputs: &mut [Option<&mut [f32]>],
    ) -> Result<(), RuntimeError> {
        let profiler = &self.profiler;
        self.network
            .run_observed(batch, inputs, outputs, &mut |seen| {
                profiler.add(seen.instruction.op.name(), seen.elapsed);
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_per_call_and_the_longest_comes_first() {
        let profiler = Profiler::default();
        profiler.add("add", Duration::from_millis(2));
        for _ in 0..4 {
            profiler.add("conv2d", Duration::from_millis(3));
        }
        profiler.add("add", Duration::from_millis(2));
        let profile = profiler.take(2);
        let expected = json!([
            { "op": "conv2d", "instructions": 2, "ms": 6.0 },
            { "op": "add", "instructions": 1, "ms": 2.0 },
        ]);
        assert_eq!(profile.document(), expected);
        assert!(
            profile.text("unet").contains("75.0 %"),
            "{}",
            profile.text("unet")
        );
        assert_eq!(profiler.take(1).document(), json!([]));
    }
}
