//! transformers' `CLIPTextModel`.

use snapc_ir::ops::{ArgMax, Attention, Cast, Equal, Gather, Gelu, QuickGelu};
use snapc_ir::{BuildError, DType, LazyTensor, Shape, TensorType, ValueId};

use super::Network;
use super::builder::NetworkBuilder;
use super::transformer::attention_scale;
use crate::config::{Activation, TextEncoderConfig};
use crate::lookup::WeightLookup;

/// What the mask adds to the logits of later tokens: finite in f16, and far below any logit.
const MASKED: f32 = -10000.0;

/// The `eos_token_id` that stands for pooling at the largest id (transformers' `CLIPTextTransformer`).
const EOS_IS_LARGEST: i32 = 2;

/// The graph `text_encoder`: `input_ids` i32 `[N,tokens]` → `last_hidden_state` f32 `[N,tokens,hidden_size]`, after the
/// final LayerNorm, and `pooler_output` f32 `[N,hidden_size]`, its row at the end-of-text token.
///
/// # Errors
/// Never for a config that was read; the operators' own refusals are passed on.
pub fn text_encoder(
    config: &TextEncoderConfig,
    weights: &dyn WeightLookup,
) -> Result<Network, BuildError> {
    let mut b = NetworkBuilder::new("text_encoder", weights);
    let tokens = config.max_position_embeddings;
    let ids = b.input(
        "input_ids",
        TensorType::new(DType::I32, Shape::batched(&[tokens])),
    );
    let mut h = embed(&mut b, config, ids)?;
    let mask = b.constant("text_model.causal_attention_mask", causal_mask(tokens));
    for i in 0..config.num_hidden_layers {
        h = encoder_layer(
            &mut b,
            config,
            &format!("text_model.encoder.layers.{i}"),
            h,
            mask,
        )?;
    }
    let last = b.layer_norm("text_model.final_layer_norm", h, config.layer_norm_eps)?;
    let pooled = pool(&mut b, config, ids, last)?;
    b.output("last_hidden_state", last);
    b.output("pooler_output", pooled);
    Ok(b.finish())
}

/// `CLIPTextEmbeddings`: the row of each token plus the row of its position.
fn embed(
    b: &mut NetworkBuilder<'_>,
    config: &TextEncoderConfig,
    ids: ValueId,
) -> Result<ValueId, BuildError> {
    let name = "text_model.embeddings";
    let (token, position) = (
        format!("{name}.token_embedding"),
        format!("{name}.position_embedding"),
    );
    let table = b.parameter(
        &format!("{token}.weight"),
        &[config.vocab_size, config.hidden_size],
    );
    let rows = b.op(
        Gather {
            axis: 0,
            batch_dims: 0,
        },
        &[table, ids],
        &token,
    )?;
    let shape = [config.max_position_embeddings, config.hidden_size];
    let positions = b.parameter(&format!("{position}.weight"), &shape);
    b.add(&position, rows, positions)
}

/// `[tokens,tokens]`: 0 where a token (row) sees another (column), [`MASKED`] for later ones.
fn causal_mask(tokens: usize) -> LazyTensor {
    let rows = (0..tokens).flat_map(|row| (0..tokens).map(move |column| column > row));
    let mask: Vec<f32> = rows.map(|later| if later { MASKED } else { 0.0 }).collect();
    LazyTensor::from_f32(&[tokens, tokens], &mask).with_max_abs(MASKED.abs())
}

/// `CLIPEncoderLayer`: self-attention and MLP, each on a LayerNorm and added.
fn encoder_layer(
    b: &mut NetworkBuilder<'_>,
    config: &TextEncoderConfig,
    name: &str,
    x: ValueId,
    mask: ValueId,
) -> Result<ValueId, BuildError> {
    let normed = b.layer_norm(&format!("{name}.layer_norm1"), x, config.layer_norm_eps)?;
    let attention = format!("{name}.self_attn");
    let q = b.linear(&format!("{attention}.q_proj"), normed, config.hidden_size)?;
    let k = b.linear(&format!("{attention}.k_proj"), normed, config.hidden_size)?;
    let v = b.linear(&format!("{attention}.v_proj"), normed, config.hidden_size)?;
    let op = Attention {
        heads: config.num_attention_heads,
        scale: attention_scale(config.hidden_size, config.num_attention_heads),
    };
    let attended = b.op(op, &[q, k, v, mask], &attention)?;
    let attended = b.linear(
        &format!("{attention}.out_proj"),
        attended,
        config.hidden_size,
    )?;
    let x = b.add(&attention, x, attended)?;
    let normed = b.layer_norm(&format!("{name}.layer_norm2"), x, config.layer_norm_eps)?;
    let mlp = format!("{name}.mlp");
    let h = b.linear(&format!("{mlp}.fc1"), normed, config.intermediate_size)?;
    let activation = format!("{mlp}.activation_fn");
    let h = match config.hidden_act {
        Activation::QuickGelu => b.op(QuickGelu {}, &[h], &activation)?,
        Activation::Gelu => b.op(Gelu {}, &[h], &activation)?,
    };
    let h = b.linear(&format!("{mlp}.fc2"), h, config.hidden_size)?;
    b.add(&mlp, x, h)
}

/// The hidden state at the end-of-text token: the first with the configured id, or in older configs the first with
/// the largest id (`CLIPTextTransformer.forward`).
fn pool(
    b: &mut NetworkBuilder<'_>,
    config: &TextEncoderConfig,
    ids: ValueId,
    hidden: ValueId,
) -> Result<ValueId, BuildError> {
    let name = "text_model.pooler";
    let scores = if config.eos_token_id == EOS_IS_LARGEST {
        ids
    } else {
        let eos = b.constant(name, LazyTensor::from_i32(&[], &[config.eos_token_id]));
        let is_eos = b.op(Equal {}, &[ids, eos], name)?;
        b.op(Cast { to: DType::I32 }, &[is_eos], name)?
    };
    let position = b.op(ArgMax { axis: 1 }, &[scores], name)?;
    b.op(
        Gather {
            axis: 1,
            batch_dims: 1,
        },
        &[hidden, position],
        name,
    )
}
