//! Pruning of a decoder in full size with its correction, run by hand: it takes minutes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "figures for whoever runs it")]

mod decoders;

use std::path::PathBuf;
use std::time::Instant;

use decoders::{decode, import, latent, psnr};
use safetensors::tensor::{Dtype, TensorView};
use snapc_import::export;
use snapc_ir::Tensor;
use snapc_ir::cost::graph_cost;
use snapc_passes::{Calibration, Pass, PassContext, PruneChannels};

/// `SNAPC_CHECKPOINT` names a checkpoint of SD 1.x, `SNAPC_SAMPLES` says on how many latents the layers are corrected, and
/// `SNAPC_EXPORT` where the folder goes that is made of the result; a latent and its image go beside it, in
/// `.decoded.safetensors`, for `tests/python/full/exported_decoder.py`.
#[test]
#[ignore = "needs a checkpoint in full size and minutes"]
fn a_full_size_decoder_is_halved_and_corrected() {
    let path = PathBuf::from(std::env::var_os("SNAPC_CHECKPOINT").unwrap());
    let count = std::env::var("SNAPC_SAMPLES").map_or(2, |n| n.parse().unwrap());
    let mut program = import(&path);
    let graph = program.graph("vae_decoder").unwrap().clone();
    let mut calibration = Calibration::default();
    for seed in 1..=count {
        calibration.add("vae_decoder", latent(&graph, seed));
    }
    let context = PassContext {
        calibration: Some(&calibration),
        ..PassContext::default()
    };
    let start = Instant::now();
    let change = PruneChannels::default().run(&graph, &context);
    let change = change.unwrap().unwrap();
    println!(
        "{:.0} s, {:?}",
        start.elapsed().as_secs_f64(),
        change.counts
    );
    change.notes.iter().for_each(|note| println!("{note}"));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|l| l.starts_with("VmHWM"));
    println!("{}", peak.unwrap_or("no peak known"));
    let cost = graph_cost(&change.graph);
    println!(
        "{} parameters, {} multiply-adds",
        cost.parameters, cost.macs
    );
    let x = latent(&graph, 1001);
    let expected = decode(&graph, &x);
    let plain = PruneChannels {
        correction: Some(false),
        ..PruneChannels::default()
    };
    let plain = plain.run(&graph, &context).unwrap().unwrap().graph;
    let without = psnr(&expected, &decode(&plain, &x));
    let with = psnr(&expected, &decode(&change.graph, &x));
    println!("on another latent: {without:.2} dB without correction, {with:.2} dB with it");
    assert!(count == 0 || with > without);
    if let Some(folder) = std::env::var_os("SNAPC_EXPORT") {
        let folder = PathBuf::from(folder);
        let decoded = decode(&change.graph, &x);
        let at = program
            .graphs
            .iter()
            .position(|g| g.name() == "vae_decoder");
        program.graphs[at.unwrap()] = change.graph;
        export(&program, &path, &["vae_decoder"], &folder).unwrap();
        let bytes = |t: &Tensor| t.floats().iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensors = [("latent_sample", &x["latent_sample"]), ("sample", &decoded)];
        let data: Vec<Vec<u8>> = tensors.iter().map(|(_, t)| bytes(t)).collect();
        let views = tensors.iter().zip(&data).map(|((name, t), bytes)| {
            let view = TensorView::new(Dtype::F32, t.shape.clone(), bytes).unwrap();
            (*name, view)
        });
        let file = folder.with_extension("decoded.safetensors");
        safetensors::serialize_to_file(views, None, &file).unwrap();
    }
}
