//! Running a pipeline over a program.

use std::fmt;
use std::time::{Duration, Instant};

use snapc_ir::cost::{Cost, graph_cost};
use snapc_ir::verify::verify;
use snapc_ir::{Graph, Program, text};

use crate::pass::{Change, Pass, PassContext, PassError};
use crate::pipeline::Pipeline;

/// Receives the report of a run and the text of the graph it left.
pub type PrintHook<'a> = &'a dyn Fn(&PassReport, &str);

/// How a pipeline is run.
#[derive(Clone, Copy, Default)]
pub struct RunOptions<'a> {
    /// What passes get besides the graph.
    pub context: PassContext<'a>,
    /// Stop after that many runs, where a run is one pass on one graph; for finding the run that breaks something.
    pub pass_limit: Option<usize>,
    /// The pass after which `print` gets the text of every graph.
    pub print_after: Option<&'a str>,
    /// Where the text goes.
    pub print: Option<PrintHook<'a>>,
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
    /// Parameters, multiply-adds, bytes and peak before and after.
    pub cost: (Cost, Cost),
    /// What was done and how often.
    pub counts: Vec<(&'static str, usize)>,
    /// What was skipped and why, and what else the user should know.
    pub notes: Vec<String>,
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
        let mut costs: Vec<Cost> = program.graphs.iter().map(graph_cost).collect();
        let pipeline = program.pipeline.clone();
        let context = PassContext {
            pipeline: Some(&pipeline),
            ..options.context
        };
        let options = RunOptions {
            context,
            ..*options
        };
        let limit = options.pass_limit.unwrap_or(usize::MAX);
        for pass in self.passes() {
            if pass.works_across_graphs() {
                if reports.len() >= limit {
                    return Ok((program, reports));
                }
                let first = reports.len() + 1;
                let more = run_across(
                    pass.as_ref(),
                    &mut program.graphs,
                    &mut costs,
                    first,
                    &options,
                )?;
                reports.extend(more);
                continue;
            }
            for (graph, cost) in program.graphs.iter_mut().zip(&mut costs) {
                if reports.len() >= limit {
                    return Ok((program, reports));
                }
                let report = run_pass(pass.as_ref(), graph, cost, reports.len() + 1, &options)?;
                reports.push(report);
            }
        }
        Ok((program, reports))
    }
}

/// Runs a pass on all graphs at once, which counts as one run per graph.
fn run_across(
    pass: &dyn Pass,
    graphs: &mut [Graph],
    costs: &mut [Cost],
    first: usize,
    options: &RunOptions<'_>,
) -> Result<Vec<PassReport>, PassError> {
    if (options.context.cancelled)() {
        return Err(PassError::Cancelled);
    }
    let start = Instant::now();
    let changes = pass.run_all(graphs, &options.context)?;
    let time = start.elapsed();
    let each = graphs.iter_mut().zip(costs).zip(changes).enumerate();
    each.map(|(i, ((graph, cost), change))| {
        let time = if i == 0 { time } else { Duration::ZERO };
        adopt(pass, (graph, cost), change, (first + i, time), options)
    })
    .collect()
}

fn run_pass(
    pass: &dyn Pass,
    graph: &mut Graph,
    cost: &mut Cost,
    run: usize,
    options: &RunOptions<'_>,
) -> Result<PassReport, PassError> {
    if (options.context.cancelled)() {
        return Err(PassError::Cancelled);
    }
    let start = Instant::now();
    let change = pass.run(graph, &options.context)?;
    adopt(pass, (graph, cost), change, (run, start.elapsed()), options)
}

/// Verifies a change, puts it in place and reports it.
fn adopt(
    pass: &dyn Pass,
    (graph, cost): (&mut Graph, &mut Cost),
    change: Option<Change>,
    (run, time): (usize, Duration),
    options: &RunOptions<'_>,
) -> Result<PassReport, PassError> {
    let start = Instant::now();
    let (nodes, weights) = (graph.nodes().len(), graph.weights().len());
    let (changed, before) = (change.is_some(), *cost);
    let (mut counts, mut notes) = (Vec::new(), Vec::new());
    if let Some(change) = change {
        verify(&change.graph).map_err(|violations| PassError::Invalid {
            pass: pass.name(),
            violations,
        })?;
        *graph = change.graph;
        counts = change.counts;
        notes = change.notes;
        *cost = graph_cost(graph);
    }
    let report = PassReport {
        run,
        pass: pass.name(),
        graph: graph.name().to_owned(),
        changed,
        nodes: (nodes, graph.nodes().len()),
        weights: (weights, graph.weights().len()),
        cost: (before, *cost),
        counts,
        notes,
        time: time + start.elapsed(),
    };
    if let (true, Some(print)) = (options.print_after == Some(pass.name()), options.print) {
        print(&report, &text::print(graph));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::{Cast, Silu};
    use snapc_ir::{
        About, DType, LatentSpec, LazyTensor, PipelineSpec, PredictionType, SchedulerSpec, Shape,
        TensorType, TimestepSpacing,
    };
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    fn graph(name: &str) -> Graph {
        let mut g = Graph::new(name);
        let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
        let a = g.add(Cast { to: DType::F32 }, &[x], "a").unwrap();
        let y = g.add(Silu {}, &[a], "y").unwrap();
        g.add(Silu {}, &[y], "dead").unwrap();
        g.output("y", y);
        g
    }

    fn program() -> Program {
        let scheduler = SchedulerSpec {
            train_steps: 1000,
            beta_start: 0.1,
            beta_end: 0.2,
            beta_schedule: snapc_ir::BetaSchedule::Linear,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 0,
            set_alpha_to_one: false,
        };
        let latent = LatentSpec {
            channels: 4,
            height: 8,
            width: 8,
            pixels_per_cell: 8,
            scaling_factor: 1.0,
        };
        Program {
            graphs: vec![graph("text_encoder"), graph("unet")],
            pipeline: PipelineSpec {
                scheduler,
                latent,
                tokens: 77,
                files: BTreeMap::new(),
                about: About::default(),
            },
        }
    }

    fn pipeline() -> Pipeline {
        "remove-no-ops,eliminate-dead-code".parse().unwrap()
    }

    #[test]
    fn every_pass_runs_on_every_graph_and_is_reported() {
        let (program, reports) = pipeline().run(program(), &RunOptions::default()).unwrap();
        assert!(program.graphs.iter().all(|g| g.nodes().len() == 1));
        let lines: Vec<String> = reports.iter().map(ToString::to_string).collect();
        let expected = [
            "1 remove-no-ops text_encoder: 3 -> 2 nodes, 1 nodes removed, 0 nodes joined",
            "2 remove-no-ops unet: 3 -> 2 nodes, 1 nodes removed, 0 nodes joined",
            "3 eliminate-dead-code text_encoder: 2 -> 1 nodes, 1 nodes dropped, 0 weights dropped",
            "4 eliminate-dead-code unet: 2 -> 1 nodes, 1 nodes dropped, 0 weights dropped",
        ];
        assert_eq!(lines, expected);
        let (_, again) = pipeline().run(program, &RunOptions::default()).unwrap();
        assert!(again.iter().all(|r| !r.changed));
    }

    #[test]
    fn the_limit_counts_single_runs() {
        let options = RunOptions {
            pass_limit: Some(3),
            ..RunOptions::default()
        };
        let (program, reports) = pipeline().run(program(), &options).unwrap();
        assert_eq!(reports.len(), 3);
        let nodes: Vec<usize> = program.graphs.iter().map(|g| g.nodes().len()).collect();
        assert_eq!(nodes, [1, 2]);
    }

    #[test]
    fn graphs_are_printed_after_the_pass_that_was_asked_for() {
        let printed = RefCell::new(Vec::new());
        let print = |report: &PassReport, text: &str| {
            printed
                .borrow_mut()
                .push((report.run, text.contains("dead")));
        };
        let options = RunOptions {
            print_after: Some("remove-no-ops"),
            print: Some(&print),
            ..RunOptions::default()
        };
        pipeline().run(program(), &options).unwrap();
        assert_eq!(printed.into_inner(), [(1, true), (2, true)]);
    }

    /// Adds a weight without name, which invariant 8 forbids.
    #[derive(Debug)]
    struct Breaking;

    impl Pass for Breaking {
        fn name(&self) -> &'static str {
            "breaking"
        }

        fn run(&self, graph: &Graph, _: &PassContext<'_>) -> Result<Option<Change>, PassError> {
            let mut graph = graph.clone();
            graph.parameter("", LazyTensor::from_f32(&[1], &[0.0]));
            Ok(Some(Change::new(graph, Vec::new())))
        }
    }

    #[test]
    fn what_a_pass_makes_is_verified() {
        let mut graph = graph("unet");
        let mut cost = Cost::default();
        let options = RunOptions::default();
        let error = run_pass(&Breaking, &mut graph, &mut cost, 1, &options).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("the graph is malformed after pass 'breaking':\n"),
            "{text}"
        );
        assert!(graph.weights().is_empty());
    }

    #[test]
    fn cancelling_ends_the_run() {
        let options = RunOptions {
            context: PassContext {
                cancelled: &|| true,
                ..PassContext::default()
            },
            ..RunOptions::default()
        };
        let result = pipeline().run(program(), &options);
        assert!(matches!(result, Err(PassError::Cancelled)));
    }
}
