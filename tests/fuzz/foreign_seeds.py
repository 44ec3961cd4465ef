"""Writes the seeds that are not snapc's: models of onnx.helper and packages of coremltools, with what snapc does not write.

usage: .cache/venv-light/bin/python tests/fuzz/foreign_seeds.py

They go into tests/fuzz/seeds/{onnx,mlprogram}/foreign-*, at most 4 KiB each, in the form of those targets' inputs.
"""

import logging
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from onnx import TensorProto, helper, numpy_helper

logging.disable(logging.WARNING)

import coremltools as ct  # noqa: E402
from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.proto import Model_pb2  # noqa: E402

HERE = pathlib.Path(__file__).parent
MAX_LEN = 4096
UNET = b"\1"
F16, F32, I64 = np.float16, np.float32, np.int64

# Compressed weights of tests/python/make_constexpr.py: each operation once, and a few forms more.
COMPRESSED = [
    "affine_int8_vector", "cast", "sparse_f16", "palette_4", "blockwise_uint4_blocks", "grouped_palette_3",
    "vector_palette_middle", "sparse_dense_f16", "sparse_vector_palette", "sparse_uint4_offset", "sparse_quantized_palette",
]  # fmt: skip


def write(target, name, message, data):
    seed = len(message).to_bytes(2, "little") + message + data
    assert len(seed) <= MAX_LEN, f"{name} has {len(seed)} bytes"
    (HERE / "seeds" / target / f"foreign-{name}").write_bytes(seed)


class Model:
    """An ONNX model under construction: `node` gives the name of the result, arrays become initializers."""

    def __init__(self, opset=17):
        self.opset, self.nodes, self.initializers = opset, [], []

    def name(self, value):
        if isinstance(value, str):
            return value
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op, *inputs, outputs=1, **attributes):
        results = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        inputs = [self.name(i) for i in inputs]
        self.nodes.append(helper.make_node(op, inputs, results, **attributes))
        return results[0] if outputs == 1 else results

    def write(self, name, result, shape, dtype=TensorProto.FLOAT, data=b""):
        x = helper.make_tensor_value_info("x", dtype, shape)
        y = helper.make_tensor_value_info(result, dtype, None)
        graph = helper.make_graph(self.nodes, "unet", [x], [y], self.initializers)
        opset = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        write("onnx", name, model.SerializeToString(deterministic=True), UNET + data)


def onnx_seeds():
    m = Model()
    shape = m.node("Shape", "x")
    size = m.node("Gather", shape, I64(0), axis=0)
    size = m.node("Unsqueeze", size, np.array([0]))
    shape = m.node("Concat", size, np.array([-1]), axis=0)
    m.write("shape-arithmetic", m.node("Reshape", "x", shape), ["batch", 4, 6])

    m = Model()
    ones = m.node("ConstantOfShape", np.array([3, 3]), value=helper.make_tensor("v", TensorProto.FLOAT, [1], [-1e4]))
    mask = m.node("Trilu", ones, np.array(1), upper=1)
    line = m.node("Range", I64(0), I64(3), I64(1))
    under = m.node("Less", line, m.node("Unsqueeze", line, np.array([1])))
    under = m.node("Or", m.node("Not", under), m.node("And", under, under))
    mask = m.node("Where", under, mask, np.array(0, F32))
    mask = m.node("Expand", mask, np.array([2, 3, 3]))
    m.write("causal-mask", m.node("Add", "x", mask), [2, 3, 3])

    m = Model(opset=20)
    y = m.node("Gelu", "x", approximate="none")
    y = m.node("Pow", y, np.array(2, F32))
    y = m.node("Neg", m.node("Reciprocal", y))
    y = m.node("CastLike", m.node("Dropout", y), np.array(0, F32))
    m.write("elementwise", y, [2, 3])

    m = Model(opset=18)
    a, b = m.node("Split", "x", outputs=2, axis=1, num_outputs=2)
    a, _ = m.node("Split", a, np.array([1, 1]), outputs=2, axis=1)
    y = m.node("Slice", a, np.array([-2]), np.array([2**63 - 1]), np.array([-2]), np.array([1]))
    y = m.node("Squeeze", m.node("Unsqueeze", m.node("Mul", y, b), np.array([0, 3])), np.array([0]))
    y = m.node("Transpose", m.node("Flatten", y, axis=1), perm=[1, 0])
    m.write("movement", m.node("GatherND", y, np.array([[0], [1]])), [1, 4, 3])

    m = Model(opset=21)
    y = m.node("GroupNormalization", "x", np.ones(4, F32), np.zeros(4, F32), num_groups=2)
    y = m.node("InstanceNormalization", y, np.ones(4, F32), np.zeros(4, F32))
    y = m.node("LayerNormalization", y, np.ones(2, F32), np.zeros(2, F32), axis=-1)
    m.write("norms", m.node("Softmax", m.node("ReduceMean", y, np.array([2]), keepdims=1), axis=1), [1, 4, 2, 2])

    m = Model()
    y = m.node("Conv", "x", np.ones((2, 1, 3, 3), F32), np.zeros(2, F32), group=2, pads=[1, 0, 1, 2], strides=[2, 1])
    scales = np.array([1, 1, 2, 2], F32)
    y = m.node("Resize", y, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    y = m.node("Reshape", y, np.array([0, 0, -1]))
    m.write("images", m.node("ArgMax", y, axis=2, keepdims=0), [1, 2, 4, 4])

    m = Model(opset=21)
    m.initializers.append(helper.make_tensor("w", TensorProto.UINT4, [4, 2], [1, 15, 0, 7, 8, 3, 9, 2]))
    m.initializers.append(helper.make_tensor("z", TensorProto.UINT4, [2, 2], [8, 7, 0, 15]))
    grid = np.array(0.25, F32), np.array(3, np.uint8)
    y = m.node("DequantizeLinear", m.node("QuantizeLinear", "x", *grid), *grid)
    y = m.node("MatMul", y, m.node("DequantizeLinear", "w", np.ones((2, 2), F32), "z", axis=0, block_size=2))
    codes = np.array([[1, 2], [3, 4]], np.uint8)
    y = m.node("MatMul", y, m.node("DequantizeLinear", codes, np.ones(2, F32), np.zeros(2, np.uint8), axis=1))
    tables = np.arange(8, dtype=F32).reshape(2, 4)
    mask = m.node("BitwiseAnd", m.node("BitShift", np.array([[228]], np.uint8), np.array([0, 2, 4, 6], np.uint8), direction="RIGHT"), np.array(3, np.uint8))
    codes = m.node("Cast", m.node("Reshape", mask, np.array([2, 2])), to=TensorProto.INT32)
    y = m.node("MatMul", y, m.node("GatherElements", tables, codes, axis=1))
    bias = m.node("DequantizeLinear", np.array([70000, -5], np.int32), np.array(1e-4, F32))
    m.write("codes", m.node("Add", y, bias), [3, 4])

    m = Model()
    y = m.node("Gemm", "x", np.ones((3, 2), F32), np.ones(3, F32), transB=1, alpha=0.5, beta=2.0)
    y = m.node("MatMul", y, np.ones((3, 2), F32))
    m.write("products", y, [4, 2])

    m = Model()
    kinds = {
        "f": (TensorProto.FLOAT, [1.5, 2]), "d": (TensorProto.DOUBLE, [1.5, 2]), "i": (TensorProto.INT32, [1, 2]),
        "l": (TensorProto.INT64, [1, 2]), "b": (TensorProto.BOOL, [True, False]),
        "h": (TensorProto.FLOAT16, [1.5, 2]), "n": (TensorProto.BFLOAT16, [1.5, 2]),
    }  # fmt: skip
    y = "x"
    for name, (kind, values) in kinds.items():
        m.initializers.append(helper.make_tensor(name, kind, [2], values))
        y = m.node("Add", y, m.node("Cast", name, to=TensorProto.FLOAT))
    y = m.node("Add", y, m.node("Constant", value_floats=[1.0, 2.0]))
    y = m.node("Mul", y, m.node("Cast", m.node("Constant", value_int=3), to=TensorProto.FLOAT))
    m.write("element-types", y, [2])

    m = Model()
    stored = TensorProto(name="w", data_type=TensorProto.FLOAT16, dims=[4, 4])
    stored.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "model.onnx_data", "offset": "16", "length": "32", "checksum": "0"}.items():
        stored.external_data.add(key=key, value=value)
    m.initializers.append(stored)
    m.write("external", m.node("MatMul", "x", "w"), [1, 4], TensorProto.FLOAT16, bytes(range(48)))


def package(name, path):
    data = path / "Data/com.apple.CoreML"
    weights = data / "weights/weight.bin"
    stored = weights.read_bytes() if weights.exists() else b""
    spec = Model_pb2.Model()
    spec.ParseFromString((data / "model.mlmodel").read_bytes())
    # It holds the date.
    spec.description.metadata.ClearField("userDefined")
    write("mlprogram", name, spec.SerializeToString(deterministic=True), stored)


def movement(x):
    a, b = mb.split(x=x, num_splits=2, axis=1)
    y = mb.stack(values=[a, b], axis=0)
    y = mb.slice_by_index(x=y, begin=[0, 0, 0, 0], end=[0, 0, 2, 0], stride=[1, 1, 1, 2], end_mask=[True, True, False, True])
    y = mb.squeeze(x=mb.slice_by_size(x=y, begin=[0, 0, 0, 0], size=[1, -1, 2, -1]), axes=[0])
    return mb.tile(x=mb.expand_dims(x=y, axes=[0]), reps=[1, 1, 2, 1])


def elementwise(x):
    y = mb.rsqrt(x=mb.square(x=x), epsilon=F16(1e-3))
    y = mb.inverse(x=mb.exp2(x=mb.pow(x=y, y=F16(2))), epsilon=F16(1e-3))
    y = mb.gelu(x=mb.tanh(x=y), mode="TANH_APPROXIMATION")
    return mb.select(cond=True, a=y, b=mb.sub(x=y, y=x))


def images(x):
    y = mb.conv(x=x, weight=np.ones((2, 1, 3, 3), F16), groups=2, pad_type="same", strides=[2, 1])
    y = mb.instance_norm(x=y, gamma=np.ones(2, F16), beta=np.zeros(2, F16))
    y = mb.batch_norm(x=y, mean=np.zeros(2, F16), variance=np.ones(2, F16))
    return mb.upsample_nearest_neighbor(x=y, scale_factor_height=2, scale_factor_width=2)


def products(x):
    y = mb.einsum(values=[mb.expand_dims(x=x, axes=[0]), np.ones((1, 4, 3, 2), F16)], equation="bnck,bkct->bnct")
    return mb.reduce_sum(x=mb.softmax(x=y, axis=-1), axes=[1], keep_dims=True)


def gathers(x):
    y = mb.gather(x=x, indices=np.array([1, -1], np.int32), axis=0)
    y = mb.gather_along_axis(x=y, indices=np.zeros((2, 3, 4), np.int32), axis=1)
    return mb.gather_nd(x=y, indices=np.array([[0, 1], [1, 2]], np.int32))


PROGRAMS = {
    "movement": (movement, (2, 4, 4), ct.target.iOS16),
    "elementwise": (elementwise, (2, 3), ct.target.iOS15),
    "images": (images, (1, 2, 4, 4), ct.target.iOS17),
    "products": (products, (2, 3, 4), ct.target.iOS16),
    "gathers": (gathers, (2, 3, 4), ct.target.iOS17),
}


def core_ml_seeds(folder):
    script = HERE.parent / "python/make_constexpr.py"
    subprocess.run([sys.executable, script, folder], check=True)
    for name in COMPRESSED:
        package(name.replace("_", "-"), folder / f"{name}.mlpackage")
    for name, (build, shape, target) in PROGRAMS.items():
        dtype = ct.converters.mil.mil.types.fp16
        spec = mb.TensorSpec(shape=shape, dtype=dtype)
        program = mb.program(input_specs=[spec], opset_version=target)(build)
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        path = folder / f"program_{name}.mlpackage"
        model.save(path)
        package(name, path)


def main():
    onnx_seeds()
    with tempfile.TemporaryDirectory() as folder:
        core_ml_seeds(pathlib.Path(folder))


if __name__ == "__main__":
    main()
