//! Which instructions graphs become.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use snapc_ir::text::parse;
use snapc_ir::verify::verify;
use snapc_native::{Activations, lowered};
use snapc_program::{Graph, Op};
use support::listing::listing;
use support::program;

fn lower(text: &str, activations: Activations) -> Graph {
    let graph = parse(text).unwrap();
    lowered(&verify(&graph).unwrap(), activations).unwrap()
}

/// The instructions of a graph whose lines before the output are given.
fn instructions(lines: &str, output: &str) -> String {
    let text = format!("graph \"g\" {{\n{lines}\n  output \"y\" = {output}\n}}\n");
    listing(&lower(&text, Activations::F32), "")
}

#[test]
fn diffusers_networks_move_data_at_their_ends_only() {
    let program = program("tiny", "f32");
    for (name, permutes) in [("text_encoder", 0), ("unet", 2), ("vae_decoder", 2)] {
        let graph = program.graph(name).unwrap();
        let graph = lowered(&verify(graph).unwrap(), Activations::F32).unwrap();
        let is_permute = |i: &&snapc_program::Instruction| matches!(i.op, Op::Permute { .. });
        let found: Vec<_> = graph.instructions().iter().filter(is_permute).collect();
        assert_eq!(found.len(), permutes, "{name}: {found:?}");
        // Elementwise work is left where no product is next to it: at the embedding, and behind the decoder's attention,
        // which gives tokens and not an image.
        let elementwise = graph.instructions().iter().enumerate().filter(|(at, i)| {
            let value = &graph.values()[graph.inputs().len() + at];
            matches!(i.op, Op::Unary(_) | Op::Binary(_)) && value.dims.len() > 1
        });
        let names: Vec<&str> = elementwise.map(|(_, i)| i.name.as_str()).collect();
        let expected: &[&str] = match name {
            "text_encoder" => &["text_model.embeddings.position_embedding"],
            "vae_decoder" => &["decoder.mid_block.attentions.0"],
            _ => &[],
        };
        assert_eq!(names, expected, "{name}");
    }
}

#[test]
fn phases_of_an_upsampling_are_put_side_by_side_without_permutation() {
    let found = instructions(
        r#"  %0 = input "x" : f32[N,8,4,4]
  %1 = parameter "w" : f32[8,8,2,2]
  %2 = conv2d(%0, %1) {strides=[1,1], pads=[1,1,0,0], groups=1} : f32[N,8,4,4] "even"
  %3 = conv2d(%0, %1) {strides=[1,1], pads=[1,0,0,1], groups=1} : f32[N,8,4,4] "odd"
  %4 = reshape(%2) {shape=[N,8,4,4,1]} : f32[N,8,4,4,1] "e"
  %5 = reshape(%3) {shape=[N,8,4,4,1]} : f32[N,8,4,4,1] "o"
  %6 = concat(%4, %5) {axis=4} : f32[N,8,4,4,2] "columns"
  %7 = reshape(%6) {shape=[N,8,4,8]} : f32[N,8,4,8] "row"
  %8 = upsample_nearest(%7) {scale=2} : f32[N,8,8,16] "up""#,
        "%8",
    );
    let expected = "\
%1 = permute[0, 2, 3, 1](%0) : f32[N,4,4,8] \"even\"
%2 = conv2d(%1, w) : f32[N,4,4,8] \"even\"
%3 = conv2d(%1, w.2) : f32[N,4,4,8] \"odd\"
%4 = view(%2) : f32[N,4,4,1,8] \"e\"
%5 = view(%3) : f32[N,4,4,1,8] \"o\"
%6 = concat[3](%4, %5) : f32[N,4,4,2,8] \"columns\"
%7 = view(%6) : f32[N,4,8,8] \"row\"
%8 = upsample_nearest(%7) : f32[N,8,16,8] \"up\"
%9 = permute[0, 3, 1, 2](%8) : f32[N,8,8,16] \"y\"
";
    assert_eq!(found, expected);
}

#[test]
fn an_attention_block_is_one_instruction_for_each_layer() {
    let program = program("tiny", "f32");
    let graph = program.graph("unet").unwrap();
    let graph = lowered(&verify(graph).unwrap(), Activations::F32).unwrap();
    let block = "down_blocks.0.attentions.0";
    let expected = "\
%16 = group_norm(%15, .norm.weight, .norm.bias) : f32[N,16,16,16] \".norm\"
%17 = linear(%16, .proj_in.weight, .proj_in.bias) : f32[N,16,16,16] \".proj_in\"
%18 = view(%17) : f32[N,256,16] \".proj_in\"
%19 = layer_norm(%18, .transformer_blocks.0.norm1.weight, .transformer_blocks.0.norm1.bias) : f32[N,256,16] \".transformer_blocks.0.norm1\"
%20 = linear(%19, .transformer_blocks.0.attn1.to_q.weight) : f32[N,256,16] \".transformer_blocks.0.attn1.to_q\"
%21 = linear(%19, .transformer_blocks.0.attn1.to_k.weight) : f32[N,256,16] \".transformer_blocks.0.attn1.to_k\"
%22 = linear(%19, .transformer_blocks.0.attn1.to_v.weight) : f32[N,256,16] \".transformer_blocks.0.attn1.to_v\"
%23 = attention(%20, %21, %22) : f32[N,256,16] \".transformer_blocks.0.attn1\"
%24 = linear+residual(%23, .transformer_blocks.0.attn1.to_out.0.weight, .transformer_blocks.0.attn1.to_out.0.bias, %18) : f32[N,256,16] \".transformer_blocks.0.attn1\"
%25 = layer_norm(%24, .transformer_blocks.0.norm2.weight, .transformer_blocks.0.norm2.bias) : f32[N,256,16] \".transformer_blocks.0.norm2\"
%26 = linear(%25, .transformer_blocks.0.attn2.to_q.weight) : f32[N,256,16] \".transformer_blocks.0.attn2.to_q\"
%27 = linear(%2, .transformer_blocks.0.attn2.to_k.weight) : f32[N,77,16] \".transformer_blocks.0.attn2.to_k\"
%28 = linear(%2, .transformer_blocks.0.attn2.to_v.weight) : f32[N,77,16] \".transformer_blocks.0.attn2.to_v\"
%29 = attention(%26, %27, %28) : f32[N,256,16] \".transformer_blocks.0.attn2\"
%30 = linear+residual(%29, .transformer_blocks.0.attn2.to_out.0.weight, .transformer_blocks.0.attn2.to_out.0.bias, %24) : f32[N,256,16] \".transformer_blocks.0.attn2\"
%31 = layer_norm(%30, .transformer_blocks.0.norm3.weight, .transformer_blocks.0.norm3.bias) : f32[N,256,16] \".transformer_blocks.0.norm3\"
%32 = linear(%31, .transformer_blocks.0.ff.net.0.proj.weight, .transformer_blocks.0.ff.net.0.proj.bias) : f32[N,256,128] \".transformer_blocks.0.ff.net.0.proj\"
%33 = geglu(%32) : f32[N,256,64] \".transformer_blocks.0.ff.net.0\"
%34 = linear+residual(%33, .transformer_blocks.0.ff.net.2.weight, .transformer_blocks.0.ff.net.2.bias, %30) : f32[N,256,16] \".transformer_blocks.0.ff\"
%35 = view(%34) : f32[N,16,16,16] \".proj_out\"
%36 = linear+residual(%35, .proj_out.weight, .proj_out.bias, %15) : f32[N,16,16,16] \"\"
";
    assert_eq!(listing(&graph, block), expected);
}

#[test]
fn a_resnet_adds_the_time_to_the_bias_of_its_convolution() {
    let program = program("tiny", "f32");
    let graph = program.graph("unet").unwrap();
    let graph = lowered(&verify(graph).unwrap(), Activations::F32).unwrap();
    let expected = "\
%67 = group_norm+silu(%66, .norm1.weight, .norm1.bias) : f32[N,8,8,16] \".nonlinearity\"
%68 = linear(%8, .time_emb_proj.weight, .time_emb_proj.bias) : f32[1,24] \".time_emb_proj\"
%69 = view(%68) : f32[1,24,1,1] \".time_emb_proj\"
%70 = view(%69) : f32[24] \".time_emb_proj\"
%71 = add(.conv1.bias, %70) : f32[24] \".time_emb_proj\"
%72 = conv2d(%67, .conv1.weight, %71) : f32[N,8,8,24] \".time_emb_proj\"
%73 = group_norm+silu(%72, .norm2.weight, .norm2.bias) : f32[N,8,8,24] \".nonlinearity\"
%74 = conv2d(%73, .conv2.weight, .conv2.bias) : f32[N,8,8,24] \".conv2\"
%75 = linear+residual(%66, .conv_shortcut.weight, .conv_shortcut.bias, %74) : f32[N,8,8,24] \"\"
";
    assert_eq!(listing(&graph, "down_blocks.1.resnets.0"), expected);
}

#[test]
fn linear_layers_are_found_in_their_decomposed_form() {
    let lines = "\
  %0 = input \"x\" : f32[N,7,5]
  %1 = parameter \"w\" : f32[6,5]
  %2 = parameter \"b\" : f32[1,6]
  %3 = input \"r\" : f32[N,7,6]
  %4 = transpose(%1) {perm=[1,0]} : f32[5,6] \"w\"
  %5 = matmul(%0, %4) : f32[N,7,6] \"l\"
  %6 = add(%2, %5) : f32[N,7,6] \"l\"
  %7 = silu(%6) : f32[N,7,6] \"act\"
  %8 = add(%3, %7) : f32[N,7,6] \"sum\"";
    let expected = "%2 = linear+silu+residual(%0, w, b, %1) : f32[N,7,6] \"sum\"\n";
    assert_eq!(instructions(lines, "%8"), expected);
}

#[test]
fn what_something_else_reads_is_not_fused() {
    let lines = "\
  %0 = input \"x\" : f32[N,7,5]
  %1 = parameter \"w\" : f32[5,5]
  %2 = linear(%0, %1) : f32[N,7,5] \"l\"
  %3 = silu(%2) : f32[N,7,5] \"act\"
  %4 = mul(%2, %3) : f32[N,7,5] \"gate\"";
    let expected = "\
%1 = linear(%0, w) : f32[N,7,5] \"l\"
%2 = silu(%1) : f32[N,7,5] \"act\"
%3 = mul(%1, %2) : f32[N,7,5] \"gate\"
";
    assert_eq!(instructions(lines, "%4"), expected);
}

#[test]
fn what_the_graph_rounds_is_rounded_when_declared() {
    let text = "graph \"g\" {
  %0 = input \"x\" : f32[N,5]
  %1 = parameter \"w\" : f16[5,5]
  %2 = cast(%0) {to=f16} : f16[N,5] \"narrow\"
  %3 = linear(%2, %1) : f16[N,5] \"l\"
  %4 = add(%3, %2) : f16[N,5] \"sum\"
  %5 = cast(%4) {to=f32} : f32[N,5] \"wide\"
  output \"y\" = %5
}";
    let fast = "%1 = linear+residual(%0, w, %0) : f32[N,5] \"sum\"\n";
    assert_eq!(listing(&lower(text, Activations::F32), ""), fast);
    let exact = "\
%1 = cast(%0) : f32[N,5] F16 \"narrow\"
%2 = linear(%1, w) : f32[N,5] F16 \"l\"
%3 = add(%2, %1) : f32[N,5] F16 \"sum\"
";
    assert_eq!(listing(&lower(text, Activations::Declared), ""), exact);
}

#[test]
fn keys_of_decomposed_attention_are_multiplied_as_they_lie() {
    let lines = "\
  %0 = input \"q\" : f32[N,2,7,4]
  %1 = input \"k\" : f32[N,2,9,4]
  %2 = transpose(%1) {perm=[0,1,3,2]} : f32[N,2,4,9] \"kt\"
  %3 = matmul(%0, %2) : f32[N,2,7,9] \"logits\"";
    let expected = "%2 = matmulᵀ(%0, %1) : f32[N,2,7,9] \"logits\"\n";
    assert_eq!(instructions(lines, "%3"), expected);
}

#[test]
fn a_value_that_is_moved_is_moved_once() {
    let lines = "\
  %0 = input \"x\" : f32[N,4,6,6]
  %1 = parameter \"w\" : f32[8,4,3,3]
  %2 = parameter \"v\" : f32[8,4,1,1]
  %3 = conv2d(%0, %1) {strides=[1,1], pads=[1,1,1,1], groups=1} : f32[N,8,6,6] \"c\"
  %4 = conv2d(%0, %2) {strides=[1,1], pads=[0,0,0,0], groups=1} : f32[N,8,6,6] \"s\"
  %5 = mul(%3, %4) : f32[N,8,6,6] \"m\"";
    let expected = "\
%1 = permute[0, 2, 3, 1](%0) : f32[N,6,6,4] \"c\"
%2 = conv2d(%1, w) : f32[N,6,6,8] \"c\"
%3 = linear(%1, v) : f32[N,6,6,8] \"s\"
%4 = mul(%2, %3) : f32[N,6,6,8] \"m\"
%5 = permute[0, 3, 1, 2](%4) : f32[N,8,6,6] \"y\"
";
    assert_eq!(instructions(lines, "%5"), expected);
}

#[test]
fn what_the_device_cannot_do_is_named() {
    let refused = |lines: &str, output: &str| {
        let text = format!("graph \"g\" {{\n{lines}\n  output \"y\" = {output}\n}}\n");
        let graph = parse(&text).unwrap();
        let error = lowered(&verify(&graph).unwrap(), Activations::F32).unwrap_err();
        error.to_string()
    };
    let integers = refused(
        "  %0 = input \"x\" : i32[N,5]\n  %1 = add(%0, %0) : i32[N,5] \"twice\"",
        "%1",
    );
    let expected = "graph 'g', node 'twice': add is not supported by this target: the device computes in f32, not i32; \
                    fold it or cast it";
    assert_eq!(integers, expected);
    let weights = refused(
        "  %0 = input \"x\" : f32[N,4,6,6]\n  %1 = input \"w\" : f32[8,4,1,1]\n  \
         %2 = conv2d(%0, %1) {strides=[1,1], pads=[0,0,0,0], groups=1} : f32[N,8,6,6] \"c\"",
        "%2",
    );
    assert!(weights.contains("node 'c': conv2d"), "{weights}");
    assert!(weights.contains("computed at run time"), "{weights}");
    let empty = refused("  %0 = input \"x\" : f32[N,0]", "%0");
    assert!(empty.contains("empty dimension"), "{empty}");
}
