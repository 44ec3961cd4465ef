"""Reads Core ML packages with coremltools and evaluates them.

usage: run_coreml.py JOBS.json

JOBS.json is a list of {"package": folder, "inputs": file, "outputs": file}, for a package of several functions with
"function": name. Each package is opened as coremltools does
it, its program rebuilt with type inference by `milproto.load`, and that program is evaluated in numpy on the tensors of
`inputs` (safetensors). The outputs are written to `outputs` (safetensors). Prints one JSON list: null or the error of
each job; the exit status is 1 if there is an error.

Every result is rounded to the element type that the program declares for it; inside an operation, floats are f32 (the
statistics of norms and softmax in f64). That is the storage a device has; how it rounds
inside an operation is not shown.
"""

import json
import logging
import math
import os
import shutil
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

logging.disable(logging.WARNING)

import coremltools as ct  # noqa: E402
from coremltools.converters.mil.frontend.milproto import load as milproto  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402


def load_program(package):
    """The package as a PyMIL program and its spec. Works on a copy, because opening a package rewrites its manifest."""
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, os.path.basename(package))
        os.mkdir(copy)
        shutil.copy(os.path.join(package, "Manifest.json"), copy)
        os.symlink(os.path.abspath(os.path.join(package, "Data")), os.path.join(copy, "Data"))
        model = ct.models.MLModel(copy, skip_model_load=True)
        spec = model.get_spec()
        program = milproto.load(
            spec,
            specification_version=spec.specificationVersion,
            file_weights_dir=model.weights_dir,
        )
    return program, spec


def wide(x):
    """Halves as singles; everything else as it is."""
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype == np.float16 else x


def conv(x, weight, pad_type, pad, strides, dilations, groups, bias=None):
    assert pad_type == "custom" and list(dilations) == [1, 1]
    top, bottom, left, right = pad
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    c_out, c_in, kh, kw = weight.shape
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    results = []
    for g in range(groups):
        w = weight[g * c_out // groups : (g + 1) * c_out // groups]
        part = windows[:, g * c_in : (g + 1) * c_in]
        results.append(np.tensordot(part, w, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2))
    y = np.concatenate(results, axis=1)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def layer_norm(x, axes, epsilon, gamma=None, beta=None):
    axes = tuple(int(a) for a in axes)
    d = x.astype(np.float64)
    mean = d.mean(axes, keepdims=True)
    variance = ((d - mean) ** 2).mean(axes, keepdims=True)
    y = (d - mean) / np.sqrt(variance + float(epsilon))
    sizes = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    if gamma is not None:
        y = y * gamma.reshape(sizes)
    return y if beta is None else y + beta.reshape(sizes)


def softmax(x, axis):
    d = x.astype(np.float64)
    e = np.exp(d - d.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def attention(query, key, value, attn_mask=None):
    logits = query @ np.swapaxes(key, -1, -2) / np.float32(math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        logits = np.where(attn_mask, logits, -np.inf) if attn_mask.dtype == bool else logits + attn_mask
    return softmax(logits, -1).astype(np.float32) @ value


ERF = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x, mode):
    if mode == "EXACT":
        return x * 0.5 * (1 + ERF(x / math.sqrt(2)))
    assert mode == "SIGMOID_APPROXIMATION"
    return x * sigmoid(1.702 * x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def slice_by_index(x, begin, end, stride, begin_mask=None, end_mask=None, squeeze_mask=None):
    index = []
    for i in range(x.ndim):
        start = None if begin_mask is not None and begin_mask[i] else int(begin[i])
        stop = None if end_mask is not None and end_mask[i] else int(end[i])
        assert squeeze_mask is None or not squeeze_mask[i]
        index.append(slice(start, stop, int(stride[i])))
    return x[tuple(index)]


def gather(x, indices, axis, batch_dims, validate_indices=False):
    assert indices.min() >= 0 and indices.max() < x.shape[axis]
    if batch_dims == 0:
        return np.take(x, indices, axis)
    rows = [gather(a, i, axis - 1, batch_dims - 1) for a, i in zip(x, indices)]
    return np.stack(rows)


def upsample(x, scale_factor_height, scale_factor_width):
    return x.repeat(int(scale_factor_height), -2).repeat(int(scale_factor_width), -1)


def matmul(x, y, transpose_x, transpose_y):
    x = np.swapaxes(x, -1, -2) if transpose_x else x
    y = np.swapaxes(y, -1, -2) if transpose_y else y
    return x @ y


def quantize(input, scale, zero_point, output_dtype):
    assert output_dtype == "uint8"
    return np.clip(np.rint(input / np.float32(scale)) + zero_point, 0, 255)


def dequantize(input, scale, zero_point):
    return (input.astype(np.float32) - zero_point) * np.float32(scale)


OPERATIONS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "equal": lambda x, y: x == y,
    "cos": lambda x: np.cos(x),
    "sin": lambda x: np.sin(x),
    "exp": lambda x: np.exp(x),
    "erf": lambda x: ERF(x),
    "sqrt": lambda x: np.sqrt(x),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "round": lambda x: np.rint(x),
    "clip": lambda x, alpha, beta: np.clip(x, alpha, beta),
    "identity": lambda x: x,
    "cast": lambda x, dtype: x,
    "softmax": softmax,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(tuple(axes), keepdims=bool(keep_dims), dtype=np.float64),
    "reduce_argmax": lambda x, axis, keep_dims, output_dtype="int32": x.argmax(axis, keepdims=bool(keep_dims)),
    "matmul": matmul,
    "conv": conv,
    "linear": lambda x, weight, bias: x @ weight.T + bias,
    "layer_norm": layer_norm,
    "scaled_dot_product_attention": attention,
    "einsum": lambda values, equation: np.einsum(equation, *values),
    "quantize": quantize,
    "dequantize": dequantize,
    "reshape": lambda x, shape: x.reshape(shape),
    "squeeze": lambda x, axes: x.squeeze(tuple(axes)),
    "transpose": lambda x, perm: x.transpose(perm),
    "concat": lambda values, axis, interleave: np.concatenate(values, axis),
    "slice_by_index": slice_by_index,
    "gather": gather,
    "upsample_nearest_neighbor": upsample,
}


# Parameters that are data even without dimensions; other scalars are settings, which numpy wants as Python values.
DATA = {"x", "y", "indices", "input"}


def argument(name, value):
    """The value of a parameter as its operation takes it."""
    if isinstance(value, str):
        return value
    value = wide(value)
    return value if value.ndim or name in DATA else value.item()


def evaluate(program, inputs, function):
    """The outputs of one of the program's functions by name."""
    function = program.functions[function]
    values = {}
    for name, variable in function.inputs.items():
        if name not in inputs:
            raise ValueError(f"input {name} is not given")
        given = inputs[name]
        if tuple(given.shape) != tuple(variable.shape):
            raise ValueError(f"input {name} has shape {given.shape}, the program wants {variable.shape}")
        values[variable] = given.astype(types.nptype_from_builtin(variable.dtype))
    extra = set(inputs) - set(function.inputs)
    if extra:
        raise ValueError(f"inputs {sorted(extra)} are not the program's")
    for op in function.operations:
        (result,) = op.outputs
        if op.op_type == "const":
            values[result] = result.val
            continue
        if op.op_type.startswith("constexpr_"):
            # As coremltools itself decompresses it.
            values[result] = op.materialized_val_inference()
            continue
        arguments = {}
        for name, given in op.inputs.items():
            if isinstance(given, (list, tuple)):
                arguments[name] = [wide(values[v]) for v in given]
            elif given is not None:
                arguments[name] = argument(name, values[given])
        y = np.asarray(OPERATIONS[op.op_type](**arguments))
        y = y.astype(types.nptype_from_builtin(result.dtype))
        if tuple(y.shape) != tuple(result.shape):
            raise ValueError(f"{op.op_type} {result.name} gives {y.shape}, the program says {result.shape}")
        values[result] = y
    return {v.name: np.ascontiguousarray(values[v]) for v in function.outputs}


def run(job):
    program, spec = load_program(job["package"])
    name = job.get("function", "main")
    outputs = evaluate(program, load_file(job["inputs"]), name)
    described = {f.name: f for f in spec.description.functions} or {"main": spec.description}
    described = [feature.name for feature in described[name].output]
    if sorted(outputs) != sorted(described):
        raise ValueError(f"the program gives {sorted(outputs)}, the description says {sorted(described)}")
    save_file(outputs, job["outputs"])


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        jobs = json.load(file)
    errors = []
    for job in jobs:
        try:
            run(job)
            errors.append(None)
        except Exception as error:  # a job's failure is its result, the others still run
            errors.append(f"{type(error).__name__}: {error}")
    json.dump(errors, sys.stdout)
    return int(any(errors))


if __name__ == "__main__":
    sys.exit(main())
