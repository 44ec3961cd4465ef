//! What every pass does to a checkpoint for every target: converts, validates, and keeps the figures in
//! `docs/pass-effects.json`, from which `codegen` makes `docs/pass-effects.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::process::{run, say};

/// Where the figures are kept.
pub const FIGURES: &str = "docs/pass-effects.json";
/// The page that shows them.
pub const PAGE: &str = "docs/pass-effects.md";

const TARGETS: [&str; 3] = ["coreml", "onnx", "native"];

/// A way to convert.
struct Case {
    /// What stands in the first column.
    name: &'static str,
    /// Flags of `snapc convert`; `CALIBRATION` stands for the checkpoint's reference file.
    flags: &'static [&'static str],
    /// Flags that a target needs besides, by its name.
    needs: &'static [(&'static str, &'static [&'static str])],
    /// File with the run of the changed network by diffusers, beside the checkpoint's own, when the UNet is another one.
    own_reference: Option<&'static str>,
}

const fn case(name: &'static str, flags: &'static [&'static str]) -> Case {
    Case {
        name,
        flags,
        needs: &[],
        own_reference: None,
    }
}

const IOS_18: &[(&str, &[&str])] = &[("coreml", &["--min-ios", "18"])];

/// Passes that have no row by their own name, and the row of the flag that asks for them.
const BY_FLAG: &[(&str, &str)] = &[
    ("cast-precision", "f16, `-O0`"),
    ("hoist-text-projections", "`--interface snap`"),
    ("prune-channels", "`--prune-vae 0.5`"),
    ("quantize-activations", "`--weights w8a8`"),
    ("quantize-weights", "`--weights int8`"),
    ("remove-identity-blocks", "`--plan snapfusion`"),
    ("specialize-schedule", "`--interface snap`"),
];

/// The cases in the order of the table.
const CASES: &[Case] = &[
    case("f32, no passes", &["--precision", "f32", "-O", "0"]),
    case("f32, `-O1`", &["--precision", "f32", "-O", "1"]),
    case("f32, `-O2`", &["--precision", "f32", "-O", "2"]),
    case("f16, `-O0`", &["-O", "0"]),
    case("f16, `-O1`", &["-O", "1"]),
    case("f16, `-O2`", &["-O", "2"]),
    case(
        "`eliminate-common-subexpressions`",
        &[
            "--passes",
            "eliminate-common-subexpressions,O0,cast-precision{to=f16}",
        ],
    ),
    case(
        "`eliminate-dead-code`",
        &["--passes", "eliminate-dead-code,O0,cast-precision{to=f16}"],
    ),
    case(
        "`fold-constants`",
        &["--passes", "fold-constants,O0,cast-precision{to=f16}"],
    ),
    case(
        "`fuse-activations`",
        &["--passes", "fuse-activations,O0,cast-precision{to=f16}"],
    ),
    case(
        "`fuse-gathers`",
        &["--passes", "fuse-gathers,O0,cast-precision{to=f16}"],
    ),
    case(
        "`fuse-linears`",
        &["--passes", "fuse-linears,O0,cast-precision{to=f16}"],
    ),
    case(
        "`fuse-norms`",
        &["--passes", "fuse-norms,O0,cast-precision{to=f16}"],
    ),
    case(
        "`remove-no-ops`",
        &["--passes", "remove-no-ops,O0,cast-precision{to=f16}"],
    ),
    case(
        "`fold-norm-affine`",
        &["--passes", "fold-norm-affine,O1,cast-precision{to=f16}"],
    ),
    case(
        "`fold-scaling`",
        &["--passes", "fold-scaling,O1,cast-precision{to=f16}"],
    ),
    case(
        "`fuse-attention`",
        &["--passes", "fuse-attention,O1,cast-precision{to=f16}"],
    ),
    case(
        "`merge-projections`",
        &["--passes", "merge-projections,O1,cast-precision{to=f16}"],
    ),
    case(
        "`split-concat-convolution`",
        &[
            "--passes",
            "split-concat-convolution,O1,cast-precision{to=f16}",
        ],
    ),
    case(
        "`split-upsample-convolution`",
        &[
            "--passes",
            "split-upsample-convolution,O1,cast-precision{to=f16}",
        ],
    ),
    case("`--weights int8`", &["--weights", "int8"]),
    Case {
        needs: IOS_18,
        ..case("`--weights int4`", &["--weights", "int4"])
    },
    case("`--weights palette8`", &["--weights", "palette8"]),
    case("`--weights palette6`", &["--weights", "palette6"]),
    Case {
        needs: IOS_18,
        ..case("`--weights palette4`", &["--weights", "palette4"])
    },
    case("`--weights palette2`", &["--weights", "palette2"]),
    Case {
        needs: IOS_18,
        ..case(
            "`--weights mixed --weight-budget 40dB`",
            &[
                "--weights",
                "mixed",
                "--weight-budget",
                "40dB",
                "--calibration",
                "CALIBRATION",
            ],
        )
    },
    case(
        "`--weights w8a8`",
        &["--weights", "w8a8", "--calibration", "CALIBRATION"],
    ),
    case("`--interface snap`", &["--interface", "snap"]),
    case(
        "`--attention split-einsum`",
        &["--attention", "split-einsum"],
    ),
    case("`--chunk-unet`", &["--chunk-unet"]),
    Case {
        own_reference: Some("reference-snapfusion.safetensors"),
        ..case("`--plan snapfusion`", &["--plan", "snapfusion"])
    },
    case("`--prune-vae 0.5`", &["--prune-vae", "0.5"]),
    case(
        "`--prune-vae 0.5`, corrected",
        &["--prune-vae", "0.5", "--calibration", "CALIBRATION"],
    ),
];

/// Figures of one case and target on one checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Figures {
    /// Of the whole conversion, in seconds.
    seconds: f64,
    /// Of all graphs.
    parameters: u64,
    /// Of all graphs at batch 1.
    macs: u64,
    /// Of the artifact.
    bytes: u64,
    /// Final latents of the guided run against the reference, in dB; none where there is no reference.
    latents: Option<f64>,
    /// The picture, likewise.
    picture: Option<f64>,
    /// Why there is no artifact, in the words of `snapc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// Figures by checkpoint, case and target.
type Table = BTreeMap<String, BTreeMap<String, BTreeMap<String, Figures>>>;

/// A checkpoint that is measured.
struct Checkpoint {
    name: &'static str,
    path: PathBuf,
    reference: PathBuf,
}

/// Measures on the fixture, or with `full` on the full-size checkpoint; `only` restricts the cases to names that hold one of
/// the words. Figures of other cases stay as they are; with `times` also the PSNRs of these, whose conversions alone are run.
///
/// # Errors
/// When `snapc` cannot be built or the figures cannot be read or written.
pub fn measure(root: &Path, full: bool, times: bool, only: &[String]) -> Result<()> {
    run(Command::new("cargo")
        .args(["build", "--release", "-p", "snapc"])
        .current_dir(root))?;
    let target_dir =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let snapc = target_dir.join("release/snapc");
    let checkpoint = if full {
        let folder = root.join(".cache/full-size");
        Checkpoint {
            name: "full size",
            path: folder.join("checkpoint"),
            reference: folder.join("reference.safetensors"),
        }
    } else {
        let path = root.join("fixtures/tiny");
        Checkpoint {
            name: "fixtures/tiny",
            reference: path.join("reference.safetensors"),
            path,
        }
    };
    ensure!(
        checkpoint.path.is_dir(),
        "there is no checkpoint at {}; fixtures/README.md tells how it is made",
        checkpoint.path.display()
    );
    let file = root.join(FIGURES);
    let mut table = read(&file)?;
    let mut runs = Runs::new();
    for case in CASES {
        let wanted = only.is_empty() || only.iter().any(|word| case.name.contains(word.as_str()));
        for target in TARGETS.iter().filter(|_| wanted) {
            let of_case = table.entry(checkpoint.name.to_owned()).or_default();
            let of_targets = of_case.entry(case.name.to_owned()).or_default();
            let known = of_targets.get(*target).filter(|_| times);
            let known = known.map(|figures| [figures.latents, figures.picture]);
            let figures = one(&snapc, &checkpoint, case, target, root, known, &mut runs)?;
            say(&format!(
                "{} {} {target}: {figures:?}",
                checkpoint.name, case.name
            ));
            of_targets.insert((*target).to_owned(), figures);
            let text = serde_json::to_string_pretty(&table)?;
            std::fs::write(&file, text + "\n")?;
        }
    }
    std::fs::write(root.join(PAGE), page(root)?).context(PAGE)
}

fn read(file: &Path) -> Result<Table> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Table::new()),
        Err(error) => Err(error).with_context(|| format!("{}", file.display())),
    }
}

/// PSNRs by reference and hashes of an artifact's files: equal files need no second run.
type Runs = BTreeMap<(PathBuf, String), [Option<f64>; 2]>;

/// Converts and validates once, the latter unless its figures are known.
fn one(
    snapc: &Path,
    checkpoint: &Checkpoint,
    case: &Case,
    target: &str,
    root: &Path,
    known: Option<[Option<f64>; 2]>,
    runs: &mut Runs,
) -> Result<Figures> {
    let output = root.join(".cache").join("pass-effects");
    let reference = checkpoint.reference.to_string_lossy().into_owned();
    let own = case.needs.iter().find(|(name, _)| *name == target);
    let flags = case
        .flags
        .iter()
        .chain(own.iter().flat_map(|(_, flags)| flags.iter()));
    let flags = flags.map(|f| {
        if *f == "CALIBRATION" {
            reference.as_str()
        } else {
            f
        }
    });
    let start = Instant::now();
    let converted = Command::new(snapc)
        .args([
            "convert", "--json", "--force", "--quiet", "--target", target,
        ])
        .args(flags)
        .arg("-o")
        .arg(&output)
        .arg(&checkpoint.path)
        .output()
        .context("snapc cannot be started")?;
    let seconds = start.elapsed().as_secs_f64();
    if !converted.status.success() {
        let message = String::from_utf8_lossy(&converted.stderr);
        let reason = message.lines().next().unwrap_or("no message").to_owned();
        return Ok(Figures {
            seconds,
            parameters: 0,
            macs: 0,
            bytes: 0,
            latents: None,
            picture: None,
            refused: Some(reason),
        });
    }
    let report: Value = serde_json::from_slice(&converted.stdout)?;
    let sum = |key: &str| {
        let graphs = report["graphs"].as_array().into_iter().flatten();
        graphs.filter_map(|graph| graph[key].as_u64()).sum()
    };
    let own = case
        .own_reference
        .map(|name| checkpoint.reference.with_file_name(name));
    let reference = own.as_ref().unwrap_or(&checkpoint.reference);
    let manifest: Value = serde_json::from_slice(&std::fs::read(output.join("snap.json"))?)?;
    let files = (reference.clone(), manifest["files"].to_string());
    let [latents, picture] = match known.or_else(|| runs.get(&files).copied()) {
        Some(known) => known,
        None if reference.is_file() => accuracy(snapc, &output, reference)?,
        None => [None, None],
    };
    runs.insert(files, [latents, picture]);
    std::fs::remove_dir_all(&output)?;
    Ok(Figures {
        seconds,
        parameters: sum("parameters"),
        macs: sum("macs"),
        bytes: report["bytes"].as_u64().unwrap_or_default(),
        latents,
        picture,
        refused: None,
    })
}

/// PSNR of the final latents and of the picture; the bar is put where nothing fails.
fn accuracy(snapc: &Path, artifact: &Path, reference: &Path) -> Result<[Option<f64>; 2]> {
    let validated = Command::new(snapc)
        .args([
            "validate",
            "--json",
            "--quiet",
            "--run-only",
            "--min-psnr",
            "0",
            "--reference",
        ])
        .arg(reference)
        .arg(artifact)
        .output()
        .context("snapc cannot be started")?;
    ensure!(
        validated.status.success() || validated.status.code() == Some(1),
        "validate: {}",
        String::from_utf8_lossy(&validated.stderr)
    );
    let report: Value = serde_json::from_slice(&validated.stdout)?;
    let figure = |kind: &str| {
        let mut rows = report["rows"].as_array().into_iter().flatten();
        rows.find(|row| row["kind"] == kind)?["psnr_db"].as_f64()
    };
    Ok(["final_latents", "picture"].map(figure))
}

/// The page, from the figures.
///
/// # Errors
/// When they cannot be read.
pub fn page(root: &Path) -> Result<String> {
    let table = read(&root.join(FIGURES))?;
    let mut text = String::from(
        "<!-- Written by `cargo xtask effects` from docs/pass-effects.json; do not edit. -->\n\n# What the passes do\n\n\
         Every row is a conversion by `snapc convert` with these flags and f16 unless they say otherwise, followed by\n\
         `snapc validate` on snapc's own engine. Parameters, multiply-adds (batch 1) and bytes are those of all three graphs and of\n\
         the artifact; the PSNRs are those of the final latents and of the picture of the guided 8-step run against diffusers in f32\n\
         (with `--plan`, against diffusers' network without and with those blocks). `mixed`, `w8a8` and the corrected decoder are\n\
         calibrated on the latents of that same run. Passes by name come before `-O0` or `-O1` and f16; `fuse-activations`,\n\
         `fuse-gathers`, `fuse-linears` and `fuse-norms` find composites in files that were read back or are foreign, and nothing\n\
         in a checkpoint, which is imported with them.\n\
         `cargo xtask effects` measures the fixture, `cargo xtask effects --full` the full-size checkpoint; `--times` takes the times\n\
         again, on an idle machine.\n",
    );
    text.push_str("\n| Pass that a flag asks for | Row |\n|---|---|\n");
    for (pass, row) in BY_FLAG {
        let _ = writeln!(text, "| `{pass}` | {row} |");
    }
    for (checkpoint, cases) in &table {
        let _ = writeln!(text, "\n## {checkpoint}\n");
        text.push_str("| Conversion | Target | Time | Parameters | MACs | Bytes | Latents | Picture |\n|---|---|---|---|---|---|---|---|\n");
        for case in CASES {
            let Some(targets) = cases.get(case.name) else {
                continue;
            };
            for (target, figures) in targets {
                let _ = writeln!(text, "| {} | {target} | {} |", case.name, cells(figures));
            }
        }
    }
    Ok(text)
}

fn cells(figures: &Figures) -> String {
    if let Some(reason) = &figures.refused {
        return format!("refused: {reason} | | | | |");
    }
    let decibels =
        |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), |p| format!("{p:.1} dB"));
    format!(
        "{:.1} s | {:.2} M | {:.2} G | {:.1} MB | {} | {}",
        figures.seconds,
        figures.parameters as f64 / 1e6,
        figures.macs as f64 / 1e9,
        figures.bytes as f64 / 1e6,
        decibels(figures.latents),
        decibels(figures.picture),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_has_a_row() {
        for info in snapc_passes::all() {
            let named = format!("`{}`", info.name);
            let by_flag = BY_FLAG.iter().find(|(pass, _)| *pass == info.name);
            let row = by_flag.map_or(named.as_str(), |(_, case)| case);
            assert!(CASES.iter().any(|case| case.name == row), "{}", info.name);
        }
    }
}
