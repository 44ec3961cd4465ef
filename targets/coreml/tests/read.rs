//! Our packages read back into the IR compute what diffusers computes: every level, precision, interface and form of
//! attention.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod foreign_reader;
mod networks;
mod reading;

use std::collections::BTreeSet;

use foreign_reader::{emit_program, psnr};
use networks::{Case, GRAPHS, cases, optimized, reference};
use reading::evaluate;
use snapc_coreml::Level;
use snapc_ir::{Graph, Op};
use snapc_passes::{Pipeline, RunOptions, recognize};
use snapc_target::{AttentionForm, EmitOptions, Interface, Precision};

/// The passes that rewrite layers into others, all of them.
const REWRITES: &str = "fold-constants,remove-no-ops,eliminate-common-subexpressions,fold-scaling,fold-norm-affine,\
                        split-concat-convolution,split-upsample-convolution{min_gain=0},merge-projections,\
                        eliminate-dead-code";

/// Reads and evaluates a package; gives a line per output, and whether all are close enough.
fn check(case: &Case) -> (Vec<String>, bool) {
    let outputs = evaluate(&case.job.package, &case.job.inputs);
    assert!(!case.expected.is_empty());
    assert_eq!(outputs.len(), case.expected.len());
    let mut lines = Vec::new();
    let mut passes = true;
    for (name, expected) in &case.expected {
        let db = psnr(expected, &outputs[name]);
        passes &= db >= case.floor;
        lines.push(format!(
            "{} {name}: {db:.1} dB, at least {}",
            case.job.name, case.floor
        ));
    }
    (lines, passes)
}

/// Asserts that every output is close enough, and gives the figures.
fn figures(cases: &[Case]) -> String {
    let (lines, passed): (Vec<_>, Vec<_>) = cases.iter().map(check).unzip();
    let lines = lines.concat().join("\n");
    assert!(passed.iter().all(|p| *p), "{lines}");
    lines
}

#[test]
fn own_packages_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let reference = reference("tiny");
    let mut all = Vec::new();
    for precision in [Precision::F32, Precision::F16] {
        let program = optimized("tiny", precision);
        for level in Level::ALL {
            for interface in [Interface::Plain, Interface::Apple] {
                use AttentionForm::{Decomposed, Sdpa, SplitEinsum};
                for attention in [Decomposed, Sdpa, SplitEinsum] {
                    if attention == Sdpa && level < Level::Ios18 {
                        continue;
                    }
                    let options = EmitOptions {
                        min_ios: Some(level.ios()),
                        precision,
                        interface,
                        attention,
                        ..EmitOptions::default()
                    };
                    let what = format!("{} {precision} {interface} {attention}", level.ios());
                    let folder = dir.path().join(&what);
                    std::fs::create_dir(&folder).unwrap();
                    let (_, emitted) = emit_program(program.clone(), &options, &folder);
                    assert_eq!(emitted.graphs.len(), GRAPHS.len());
                    all.extend(cases(&what, &folder, &emitted, &options, &reference));
                }
            }
        }
    }
    println!("{}", figures(&all));
}

#[test]
fn own_packages_of_the_variants_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for checkpoint in ["variants/sd2", "variants/lean", "variants/blocks"] {
        let reference = reference(checkpoint);
        for precision in [Precision::F32, Precision::F16] {
            let program = optimized(checkpoint, precision);
            let what = format!("{checkpoint} {precision}");
            let folder = dir.path().join(what.replace('/', " "));
            std::fs::create_dir(&folder).unwrap();
            let options = EmitOptions {
                precision,
                ..EmitOptions::default()
            };
            let (_, emitted) = emit_program(program, &options, &folder);
            all.extend(cases(&what, &folder, &emitted, &options, &reference));
        }
    }
    println!("{}", figures(&all));
}

#[test]
fn rewritten_layers_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline: Pipeline = REWRITES.parse().unwrap();
    let program = optimized("tiny", Precision::F32);
    let (program, _) = pipeline.run(program, &RunOptions::default()).unwrap();
    let options = EmitOptions {
        precision: Precision::F32,
        ..EmitOptions::default()
    };
    let (_, emitted) = emit_program(program, &options, dir.path());
    let reference = reference("tiny");
    println!(
        "{}",
        figures(&cases(
            "rewritten",
            dir.path(),
            &emitted,
            &options,
            &reference
        ))
    );
}

/// The composites of the graph that was written, and the names of its nodes, are found again.
#[test]
fn composites_and_names_are_found_again() {
    let program = optimized("tiny", Precision::F16);
    let counts = |graph: &Graph| {
        let count = |f: fn(&Op) -> bool| graph.nodes().iter().filter(|n| f(&n.op)).count();
        [
            count(|op| matches!(op, Op::Attention(_))),
            count(|op| matches!(op, Op::GroupNorm(_))),
            count(|op| matches!(op, Op::LayerNorm(_))),
            count(|op| matches!(op, Op::Linear(_))),
            count(|op| matches!(op, Op::Conv2d(_))),
            count(|op| matches!(op, Op::Softmax(_))),
        ]
    };
    for attention in [AttentionForm::Decomposed, AttentionForm::Sdpa] {
        let dir = tempfile::tempdir().unwrap();
        let options = EmitOptions {
            min_ios: Some(18),
            attention,
            ..EmitOptions::default()
        };
        let (_, emitted) = emit_program(program.clone(), &options, dir.path());
        for (written, file) in program.graphs.iter().zip(&emitted.graphs) {
            let read = snapc_coreml::read(&dir.path().join(&file.file)).unwrap();
            let read = recognize(&read).unwrap();
            assert_eq!(read.name(), written.name());
            assert_eq!(
                counts(&read),
                counts(written),
                "{attention} {}",
                read.name()
            );
            let names = |graph: &Graph| -> BTreeSet<String> {
                let named = graph
                    .nodes()
                    .iter()
                    .filter(|n| matches!(n.op, Op::Conv2d(_) | Op::Linear(_)));
                named.map(|n| n.name.clone()).collect()
            };
            let lost: Vec<String> = names(written).difference(&names(&read)).cloned().collect();
            // The last node of a graph has the name of the output.
            assert!(lost.len() <= 1, "{lost:?}");
            let weights = |graph: &Graph| -> BTreeSet<String> {
                let parameters = graph.weights().iter().filter(|w| w.is_parameter);
                parameters.map(|w| w.name.clone()).collect()
            };
            let lost: Vec<String> = weights(written)
                .difference(&weights(&read))
                .cloned()
                .collect();
            assert!(lost.is_empty(), "{lost:?}");
        }
    }
}
