//! From identifiers back to diffusers' module paths.
//!
//! In a package, `down_blocks.0.resnets.1.conv1` is `down_blocks_0_resnets_1_conv1`, since identifiers have no dots. The
//! words of these paths are few, so that an identifier made of them alone has one path. Others, such as those that
//! coremltools makes up, stay as they are.

/// Parts of paths that a number follows.
const NUMBERED: [&str; 11] = [
    "attentions",
    "blocks",
    "down_blocks",
    "downsamplers",
    "layers",
    "net",
    "resnets",
    "to_out",
    "transformer_blocks",
    "up_blocks",
    "upsamplers",
];

/// Parts of paths that no number follows.
const PLAIN: [&str; 53] = [
    "attn1",
    "attn2",
    "bias",
    "conv",
    "conv1",
    "conv2",
    "conv_in",
    "conv_norm_out",
    "conv_out",
    "conv_shortcut",
    "decoder",
    "embeddings",
    "encoder",
    "fc1",
    "fc2",
    "ff",
    "final_layer_norm",
    "group_norm",
    "k_proj",
    "layer_norm1",
    "layer_norm2",
    "linear_1",
    "linear_2",
    "mid_block",
    "mlp",
    "nonlinearity",
    "norm",
    "norm1",
    "norm2",
    "norm3",
    "out_proj",
    "pooler",
    "position_embedding",
    "position_embeddings",
    "post_quant_conv",
    "proj",
    "proj_in",
    "proj_out",
    "q_proj",
    "self_attn",
    "text_model",
    "time_emb_proj",
    "time_embedding",
    "time_proj",
    "to_k",
    "to_q",
    "to_v",
    "token_embedding",
    "upsample",
    "v_proj",
    "weight",
    "act",
    "activation_fn",
];

/// What snapc's writer puts behind the path for the steps that a node takes in MIL.
const STEPS: [&str; 16] = [
    "attended",
    "channels",
    "groups",
    "joined",
    "key",
    "key_rows",
    "linear",
    "matmul",
    "normalized",
    "per_channel",
    "query",
    "query_rows",
    "rows",
    "scaled",
    "scaled_query",
    "value",
];

/// The path that an identifier comes from, without the number that made it unique and the step behind it; the identifier
/// itself when it is no path.
pub(super) fn restored(identifier: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = identifier;
    while !rest.is_empty() {
        let Some((part, number, after)) = part(rest) else {
            break;
        };
        parts.push(part);
        parts.extend(number);
        rest = after;
    }
    let is_suffix = rest.is_empty() || is_number(rest) || is_step(rest);
    if parts.is_empty() || !is_suffix {
        return identifier.to_owned();
    }
    parts.join(".")
}

/// The longest part of a path that a word begins with, its number, and what is behind.
fn part(word: &str) -> Option<(&str, Option<&str>, &str)> {
    let plain = PLAIN.iter().filter_map(|part| {
        let (head, rest) = split(word, part)?;
        Some((head, None, rest))
    });
    let numbered = NUMBERED.iter().filter_map(|part| {
        let (head, rest) = split(word, part)?;
        let digits = rest.find('_').unwrap_or(rest.len());
        let (number, rest) = rest.split_at(digits);
        is_number(number).then_some((head, Some(number), rest.strip_prefix('_').unwrap_or(rest)))
    });
    plain.chain(numbered).max_by_key(|(head, ..)| head.len())
}

/// A word cut behind a part of it that ends where the word ends or before an underscore.
fn split<'w>(word: &'w str, part: &str) -> Option<(&'w str, &'w str)> {
    let rest = word.strip_prefix(part)?;
    let after = match rest.is_empty() {
        true => rest,
        false => rest.strip_prefix('_')?,
    };
    Some((&word[..part.len()], after))
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit())
}

/// A step of the writer, possibly with the number that made it unique.
fn is_step(word: &str) -> bool {
    let unnumbered = match word.rsplit_once('_') {
        Some((head, number)) if is_number(number) => head,
        _ => word,
    };
    STEPS.contains(&unnumbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_paths_become_paths() {
        for (identifier, path) in [
            (
                "down_blocks_0_resnets_1_conv1",
                "down_blocks.0.resnets.1.conv1",
            ),
            ("time_embedding_linear_1", "time_embedding.linear_1"),
            (
                "mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0",
                "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
            ),
            // The second node of that name, and the second step of it.
            (
                "mid_block_attentions_0_norm_1",
                "mid_block.attentions.0.norm",
            ),
            (
                "mid_block_attentions_0_norm_groups_1",
                "mid_block.attentions.0.norm",
            ),
            (
                "text_model_encoder_layers_11_self_attn_q_proj_weight",
                "text_model.encoder.layers.11.self_attn.q_proj.weight",
            ),
            // Names of other tools, and words that only begin like a path.
            ("input_3_cast_fp16", "input_3_cast_fp16"),
            ("conv_input", "conv_input"),
            ("layers_of_paint", "layers_of_paint"),
        ] {
            assert_eq!(restored(identifier), path);
        }
    }
}
