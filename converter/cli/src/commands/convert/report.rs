//! The report of a conversion.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use snapc_ir::Program;
use snapc_ir::cost::{Cost, graph_cost};
use snapc_passes::{PassReport, Pipeline};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Table, bytes, count, seconds};

use super::settings::Settings;
use super::up_to_date::Unchanged;

/// A graph on its way.
pub struct GraphReport {
    name: String,
    nodes_imported: usize,
    nodes_optimized: usize,
    nodes_legalized: usize,
    /// Of the optimized graph.
    cost: Cost,
}

impl GraphReport {
    /// The graphs as imported.
    pub fn imported(program: &Program) -> Vec<Self> {
        let report = |graph: &snapc_ir::Graph| GraphReport {
            name: graph.name().to_owned(),
            nodes_imported: graph.nodes().len(),
            nodes_optimized: 0,
            nodes_legalized: 0,
            cost: Cost::default(),
        };
        program.graphs.iter().map(report).collect()
    }

    /// Adds what the passes made of them.
    pub fn add_optimized(reports: &mut [Self], program: &Program) {
        for (report, graph) in reports.iter_mut().zip(&program.graphs) {
            report.nodes_optimized = graph.nodes().len();
            report.cost = graph_cost(graph);
        }
    }

    /// Adds what the target takes.
    pub fn add_legalized(reports: &mut [Self], program: &Program) {
        for (report, graph) in reports.iter_mut().zip(&program.graphs) {
            report.nodes_legalized = graph.nodes().len();
        }
    }

    fn document(&self) -> Value {
        json!({
            "name": self.name,
            "nodes": {
                "imported": self.nodes_imported,
                "optimized": self.nodes_optimized,
                "legalized": self.nodes_legalized,
            },
            "parameters": self.cost.parameters,
            "weight_bytes": self.cost.weight_bytes,
            "macs": self.cost.macs,
            "peak_activation_bytes": self.cost.peak_activation_bytes,
        })
    }

    fn row(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.nodes_imported.to_string(),
            self.nodes_optimized.to_string(),
            self.nodes_legalized.to_string(),
            count(self.cost.parameters),
            bytes(self.cost.weight_bytes),
            count(self.cost.macs),
            bytes(self.cost.peak_activation_bytes),
        ]
    }
}

/// What is shown of the passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassesShown {
    /// Their times.
    pub times: bool,
    /// What they did, skipped and changed.
    pub explain: bool,
}

/// The report of a conversion.
pub struct Report {
    /// Target name.
    pub target: &'static str,
    /// Element type of weights and activations.
    pub precision: &'static str,
    /// The pipeline that ran.
    pub passes: String,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Where the artifact is or would be.
    pub output: Option<PathBuf>,
    /// The graphs in the order they run.
    pub graphs: Vec<GraphReport>,
    /// What each pass did.
    pub pass_reports: Vec<PassReport>,
    /// How far every encoded weight is from what it was, when that is wanted.
    pub encoded: Vec<Value>,
    /// What is shown of that.
    pub passes_shown: PassesShown,
    /// Times of the stages.
    pub stages: Vec<(&'static str, Duration)>,
    /// Number of files written, manifest included.
    pub files: usize,
    /// Bytes of the files, manifest excluded; in a dry run an estimate.
    pub bytes: u64,
}

impl Report {
    /// The report as a document.
    pub fn document(&self) -> Value {
        let stages = self
            .stages
            .iter()
            .map(|(name, time)| json!({ "name": name, "seconds": time.as_secs_f64() }));
        let mut document = json!({
            "command": "convert",
            "target": self.target,
            "precision": self.precision,
            "passes": self.passes,
            "dry_run": self.dry_run,
            "unchanged": false,
            "output": self.output.as_ref().map(|path| path.display().to_string()),
            "graphs": self.graphs.iter().map(GraphReport::document).collect::<Vec<_>>(),
            "stages": stages.collect::<Vec<_>>(),
            "files": self.files,
            "bytes": self.bytes,
        });
        if self.passes_shown.explain {
            document["encoded_weights"] = json!(self.encoded);
        }
        if self.passes_shown.times || self.passes_shown.explain {
            document["pass_reports"] = self.pass_reports.iter().map(pass_document).collect();
        }
        document
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let mut table = Table::new(&[
            "graph",
            "imported",
            "optimized",
            "legalized",
            "parameters",
            "weights",
            "MACs",
            "peak",
        ]);
        for graph in &self.graphs {
            table.row(graph.row());
        }
        let mut text = table.render();
        if self.passes_shown.times {
            text.push('\n');
            text.push_str(&pass_table(&self.pass_reports));
        }
        if self.passes_shown.explain {
            text.push('\n');
            text.push_str(&explanation(&self.pass_reports));
        }
        let stages = self
            .stages
            .iter()
            .map(|(name, time)| format!("{name} {}", seconds(*time)));
        text.push_str(&format!("\n{}\n", stages.collect::<Vec<_>>().join(", ")));
        let output = self.output.as_ref().map(|dir| dir.display().to_string());
        text.push_str(&match (self.dry_run, output) {
            (false, output) => {
                let output = output.unwrap_or_default();
                format!(
                    "{output}: {} {}, {} files, {}\n",
                    self.target,
                    self.precision,
                    self.files,
                    bytes(self.bytes)
                )
            }
            (true, Some(output)) => {
                format!("dry run: would write {} to {output}\n", bytes(self.bytes))
            }
            (true, None) => format!("dry run: would write {}\n", bytes(self.bytes)),
        });
        text
    }
}

/// Tells that an artifact is what the conversion would write.
///
/// # Errors
/// When it cannot be written.
pub fn unchanged(
    settings: &Settings,
    artifact: &Unchanged,
    output: &Output,
) -> Result<(), Failure> {
    let path = settings.required_output()?.display();
    let document = json!({
        "command": "convert",
        "target": settings.target.name(),
        "dry_run": false,
        "unchanged": true,
        "output": path.to_string(),
        "files": artifact.files(),
        "bytes": artifact.bytes(),
    });
    output.result(&document, || {
        let bytes = bytes(artifact.bytes());
        format!("{path}: unchanged, {} files, {bytes}\n", artifact.files())
    })
}

fn pass_table(reports: &[PassReport]) -> String {
    let mut table = Table::new(&["pass", "run", "graph", "nodes before", "after", "time"]);
    for report in reports {
        table.row([
            report.pass.to_owned(),
            report.run.to_string(),
            report.graph.clone(),
            report.nodes.0.to_string(),
            report.nodes.1.to_string(),
            seconds(report.time),
        ]);
    }
    table.render()
}

/// What every pass did to every graph: counts, the effect on its figures, and notes.
fn explanation(reports: &[PassReport]) -> String {
    let mut text = String::new();
    for report in reports {
        let counts = report.counts.iter().map(|(what, n)| format!("{n} {what}"));
        let did = match report.changed {
            true => counts.collect::<Vec<_>>().join(", "),
            false => "nothing to do".to_owned(),
        };
        text.push_str(&format!("{} {}: {did}\n", report.pass, report.graph));
        for line in effect_lines(report).iter().chain(&report.notes) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// One line per figure that changed.
fn effect_lines(report: &PassReport) -> Vec<String> {
    let (before, after) = report.cost;
    let figures = [
        (
            "parameters",
            before.parameters,
            after.parameters,
            count as fn(u64) -> String,
        ),
        ("MACs", before.macs, after.macs, count),
        ("weights", before.weight_bytes, after.weight_bytes, bytes),
        (
            "peak",
            before.peak_activation_bytes,
            after.peak_activation_bytes,
            bytes,
        ),
    ];
    let changed = figures
        .into_iter()
        .filter(|(_, before, after, _)| before != after);
    changed
        .map(|(name, before, after, show)| format!("{name} {} -> {}", show(before), show(after)))
        .collect()
}

/// How far every encoded weight of a program is from what it was. Reads them all once.
///
/// # Errors
/// When the data of a weight cannot be made.
pub fn encoded_weights(program: &Program) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    for graph in &program.graphs {
        let weights = snapc_passes::weight_fidelity(graph)
            .map_err(|problem| Failure::new(Exit::InvalidInput, anyhow::anyhow!("{problem}")))?;
        all.extend(weights.iter().map(|weight| {
            json!({
                "graph": graph.name(),
                "weight": weight.weight,
                "form": weight.form,
                "elements": weight.elements,
                "bytes_before": weight.bytes_before,
                "bytes_after": weight.bytes_after,
                "snr_db": weight.snr(),
                "max_error": weight.max_error,
            })
        }));
    }
    Ok(all)
}

/// Prints the passes of a pipeline with what each does.
///
/// # Errors
/// When it cannot be written.
pub fn list(pipeline: &Pipeline, output: &Output) -> Result<Exit, Failure> {
    let summary = |pass: &str| snapc_passes::info(pass).map(|info| info.documentation().summary);
    let steps: Vec<(String, String)> = pipeline
        .steps()
        .iter()
        .map(|step| (step.to_string(), summary(&step.pass).unwrap_or_default()))
        .collect();
    let document = json!({
        "command": "convert",
        "passes": pipeline.to_string(),
        "steps": steps.iter().map(|(step, summary)| json!({ "step": step, "summary": summary })).collect::<Vec<_>>(),
    });
    output.result(&document, || {
        steps
            .iter()
            .map(|(step, summary)| format!("{step:<40} {summary}\n"))
            .collect()
    })?;
    Ok(Exit::Done)
}

fn pass_document(report: &PassReport) -> Value {
    let counts = report
        .counts
        .iter()
        .map(|(what, n)| ((*what).to_owned(), Value::from(*n)));
    json!({
        "run": report.run,
        "pass": report.pass,
        "graph": report.graph,
        "changed": report.changed,
        "nodes": { "before": report.nodes.0, "after": report.nodes.1 },
        "weights": { "before": report.weights.0, "after": report.weights.1 },
        "counts": counts.collect::<serde_json::Map<_, _>>(),
        "parameters": { "before": report.cost.0.parameters, "after": report.cost.1.parameters },
        "macs": { "before": report.cost.0.macs, "after": report.cost.1.macs },
        "weight_bytes": { "before": report.cost.0.weight_bytes, "after": report.cost.1.weight_bytes },
        "peak_activation_bytes": {
            "before": report.cost.0.peak_activation_bytes,
            "after": report.cost.1.peak_activation_bytes,
        },
        "notes": report.notes,
        "seconds": report.time.as_secs_f64(),
    })
}
