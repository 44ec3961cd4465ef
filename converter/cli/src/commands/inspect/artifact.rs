//! What is in an artifact, from its manifest.

use serde_json::json;
use snapc_target::Feature;
use snapc_target::manifest::Manifest;

use crate::args::InspectArgs;
use crate::effects;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Table, bytes};

/// Shows an artifact.
///
/// # Errors
/// When the manifest cannot be read, or no graph has the name asked for.
pub fn run(args: &InspectArgs, output: &Output) -> Result<Exit, Failure> {
    let mut manifest = Manifest::read(&args.path)?;
    if let Some(name) = &args.graph {
        manifest.graphs.retain(|g| g.name == *name);
        if manifest.graphs.is_empty() {
            return Err(Failure::usage(format!(
                "no graph of the artifact is called '{name}'"
            )));
        }
    }
    let document = json!({
        "command": "inspect",
        "kind": "artifact",
        "manifest": manifest,
    });
    output.result(&document, || text(&manifest))?;
    Ok(Exit::Done)
}

fn text(manifest: &Manifest) -> String {
    let total: u64 = manifest.files.iter().map(|f| f.bytes).sum();
    let mut text = format!(
        "{} artifact of snapc {}: {}{}, interface {}, {}\n",
        manifest.target,
        manifest.snapc_version,
        manifest.precision,
        match &manifest.weights {
            Some(form) => format!(", weights {form}"),
            None => String::new(),
        },
        manifest.interface,
        bytes(total),
    );
    text.push_str(&format!(
        "{} steps, guidance {}, timesteps {:?}, {}\n",
        manifest.steps, manifest.guidance, manifest.timesteps, manifest.scheduler.prediction_type,
    ));
    text.push_str(&format!("passes: {}\n", manifest.passes));
    if !manifest.sizes.is_empty() {
        let sizes = manifest.sizes.iter();
        let sizes: Vec<String> = sizes.map(|s| format!("{}x{}", s.height, s.width)).collect();
        text.push_str(&format!(
            "pictures of {}; features of the first\n",
            sizes.join(", ")
        ));
    }
    for graph in &manifest.graphs {
        let below = |path: &str| {
            let rest = path.strip_prefix(graph.file.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '_', '.']))
        };
        let size: u64 = manifest
            .files
            .iter()
            .filter(|f| below(&f.path))
            .map(|f| f.bytes)
            .sum();
        let mut table = Table::new(&[
            &format!("{} ({}, {})", graph.name, graph.file, bytes(size)),
            "",
            "",
        ]);
        features(&mut table, "in ", &graph.inputs);
        features(&mut table, "out", &graph.outputs);
        text.push('\n');
        text.push_str(&table.render());
    }
    if !manifest.effects.is_empty() {
        text.push('\n');
        text.push_str(&effects::table(&manifest.effects));
    }
    text
}

fn features(table: &mut Table, role: &str, features: &[Feature]) {
    for feature in features {
        let shape = feature.shape.join("x");
        table.row([
            format!("  {role} {}", feature.name),
            feature.dtype.clone(),
            shape,
        ]);
    }
}
