//! Running a pipeline over a program.

use std::fmt;
use std::time::{Duration, Instant};

use snapc_ir::verify::verify;
use snapc_ir::{Graph, Program, text};

use crate::pass::{Pass, PassContext, PassError};
use crate::pipeline::Pipeline;

/// How a pipeline is run.
#[derive(Clone, Copy, Default)]
pub struct RunOptions<'a> {
    /// What passes get besides the graph.
    pub context: PassContext<'a>,
    /// Stop after that many runs, where a run is one pass on one graph; for finding the run that breaks something.
    pub pass_limit: Option<usize>,
    /// The pass after which `print` gets the text of every graph.
    pub print_after: Option<&'a str>,
    /// Receives the report of the run and the text of the graph.
    pub print: Option<&'a dyn Fn(&PassReport, &str)>,
}

/// What one pass did to one graph.
#[derive(Clone, Debug, PartialEq)]
pub struct PassReport {
    /// Position among the runs, from 1; `pass_limit` counts these.
    pub run: usize,
    /// Name of the pass.
    pub pass: &'static str,
    /// Name of the graph.
    pub graph: String,
    /// Whether the graph changed.
    pub changed: bool,
    /// Nodes before and after.
    pub nodes: (usize, usize),
    /// Weights and constants before and after.
    pub weights: (usize, usize),
    /// What was done and how often.
    pub counts: Vec<(&'static str, usize)>,
    /// How long the pass took, verification included.
    pub time: Duration,
}

impl fmt::Display for PassReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.nodes;
        write!(
            f,
            "{} {} {}: {before} -> {after} nodes",
            self.run, self.pass, self.graph
        )?;
        self.counts
            .iter()
            .try_for_each(|(what, n)| write!(f, ", {n} {what}"))
    }
}

impl Pipeline {
    /// Runs every pass on every graph and verifies what it makes.
    ///
    /// # Errors
    /// The first failing pass's.
    pub fn run(
        &self,
        mut program: Program,
        options: &RunOptions<'_>,
    ) -> Result<(Program, Vec<PassReport>), PassError> {
        let mut reports = Vec::new();
        for pass in self.passes() {
            for graph in &mut program.graphs {
                if options
                    .pass_limit
                    .is_some_and(|limit| reports.len() >= limit)
                {
                    return Ok((program, reports));
                }
                let report = run_pass(pass.as_ref(), graph, reports.len() + 1, options)?;
                reports.push(report);
            }
        }
        Ok((program, reports))
    }
}

fn run_pass(
    pass: &dyn Pass,
    graph: &mut Graph,
    run: usize,
    options: &RunOptions<'_>,
) -> Result<PassReport, PassError> {
    if (options.context.cancelled)() {
        return Err(PassError::Cancelled);
    }
    let start = Instant::now();
    let (nodes, weights) = (graph.nodes().len(), graph.weights().len());
    let change = pass.run(graph, &options.context)?;
    let changed = change.is_some();
    let mut counts = Vec::new();
    if let Some(change) = change {
        verify(&change.graph).map_err(|violations| PassError::Invalid {
            pass: pass.name(),
            violations,
        })?;
        *graph = change.graph;
        counts = change.counts;
    }
    let report = PassReport {
        run,
        pass: pass.name(),
        graph: graph.name().to_owned(),
        changed,
        nodes: (nodes, graph.nodes().len()),
        weights: (weights, graph.weights().len()),
        counts,
        time: start.elapsed(),
    };
    if let (true, Some(print)) = (options.print_after == Some(pass.name()), options.print) {
        print(&report, &text::print(graph));
    }
    Ok(report)
}
