//! `prune-channels` on decoders: against networks assembled by hand, against diffusers, and what the correction wins.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod decoders;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use decoders::{decode, decoder, fixture, import, latent, psnr, uniform};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use safetensors::SafeTensors;
use snapc_import::config::VaeConfig;
use snapc_import::networks::vae_decoder;
use snapc_import::{StoredWeight, WeightContent, WeightLookup, export};
use snapc_ir::cost::graph_cost;
use snapc_ir::{ByteBuffer, DType, Graph, LazyTensor, Tensor, text, verify};
use snapc_passes::{Calibration, Change, Pass, PassContext, PruneChannels};

fn pruned(graph: &Graph, ratio: f64) -> Change {
    let pass = PruneChannels {
        ratio,
        ..PruneChannels::default()
    };
    let change = pass.run(graph, &PassContext::default()).unwrap().unwrap();
    verify::verify(&change.graph).unwrap();
    let again = pass.run(&change.graph, &PassContext::default()).unwrap();
    assert!(again.is_none(), "the pass finds work in its own result");
    change
}

/// The decoder with every weight from a function of its name and shape.
fn network(config: &VaeConfig, latent: (usize, usize), weights: &dyn WeightLookup) -> Graph {
    let network = vae_decoder(config, latent, weights).unwrap();
    assert!(network.issues.is_empty());
    network.graph
}

fn narrowed(config: &VaeConfig, gone: usize, parts: usize) -> VaeConfig {
    let narrow = |n: usize| n / parts * (parts - gone);
    VaeConfig {
        block_out_channels: config
            .block_out_channels
            .iter()
            .map(|&c| narrow(c))
            .collect(),
        norm_num_groups: narrow(config.norm_num_groups),
        ..config.clone()
    }
}

struct Present<F>(F);

impl<F: Fn(&str, &[usize]) -> LazyTensor + Sync> WeightLookup for Present<F> {
    fn find(&self, key: &str, shape: &[usize]) -> StoredWeight {
        StoredWeight {
            file: String::new(),
            key: key.to_owned(),
            content: WeightContent::Present(self.0(key, shape)),
        }
    }

    fn unused(&self, _used: &BTreeSet<String>) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// Half of the SD 1.x decoder is the decoder of half the widths, of 12.39 M parameters and 318.9 GMAC (a recount of
/// SnapFusion's; without the 20 parameters of `post_quant_conv`).
#[test]
fn the_decoder_of_sd1_becomes_the_decoder_of_half_the_widths() {
    let release: serde_json::Value =
        serde_json::from_str(include_str!("../../converter/import/data/sd1.json")).unwrap();
    let config = VaeConfig::from_json("vae", &release["vae"].to_string()).unwrap();
    let zeros: ByteBuffer = Arc::new(vec![0u8; 512 * 512 * 9 * 4]);
    let zeros = Present(move |_: &str, shape: &[usize]| {
        let bytes = shape.iter().product::<usize>() * 4;
        LazyTensor::from_buffer(zeros.clone(), 0..bytes, DType::F32, shape)
    });
    let graph = network(&config, (64, 64), &zeros);
    let half = pruned(&graph, 0.5).graph;
    let expected = network(&narrowed(&config, 1, 2), (64, 64), &zeros);
    assert!(text::print(&half) == text::print(&expected));
    let cost = graph_cost(&half);
    assert_eq!(
        format!("{:.2}", (cost.parameters - 20) as f64 / 1e6),
        "12.39"
    );
    assert_eq!(format!("{:.1}", cost.macs as f64 / 1e9), "318.9");
}

/// `fixtures/make_pruned.py` prunes the decoder in numpy and decodes with diffusers.
#[test]
fn pruned_decoders_give_the_numbers_of_diffusers() {
    let bytes = fs::read(fixture("variants/lean.pruned.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| {
        let view = file.tensor(name).unwrap();
        let words = view.data().chunks_exact(4);
        let floats = words.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        Tensor::float(view.shape(), floats.collect())
    };
    let graph = decoder(&fixture("variants/lean"));
    let inputs = BTreeMap::from([("latent_sample".to_owned(), tensor("latent_sample"))]);
    for (name, ratio) in [("half", 0.5), ("quarter", 0.25)] {
        let found = decode(&pruned(&graph, ratio).graph, &inputs);
        let db = psnr(&tensor(name), &found);
        assert!(db >= 100.0, "{name}: {db:.1} dB");
    }
}

/// What is won on latents that the calibration has not seen: 3.5 to 3.9 dB and 1.9 to 2.0 dB. The weights of the fixtures
/// are random, so that hardly any channel can stand in for another.
#[test]
fn the_correction_wins_on_latents_that_it_has_not_seen() {
    for (name, samples, margin) in [("tiny", 2, 3.0), ("variants/lean", 4, 1.5)] {
        let graph = decoder(&fixture(name));
        let mut calibration = Calibration::default();
        for seed in 1..=samples {
            calibration.add("vae_decoder", latent(&graph, seed));
        }
        let context = PassContext {
            calibration: Some(&calibration),
            ..PassContext::default()
        };
        let pass = PruneChannels::default();
        let corrected = pass.run(&graph, &context).unwrap().unwrap();
        let again = pass.run(&corrected.graph, &context).unwrap();
        assert!(again.is_none(), "the pass finds work in its own result");
        let layers = corrected
            .counts
            .iter()
            .find(|c| c.0 == "layers corrected")
            .unwrap()
            .1;
        assert_eq!(
            corrected.notes.len(),
            layers + 1,
            "a line per layer and a total"
        );
        let plain = pruned(&graph, 0.5).graph;
        for seed in [101, 102] {
            let x = latent(&graph, seed);
            let expected = decode(&graph, &x);
            let without = psnr(&expected, &decode(&plain, &x));
            let with = psnr(&expected, &decode(&corrected.graph, &x));
            assert!(
                with >= without + margin,
                "{name}: {without:.2} dB, then {with:.2} dB"
            );
        }
    }
}

/// With few bytes for values one sample goes on, and it is the first.
#[test]
fn samples_are_dropped_when_the_memory_is_small() {
    let graph = decoder(&fixture("variants/lean"));
    let run = |samples: u64| {
        let mut calibration = Calibration::default();
        for seed in 1..=samples {
            calibration.add("vae_decoder", latent(&graph, seed));
        }
        let context = PassContext {
            calibration: Some(&calibration),
            ..PassContext::default()
        };
        let pass = PruneChannels {
            memory: 0,
            ..PruneChannels::default()
        };
        pass.run(&graph, &context).unwrap().unwrap().notes
    };
    let notes = run(3);
    assert!(
        notes
            .last()
            .unwrap()
            .contains("on 1 of the calibration samples")
    );
    assert_eq!(notes, run(1));
}

/// Importing what was exported gives the same network and the same numbers.
#[test]
fn exported_decoders_come_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (name, corrected) in [
        ("tiny", false),
        ("variants/lean", true),
        ("variants/ldm_sd1", false),
    ] {
        let (path, options) = match name {
            "variants/ldm_sd1" => {
                let options = snapc_import::ImportOptions {
                    config: Some(fixture("variants/ldm_sd1.config.json")),
                    ..Default::default()
                };
                (fixture("variants/ldm_sd1.safetensors"), options)
            }
            _ => (fixture(name), snapc_import::ImportOptions::default()),
        };
        let mut program = snapc_import::open(&path, &options)
            .unwrap()
            .import()
            .unwrap();
        let graph = program.graph("vae_decoder").unwrap();
        let mut calibration = Calibration::default();
        if corrected {
            calibration.add("vae_decoder", latent(graph, 1));
        }
        let context = PassContext {
            calibration: Some(&calibration),
            ..PassContext::default()
        };
        let change = PruneChannels::default()
            .run(graph, &context)
            .unwrap()
            .unwrap();
        let at = program
            .graphs
            .iter()
            .position(|g| g.name() == "vae_decoder")
            .unwrap();
        program.graphs[at] = change.graph;
        let out = folder.path().join(name.replace('/', "-"));
        export(&program, &path, &["vae_decoder"], &out).unwrap();
        let found = import(&out);
        assert_eq!(found.pipeline.latent, program.pipeline.latent);
        assert_eq!(found.pipeline.scheduler, program.pipeline.scheduler);
        for (old, new) in program.graphs.iter().zip(&found.graphs) {
            assert_eq!(text::print(old), text::print(new));
            for (old, new) in old.weights().iter().zip(new.weights()) {
                let (a, b) = (old.tensor.to_f32().unwrap(), new.tensor.to_f32().unwrap());
                assert_eq!(a, b, "{}", old.name);
            }
        }
        let (old, new) = (&program.graphs[at], &found.graphs[at]);
        let x = latent(old, 5);
        assert_eq!(decode(old, &x), decode(new, &x));
        let same = folder.path().join("again");
        export(&program, &path, &["vae_decoder"], &same).unwrap();
        let weights = "vae/diffusion_pytorch_model.safetensors";
        assert_eq!(
            fs::read(out.join(weights)).unwrap(),
            fs::read(same.join(weights)).unwrap()
        );
        fs::remove_dir_all(same).unwrap();
    }
}

/// The class of channels that each dimension of a decoder's weights belongs to, from the structure of diffusers' `Decoder`:
/// the residual stream, which begins anew at a layer without shortcut, and what lies inside ResNets and the attention.
fn classes(config: &VaeConfig) -> BTreeMap<String, Vec<Option<String>>> {
    let mut found = BTreeMap::new();
    let mut layer = |name: &str, out: Option<&str>, inner: Option<&str>| {
        let own = |s: Option<&str>| s.map(str::to_owned);
        found.insert(format!("{name}.weight"), vec![own(out), own(inner)]);
        found.insert(format!("{name}.bias"), vec![own(out)]);
    };
    let mut stream = "conv_in".to_owned();
    layer("decoder.conv_in", Some(&stream), None);
    let mut widths = config.block_out_channels.clone();
    widths.reverse();
    let mut width = widths[0];
    let mut blocks: Vec<(String, usize)> = vec![("mid_block.resnets.0".to_owned(), width)];
    if config.mid_block_add_attention {
        blocks.push(("mid_block.attentions.0".to_owned(), width));
    }
    blocks.push(("mid_block.resnets.1".to_owned(), width));
    for (stage, &width) in widths.iter().enumerate() {
        for n in 0..=config.layers_per_block {
            blocks.push((format!("up_blocks.{stage}.resnets.{n}"), width));
        }
        if stage + 1 < widths.len() {
            blocks.push((format!("up_blocks.{stage}.upsamplers.0"), width));
        }
    }
    for (block, out) in blocks {
        let name = format!("decoder.{block}");
        let part = |layer: &str| format!("{name}.{layer}");
        if block.contains("resnets") {
            let inner = format!("{block} inner");
            layer(&part("norm1"), Some(&stream), None);
            layer(&part("conv1"), Some(&inner), Some(&stream));
            layer(&part("norm2"), Some(&inner), None);
            if out != width {
                layer(&part("conv_shortcut"), Some(&block), Some(&stream));
                stream.clone_from(&block);
            }
            layer(&part("conv2"), Some(&stream), Some(&inner));
        } else if block.contains("attentions") {
            let (keys, values) = (format!("{block} keys"), format!("{block} values"));
            layer(&part("group_norm"), Some(&stream), None);
            layer(&part("to_q"), Some(&keys), Some(&stream));
            layer(&part("to_k"), Some(&keys), Some(&stream));
            layer(&part("to_v"), Some(&values), Some(&stream));
            layer(&part("to_out.0"), Some(&stream), Some(&values));
        } else {
            layer(&part("conv"), Some(&block), Some(&stream));
            stream = block;
        }
        width = out;
    }
    layer("decoder.conv_norm_out", Some(&stream), None);
    layer("decoder.conv_out", None, Some(&stream));
    found
}

/// Kept channels per class: the groups with the largest sum of shares of squared norms.
fn kept(
    graph: &Graph,
    classes: &BTreeMap<String, Vec<Option<String>>>,
    config: &VaeConfig,
    (gone, parts): (usize, usize),
) -> BTreeMap<String, Vec<usize>> {
    let mut shares: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for weight in graph.weights() {
        let shape = weight.tensor.shape();
        let Some(axes) = classes.get(&weight.name).filter(|_| shape.len() > 1) else {
            continue;
        };
        let squares = weight.tensor.to_f32().unwrap();
        let squares: Vec<f64> = squares
            .iter()
            .map(|&x| f64::from(x) * f64::from(x))
            .collect();
        let total: f64 = squares.iter().sum();
        let inner: usize = shape[2..].iter().product();
        for (i, square) in squares.iter().enumerate() {
            let at = [i / inner / shape[1], i / inner % shape[1]];
            for axis in 0..2 {
                if let Some(class) = &axes[axis] {
                    let all = shares.entry(class.clone()).or_default();
                    all.resize(shape[axis], 0.0);
                    all[at[axis]] += square / total;
                }
            }
        }
    }
    let choose = |(class, shares): (&String, &Vec<f64>)| {
        let inner = class.ends_with(" keys") || class.ends_with(" values");
        let unit = if inner {
            1
        } else {
            shares.len() / config.norm_num_groups
        };
        let mut units: Vec<(usize, f64)> = shares
            .chunks(unit)
            .map(|c| c.iter().sum())
            .enumerate()
            .collect();
        units.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        units.truncate(units.len() / parts * (parts - gone));
        let mut channels: Vec<usize> = units
            .iter()
            .flat_map(|(u, _)| u * unit..(u + 1) * unit)
            .collect();
        channels.sort_unstable();
        (class.clone(), channels)
    };
    shares.iter().map(choose).collect()
}

/// The rows of a matrix or filter, and of each the columns, that are kept.
fn sliced(data: &[f32], shape: &[usize], keep: &[Option<&Vec<usize>>]) -> (Vec<usize>, Vec<f32>) {
    let every = |axis: usize| (0..shape[axis]).collect::<Vec<usize>>();
    let rows = keep[0].cloned().unwrap_or_else(|| every(0));
    if shape.len() == 1 {
        return (vec![rows.len()], rows.iter().map(|&r| data[r]).collect());
    }
    let columns = keep[1].cloned().unwrap_or_else(|| every(1));
    let inner: usize = shape[2..].iter().product();
    let mut found = Vec::new();
    for row in &rows {
        for column in &columns {
            let start = (row * shape[1] + column) * inner;
            found.extend_from_slice(&data[start..start + inner]);
        }
    }
    ([&[rows.len(), columns.len()], &shape[2..]].concat(), found)
}

/// The text form of a graph without the elements of small weights.
fn without_data(graph: &Graph) -> Vec<String> {
    let text = text::print(graph);
    let line = |l: &str| l.split(" = [").next().unwrap_or_default().to_owned();
    text.lines().map(line).collect()
}

fn configs() -> impl Strategy<Value = (VaeConfig, usize, u64)> {
    let widths = proptest::collection::vec(1..4usize, 1..4);
    let flags = (any::<bool>(), any::<bool>());
    (widths, 1..3usize, 2..5usize, flags, 1..4usize, any::<u64>()).prop_map(
        |(widths, layers, groups, (attention, post), gone, seed)| {
            let config = VaeConfig {
                latent_channels: 4,
                out_channels: 3,
                block_out_channels: widths.iter().map(|w| w * groups).collect(),
                layers_per_block: layers,
                norm_num_groups: groups,
                mid_block_add_attention: attention,
                use_post_quant_conv: post,
                scaling_factor: 1.0,
            };
            (config, gone.min(groups - 1), seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..ProptestConfig::default()
    })]

    /// The pass gives the network that the importer builds in the narrow widths of weights sliced by hand.
    #[test]
    fn pruned_decoders_are_narrow_decoders_of_sliced_weights((config, gone, seed) in configs()) {
        let weights = Present(|key: &str, shape: &[usize]| {
            let hash = key.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
            let count = shape.iter().product();
            let values = uniform(hash).take(count).map(|u| (u - 0.5) as f32).collect::<Vec<_>>();
            LazyTensor::from_f32(shape, &values)
        });
        let graph = network(&config, (3, 2), &weights);
        let groups = config.norm_num_groups;
        let found = pruned(&graph, gone as f64 / groups as f64).graph;

        let classes = classes(&config);
        let kept = kept(&graph, &classes, &config, (gone, groups));
        let sliced = Present(|key: &str, _: &[usize]| {
            let weight = graph.weights().iter().find(|w| w.name == key).unwrap();
            let (data, shape) = (weight.tensor.to_f32().unwrap(), weight.tensor.shape());
            let none = vec![None; 2];
            let axes = classes.get(key).unwrap_or(&none);
            let keep: Vec<_> = axes.iter().map(|c| c.as_ref().map(|c| &kept[c])).collect();
            let (shape, mut values) = sliced(&data, shape, &keep);
            if key.contains("to_q") {
                // The narrow network divides the products by the root of its own width.
                let factor = ((groups - gone) as f64 / groups as f64).sqrt() as f32;
                values.iter_mut().for_each(|v| *v *= factor);
            }
            LazyTensor::from_f32(&shape, &values)
        });
        let expected = network(&narrowed(&config, gone, groups), (3, 2), &sliced);
        prop_assert!(without_data(&found) == without_data(&expected));
        let x = latent(&graph, seed);
        let (found, expected) = (decode(&found, &x), decode(&expected, &x));
        let db = psnr(&expected, &found);
        prop_assert!(db > 100.0, "{} dB", db);
    }
}
