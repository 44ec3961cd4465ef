"""Checks ONNX models with onnx's own checker and runs them in ONNX Runtime.

Reads a JSON list of calls from standard input: `model` (path of a .onnx file), `inputs` and `outputs` (paths of
safetensors files; the latter is written); with `plain`, nothing is optimised. Inputs are converted to the element types the model declares. A model that
occurs in several calls is checked and loaded once.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file, save_file

ELEMENT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def load(path: str, plain: bool) -> onnxruntime.InferenceSession:
    """A session of the model, which has passed the checker and strict shape inference."""
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Products with dequantized weights in f32; the default rounds the other operand to int8 as well.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, inputs_path: str, outputs_path: str) -> None:
    """One call. Every output must have the element type that the model declares."""
    given = load_file(inputs_path)
    inputs = {i.name: given[i.name].astype(ELEMENT_TYPES[i.type]) for i in session.get_inputs()}
    declared = session.get_outputs()
    results = session.run(None, inputs)
    for output, result in zip(declared, results):
        if result.dtype != ELEMENT_TYPES[output.type]:
            raise TypeError(f"output '{output.name}' is {result.dtype}, the model declares {output.type}")
    save_file({o.name: np.asarray(r) for o, r in zip(declared, results)}, outputs_path)


def main() -> None:
    sessions: dict[str, onnxruntime.InferenceSession] = {}
    for call in json.load(sys.stdin):
        path = call["model"]
        try:
            if path not in sessions:
                sessions[path] = load(path, call.get("plain", False))
            run(sessions[path], call["inputs"], call["outputs"])
        except Exception as error:
            sys.exit(f"{path}: {error}")


if __name__ == "__main__":
    main()
