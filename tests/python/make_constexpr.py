"""Writes a Core ML package for every form of compressed weight, and the values that coremltools gives them.

usage: make_constexpr.py FOLDER

Each package NAME.mlpackage computes `y = x + weight` with one weight. `expected.safetensors` holds the weight by NAME,
as the operation's own `materialized_val_inference` (numpy) decompresses it. Data is seeded noise.
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
SHAPE = (6, 4, 3)
F16, F32 = np.float16, np.float32


def floats(shape, dtype=F16):
    return NOISE.uniform(-2, 2, shape).astype(dtype)


def integers(name, shape):
    """Integers of a type of MIL over its whole range."""
    bits = int("".join(c for c in name if c.isdigit()))
    # Types below a byte are a byte wide in numpy, with a mark.
    dtype = getattr(types, f"np_{name}_dtype", None) or np.dtype(name)
    low, high = (0, 1 << bits) if name.startswith("u") else (-(1 << bits - 1), 1 << bits - 1)
    return NOISE.integers(low, high, shape).astype(dtype)


def sparse(values_of, shape=SHAPE):
    """A mask, and as many values as it has places."""
    mask = NOISE.integers(0, 2, shape)
    return mask.astype(types.np_uint1_dtype), values_of(int(mask.sum()))


def packed(bits, values):
    """Values in a vector of bytes, as iOS 16 stores them: least significant bit first."""
    spread = (values.astype(np.uint8).flatten()[:, None] >> np.arange(bits)) & 1
    return np.packbits(spread.astype(np.uint8).flatten(), bitorder="little")


def affine(dtype, scale, zero_point, axis):
    return lambda: mb.constexpr_affine_dequantize(
        quantized_data=integers(dtype, SHAPE), scale=scale, zero_point=zero_point, axis=np.int32(axis)
    )


def old_palette(bits, dtype):
    indices = NOISE.integers(0, 1 << bits, SHAPE)
    return lambda: mb.constexpr_lut_to_dense(
        indices=packed(bits, indices), lut=floats(1 << bits, dtype), shape=np.array(SHAPE, np.uint32)
    )


def old_sparse(dtype):
    mask = NOISE.integers(0, 2, SHAPE)
    return lambda: mb.constexpr_sparse_to_dense(
        nonzero_data=floats(int(mask.sum()), dtype), mask=packed(1, mask), shape=np.array(SHAPE, np.uint32)
    )


IOS16 = {
    "affine_int8_scalar": affine("int8", F16(0.05), np.int8(-3), 1),
    "affine_uint8_scalar": affine("uint8", F32(0.013), np.uint8(128), 0),
    "affine_int8_vector": affine("int8", floats(4), integers("int8", 4), 1),
    "affine_uint8_vector": affine("uint8", floats(3, F32), integers("uint8", 3), -1),
    "affine_scalar_zero_point": affine("int8", floats(6), np.int8(5), 0),
    "cast": lambda: mb.constexpr_cast(source_val=floats(SHAPE), output_dtype="fp32"),
    "sparse_f16": old_sparse(F16),
    "sparse_f32": old_sparse(F32),
} | {f"palette_{bits}": old_palette(bits, F16 if bits < 8 else F32) for bits in (1, 2, 4, 6, 8)}


def blockwise(data, scale, offset=None):
    extra = {} if offset is None else {"offset": offset}
    return lambda: mb.constexpr_blockwise_shift_scale(data=data, scale=scale, **extra)


def palette(bits, groups, vector=1, axis=None, dtype=F16):
    indices = integers(f"uint{bits}", SHAPE)
    extra = {} if axis is None else {"vector_axis": np.int32(axis)}
    return lambda: mb.constexpr_lut_to_dense(indices=indices, lut=floats((*groups, 1 << bits, vector), dtype), **extra)


def sparse_to_dense(make):
    """A sparse weight whose mask and values another operation gives."""

    def build():
        mask, values = make()
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)

    return build


def sparse_palette(bits, groups, vector=1, axis=None):
    def make():
        mask, indices = sparse(lambda n: integers(f"uint{bits}", n))
        extra = {} if axis is None else {"vector_axis": np.int32(axis)}
        lut = floats((*groups, 1 << bits, vector))
        return mb.constexpr_lut_to_sparse(indices_mask=mask, indices_nonzero_data=indices, lut=lut, **extra)

    return sparse_to_dense(make)


def sparse_blockwise(dtype, scale, offset=None):
    def make():
        mask, values = sparse(lambda n: integers(dtype, n))
        extra = {} if offset is None else {"offset": offset}
        return mb.constexpr_sparse_blockwise_shift_scale(data_mask=mask, nonzero_data=values, scale=scale, **extra)

    return sparse_to_dense(make)


def quantized_palette():
    """A palette of int8 entries, which are then scaled."""
    lut = integers("int8", (1, 1, 1, 16, 1))
    entries = mb.constexpr_lut_to_dense(indices=integers("uint4", SHAPE), lut=lut)
    return mb.constexpr_blockwise_shift_scale(data=entries, scale=floats((6, 1, 1)))


def sparse_quantized_palette():
    """The same of a sparse weight; coremltools materializes the last two steps only from constants."""
    mask, indices = sparse(lambda n: integers("uint4", n))
    lut, scale = integers("int8", (1, 1, 1, 16, 1)), floats((6, 1, 1))
    entries = mb.constexpr_lut_to_sparse(indices_mask=mask, indices_nonzero_data=indices, lut=lut)
    scaled = mb.constexpr_sparse_blockwise_shift_scale(data_mask=entries[0], nonzero_data=entries[1], scale=scale)
    weight = mb.constexpr_sparse_to_dense(nonzero_data=scaled[1], mask=scaled[0])
    values = type(entries[0].op).decompress(mask, indices, lut, None)
    return weight, type(weight.op).decompress(*reversed(type(scaled[0].op).decompress(*values, scale, None)))


def dense(mask, values):
    return lambda: mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)


IOS18 = {
    "blockwise_int8_tensor": blockwise(integers("int8", SHAPE), floats((1, 1, 1))),
    "blockwise_uint8_channel": blockwise(integers("uint8", SHAPE), floats((6, 1, 1)), integers("uint8", (6, 1, 1))),
    "blockwise_int4_blocks": blockwise(integers("int4", SHAPE), floats((6, 2, 1))),
    "blockwise_uint4_blocks": blockwise(integers("uint4", SHAPE), floats((3, 2, 3), F32), integers("uint4", (3, 2, 3))),
    "blockwise_int4_inner": blockwise(integers("int4", SHAPE), floats((1, 2, 3)), integers("int4", (1, 2, 3))),
    "grouped_palette_4": palette(4, (3, 1, 1)),
    "grouped_palette_3": palette(3, (1, 2, 1), dtype=F32),
    "grouped_palette_6": palette(6, (2, 2, 1)),
    "palette_1": palette(1, (1, 1, 1)),
    "palette_2_inner": palette(2, (1, 1, 3)),
    "palette_8": palette(8, (1, 1, 1)),
    "vector_palette_first": palette(2, (1, 1, 1), vector=2, axis=0),
    "vector_palette_middle": palette(4, (3, 1, 1), vector=3, axis=1),
    "vector_palette_last": palette(3, (2, 1, 1), vector=4, axis=-1),
    "sparse_dense_f16": dense(*sparse(floats)),
    "sparse_palette": sparse_palette(4, (2, 1, 1)),
    "sparse_palette_3": sparse_palette(3, (1, 1, 1)),
    "sparse_vector_palette": sparse_palette(1, (1, 1, 1), vector=2, axis=0),
    "sparse_vector_palette_last": sparse_palette(2, (3, 1, 1), vector=3, axis=2),
    "sparse_int8": sparse_blockwise("int8", floats((6, 1, 1))),
    "sparse_uint4_offset": sparse_blockwise("uint4", floats((2, 2, 1), F32), integers("uint4", (2, 2, 1))),
    "quantized_palette": quantized_palette,
    "sparse_quantized_palette": sparse_quantized_palette,
}


def make(path, build, target):
    """Writes the package of one weight and gives the weight's value."""
    made = []

    def weight():
        built = build()
        built, value = built if isinstance(built, tuple) else (built, built.op.materialized_val_inference())
        made.append(np.ascontiguousarray(value))
        return built

    # A first program tells the weight's type, which the input must have.
    probe = mb.program(input_specs=[], opset_version=target)(lambda: mb.identity(x=weight()))
    like = probe.functions["main"].outputs[0]
    spec = mb.TensorSpec(shape=like.shape, dtype=like.dtype)
    program = mb.program(input_specs=[spec], opset_version=target)(lambda x: mb.add(x=x, y=weight(), name="y"))
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.save(path)
    return made[-1]


def main():
    folder = sys.argv[1]
    expected = {}
    for cases, target in ((IOS16, ct.target.iOS16), (IOS18, ct.target.iOS18)):
        for name, build in cases.items():
            expected[name] = make(os.path.join(folder, f"{name}.mlpackage"), build, target)
    save_file(expected, os.path.join(folder, "expected.safetensors"))


if __name__ == "__main__":
    main()
