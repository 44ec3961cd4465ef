//! The committed seeds: well-formed inputs made by the writers of the other crates, the same every time. Those called
//! `foreign-…` are of `foreign_seeds.py`.

mod artifacts;
mod checkpoints;
mod containers;
mod graphs;
mod programs;
mod prompts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::{Folder, check_graph, split};

/// Longest seed in bytes, and longest input of a run.
const MAX_LEN: usize = 4096;

/// How the names of seeds begin that are made elsewhere.
const FOREIGN: &str = "foreign-";

/// Inputs by name.
type Seeds = BTreeMap<String, Vec<u8>>;

fn all() -> io::Result<[(&'static str, Seeds); 7]> {
    Ok([
        ("mlprogram", artifacts::core_ml()?),
        ("onnx", artifacts::onnx()?),
        ("program", containers::sections()),
        ("runtime", programs::seeds()),
        ("safetensors", checkpoints::seeds()),
        ("snap", containers::files()?),
        ("tokenizer", prompts::seeds()),
    ])
}

/// `SNAPC_BLESS=1` writes them.
#[test]
fn seeds_are_those_that_are_committed() {
    for (target, seeds) in all().unwrap() {
        let folder = seeds_of(target);
        for (name, input) in &seeds {
            let length = input.len();
            assert!(length <= MAX_LEN, "{target}/{name} has {length} bytes");
        }
        if std::env::var_os("SNAPC_BLESS").is_some() {
            write(&folder, &seeds).unwrap();
        }
        let committed = own(&folder).unwrap();
        let names = |seeds: &Seeds| seeds.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&committed), names(&seeds), "{target}");
        for (name, input) in seeds {
            assert!(committed[&name] == input, "{target}/{name} has changed");
        }
    }
}

/// Also the foreign ones, so that they lead deep into the readers.
#[test]
fn models_and_packages_are_read() {
    let folder = Folder::new("seeds");
    let dims = BTreeMap::from([("batch".to_owned(), 2)]);
    let mut refused = Vec::new();
    for (name, input) in files(&seeds_of("onnx")).unwrap() {
        let (model, rest) = split(&input);
        let path = folder.write("model.onnx", model);
        folder.write("model.onnx_data", &rest[1..]);
        match snapc_onnx::read(&path, &dims) {
            Ok(graph) => check_graph(&graph),
            Err(error) => refused.push(format!("{name}: {error}")),
        }
    }
    for (name, input) in files(&seeds_of("mlprogram")).unwrap() {
        let (model, weights) = split(&input);
        let package = folder.package("Unet.mlpackage", model, weights);
        match snapc_coreml::read(&package) {
            Ok(graph) => check_graph(&graph),
            Err(error) => refused.push(format!("{name}: {error}")),
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    fs::remove_dir_all(folder.path()).unwrap();
}

fn seeds_of(target: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("seeds").join(target)
}

fn write(folder: &Path, seeds: &Seeds) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for name in own(folder)?.keys() {
        fs::remove_file(folder.join(name))?;
    }
    seeds
        .iter()
        .try_for_each(|(name, input)| fs::write(folder.join(name), input))
}

/// The seeds in a folder that are made here.
fn own(folder: &Path) -> io::Result<Seeds> {
    let mut seeds = files(folder)?;
    seeds.retain(|name, _| !name.starts_with(FOREIGN));
    Ok(seeds)
}

fn files(folder: &Path) -> io::Result<Seeds> {
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Ok((name, fs::read(entry.path())?))
    };
    fs::read_dir(folder)?.map(file).collect()
}
