"""Writes a Core ML package per operation that snapc reads but does not write, and what numpy computes for it.

usage: make_mil_operators.py FOLDER

Each package NAME.mlpackage has one output. `tensors.safetensors` holds its inputs as NAME.in.INPUT and what numpy makes
of them as NAME.out.OUTPUT. Data is seeded noise. The packages are built with coremltools' builder and saved without
passes.
"""

import logging
import os
import sys

import numpy as np
from safetensors.numpy import save_file

logging.disable(logging.WARNING)

import coremltools as ct  # noqa: E402
from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

NOISE = np.random.default_rng(20240312)
IOS16, IOS17, IOS18 = ct.target.iOS16, ct.target.iOS17, ct.target.iOS18


def noise(*shape, low=-2.0, high=2.0):
    return NOISE.uniform(low, high, shape).astype(np.float32)


def indices(bound, *shape):
    return NOISE.integers(0, bound, shape).astype(np.int32)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def normalized(x, axes, epsilon):
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + epsilon)


def convolved(x, weight, pads, stride):
    top, bottom, left, right = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    return np.einsum("nchwuv,ocuv->nohw", windows[:, :, ::stride, ::stride], weight)


def channels(x):
    return x[None, :, None, None]


IMAGE, ROWS = noise(2, 4, 6, 6), noise(2, 3, 5)
POSITIVE = noise(2, 3, 5, low=0.5)
KERNEL, SCALE, BIAS = noise(3, 4, 3, 3), noise(4), noise(4)
MEAN, VARIANCE = noise(4), noise(4, low=0.1)
HEADS = [noise(2, 5, 3, 4), noise(2, 4, 3, 7)]
ATTENDED = [noise(2, 5, 8), noise(2, 7, 8), noise(2, 7, 6)]
PICKS = indices(5, 2, 3, 4)
PAIRS = np.stack([indices(2, 4), indices(3, 4)], axis=1)

# Name: target, inputs, the operation of them, and the same in numpy.
CASES = {
    "square": (IOS16, [ROWS], lambda x: mb.square(x=x), lambda x: x * x),
    "rsqrt": (IOS16, [POSITIVE], lambda x: mb.rsqrt(x=x, epsilon=0.1), lambda x: 1 / np.sqrt(x + 0.1)),
    "inverse": (IOS16, [POSITIVE], lambda x: mb.inverse(x=x, epsilon=0.2), lambda x: 1 / (x + 0.2)),
    "exp2": (IOS16, [ROWS], lambda x: mb.exp2(x=x), np.exp2),
    "tanh": (IOS16, [ROWS], lambda x: mb.tanh(x=x), np.tanh),
    "gelu_tanh": (
        IOS16,
        [ROWS],
        lambda x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ),
    "pow_3": (IOS16, [ROWS], lambda x: mb.pow(x=x, y=3.0), lambda x: x**3),
    "pow_half": (IOS16, [POSITIVE], lambda x: mb.pow(x=x, y=0.5), np.sqrt),
    "pow_inverse_root": (IOS16, [POSITIVE], lambda x: mb.pow(x=x, y=-0.5), lambda x: 1 / np.sqrt(x)),
    "reduce_sum": (
        IOS16,
        [IMAGE],
        lambda x: mb.reduce_sum(x=x, axes=[1, -1], keep_dims=False),
        lambda x: x.sum((1, 3)),
    ),
    "argmax_kept": (
        IOS16,
        [ROWS],
        lambda x: mb.cast(x=mb.reduce_argmax(x=x, axis=-1, keep_dims=True), dtype="fp32"),
        lambda x: x.argmax(-1)[..., None].astype(np.float32),
    ),
    "batch_norm": (
        IOS16,
        [IMAGE],
        lambda x: mb.batch_norm(x=x, mean=MEAN, variance=VARIANCE, gamma=SCALE, beta=BIAS, epsilon=0.01),
        lambda x: (x - channels(MEAN)) / np.sqrt(channels(VARIANCE) + 0.01) * channels(SCALE) + channels(BIAS),
    ),
    "instance_norm": (
        IOS16,
        [IMAGE],
        lambda x: mb.instance_norm(x=x, gamma=SCALE, beta=BIAS, epsilon=0.01),
        lambda x: normalized(x, (2, 3), 0.01) * channels(SCALE) + channels(BIAS),
    ),
    "layer_norm_channels": (
        IOS16,
        [IMAGE],
        lambda x: mb.layer_norm(x=x, axes=[1], gamma=SCALE, beta=BIAS, epsilon=0.01),
        lambda x: normalized(x, (1,), 0.01) * channels(SCALE) + channels(BIAS),
    ),
    "layer_norm_two_axes": (
        IOS16,
        [ROWS],
        lambda x: mb.layer_norm(x=x, axes=[-2, -1], epsilon=0.01),
        lambda x: normalized(x, (1, 2), 0.01),
    ),
    "conv_same": (
        IOS16,
        [IMAGE],
        lambda x: mb.conv(x=x, weight=KERNEL, pad_type="same", strides=[2, 2]),
        lambda x: convolved(x, KERNEL, (0, 1, 0, 1), 2),
    ),
    "conv_same_lower": (
        IOS16,
        [IMAGE],
        lambda x: mb.conv(x=x, weight=KERNEL, pad_type="same_lower", strides=[2, 2]),
        lambda x: convolved(x, KERNEL, (1, 0, 1, 0), 2),
    ),
    "conv_valid": (
        IOS16,
        [IMAGE],
        lambda x: mb.conv(x=x, weight=KERNEL, pad_type="valid"),
        lambda x: convolved(x, KERNEL, (0, 0, 0, 0), 1),
    ),
    "einsum_logits": (
        IOS16,
        HEADS,
        lambda k, q: mb.einsum(values=(k, q), equation="bkhc,bchq->bkhq"),
        lambda k, q: np.einsum("bkhc,bchq->bkhq", k, q),
    ),
    "einsum_values": (
        IOS16,
        [noise(2, 4, 3, 5), noise(2, 5, 3, 7)],
        lambda v, w: mb.einsum(values=(v, w), equation="bchk,bkhq->bchq"),
        lambda v, w: np.einsum("bchk,bkhq->bchq", v, w),
    ),
    "einsum_three": (
        IOS16,
        [noise(4, 3, 5), noise(5, 3, 2)],
        lambda x, y: mb.einsum(values=(x, y), equation="chw,whr->chr"),
        lambda x, y: np.einsum("chw,whr->chr", x, y),
    ),
    "attention_of_three": (
        IOS18,
        ATTENDED,
        lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        lambda q, k, v: softmax(q @ k.transpose(0, 2, 1) / np.sqrt(8), -1) @ v,
    ),
    "attention_masked": (
        IOS18,
        [noise(2, 3, 5, 4), noise(2, 3, 7, 4), noise(2, 3, 7, 4), noise(5, 7)],
        lambda q, k, v, m: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m),
        lambda q, k, v, m: softmax(q @ k.transpose(0, 1, 3, 2) / 2 + m, -1) @ v,
    ),
    "softmax_first": (IOS16, [ROWS], lambda x: mb.softmax(x=x, axis=-3), lambda x: softmax(x, 0)),
    "reshape_open": (
        IOS16,
        [ROWS],
        lambda x: mb.reshape(x=x, shape=[0, -1, 1]),
        lambda x: x.reshape(2, 15, 1),
    ),
    "squeeze_all": (IOS16, [noise(1, 3, 1, 2)], lambda x: mb.squeeze(x=x), lambda x: x.squeeze()),
    "stack": (
        IOS16,
        [ROWS, POSITIVE],
        lambda x, y: mb.stack(values=[x, y], axis=-1),
        lambda x, y: np.stack([x, y], -1),
    ),
    "tile": (IOS16, [ROWS], lambda x: mb.tile(x=x, reps=[1, 3, 2]), lambda x: np.tile(x, (1, 3, 2))),
    "split_equal": (
        IOS16,
        [IMAGE],
        lambda x: mb.sub(x=mb.split(x=x, num_splits=2, axis=1)[1], y=mb.split(x=x, num_splits=2, axis=1)[0]),
        lambda x: x[:, 2:] - x[:, :2],
    ),
    "slice_steps": (
        IOS16,
        [IMAGE],
        lambda x: mb.slice_by_index(x=x, begin=[0, 1, 0, 4], end=[2, 4, 6, 0], stride=[1, 2, 3, -2]),
        lambda x: x[:, 1:4:2, ::3, 4:0:-2],
    ),
    "slice_masks": (
        IOS16,
        [IMAGE],
        lambda x: mb.slice_by_index(
            x=x,
            begin=[1, -3, 9, 0],
            end=[0, -1, 9, -2],
            begin_mask=[False, False, True, False],
            end_mask=[True, False, True, False],
            squeeze_mask=[True, False, False, False],
        ),
        lambda x: x[1, -3:-1, :, 0:-2],
    ),
    "slice_by_size": (
        IOS16,
        [IMAGE],
        lambda x: mb.slice_by_size(x=x, begin=[0, 1, 2, 3], size=[-1, 2, -1, 1]),
        lambda x: x[:, 1:3, 2:, 3:4],
    ),
    "gather_along_axis": (
        IOS16,
        [noise(2, 5, 4), PICKS],
        lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=1),
        lambda x, i: np.take_along_axis(x, i, 1),
    ),
    "gather_pairs": (
        IOS16,
        [noise(2, 3, 5), PAIRS],
        lambda x, i: mb.gather_nd(x=x, indices=i),
        lambda x, i: x[i[:, 0], i[:, 1]],
    ),
    "gather_narrow_indices": (
        IOS17,
        [noise(9, 4), indices(9, 2, 3)],
        lambda x, i: mb.gather(x=x, indices=mb.cast(x=i, dtype="uint16"), axis=0),
        lambda x, i: x[i],
    ),
    "resize": (
        IOS16,
        [IMAGE],
        lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=18, target_size_width=18),
        lambda x: x.repeat(3, 2).repeat(3, 3),
    ),
    "matmul_transposed": (
        IOS16,
        [noise(2, 5, 3), noise(2, 4, 5)],
        lambda x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        lambda x, y: x.transpose(0, 2, 1) @ y.transpose(0, 2, 1),
    ),
    "linear_vector": (
        IOS16,
        [noise(5)],
        lambda x: mb.linear(x=x, weight=ROWS[0], bias=MEAN[:3]),
        lambda x: ROWS[0] @ x + MEAN[:3],
    ),
}


def make(path, target, inputs, build):
    """Writes the package of one operation and gives the names of its inputs and output."""
    dtypes = {np.dtype(np.float32): types.fp32, np.dtype(np.int32): types.int32}
    specs = [mb.TensorSpec(shape=x.shape, dtype=dtypes[x.dtype]) for x in inputs]
    program = mb.program(input_specs=specs, opset_version=target)(build)
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.save(path)
    function = model._mil_program.functions["main"]
    return list(function.inputs), function.outputs[0].name


def main():
    folder = sys.argv[1]
    tensors = {}
    for name, (target, inputs, build, meaning) in CASES.items():
        names, output = make(os.path.join(folder, f"{name}.mlpackage"), target, inputs, build)
        for feature, value in zip(names, inputs, strict=True):
            tensors[f"{name}.in.{feature}"] = np.ascontiguousarray(value)
        tensors[f"{name}.out.{output}"] = np.ascontiguousarray(meaning(*inputs), dtype=np.float32)
    save_file(tensors, os.path.join(folder, "tensors.safetensors"))


if __name__ == "__main__":
    main()
