use std::collections::BTreeMap;

use serde_json::json;
use snapc_ir::ops::{Add, Concat, Conv2d, Linear, Reshape, Silu, Sub, Transpose, UpsampleNearest};
use snapc_ir::{DType, LazyTensor, Shape, Tensor, TensorType, ValueId, eval, text};

use super::*;

/// The stages of a small network in the order they run; `^` keeps a skip, `r` is a ResNet, `a` an attention, each with its
/// number. A number beyond the stage's own ones stands for a copy, with the weights of the block named behind `=`.
struct Order {
    down: [&'static str; 2],
    mid: &'static str,
    up: [&'static str; 2],
}

const STOCK: Order = Order {
    down: ["r0 a0 ^ r1 a1 ^", "r0 ^ r1 ^"],
    mid: "r0 a0 r1",
    up: ["r0 r1 r2", "r0 a0 r1 a1 r2 a2"],
};

/// Channels per stage.
const CHANNELS: [usize; 2] = [4, 8];

struct Builder {
    g: Graph,
    time: ValueId,
    skips: Vec<ValueId>,
}

impl Builder {
    /// Weights that differ from one name to the next.
    fn weight(&mut self, name: &str, origin: &str, shape: &[usize]) -> ValueId {
        let seed = origin
            .bytes()
            .fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let n = shape.iter().product();
        let numbers: Vec<f32> = (0..n)
            .map(|i| ((seed % 1000) as f32 + i as f32).sin() * 0.3)
            .collect();
        self.g
            .parameter(name, LazyTensor::from_f32(shape, &numbers))
    }

    fn conv(&mut self, name: &str, origin: &str, x: ValueId, out: usize, stride: usize) -> ValueId {
        let channels = self.g.ty(x).shape.dims()[1].fixed().unwrap();
        let w = self.weight(
            &format!("{name}.weight"),
            &format!("{origin}.weight"),
            &[out, channels, 1, 1],
        );
        let b = self.weight(&format!("{name}.bias"), &format!("{origin}.bias"), &[out]);
        let op = Conv2d {
            strides: [stride; 2],
            pads: [0; 4],
            groups: 1,
        };
        self.g.add(op, &[x, w, b], name).unwrap()
    }

    fn resnet(&mut self, name: &str, origin: &str, x: ValueId, out: usize) -> ValueId {
        let project = format!("{name}.time_emb_proj");
        let active = self.g.add(Silu {}, &[self.time], project.clone()).unwrap();
        let w = self.weight(
            &format!("{project}.weight"),
            &format!("{origin}.time_emb_proj.weight"),
            &[out, 2],
        );
        let shift = self
            .g
            .add(Linear {}, &[active, w], project.clone())
            .unwrap();
        let shape = Shape::fixed(&[1, out, 1, 1]).0;
        let shift = self.g.add(Reshape { shape }, &[shift], project).unwrap();
        let mut h = self.conv(
            &format!("{name}.conv2"),
            &format!("{origin}.conv2"),
            x,
            out,
            1,
        );
        h = self
            .g
            .add(Add {}, &[h, shift], format!("{name}.time_emb_proj"))
            .unwrap();
        let channels = self.g.ty(x).shape.dims()[1].fixed().unwrap();
        let shortcut = match channels == out {
            true => x,
            false => self.conv(
                &format!("{name}.conv_shortcut"),
                &format!("{origin}.conv_shortcut"),
                x,
                out,
                1,
            ),
        };
        self.g.add(Add {}, &[shortcut, h], name).unwrap()
    }

    fn attention(&mut self, name: &str, origin: &str, x: ValueId) -> ValueId {
        let channels = self.g.ty(x).shape.dims()[1].fixed().unwrap();
        let h = self
            .g
            .add(Silu {}, &[x], format!("{name}.transformer_blocks.0"))
            .unwrap();
        let h = self.conv(
            &format!("{name}.proj_out"),
            &format!("{origin}.proj_out"),
            h,
            channels,
            1,
        );
        self.g.add(Add {}, &[h, x], name).unwrap()
    }

    fn stage(&mut self, stage: &str, order: &str, mut h: ValueId, out: usize) -> ValueId {
        for word in order.split_whitespace() {
            let (word, origin) = word.split_once('=').unwrap_or((word, word));
            let name = |word: &str| {
                let kind = if word.starts_with('r') {
                    "resnets"
                } else {
                    "attentions"
                };
                format!("{stage}.{kind}.{}", &word[1..])
            };
            match &word[..1] {
                "^" => self.skips.push(h),
                "r" => {
                    if stage.starts_with("up") {
                        let skip = self.skips.pop().unwrap();
                        h = self
                            .g
                            .add(Concat { axis: 1 }, &[h, skip], name(word))
                            .unwrap();
                    }
                    h = self.resnet(&name(word), &name(origin), h, out);
                }
                _ => h = self.attention(&name(word), &name(origin), h),
            }
        }
        h
    }
}

fn unet(order: &Order) -> Graph {
    let mut g = Graph::new("unet");
    let x = g.input(
        "sample",
        TensorType::new(DType::F32, Shape::batched(&[3, 4, 4])),
    );
    let time = g.input("time", TensorType::new(DType::F32, Shape::fixed(&[1, 2])));
    let mut b = Builder {
        g,
        time,
        skips: Vec::new(),
    };
    let mut h = b.conv("conv_in", "conv_in", x, CHANNELS[0], 1);
    b.skips.push(h);
    h = b.stage("down_blocks.0", order.down[0], h, CHANNELS[0]);
    let down = "down_blocks.0.downsamplers.0.conv";
    h = b.conv(down, down, h, CHANNELS[0], 2);
    b.skips.push(h);
    h = b.stage("down_blocks.1", order.down[1], h, CHANNELS[1]);
    h = b.stage("mid_block", order.mid, h, CHANNELS[1]);
    h = b.stage("up_blocks.0", order.up[0], h, CHANNELS[1]);
    h =
        b.g.add(
            UpsampleNearest { scale: 2 },
            &[h],
            "up_blocks.0.upsamplers.0",
        )
        .unwrap();
    h = b.stage("up_blocks.1", order.up[1], h, CHANNELS[0]);
    assert!(b.skips.is_empty());
    h = b.conv("conv_out", "conv_out", h, 3, 1);
    b.g.output("out_sample", h);
    b.g
}

fn pass(remove: &[&str], duplicate: &[&str]) -> RemoveIdentityBlocks {
    let plan = json!({ "plan": { "remove": remove, "duplicate": duplicate } });
    serde_json::from_value(plan).unwrap()
}

fn run(pass: &RemoveIdentityBlocks, graph: &Graph) -> Option<Change> {
    pass.run(graph, &PassContext::default()).unwrap()
}

fn refusal(remove: &[&str], duplicate: &[&str]) -> String {
    refusal_of(&unet(&STOCK), remove, duplicate)
}

fn refusal_of(graph: &Graph, remove: &[&str], duplicate: &[&str]) -> String {
    let error = pass(remove, duplicate)
        .run(graph, &PassContext::default())
        .unwrap_err()
        .to_string();
    let start = "pass 'remove-identity-blocks', graph 'unet': the plan does not fit:\n  ";
    error
        .strip_prefix(start)
        .unwrap_or_else(|| panic!("{error}"))
        .to_owned()
}

fn evaluate(graph: &Graph) -> Vec<f32> {
    let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
    let sample = Tensor::float(&[2, 3, 4, 4], numbers(96));
    let time = Tensor::float(&[1, 2], numbers(2));
    let inputs = BTreeMap::from([("sample".to_owned(), sample), ("time".to_owned(), time)]);
    eval::run(graph, &inputs).unwrap()["out_sample"]
        .floats()
        .to_vec()
}

/// Checks that a plan turns the stock network into one that is built in another order from the start.
fn becomes(remove: &[&str], duplicate: &[&str], order: &Order) -> Change {
    let change = run(&pass(remove, duplicate), &unet(&STOCK)).unwrap();
    let expected = unet(order);
    assert_eq!(text::print(&change.graph), text::print(&expected));
    assert_eq!(evaluate(&change.graph), evaluate(&expected));
    assert_ne!(evaluate(&change.graph), evaluate(&unet(&STOCK)));
    change
}

#[test]
fn attentions_and_resnets_of_one_type_go() {
    let order = Order {
        down: ["r0 a0 ^ r1 ^", "r0 ^ r1 ^"],
        mid: "r0 a0",
        ..STOCK
    };
    let change = becomes(
        &["down_blocks.0.attentions.1", "mid_block.resnets.1"],
        &[],
        &order,
    );
    let counts = [
        ("blocks removed", 2),
        ("blocks duplicated", 0),
        ("zero branches removed", 0),
    ];
    assert_eq!(change.counts, counts);
    assert_eq!(
        change.notes,
        [
            "removed down_blocks.0.attentions.1",
            "removed mid_block.resnets.1"
        ]
    );
    becomes(
        &[
            "mid_block.resnets.0",
            "mid_block.attentions.0",
            "mid_block.resnets.1",
        ],
        &[],
        &Order { mid: "", ..STOCK },
    );
}

#[test]
fn a_resnet_that_takes_a_skip_goes_with_the_one_that_makes_it() {
    let order = Order {
        down: ["r0 a0 ^ r1 a1 ^", "r0 ^"],
        up: ["r1 r2", STOCK.up[1]],
        ..STOCK
    };
    becomes(
        &["up_blocks.0.resnets.0", "down_blocks.1.resnets.1"],
        &[],
        &order,
    );
    // The attention of the layer stays and its output is a skip no longer.
    let order = Order {
        down: ["a0 r1 a1 ^", "r0 ^ r1 ^"],
        up: [STOCK.up[0], "r0 a0 a1 r2 a2"],
        ..STOCK
    };
    becomes(
        &["up_blocks.1.resnets.1", "down_blocks.0.resnets.0"],
        &[],
        &order,
    );
}

#[test]
fn a_down_resnet_may_go_alone_since_its_layer_still_makes_a_skip() {
    let order = Order {
        down: ["r0 a0 ^ a1 ^", "r0 ^ ^"],
        ..STOCK
    };
    becomes(
        &["down_blocks.0.resnets.1", "down_blocks.1.resnets.1"],
        &[],
        &order,
    );
}

#[test]
fn copies_stand_behind_their_originals_under_the_next_numbers() {
    let order = Order {
        down: ["r0 a0 a2=a0 ^ r1 a1 ^", "r0 ^ r1 r2=r1 ^"],
        mid: "r0 r2=r0 a0",
        up: ["r0 r1 r2", "r0 a0 a4=a0 r1 a1 r2 a2 a3=a2"],
    };
    let duplicate = [
        "up_blocks.1.attentions.2",
        "up_blocks.1.attentions.0",
        "down_blocks.0.attentions.0",
        "down_blocks.1.resnets.1",
        "mid_block.resnets.0",
    ];
    let change = becomes(&["mid_block.resnets.1"], &duplicate, &order);
    assert_eq!(change.counts[1], ("blocks duplicated", 5));
    let note =
        "added up_blocks.1.attentions.3 behind up_blocks.1.attentions.2, with weights equal to its";
    assert_eq!(change.notes[1], note);
    // Its copies show that the plan has been carried out.
    let plan = pass(&["mid_block.resnets.1"], &duplicate);
    assert!(run(&plan, &change.graph).is_none());
    let other = plan.run(
        &unet(&Order {
            mid: "r0 a0",
            ..STOCK
        }),
        &PassContext::default(),
    );
    assert!(
        other
            .unwrap_err()
            .to_string()
            .contains("remove 'mid_block.resnets.1': it is not in the network")
    );
}

#[test]
fn a_block_that_shares_a_node_with_others_goes_and_is_copied_all_the_same() {
    // The SiLU of the time embedding belongs to the first ResNet and serves all of them.
    let graph = crate::EliminateCommonSubexpressions::default();
    let graph = graph
        .run(&unet(&STOCK), &PassContext::default())
        .unwrap()
        .unwrap()
        .graph;
    let order = Order {
        down: ["a0 ^ r1 r2=r1 a1 ^", STOCK.down[1]],
        ..STOCK
    };
    let plan = pass(&["down_blocks.0.resnets.0"], &["down_blocks.0.resnets.1"]);
    let change = run(&plan, &graph).unwrap();
    assert_eq!(evaluate(&change.graph), evaluate(&unet(&order)));
}

#[test]
fn up_resnets_without_their_partners_are_refused_with_the_choices() {
    let pairs = "these can go: up_blocks.0.resnets.0 with down_blocks.1.resnets.1, \
                 up_blocks.1.resnets.1 with down_blocks.0.resnets.0";
    let cases = [
        (
            "up_blocks.0.resnets.0",
            "takes the skip of 'down_blocks.1.resnets.1', which has to go with it",
        ),
        (
            "up_blocks.0.resnets.1",
            "takes the skip of 'down_blocks.1.resnets.0', which cannot go: \
             that turns f32[N,4,2,2] into f32[N,8,2,2]",
        ),
        (
            "up_blocks.0.resnets.2",
            "takes the skip of 'down_blocks.0.downsamplers.0.conv', which always stands",
        ),
        (
            "up_blocks.1.resnets.1",
            "takes the skip of 'down_blocks.0.resnets.0', which has to go with it",
        ),
        (
            "up_blocks.1.resnets.2",
            "takes the skip of 'conv_in', which always stands",
        ),
    ];
    for (name, reason) in cases {
        assert_eq!(
            refusal(&[name], &[]),
            format!("remove '{name}': it {reason}; {pairs}")
        );
    }
    let none = unet(&Order {
        up: [STOCK.up[0], "r0 r1=r0 r2"],
        down: ["^ a1 ^", "r0 ^ r0 ^"],
        ..STOCK
    });
    assert!(
        refusal_of(&none, &["up_blocks.1.resnets.2"], &[])
            .ends_with("; no resnets of up stages can go in this network")
    );
}

#[test]
fn a_layer_without_resnet_goes_with_its_attention() {
    let graph = unet(&Order {
        down: ["r0 ^ ^", "r0 ^ a1 ^"],
        ..STOCK
    });
    let message = refusal_of(&graph, &["up_blocks.0.resnets.0"], &[]);
    assert!(
        message.contains("takes the skip of 'down_blocks.1.attentions.1', which has to go with it"),
        "{message}"
    );
}

#[test]
fn what_is_not_there_or_changes_the_type_is_refused_all_at_once() {
    let message = refusal(
        &[
            "down_blocks.1.resnets.0",
            "mid_block.resnets.2",
            "down_blocks.7.resnets.0",
        ],
        &[
            "up_blocks.0.resnets.0",
            "up_blocks.1.resnets.0",
            "up_blocks.1.resnets.3",
        ],
    );
    let expected = [
        "remove 'down_blocks.1.resnets.0': it turns f32[N,4,2,2] into f32[N,8,2,2]",
        "remove 'mid_block.resnets.2': it is not in the network, which has mid_block.resnets.0, mid_block.resnets.1, \
         mid_block.attentions.0",
        "remove 'down_blocks.7.resnets.0': it is not in the network, which has down_blocks.0.*, down_blocks.1.*, \
         mid_block.*, up_blocks.0.*, up_blocks.1.*",
        "duplicate 'up_blocks.0.resnets.0': it takes a skip, and there is none for a copy",
        "duplicate 'up_blocks.1.resnets.0': it turns f32[N,8,4,4] into f32[N,4,4,4]",
        "duplicate 'up_blocks.1.resnets.3': it is not in the network, which has up_blocks.1.resnets.0, \
         up_blocks.1.resnets.1, up_blocks.1.resnets.2, up_blocks.1.attentions.0, up_blocks.1.attentions.1, \
         up_blocks.1.attentions.2",
    ];
    assert_eq!(message, expected.join("\n  "));
}

#[test]
fn blocks_that_stand_twice_or_give_an_output_are_refused() {
    let twice = unet(&Order {
        mid: "r0 a0 r0",
        ..STOCK
    });
    let message = refusal_of(&twice, &["mid_block.resnets.0"], &[]);
    assert_eq!(
        message,
        "remove 'mid_block.resnets.0': it stands 2 times with the same weights"
    );

    let mut g = Graph::new("unet");
    let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
    let h = g
        .add(Silu {}, &[x], "mid_block.resnets.0.nonlinearity")
        .unwrap();
    let y = g.add(Add {}, &[x, h], "mid_block.resnets.0").unwrap();
    g.output("y", y);
    let message = refusal_of(&g, &["mid_block.resnets.0"], &[]);
    assert_eq!(
        message,
        "remove 'mid_block.resnets.0': it gives an output of the graph"
    );

    let mut g = Graph::new("unet");
    let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
    let h = g.add(Silu {}, &[x], "mid_block.resnets.0").unwrap();
    let y = g.add(Silu {}, &[h], "y").unwrap();
    g.output("y", y);
    let message = refusal_of(&g, &["mid_block.resnets.0"], &[]);
    assert!(
        message.starts_with("remove 'mid_block.resnets.0': it does not end in a sum"),
        "{message}"
    );
}

#[test]
fn plans_are_for_the_unet_alone_and_an_empty_one_does_nothing() {
    let mut g = Graph::new("vae_decoder");
    let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
    let y = g.add(Silu {}, &[x], "y").unwrap();
    g.output("y", y);
    assert!(run(&pass(&["mid_block.resnets.1"], &[]), &g).is_none());
    assert!(run(&pass(&[], &[]), &unet(&STOCK)).is_none());
}

/// A residual branch on `x` `[N,2,2]`: a projection with these weights, a transpose, and a sum or difference.
fn residual(weight: LazyTensor, bias: LazyTensor, sub: bool) -> Graph {
    let mut g = Graph::new("g");
    let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2, 2])));
    let w = g.parameter("w", weight);
    let b = g.parameter("b", bias);
    let a = g.add(Silu {}, &[x], "act").unwrap();
    let h = g.add(Linear {}, &[a, w, b], "proj").unwrap();
    let h = g
        .add(
            Transpose {
                perm: vec![0, 2, 1],
            },
            &[h],
            "moved",
        )
        .unwrap();
    let y = if sub {
        g.add(Sub {}, &[x, h], "sum")
    } else {
        g.add(Add {}, &[h, x], "sum")
    }
    .unwrap();
    let z = g.add(Silu {}, &[y], "z").unwrap();
    g.output("z", z);
    g
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.nodes().iter().map(|n| n.name.as_str()).collect()
}

#[test]
fn branches_with_a_zero_projection_go_whatever_their_weights_tell() {
    let zeros = |shape: &[usize]| LazyTensor::from_f32(shape, &vec![0.0; shape.iter().product()]);
    let negative = LazyTensor::from_f32(&[2, 2], &[-0.0; 4]);
    for weight in [
        zeros(&[2, 2]),
        zeros(&[2, 2]).with_max_abs(0.0),
        negative,
        zeros(&[2, 2]).cast(DType::F16).cast(DType::F32),
    ] {
        for sub in [false, true] {
            let graph = residual(weight.clone(), zeros(&[2]), sub);
            let change = run(&RemoveIdentityBlocks::default(), &graph).unwrap();
            assert_eq!(names(&change.graph), ["z"]);
            assert_eq!(change.graph.weights().len(), 0);
            assert_eq!(change.counts[2], ("zero branches removed", 1));
            assert_eq!(
                change.notes,
                ["removed the branch that ends in proj: its weights are zero"]
            );
            assert!(run(&RemoveIdentityBlocks::default(), &change.graph).is_none());
        }
    }
}

#[test]
fn branches_that_add_something_or_may_do_so_stay() {
    let zeros = |shape: &[usize]| LazyTensor::from_f32(shape, &vec![0.0; shape.iter().product()]);
    let mut last = vec![0.0; 4];
    last[3] = 1e-30;
    let stay = [
        (LazyTensor::from_f32(&[2, 2], &last), zeros(&[2])),
        (zeros(&[2, 2]), LazyTensor::from_f32(&[2], &[0.0, 1.0])),
        (zeros(&[2, 2]).with_max_abs(1.0), zeros(&[2])),
        (LazyTensor::absent(DType::F32, &[2, 2]), zeros(&[2])),
    ];
    for (weight, bias) in stay {
        assert!(
            run(
                &RemoveIdentityBlocks::default(),
                &residual(weight, bias, false)
            )
            .is_none()
        );
    }
}

#[test]
fn a_zero_branch_is_no_reason_to_change_a_type_or_an_output() {
    let zeros = |shape: &[usize]| LazyTensor::from_f32(shape, &vec![0.0; shape.iter().product()]);
    let mut g = Graph::new("g");
    let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
    let w = g.parameter("w", zeros(&[2, 2]));
    let h = g.add(Linear {}, &[x, w], "proj").unwrap();
    let c = g.constant("c", LazyTensor::from_f32(&[2], &[1.0, 2.0]));
    // The sum has the batch of the branch, the constant has none.
    let broadcast = g.add(Add {}, &[h, c], "broadcast").unwrap();
    let output = g.add(Add {}, &[x, h], "output").unwrap();
    g.output("broadcast", broadcast);
    g.output("output", output);
    assert!(run(&RemoveIdentityBlocks::default(), &g).is_none());
}

#[test]
fn a_sum_of_zero_branches_is_one_itself() {
    let zeros = |shape: &[usize]| LazyTensor::from_f32(shape, &vec![0.0; shape.iter().product()]);
    let mut g = Graph::new("g");
    let x = g.input("x", TensorType::new(DType::F32, Shape::batched(&[2])));
    let w = g.parameter("w", zeros(&[2, 2]));
    let a = g.add(Linear {}, &[x, w], "a").unwrap();
    let b = g.add(Linear {}, &[a, w], "b").unwrap();
    let both = g.add(Add {}, &[a, b], "both").unwrap();
    let sum = g.add(Add {}, &[both, x], "sum").unwrap();
    let y = g.add(Silu {}, &[sum], "y").unwrap();
    g.output("y", y);
    let change = run(&RemoveIdentityBlocks::default(), &g).unwrap();
    assert_eq!(names(&change.graph), ["y"]);
    assert!(run(&RemoveIdentityBlocks::default(), &change.graph).is_none());
}

#[test]
fn a_run_can_be_stopped() {
    let context = PassContext {
        cancelled: &|| true,
        ..PassContext::default()
    };
    let error = RemoveIdentityBlocks::default()
        .run(&unet(&STOCK), &context)
        .unwrap_err();
    assert!(matches!(error, PassError::Cancelled));
}
