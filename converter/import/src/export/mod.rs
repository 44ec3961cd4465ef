//! Writing a program back as a diffusers folder, so that a changed network can be trained and imported again.

mod error;
mod safetensors_file;
mod unet_config;
mod vae_config;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use snapc_ir::{Graph, Program, WeightError, text};

pub use self::error::ExportError;
use self::safetensors_file::write_safetensors;
use self::unet_config::with_blocks_of;
use self::vae_config::with_widths_of;
use crate::config::{TextEncoderConfig, UnetConfig, VaeConfig, parse_object};
use crate::layout::{Component, to_json};
use crate::lookup::{StoredWeight, WeightContent, WeightLookup};
use crate::networks::{Network, text_encoder, unet, vae_decoder};

/// Writes a diffusers folder of a program that was imported from `checkpoint`.
///
/// The graphs named in `changed` are written from the program: `config.json` and one safetensors file under diffusers' keys,
/// every weight in the narrowest element type that holds it exactly. The configuration is the one among the program's files,
/// brought up to date as by [`describe`]. The other components that `model_index.json` names are
/// copied as whole files; those of a single-file checkpoint are written from the program too.
///
/// A VAE that is written from the program has a decoder and no encoder: the program holds none, and an encoder cannot have
/// other widths than the decoder in diffusers' configuration. diffusers makes its weights up, and says so; decoding does not
/// use them.
///
/// The folder is written beside `output` and renamed. The same program gives the same bytes.
///
/// # Errors
/// When `output` exists, a graph is not what its configuration describes (as after passes that change its operators or
/// element types), a weight has no data, or a file cannot be read or written.
pub fn export(
    program: &Program,
    checkpoint: &Path,
    changed: &[&str],
    output: &Path,
) -> Result<(), ExportError> {
    for name in changed {
        if program.graph(name).is_none() {
            return Err(ExportError::UnknownGraph((*name).to_owned()));
        }
    }
    let folder = NewFolder::beside(output)?;
    let whole = checkpoint.is_dir();
    let mut files = program.pipeline.files.clone();
    let written = |graph: &&Graph| !whole || changed.contains(&graph.name());
    let written: Vec<(&Graph, Component)> = program
        .graphs
        .iter()
        .filter(written)
        .map(|graph| Ok((graph, component_of(graph)?)))
        .collect::<Result<_, ExportError>>()?;
    for (graph, component) in &written {
        let name = format!("{}/config.json", component.folder());
        let bytes = files
            .get(&name)
            .ok_or_else(|| ExportError::MissingConfig(name.clone()))?;
        let mut config = parse_object(&name, bytes)?;
        if changed.contains(&graph.name()) && update(graph, *component, &mut config) {
            files.insert(name.clone(), to_json(&config));
        }
        check_described(program, graph, *component, (&name, &config))?;
    }
    if whole {
        let written: BTreeSet<&str> = written.iter().map(|(_, c)| c.folder()).collect();
        copy_components(&files, checkpoint, &written, &folder)?;
    }
    for (name, bytes) in &files {
        let path = folder.file(name)?;
        fs::write(&path, bytes).map_err(|source| ExportError::Io { path, source })?;
    }
    for (graph, component) in written {
        let name = format!("{}/{}.safetensors", component.folder(), component.stem());
        write_safetensors(&folder.file(&name)?, graph)?;
    }
    folder.rename_to(output)
}

/// Brings the configurations among a program's files up to date with graphs that have changed: a decoder's widths and
/// GroupNorm groups, the order of a UNet's blocks.
///
/// # Errors
/// When a graph or its configuration is not there, or the configuration is not a JSON object.
pub fn describe(program: &mut Program, changed: &[&str]) -> Result<(), ExportError> {
    for name in changed {
        let graph = program
            .graph(name)
            .ok_or_else(|| ExportError::UnknownGraph((*name).to_owned()))?;
        let component = component_of(graph)?;
        let name = format!("{}/config.json", component.folder());
        let bytes = program.pipeline.files.get(&name);
        let bytes = bytes.ok_or_else(|| ExportError::MissingConfig(name.clone()))?;
        let mut config = parse_object(&name, bytes)?;
        if update(graph, component, &mut config) {
            program.pipeline.files.insert(name, to_json(&config));
        }
    }
    Ok(())
}

/// Puts what can change of a network into its configuration; `false` when nothing of it can.
fn update(graph: &Graph, component: Component, config: &mut Map<String, Value>) -> bool {
    match component {
        Component::Vae => with_widths_of(graph, config),
        Component::Unet => with_blocks_of(graph, config),
        Component::TextEncoder => return false,
    }
    true
}

fn component_of(graph: &Graph) -> Result<Component, ExportError> {
    match graph.name() {
        "text_encoder" => Ok(Component::TextEncoder),
        "unet" => Ok(Component::Unet),
        "vae_decoder" => Ok(Component::Vae),
        other => Err(ExportError::UnknownGraph(other.to_owned())),
    }
}

/// Copies the files of the components that `model_index.json` names and that are not written otherwise.
fn copy_components(
    files: &std::collections::BTreeMap<String, Vec<u8>>,
    checkpoint: &Path,
    written: &BTreeSet<&str>,
    folder: &NewFolder,
) -> Result<(), ExportError> {
    let index = "model_index.json";
    let bytes = files
        .get(index)
        .ok_or_else(|| ExportError::MissingConfig(index.to_owned()))?;
    for (component, class) in parse_object(index, bytes)? {
        let is_name = component
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_');
        let source = checkpoint.join(&component);
        let stands = class.get(1).is_some_and(Value::is_string) && source.is_dir();
        if !is_name || !stands || written.contains(component.as_str()) {
            continue;
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ExportError::Io { path, source }
        };
        for entry in fs::read_dir(&source).map_err(failed(&source))? {
            let from = entry.map_err(failed(&source))?.path();
            if let (true, Some(name)) = (from.is_file(), from.file_name().and_then(|n| n.to_str()))
            {
                let to = folder.file(&format!("{component}/{name}"))?;
                fs::copy(&from, to).map_err(failed(&from))?;
            }
        }
    }
    Ok(())
}

/// Checks that importing the configuration gives the graph, and that its weights have data.
fn check_described(
    program: &Program,
    graph: &Graph,
    component: Component,
    (name, config): (&str, &Map<String, Value>),
) -> Result<(), ExportError> {
    if let Some(weight) = graph.weights().iter().find(|w| !w.tensor.is_present()) {
        return Err(ExportError::Weight {
            graph: graph.name().to_owned(),
            weight: weight.name.clone(),
            source: WeightError::Absent,
        });
    }
    let weights = GraphWeights(graph);
    let latent = &program.pipeline.latent;
    let latent = (latent.height, latent.width);
    let built = match component {
        Component::TextEncoder => text_encoder(&TextEncoderConfig::read(name, config)?, &weights),
        Component::Unet => {
            let config = UnetConfig::read(name, config)?;
            unet(&config, latent, program.pipeline.tokens, &weights)
        }
        Component::Vae => vae_decoder(&VaeConfig::read(name, config)?, latent, &weights),
    };
    let not_described = |found: String| ExportError::NotDescribed {
        graph: graph.name().to_owned(),
        config: name.to_owned(),
        found,
    };
    let Network {
        graph: expected,
        issues,
    } = built.map_err(|e| not_described(e.to_string()))?;
    if let Some(issue) = issues.first() {
        return Err(not_described(format!(
            "weight '{}': {}",
            issue.weight, issue.problem
        )));
    }
    let (expected, found) = (text::print(&expected), text::print(graph));
    let mut lines = expected.lines().zip(found.lines());
    match lines.find(|(a, b)| a != b) {
        Some((a, b)) => Err(not_described(format!(
            "'{}' in place of '{}'",
            b.trim(),
            a.trim()
        ))),
        None if expected != found => Err(not_described("nodes are missing or too many".to_owned())),
        None => Ok(()),
    }
}

/// A graph's weights.
struct GraphWeights<'a>(&'a Graph);

impl WeightLookup for GraphWeights<'_> {
    fn find(&self, key: &str, _shape: &[usize]) -> StoredWeight {
        let weight = self
            .0
            .weights()
            .iter()
            .find(|w| w.is_parameter && w.name == key);
        let content = match weight {
            Some(w) => WeightContent::Present(w.tensor.clone()),
            None => WeightContent::Missing,
        };
        StoredWeight {
            file: self.0.name().to_owned(),
            key: key.to_owned(),
            content,
        }
    }

    fn unused(&self, used: &BTreeSet<String>) -> Vec<(String, String)> {
        let weights = self.0.weights().iter();
        let unused = weights.filter(|w| w.is_parameter && !used.contains(&w.name));
        unused
            .map(|w| (self.0.name().to_owned(), w.name.clone()))
            .collect()
    }
}

/// A folder beside the output that takes its place at the end; dropped before that, it goes.
struct NewFolder {
    path: PathBuf,
    renamed: bool,
}

impl NewFolder {
    fn beside(output: &Path) -> Result<Self, ExportError> {
        if fs::symlink_metadata(output).is_ok() {
            return Err(ExportError::Exists(output.to_owned()));
        }
        let Some(name) = output.file_name() else {
            return Err(ExportError::Exists(output.to_owned()));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".partial");
        let path = output.with_file_name(hidden);
        match fs::create_dir(&path) {
            Ok(()) => Ok(NewFolder {
                path,
                renamed: false,
            }),
            Err(source) => Err(ExportError::Io { path, source }),
        }
    }

    /// The path of a file in the folder, whose own folder is there.
    fn file(&self, name: &str) -> Result<PathBuf, ExportError> {
        let path = name
            .split('/')
            .fold(self.path.clone(), |path, part| path.join(part));
        let parent = path.parent().unwrap_or(&self.path).to_owned();
        match fs::create_dir_all(&parent) {
            Ok(()) => Ok(path),
            Err(source) => Err(ExportError::Io {
                path: parent,
                source,
            }),
        }
    }

    fn rename_to(mut self, output: &Path) -> Result<(), ExportError> {
        fs::rename(&self.path, output).map_err(|source| ExportError::Io {
            path: output.to_owned(),
            source,
        })?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.renamed {
            // The failure that led here is the one to report.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
