"""Quantizes a small model statically with ONNX Runtime's own tool.

Arguments: the folder that gets the models, and for each model a word: `uint8` or `int8` activations, `channels` for a scale
per output channel of the weights or `tensors` for one each, joined by a comma. The model is called after the word. It has
one input `x` [2,4,6,6] and one output `y` [2,5], and a convolution, a product of matrices and a sum between them.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SHAPE = (2, 4, 6, 6)


def model(rng: np.random.Generator) -> onnx.ModelProto:
    """The model in floats."""
    constant = lambda name, *shape: numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["h"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["h"], ["s"], "gate"),
        helper.make_node("Mul", ["h", "s"], ["m"], "swish"),
        helper.make_node("Reshape", ["m", "shape"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "proj.weight"], ["p"], "proj"),
        helper.make_node("Add", ["p", "proj.bias"], ["y"], "sum"),
    ]
    shape = numpy_helper.from_array(np.array([SHAPE[0], 3 * 36]), "shape")
    initializers = [
        constant("conv.weight", 3, 4, 3, 3),
        constant("conv.bias", 3),
        constant("proj.weight", 3 * 36, 5),
        constant("proj.bias", 5),
        shape,
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (SHAPE[0], 5))
    graph = helper.make_graph(nodes, "small", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Samples(CalibrationDataReader):
    """Inputs for calibration."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.left = [rng.uniform(-2, 2, SHAPE).astype(np.float32) for _ in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next one."""
        return {"x": self.left.pop()} if self.left else None


def main() -> None:
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(5)
    source = folder / "float.onnx"
    onnx.save(model(rng), source)
    for word in sys.argv[2:]:
        activations, weights = word.split(",")
        quantize_static(
            str(source),
            str(folder / f"{word}.onnx"),
            Samples(np.random.default_rng(6)),
            quant_format=QuantFormat.QDQ,
            activation_type={"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}[activations],
            weight_type=QuantType.QInt8,
            per_channel=weights == "channels",
        )


if __name__ == "__main__":
    main()
