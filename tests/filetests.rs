//! File tests of the passes: each `tests/filetests/**/*.snapir` is a test of its own.
//!
//! ```text
//! ; What the case shows, in words.
//! ; run: fold-constants,remove-no-ops
//! graph "g" { … }
//! ; expect:
//! graph "g" { … }                        or, for a run that has to fail, `; expect-error:` and the message
//! ```
//!
//! Several graphs one after the other are those of a program, for passes that work across graphs.
//!
//! `SNAPC_BLESS=1` writes what comes out in place of what is expected; look at the difference before keeping it.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use snapc_ir::{Graph, text, verify};
use snapc_passes::{PassContext, Pipeline};
use snapc_tests::{names, workspace_root};

const RUN: &str = "; run: ";
const EXPECT: &str = "; expect:\n";
const EXPECT_ERROR: &str = "; expect-error:\n";

fn main() -> ExitCode {
    let folder = workspace_root().join("tests/filetests");
    let trials: Vec<Trial> = names(&folder)
        .into_iter()
        .filter(|name| name.ends_with(".snapir"))
        .map(|name| {
            let path = folder.join(&name);
            Trial::test(name, move || run_file(&path))
        })
        .collect();
    assert!(!trials.is_empty(), "no file tests in {}", folder.display());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A file taken apart.
struct Case<'a> {
    /// All up to the separator.
    head: &'a str,
    pipeline: &'a str,
    graph: &'a str,
    /// The separator with what follows.
    expected: &'a str,
}

impl<'a> Case<'a> {
    fn parse(source: &'a str) -> Result<Self, Failed> {
        let separator = source.find(EXPECT).or_else(|| source.find(EXPECT_ERROR));
        let (head, expected) = source.split_at(separator.unwrap_or(source.len()));
        let start = head.find("graph ").ok_or("the file has no graph")?;
        let (header, graph) = head.split_at(start);
        let mut runs = header.lines().filter_map(|line| line.strip_prefix(RUN));
        let pipeline = runs
            .next()
            .ok_or("the file has no line '; run: PIPELINE' before the graph")?;
        if runs.next().is_some() {
            return Err("the file has two lines '; run:'".into());
        }
        if header
            .lines()
            .next()
            .is_none_or(|line| line.starts_with(RUN))
        {
            return Err("the first line says in words what the case shows".into());
        }
        Ok(Case {
            head,
            pipeline,
            graph,
            expected,
        })
    }
}

fn run_file(path: &Path) -> Result<(), Failed> {
    let source = std::fs::read_to_string(path)?;
    let case = Case::parse(&source)?;
    let graphs = parse_graphs(case.graph)?;
    let found = match run_pipeline(graphs, case.pipeline) {
        Ok(graphs) => {
            let texts: String = graphs.iter().map(text::print).collect();
            format!("{EXPECT}{texts}")
        }
        Err(message) => {
            let lines: String = message.lines().map(|line| format!("; {line}\n")).collect();
            format!("{EXPECT_ERROR}{lines}")
        }
    };
    if found == case.expected {
        return Ok(());
    }
    if std::env::var_os("SNAPC_BLESS").is_some() {
        std::fs::write(path, format!("{}{found}", case.head))?;
        return Ok(());
    }
    let expected = case.expected;
    Err(format!("what comes out differs (SNAPC_BLESS=1 takes it over)\n--- expected\n{expected}--- found\n{found}").into())
}

/// The graphs of a text; each begins a line.
fn parse_graphs(text: &str) -> Result<Vec<Graph>, Failed> {
    let mut starts: Vec<usize> = text
        .match_indices("\ngraph ")
        .map(|(at, _)| at + 1)
        .collect();
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let parse = |(start, end): (&usize, usize)| {
        let graph = text::parse(&text[*start..end]);
        graph.map_err(|e| format!("the graph before: {e}").into())
    };
    starts.iter().zip(ends).map(parse).collect()
}

/// Runs passes on the graphs of a program; that a pass says "nothing to do" only when that is so is checked by running it
/// again.
fn run_pipeline(mut graphs: Vec<Graph>, pipeline: &str) -> Result<Vec<Graph>, String> {
    let pipeline: Pipeline = pipeline
        .parse()
        .map_err(|e: snapc_passes::PipelineError| e.to_string())?;
    for step in pipeline.steps() {
        let pass =
            snapc_passes::by_name(&step.pass, step.options.clone()).map_err(|e| e.to_string())?;
        let context = PassContext::default();
        let changes = pass.run_all(&graphs, &context).map_err(|e| e.to_string())?;
        for (graph, change) in graphs.iter_mut().zip(changes) {
            if let Some(change) = change {
                *graph = change.graph;
                verify::verify(graph).map_err(|violations| format!("{violations:?}"))?;
            }
        }
        let again = pass.run_all(&graphs, &context).map_err(|e| e.to_string())?;
        if again.iter().any(Option::is_some) {
            return Err(format!("'{}' changes its own result again", step.pass));
        }
    }
    Ok(graphs)
}
