use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};
use snapc_ir::ops::{Add, Conv2d, Gather, Linear, Silu};
use snapc_ir::{Codebook, DType, Shape, Tensor, TensorType, eval};

use super::*;
use crate::Calibration;

fn pass(options: &Value) -> QuantizeWeights {
    serde_json::from_value(options.clone()).unwrap()
}

fn run(graph: &Graph, options: &Value) -> Result<Option<Change>, PassError> {
    pass(options).run(graph, &PassContext::default())
}

fn changed(graph: &Graph, options: &Value) -> Change {
    run(graph, options).unwrap().unwrap()
}

/// Numbers near a normal distribution, the same on every machine.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n)
        .map(|_| (0..4).map(|_| uniform()).sum::<f32>() * 0.1)
        .collect()
}

fn weight(shape: &[usize], seed: u32) -> LazyTensor {
    LazyTensor::from_f32(shape, &numbers(shape.iter().product(), seed))
}

fn conv(g: &mut Graph, x: snapc_ir::ValueId, cout: usize, name: &str) -> snapc_ir::ValueId {
    let cin = g.ty(x).shape.dims()[1].fixed().unwrap();
    let seed = g.weights().len() as u32;
    let w = weight(&[cout, cin, 3, 3], seed);
    let w = g.parameter(format!("{name}.weight"), w);
    let b = g.parameter(format!("{name}.bias"), weight(&[cout], seed + 100));
    let op = Conv2d {
        strides: [1, 1],
        pads: [1; 4],
        groups: 1,
    };
    g.add(op, &[x, w, b], name).unwrap()
}

/// Four convolutions, of which the first and the last are kept, and an embedding table.
fn unet() -> Graph {
    let mut g = Graph::new("unet");
    let x = g.input(
        "sample",
        TensorType::new(DType::F32, Shape::batched(&[4, 6, 6])),
    );
    let ids = g.input("ids", TensorType::new(DType::I32, Shape::batched(&[3])));
    let mut y = conv(&mut g, x, 32, "conv_in");
    for name in ["mid.conv1", "mid.conv2"] {
        y = conv(&mut g, y, 32, name);
        y = g.add(Silu {}, &[y], name).unwrap();
    }
    y = conv(&mut g, y, 8, "conv_out");
    g.output("out_sample", y);
    let table = g.parameter("table", weight(&[90, 64], 7));
    let e = g
        .add(
            Gather {
                axis: 0,
                batch_dims: 0,
            },
            &[table, ids],
            "embed",
        )
        .unwrap();
    g.output("embedding", e);
    g
}

fn inputs(seed: u32) -> BTreeMap<String, Tensor> {
    BTreeMap::from([
        (
            "sample".to_owned(),
            Tensor::float(&[1, 4, 6, 6], numbers(144, seed)),
        ),
        ("ids".to_owned(), Tensor::int(&[1, 3], vec![0, 5, 89])),
    ])
}

fn encoded_names(graph: &Graph) -> Vec<(&str, u32)> {
    let weights = graph.weights().iter();
    weights
        .filter_map(|w| Some((w.name.as_str(), w.tensor.encoding()?.bits())))
        .collect()
}

#[test]
fn convolutions_but_the_first_and_the_last_are_encoded() {
    let g = unet();
    let change = changed(&g, &json!({}));
    let expected = [("mid.conv1.weight", 8), ("mid.conv2.weight", 8)];
    assert_eq!(encoded_names(&change.graph), expected);
    assert_eq!(change.counts, [("weights encoded", 2), ("weights kept", 2)]);
    let kept = "2 weights stay, which are in the list 'keep': conv_in.weight, conv_out.weight";
    assert_eq!(change.notes[0], kept);
    assert!(
        change.notes[1].starts_with("encoded weights have 4"),
        "{}",
        change.notes[1]
    );
    // Names, order and types of everything stay.
    let shape = |g: &Graph| -> Vec<(String, TensorType)> {
        g.weights()
            .iter()
            .map(|w| (w.name.clone(), g.ty(w.value).clone()))
            .collect()
    };
    assert_eq!(shape(&change.graph), shape(&g));
    assert!(run(&change.graph, &json!({})).unwrap().is_none());
    assert!(
        run(&change.graph, &json!({"form": "palette4"}))
            .unwrap()
            .is_none()
    );
}

#[test]
fn options_choose_other_layers() {
    let g = unet();
    let all = changed(&g, &json!({"all": true}));
    assert_eq!(encoded_names(&all.graph).len(), 4);
    let by_name = changed(&g, &json!({"keep": "conv1"}));
    let names: Vec<&str> = encoded_names(&by_name.graph)
        .iter()
        .map(|(n, _)| *n)
        .collect();
    // Of the first and last one there are less than 2048 and more.
    assert_eq!(names, ["mid.conv2.weight", "conv_out.weight"]);
    let small = "1 weights stay, which have less than 2048 elements: conv_in.weight";
    assert_eq!(by_name.notes[1], small);
    assert!(
        run(&g, &json!({"min_elements": 1_000_000}))
            .unwrap()
            .is_none()
    );
    assert!(
        run(&g, &json!({"graphs": "vae_decoder"}))
            .unwrap()
            .is_none()
    );
    assert!(
        run(&g, &json!({"graphs": "unet+vae_decoder"}))
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_weight_that_is_also_added_stays() {
    let mut g = Graph::new("g");
    let x = g.input("x", TensorType::new(DType::F32, Shape::fixed(&[64, 64])));
    let w = g.parameter("w", weight(&[64, 64], 1));
    let y = g.add(Linear {}, &[x, w], "y").unwrap();
    let shared = g.add(Add {}, &[y, w], "sum").unwrap();
    g.output("y", shared);
    assert!(run(&g, &json!({})).unwrap().is_none());
}

#[test]
fn contradictory_options_are_refused() {
    let message = |options: Value| run(&unet(), &options).unwrap_err().to_string();
    let mixed = "pass 'quantize-weights', graph 'unet': form 'mixed' needs either 'budget_mb' or 'min_psnr'";
    assert_eq!(message(json!({"form": "mixed"})), mixed);
    assert!(message(json!({"budget_mb": 1.0})).ends_with("are options of form 'mixed'"));
    assert!(message(json!({"form": "int4", "block": 0})).contains("'block' is 0"));
    let error = "quantize-weights{form=mixed,min_psnr=30},eliminate-dead-code,cast-precision";
    let error = error.parse::<crate::Pipeline>().unwrap_err().to_string();
    let expected =
        "pass 'cast-precision' needs plain-weights, which 'quantize-weights' ends; put that after";
    assert_eq!(error, expected);
}

#[test]
fn mixed_needs_calibration() {
    let error = run(&unet(), &json!({"form": "mixed", "min_psnr": 30}))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("measures layers on calibration inputs, and there are none"),
        "{error}"
    );
}

#[test]
fn values_that_are_not_finite_are_named() {
    let mut g = Graph::new("g");
    let x = g.input("x", TensorType::new(DType::F32, Shape::fixed(&[1, 64])));
    let mut data = numbers(64 * 64, 3);
    data[777] = f32::NAN;
    let w = g.parameter("w", LazyTensor::from_f32(&[64, 64], &data));
    let y = g.add(Linear {}, &[x, w], "y").unwrap();
    g.output("y", y);
    for form in ["int8", "int4", "palette4"] {
        let PassError::Weights { problems, .. } = run(&g, &json!({"form": form})).unwrap_err()
        else {
            panic!("not the error about weights");
        };
        assert_eq!(problems[0].weight, "w");
        assert!(matches!(
            problems[0].source,
            WeightFault::NotFinite { index: 777, .. }
        ));
    }
}

/// `fixtures/quantization.json`: see `fixtures/make_quantization.py`.
fn coremltools() -> Map<String, Value> {
    serde_json::from_str(include_str!("../../../fixtures/quantization.json")).unwrap()
}

fn floats(list: &Value) -> Vec<f32> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect()
}

fn sizes(list: &Value) -> Vec<usize> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as usize)
        .collect()
}

#[test]
fn affine_codes_are_those_of_coremltools() {
    let theirs = coremltools();
    let tensor = LazyTensor::from_f32(&sizes(&theirs["shape"]), &floats(&theirs["weight"]));
    for (name, form) in [
        ("int8", CodeForm::Int8),
        ("int4", CodeForm::Int4 { block: 32 }),
    ] {
        let expected = &theirs[name];
        let encoding = form.encoding(&tensor).unwrap().unwrap();
        assert_eq!(encoding.groups(), sizes(&expected["groups"]));
        let Codebook::Affine { scale, zero_point } = encoding.codebook() else {
            panic!("{name} has scales");
        };
        assert!(zero_point.is_empty());
        for (own, their) in scale.iter().zip(floats(&expected["scale"])) {
            assert!((own - their).abs() <= f32::EPSILON * their, "{own} {their}");
        }
        let codes = tensor.clone().encode(Arc::new(encoding)).codes().unwrap();
        let codes = codes.to_i64().unwrap();
        let expected = expected["codes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c.as_i64().unwrap());
        assert!(codes.into_iter().eq(expected), "{name}");
    }
}

#[test]
fn palettes_are_no_worse_than_those_of_coremltools() {
    let theirs = coremltools();
    let values = floats(&theirs["weight"]);
    let tensor = LazyTensor::from_f32(&sizes(&theirs["shape"]), &values).cast(DType::F16);
    for bits in [2, 4, 6, 8] {
        let encoding = CodeForm::Palette { bits, group: 0 }
            .encoding(&tensor)
            .unwrap()
            .unwrap();
        let rounded = tensor.clone().encode(Arc::new(encoding)).to_f32().unwrap();
        let errors = rounded
            .iter()
            .zip(&values)
            .map(|(&a, &b)| f64::from(a - b).powi(2));
        let (own, their) = (
            errors.sum::<f64>(),
            theirs["palettes"][bits.to_string()].as_f64().unwrap(),
        );
        assert!(own <= their * 1.0005, "{bits} bits: {own} against {their}");
    }
}

#[test]
fn blocks_and_groups_that_do_not_divide_are_noted() {
    let mut g = Graph::new("g");
    let x = g.input("x", TensorType::new(DType::F16, Shape::fixed(&[1, 48])));
    let w = g.parameter("w", weight(&[50, 48], 3).cast(DType::F16));
    let y = g.add(Linear {}, &[x, w], "y").unwrap();
    g.output("y", y);
    let check = |options: Value, groups: &[usize], note: Option<&str>| {
        let change = changed(&g, &options);
        let encoding = change.graph.weights()[0].tensor.encoding().unwrap();
        assert_eq!(encoding.groups(), groups);
        let found = change
            .notes
            .iter()
            .find(|n| n.contains("cannot be divided"));
        assert_eq!(
            found.and_then(|n| n.split("so that they have ").nth(1)),
            note
        );
    };
    let fallback = Some("one scale per output channel: w");
    check(json!({"form": "int4"}), &[50, 1], fallback);
    let fallback = Some("one palette: w");
    check(json!({"form": "palette4", "group": 16}), &[1, 1], fallback);
    check(json!({"form": "int4", "block": 16}), &[50, 3], None);
    check(json!({"form": "palette4", "group": 25}), &[2, 1], None);
}

#[test]
fn channels_of_zeros_and_of_tiny_values_keep_their_values() {
    let (channels, depth) = (4, 1024);
    let mut data = numbers(channels * depth, 5);
    data[..depth].fill(0.0);
    // Half floats near the smallest, 2^-24: a scale of max / 127 would be zero.
    for (i, x) in data[depth..2 * depth].iter_mut().enumerate() {
        *x = (i % 7) as f32 * 2f32.powi(-24);
    }
    let tensor = LazyTensor::from_f32(&[channels, depth], &data).cast(DType::F16);
    let before = tensor.to_f32().unwrap();
    for form in [CodeForm::Int8, CodeForm::Palette { bits: 6, group: 1 }] {
        let encoding = form.encoding(&tensor).unwrap().unwrap();
        let after = tensor.clone().encode(Arc::new(encoding)).to_f32().unwrap();
        assert_eq!(after[..2 * depth], before[..2 * depth], "{form}");
    }
}

#[test]
fn fidelity_is_the_ratio_of_squares() {
    let change = changed(&unet(), &json!({"form": "palette4"}));
    let all = weight_fidelity(&change.graph).unwrap();
    assert_eq!(all.len(), 2);
    let g = unet();
    for found in all {
        let values = |g: &Graph| {
            let weight = g.weights().iter().find(|w| w.name == found.weight).unwrap();
            weight.tensor.to_f32().unwrap()
        };
        let (before, after) = (values(&g), values(&change.graph));
        let signal: f64 = before.iter().map(|&x| f64::from(x).powi(2)).sum();
        let pairs = before.iter().zip(&after);
        let noise: f64 = pairs
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum();
        assert!((found.snr() - 10.0 * (signal / noise).log10()).abs() < 1e-9);
        assert!((found.relative_error() - (noise / signal).sqrt()).abs() < 1e-12);
        assert_eq!(found.form, "palette4");
        assert_eq!((found.bytes_before, found.bytes_after), (36864, 4608 + 64));
    }
}

fn psnr(expected: &Tensor, found: &Tensor) -> f64 {
    let (expected, found) = (expected.floats(), found.floats());
    let errors = expected
        .iter()
        .zip(found)
        .map(|(&e, &f)| (f64::from(e) - f64::from(f)).powi(2));
    let rmse = (errors.sum::<f64>() / expected.len() as f64).sqrt();
    let high = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let low = expected.iter().copied().fold(f32::INFINITY, f32::min);
    20.0 * (f64::from(high - low) / rmse).log10()
}

/// The graph after the pass; itself where nothing is encoded.
fn calibrated(graph: &Graph, options: &Value) -> Result<Graph, PassError> {
    let mut calibration = Calibration::default();
    calibration.add("unet", inputs(1));
    calibration.add("unet", inputs(2));
    let context = PassContext {
        calibration: Some(&calibration),
        ..PassContext::default()
    };
    let change = pass(options).run(graph, &context)?;
    Ok(change.map_or_else(|| graph.clone(), |change| change.graph))
}

#[test]
fn mixed_keeps_a_budget() {
    let g = unet();
    let stored = |g: &Graph| {
        g.weights()
            .iter()
            .map(|w| w.tensor.stored_bytes_len())
            .sum::<usize>()
    };
    let mut last = 0;
    for budget in [0.048, 0.053, 0.06, 0.2] {
        let encoded = calibrated(&g, &json!({"form": "mixed", "budget_mb": budget})).unwrap();
        let bytes = stored(&encoded);
        assert!(
            bytes as f64 <= budget * 1e6 && bytes >= last,
            "{bytes} of {budget}"
        );
        last = bytes;
    }
    // Everything stays where there is room for it.
    assert_eq!(last, stored(&g));
    let error = calibrated(&g, &json!({"form": "mixed", "budget_mb": 0.01})).unwrap_err();
    assert!(
        error.to_string().contains("the weights take 0.0"),
        "{error}"
    );
}

#[test]
fn mixed_reaches_a_psnr_with_no_more_bits_than_it_needs() {
    let g = unet();
    let mut bits = Vec::new();
    for bar in [18.0, 30.0, 45.0] {
        let encoded = calibrated(&g, &json!({"form": "mixed", "min_psnr": bar})).unwrap();
        for seed in [1, 2] {
            let before = eval::run(&g, &inputs(seed)).unwrap();
            let after = eval::run(&encoded, &inputs(seed)).unwrap();
            let found = psnr(&before["out_sample"], &after["out_sample"]);
            assert!(found >= bar, "{found} dB, {bar} wanted");
        }
        bits.push(
            encoded_names(&encoded)
                .iter()
                .map(|(_, bits)| bits)
                .sum::<u32>(),
        );
    }
    assert!(
        bits.is_sorted() && bits[0] == 8 && bits[2] > bits[0],
        "{bits:?}"
    );
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        (1..20usize, 1..70usize).prop_map(|(a, b)| vec![a, b]),
        (1..12usize, 1..40usize, 1..4usize).prop_map(|(a, b, k)| vec![a, b, k, k]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0),
        ..ProptestConfig::default()
    })]

    #[test]
    fn affine_codes_are_within_half_a_scale(
        shape in shapes(),
        seed: u32,
        exponent in -22..6i32,
        block in prop_oneof![Just(1usize), Just(4), Just(32)],
        dtype in prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::BF16)],
    ) {
        let data: Vec<f32> =
            numbers(shape.iter().product(), seed).iter().map(|x| x * 2f32.powi(exponent)).collect();
        let tensor = LazyTensor::from_f32(&shape, &data).cast(dtype);
        let before = tensor.to_f32().unwrap();
        for form in [CodeForm::Int8, CodeForm::Int4 { block }] {
            let encoding = Arc::new(form.encoding(&tensor).unwrap().unwrap());
            let Codebook::Affine { scale, .. } = encoding.codebook() else {
                panic!("{form} has scales");
            };
            let run = before.len() / scale.len();
            let codes = tensor.clone().encode(encoding.clone()).codes().unwrap().to_i64().unwrap();
            for (i, (&x, &code)) in before.iter().zip(&codes).enumerate() {
                let step = f64::from(scale[i / run]);
                let error = (f64::from(x) - code as f64 * step).abs();
                prop_assert!(error <= step * 0.500_01, "{x} became {code} · {step}");
            }
        }
    }

    #[test]
    fn weights_take_the_nearest_entry_and_more_entries_are_no_worse(
        shape in shapes(),
        seed: u32,
        dtype in prop_oneof![Just(DType::F32), Just(DType::F16)],
    ) {
        let tensor = LazyTensor::from_f32(&shape, &numbers(shape.iter().product(), seed)).cast(dtype);
        let before = tensor.to_f32().unwrap();
        let mut last = f64::INFINITY;
        for bits in [2, 4, 6, 8] {
            let encoding = Arc::new(CodeForm::Palette { bits, group: 0 }.encoding(&tensor).unwrap().unwrap());
            let Codebook::Palette { table } = encoding.codebook() else {
                panic!("a palette has a table");
            };
            prop_assert!(table.is_sorted());
            let after = tensor.clone().encode(encoding.clone()).to_f32().unwrap();
            let mut noise = 0.0;
            for (&x, &y) in before.iter().zip(&after) {
                let nearest = table.iter().map(|t| (t - x).abs()).fold(f32::INFINITY, f32::min);
                prop_assert_eq!((y - x).abs(), nearest);
                noise += f64::from(y - x).powi(2);
            }
            prop_assert!(noise <= last);
            last = noise;
        }
    }

    #[test]
    fn int8_keeps_what_a_graph_computes(seed: u32) {
        let g = unet();
        let change = changed(&g, &json!({"all": true}));
        let (before, after) = (eval::run(&g, &inputs(seed)).unwrap(), eval::run(&change.graph, &inputs(seed)).unwrap());
        // Four layers, each with about 40 dB.
        prop_assert!(psnr(&before["out_sample"], &after["out_sample"]) > 40.0);
        prop_assert_eq!(&before["embedding"], &after["embedding"]);
    }
}
