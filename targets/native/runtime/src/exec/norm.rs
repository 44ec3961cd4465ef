//! Group and layer normalization.

use snapc_kernels::{GroupNorm, KernelError};
use snapc_program::Activation;

use super::Call;
use super::elementwise::activation;

pub(super) fn group_norm(
    call: &Call<'_>,
    groups: u32,
    epsilon: f32,
    function: Activation,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (gamma, beta) = (call.words(1), call.words(2));
    let batch = call.dims[0];
    let shape = GroupNorm {
        batch,
        positions: out.len() / (batch * gamma.len()),
        channels: gamma.len(),
        groups: groups as usize,
        eps: epsilon,
        activation: activation(function),
    };
    let (kernels, pool) = (call.kernels, call.pool);
    match call.shared_words(0) {
        Some(x) => kernels.group_norm(pool, shape, gamma, beta, x, out),
        None => kernels.group_norm_in_place(pool, shape, gamma, beta, out),
    }
}

pub(super) fn layer_norm(
    call: &Call<'_>,
    epsilon: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let (gamma, beta) = (call.words(1), call.words(2));
    let (kernels, pool) = (call.kernels, call.pool);
    match call.shared_words(0) {
        Some(x) => kernels.layer_norm(pool, gamma, beta, epsilon, x, out),
        None => kernels.layer_norm_in_place(pool, gamma, beta, epsilon, out),
    }
}
