//! coremltools loads every variant of the packages: attention, weights, level, interface and chunks, each choice of one with
//! each choice of another.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod networks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use foreign_reader::{emit_program, show};
use networks::converted;
use serde_json::Value;
use snapc_coreml::Level;
use snapc_ir::Program;
use snapc_target::{
    AttentionForm, EmitOptions, Emitted, EmittedGraph, Feature, Interface, Precision, WeightForm,
};

/// A choice of each kind, as positions in [`ATTENTION`], [`WEIGHTS`], [`Level::ALL`], [`INTERFACES`] and [whole, chunked].
type Variant = [usize; 5];

use AttentionForm::{Auto, Decomposed, Sdpa, SplitEinsum, SplitEinsumV2};

const ATTENTION: [AttentionForm; 5] = [Auto, Sdpa, SplitEinsum, SplitEinsumV2, Decomposed];

/// How weights are stored; the first is f16 as it is, the last f32.
const WEIGHTS: [Option<WeightForm>; 10] = [
    None,
    Some(WeightForm::Int8),
    Some(WeightForm::Int4),
    Some(WeightForm::Palette8),
    Some(WeightForm::Palette6),
    Some(WeightForm::Palette4),
    Some(WeightForm::Palette2),
    Some(WeightForm::Mixed),
    Some(WeightForm::W8a8),
    None,
];

const INTERFACES: [Interface; 3] = [Interface::Plain, Interface::Apple, Interface::Snap];

/// The first level that has the choices.
fn first_level(variant: Variant) -> Level {
    let attention = match ATTENTION[variant[0]] {
        Sdpa => Level::Ios18,
        _ => Level::Ios16,
    };
    let weights = match WEIGHTS[variant[1]] {
        Some(WeightForm::Int4 | WeightForm::Mixed) => Level::Ios18,
        Some(WeightForm::W8a8) => Level::Ios17,
        _ => Level::Ios16,
    };
    attention.max(weights)
}

/// Whether the passes make it: calibration inputs are those of the network as diffusers has it, so that forms that look at
/// activations do not go with a network that is specialised to a run.
fn is_made(variant: Variant) -> bool {
    let is_calibrated = WEIGHTS[variant[1]].is_some_and(networks::is_calibrated);
    !is_calibrated || INTERFACES[variant[3]] != Interface::Snap
}

/// Every variant that the passes make and its level can hold.
fn possible() -> Vec<Variant> {
    let sizes = [
        ATTENTION.len(),
        WEIGHTS.len(),
        Level::ALL.len(),
        INTERFACES.len(),
        2,
    ];
    let count: usize = sizes.iter().product();
    let variant = |number: usize| {
        let mut rest = number;
        sizes.map(|size| {
            let choice = rest % size;
            rest /= size;
            choice
        })
    };
    let all = (0..count).map(variant);
    all.filter(|v| is_made(*v) && first_level(*v) <= Level::ALL[v[2]])
        .collect()
}

/// The pairs of choices of a variant: two kinds, and a position in each.
fn pairs(variant: Variant) -> impl Iterator<Item = [usize; 4]> {
    let kinds = (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b)));
    kinds.map(move |(a, b)| [a, variant[a], b, variant[b]])
}

/// Variants in which every possible pair of choices stands: one after the other, the first that has the most new pairs.
fn covering() -> Vec<Variant> {
    let possible = possible();
    let mut open: BTreeSet<[usize; 4]> = possible.iter().flat_map(|v| pairs(*v)).collect();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let new = |v: &Variant| pairs(*v).filter(|p| open.contains(p)).count();
        let most = possible.iter().map(new).max().unwrap();
        let best = *possible.iter().find(|v| new(v) == most).unwrap();
        for pair in pairs(best) {
            open.remove(&pair);
        }
        chosen.push(best);
    }
    chosen
}

fn options(variant: Variant) -> EmitOptions {
    let [attention, weights, level, interface, chunked] = variant;
    EmitOptions {
        attention: ATTENTION[attention],
        weights: WEIGHTS[weights],
        precision: match weights + 1 == WEIGHTS.len() {
            true => Precision::F32,
            false => Precision::F16,
        },
        min_ios: Some(Level::ALL[level].ios()),
        interface: INTERFACES[interface],
        chunk_unet: chunked == 1,
        ..EmitOptions::default()
    }
}

#[test]
fn the_covering_set_has_every_pair() {
    let all: BTreeSet<[usize; 4]> = possible().into_iter().flat_map(pairs).collect();
    let covering = covering();
    let covered: BTreeSet<[usize; 4]> = covering.iter().flat_map(|v| pairs(*v)).collect();
    assert_eq!(covered, all);
    // No fewer than the two largest kinds have combinations: 50 of attention and weights.
    assert!((50..75).contains(&covering.len()), "{}", covering.len());
    for (kind, size) in [5, 10, 4, 3, 2].into_iter().enumerate() {
        let choices: BTreeSet<usize> = covering.iter().map(|v| v[kind]).collect();
        assert_eq!(choices.len(), size);
    }
}

#[test]
fn coremltools_loads_every_variant_at_every_level() {
    let dir = tempfile::tempdir().unwrap();
    let mut programs: BTreeMap<(usize, bool), Program> = BTreeMap::new();
    // Packages that are equal to the byte are loaded once.
    let mut packages: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut expected = Vec::new();
    for (i, variant) in covering().into_iter().enumerate() {
        let options = options(variant);
        let key = (variant[1], options.interface == Interface::Snap);
        let program = programs.entry(key).or_insert_with(|| converted(&options));
        let folder = dir.path().join(i.to_string());
        std::fs::create_dir(&folder).unwrap();
        let (_, emitted) = emit_program(program.clone(), &options, &folder);
        for graph in &emitted.graphs {
            let content = content(&emitted, graph);
            packages
                .entry(content.clone())
                .or_insert_with(|| folder.join(&graph.file));
            expected.push((options.clone(), graph.clone(), content));
        }
    }
    let paths: Vec<PathBuf> = packages.values().cloned().collect();
    let shown: BTreeMap<&String, Value> = packages.keys().zip(show(&paths)).collect();
    for (options, graph, content) in &expected {
        check(options, graph, &shown[content]);
    }
    println!(
        "{} packages, {} of them different",
        expected.len(),
        paths.len()
    );
}

/// The hashes of the files of a package, but for its manifest.
fn content(emitted: &Emitted, graph: &EmittedGraph) -> String {
    let files = emitted
        .files
        .iter()
        .filter(|f| f.path.starts_with(&graph.file));
    let files = files.filter(|f| !f.path.ends_with("Manifest.json"));
    files.map(|f| f.sha256.as_str()).collect()
}

/// Whether coremltools shows what the options ask for and the artifact's manifest says.
fn check(options: &EmitOptions, graph: &EmittedGraph, shown: &Value) {
    let what = format!("{} of {options:?}", graph.name);
    assert_eq!(shown["error"], Value::Null, "{what}");
    let level = Level::of(options).unwrap();
    assert_eq!(shown["specification"], level.specification(), "{what}");
    let main = &shown["functions"]["main"];
    assert_eq!(main["opset"], level.opset(), "{what}");
    assert!(main["operations"].as_u64().unwrap() > 10, "{what}");
    let features = |list: &Value| -> Vec<(String, String, Vec<String>)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let sizes = |v: &Value| v.as_array().unwrap().iter().map(Value::to_string).collect();
        let list = list.as_array().unwrap().iter();
        list.map(|f| (text(&f["name"]), text(&f["type"]), sizes(&f["shape"])))
            .collect()
    };
    let declared = |list: &[Feature]| -> Vec<(String, String, Vec<String>)> {
        let data_type = |dtype: &str| match dtype {
            "f16" => "FLOAT16",
            "f32" => "FLOAT32",
            "i32" => "INT32",
            other => panic!("{other} in {what}"),
        };
        let feature = |f: &Feature| {
            let data_type = data_type(&f.dtype).to_owned();
            (f.name.clone(), data_type, f.shape.clone())
        };
        list.iter().map(feature).collect()
    };
    assert_eq!(features(&main["inputs"]), declared(&graph.inputs), "{what}");
    assert_eq!(
        features(&main["outputs"]),
        declared(&graph.outputs),
        "{what}"
    );
}
