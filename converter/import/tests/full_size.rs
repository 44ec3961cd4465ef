//! The networks at the size of the releases, without their weights: parameters and multiply-adds agree with the
//! published counts.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use snapc_import::ShapeOnly;
use snapc_import::config::{TextEncoderConfig, UnetConfig, VaeConfig};
use snapc_import::networks::{text_encoder, unet, vae_decoder};
use snapc_ir::{Graph, cost};

const SD1: &str = include_str!("../data/sd1.json");
const SD2: &str = include_str!("../data/sd2.json");

fn section(release: &str, name: &str) -> String {
    let sections: serde_json::Value = serde_json::from_str(release).unwrap();
    sections[name].to_string()
}

/// Millions of parameters, 10^9 multiply-adds with and without the attention products.
fn counts(graph: &Graph) -> (f64, f64, f64) {
    let cost = cost::graph_cost(graph);
    let giga = |n: u64| n as f64 / 1e9;
    (
        cost.parameters as f64 / 1e6,
        giga(cost.macs),
        giga(cost.macs - cost.attention_macs),
    )
}

fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance,
        "{found} is not {expected}"
    );
}

fn unet_graph(config: &str) -> Graph {
    let config = UnetConfig::from_json("unet", config).unwrap();
    let network = unet(&config, (64, 64), 77, &ShapeOnly).unwrap();
    assert!(network.issues.is_empty());
    network.graph
}

#[test]
fn sd1_unet() {
    let (parameters, macs, without_attention) = counts(&unet_graph(&section(SD1, "unet")));
    assert_close(parameters, 859.520964, 1e-9);
    assert_close(macs, 401.6, 0.1);
    assert_close(without_attention, 338.6, 0.1);
}

#[test]
fn sd1_vae_decoder() {
    let config = VaeConfig::from_json("vae", &section(SD1, "vae")).unwrap();
    let (parameters, macs, _) = counts(&vae_decoder(&config, (64, 64), &ShapeOnly).unwrap().graph);
    assert_close(parameters, 49.49, 0.005);
    assert_close(macs, 1257.0, 1.0);
}

#[test]
fn sd1_text_encoder() {
    let config =
        TextEncoderConfig::from_json("text_encoder", &section(SD1, "text_encoder")).unwrap();
    let (parameters, ..) = counts(&text_encoder(&config, &ShapeOnly).unwrap().graph);
    assert_close(parameters, 123.06, 0.005);
}

#[test]
fn sd2_networks() {
    // 865.91 M and 340.39 M parameters, as on the model cards of the 2.x releases.
    assert_close(counts(&unet_graph(&section(SD2, "unet"))).0, 865.91, 0.005);
    let config =
        TextEncoderConfig::from_json("text_encoder", &section(SD2, "text_encoder")).unwrap();
    assert_close(
        counts(&text_encoder(&config, &ShapeOnly).unwrap().graph).0,
        340.39,
        0.005,
    );
}

/// The efficient UNet of SnapFusion's appendix, table 3, in the one reading that fits the skips.
#[test]
fn snapfusion_unet() {
    let mut config: serde_json::Value = serde_json::from_str(&section(SD1, "unet")).unwrap();
    config["blocks"] = serde_json::json!({
        "down_blocks": [
            ["resnets.0", "skip", "resnets.1", "skip"],
            ["resnets.0", "attentions.0", "skip", "resnets.1", "attentions.1", "skip"],
            ["resnets.0", "attentions.0", "skip", "attentions.1"],
            ["resnets.0", "skip"],
        ],
        "mid_block": ["resnets.0", "attentions.0"],
        "up_blocks": [
            ["resnets.1", "resnets.2"],
            [
                "attentions.0", "attentions.3", "resnets.1", "attentions.1", "attentions.4",
                "resnets.2", "attentions.2", "attentions.5",
            ],
            ["resnets.0", "attentions.0", "resnets.1", "attentions.1", "resnets.2", "attentions.2"],
            ["resnets.0", "resnets.1", "resnets.2"],
        ],
    });
    let (parameters, macs, _) = counts(&unet_graph(&config.to_string()));
    assert_close(parameters, 759.33, 0.005);
    assert_close(macs, 304.5, 0.05);
}
