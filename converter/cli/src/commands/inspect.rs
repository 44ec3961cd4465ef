//! `snapc inspect`: what is in a checkpoint or an artifact.

mod artifact;
mod dot;
mod html;

use serde_json::{Value, json};
use snapc_ir::cost::{Cost, block_costs, graph_cost};
use snapc_ir::{Graph, Program, text};
use snapc_target::EmitOptions;
use snapc_target::manifest::{self, PassEffect};

use crate::args::{Format, InspectArgs, Stage};
use crate::effects;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::stages::{self, PassOptions};
use crate::suggest;
use crate::table::{Table, bytes, count};
use crate::targets;

/// Shows a checkpoint at a stage, or an artifact.
///
/// # Errors
/// When the path is neither, or no graph has the name asked for.
pub fn run(args: &InspectArgs, output: &Output) -> Result<Exit, Failure> {
    let output = &output.with_json(args.format == Format::Json);
    if args.path.join(manifest::FILE_NAME).is_file() {
        if matches!(args.format, Format::Text | Format::Dot) || args.stage != Stage::Imported {
            return Err(Failure::usage(
                "stages and graph dumps need a checkpoint, and this is an artifact",
            )
            .help("give the checkpoint that the artifact was made from"));
        }
        if args.html.is_some() {
            return Err(
                Failure::usage("--html needs a checkpoint, and this is an artifact")
                    .help("give the checkpoint that the artifact was made from"),
            );
        }
        return artifact::run(args, output);
    }
    if args.passes.is_some() && args.stage == Stage::Imported {
        return Err(Failure::usage("--passes has no effect on what is imported")
            .help("add --stage optimized"));
    }
    let (program, effects) = program_at(args, output)?;
    let graphs = select(&program, args.graph.as_deref())?;
    if let Some(path) = &args.html {
        let page = html::page(&checkpoint_name(args), &graphs, usize::from(args.depth));
        std::fs::write(path, page).map_err(|e| Failure::write(path, e))?;
    }
    match args.format {
        Format::Text => output.text(&graphs.iter().map(|g| text::print(g)).collect::<String>())?,
        Format::Dot => output.text(&graphs.iter().map(|g| dot::render(g)).collect::<String>())?,
        Format::Table | Format::Json => {
            let depth = usize::from(args.depth);
            let mut document = document(&graphs, args.stage, depth);
            document["effects"] = json!(effects);
            output.result(&document, || {
                let mut text = tables(&graphs, depth);
                if !effects.is_empty() {
                    text.push('\n');
                    text.push_str(&effects::table(&effects));
                }
                text
            })?;
        }
    }
    Ok(Exit::Done)
}

/// The program at the stage asked for, and what the passes on the way changed.
fn program_at(args: &InspectArgs, output: &Output) -> Result<(Program, Vec<PassEffect>), Failure> {
    let interrupt = Interrupt::install();
    let checkpoint = stages::open(&args.path, &args.checkpoint)?;
    for note in checkpoint.notes() {
        output.note(&format!("note: {note}"));
    }
    let program = checkpoint.import()?;
    interrupt.check()?;
    if args.stage == Stage::Imported {
        return Ok((program, Vec::new()));
    }
    let options = EmitOptions::default();
    let pipeline = match &args.passes {
        Some(list) => list.parse()?,
        None => stages::pipeline(options.precision)?,
    };
    let (program, reports) = stages::optimize(
        program,
        &pipeline,
        PassOptions::default(),
        &interrupt,
        &|_| (),
    )?;
    let effects = effects::of(&reports);
    if args.stage == Stage::Optimized {
        return Ok((program, effects));
    }
    let program = stages::legalized(program, targets::find(&args.target)?, &options)?;
    Ok((program, effects))
}

/// The last part of the checkpoint's path.
fn checkpoint_name(args: &InspectArgs) -> String {
    let name = args.path.file_name().unwrap_or(args.path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// All graphs, or the one of that name.
fn select<'a>(program: &'a Program, name: Option<&str>) -> Result<Vec<&'a Graph>, Failure> {
    let Some(name) = name else {
        return Ok(program.graphs.iter().collect());
    };
    program.graph(name).map(|graph| vec![graph]).ok_or_else(|| {
        let names: Vec<&str> = program.graphs.iter().map(Graph::name).collect();
        let failure = Failure::usage(format!("no graph is called '{name}'"));
        match suggest::nearest(name, names.iter().copied()) {
            Some(near) => failure.help(format!("did you mean '{near}'?")),
            None => failure.help(format!("the graphs are {}", names.join(", "))),
        }
    })
}

fn document(graphs: &[&Graph], stage: Stage, depth: usize) -> Value {
    let graph = |graph: &&Graph| {
        let blocks = block_costs(graph, depth);
        let mut document = cost_document(graph.name(), &graph_cost(graph));
        document["blocks"] = blocks
            .iter()
            .map(|(name, cost)| cost_document(name, cost))
            .collect();
        document
    };
    json!({
        "command": "inspect",
        "kind": "checkpoint",
        "stage": format!("{stage:?}").to_lowercase(),
        "graphs": graphs.iter().map(graph).collect::<Vec<_>>(),
    })
}

fn cost_document(name: &str, cost: &Cost) -> Value {
    json!({
        "name": name,
        "nodes": cost.nodes,
        "parameters": cost.parameters,
        "weight_bytes": cost.weight_bytes,
        "macs": cost.macs,
        "attention_macs": cost.attention_macs,
        "activation_bytes": cost.activation_bytes,
        "peak_activation_bytes": cost.peak_activation_bytes,
    })
}

/// A table of the graphs, then one of the blocks of each.
fn tables(graphs: &[&Graph], depth: usize) -> String {
    let mut table = cost_table("graph");
    for graph in graphs {
        table.row(cost_row(graph.name(), &graph_cost(graph)));
    }
    let mut text = table.render();
    for graph in graphs {
        let mut table = cost_table(graph.name());
        for (name, cost) in block_costs(graph, depth) {
            table.row(cost_row(&name, &cost));
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

/// Titles of the columns that show a cost.
const COST_COLUMNS: [&str; 7] = [
    "nodes",
    "parameters",
    "weights",
    "MACs",
    "in attention",
    "activations",
    "peak",
];

/// The figures of a cost by column, as numbers and as text with units.
fn cost_figures(cost: &Cost) -> [(u64, String); 7] {
    [
        (cost.nodes, cost.nodes.to_string()),
        (cost.parameters, count(cost.parameters)),
        (cost.weight_bytes, bytes(cost.weight_bytes)),
        (cost.macs, count(cost.macs)),
        (cost.attention_macs, count(cost.attention_macs)),
        (cost.activation_bytes, bytes(cost.activation_bytes)),
        (
            cost.peak_activation_bytes,
            bytes(cost.peak_activation_bytes),
        ),
    ]
}

fn cost_table(title: &str) -> Table {
    let mut header = vec![title];
    header.extend(COST_COLUMNS);
    Table::new(&header)
}

fn cost_row(name: &str, cost: &Cost) -> Vec<String> {
    let texts = cost_figures(cost).into_iter().map(|(_, text)| text);
    std::iter::once(name.to_owned()).chain(texts).collect()
}
