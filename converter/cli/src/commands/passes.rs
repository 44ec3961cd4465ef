//! `snapc passes`: what there is and what it does.

use serde_json::json;
use snapc_passes::{NAMED_PIPELINES, PassInfo, Property};

use crate::args::ListCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::suggest;

/// Lists the passes and the named pipelines, or shows one pass.
///
/// # Errors
/// When no pass has the name.
pub fn run(command: &ListCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        ListCommand::List => list(output)?,
        ListCommand::Show { name } => show(find(name)?, output)?,
    }
    Ok(Exit::Done)
}

/// The pass of that name.
///
/// # Errors
/// A usage failure that names the passes there are.
pub fn find(name: &str) -> Result<&'static PassInfo, Failure> {
    snapc_passes::info(name).ok_or_else(|| {
        let known: Vec<&str> = snapc_passes::all().iter().map(|info| info.name).collect();
        let failure = Failure::usage(format!("no pass is called '{name}'"));
        match suggest::nearest(name, known.iter().copied()) {
            Some(near) => failure.help(format!("did you mean '{near}'?")),
            None => failure.help(format!("the passes are {}", known.join(", "))),
        }
    })
}

fn list(output: &Output) -> Result<(), Failure> {
    let passes: Vec<_> = snapc_passes::all()
        .iter()
        .map(|info| (info.name, info.documentation().summary))
        .collect();
    let document = json!({
        "command": "passes list",
        "passes": passes.iter().map(|(name, summary)| json!({ "name": name, "summary": summary })).collect::<Vec<_>>(),
        "pipelines": NAMED_PIPELINES
            .iter()
            .map(|p| json!({ "name": p.name, "description": p.description, "passes": p.passes }))
            .collect::<Vec<_>>(),
    });
    output.result(&document, || {
        let mut text = String::from("Passes\n");
        for (name, summary) in &passes {
            text.push_str(&format!("  {name:<32} {summary}\n"));
        }
        text.push_str("\nPipelines, to be given to --passes by name\n");
        for pipeline in NAMED_PIPELINES {
            text.push_str(&format!(
                "  {:<32} {}\n",
                pipeline.name, pipeline.description
            ));
            for pass in pipeline.passes.split(',').filter(|p| !p.is_empty()) {
                text.push_str(&format!("    {pass}\n"));
            }
        }
        text
    })
}

fn show(info: &PassInfo, output: &Output) -> Result<(), Failure> {
    let documentation = info.documentation();
    let names = |properties: &[Property]| properties.iter().map(|p| p.name()).collect::<Vec<_>>();
    let document = json!({
        "command": "passes show",
        "name": info.name,
        "summary": documentation.summary,
        "requires": names(info.requires),
        "establishes": names(info.establishes),
        "invalidates": names(info.invalidates),
        "sections": documentation
            .sections
            .iter()
            .map(|(heading, text)| json!({ "heading": heading, "text": text }))
            .collect::<Vec<_>>(),
    });
    output.result(&document, || {
        let mut text = format!("{}\n\n{}\n", info.name, documentation.summary);
        for (role, properties) in [
            ("Requires", info.requires),
            ("Establishes", info.establishes),
            ("Invalidates", info.invalidates),
        ] {
            if !properties.is_empty() {
                text.push_str(&format!("\n{role}: {}", names(properties).join(", ")));
            }
        }
        for (heading, body) in &documentation.sections {
            text.push_str(&format!("\n\n{heading}\n{body}"));
        }
        text.push('\n');
        text
    })
}
