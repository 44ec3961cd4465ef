"""A full-size SD v1.5-shaped checkpoint: conversion cost, equal bytes of two runs, and parity with diffusers.

The checkpoint (2 GB, seeded random weights) and diffusers' numbers for it are made once under .cache/full-size; about
25 GB of memory and disk are touched, and the run takes some minutes. Figures of time are printed, not judged.
"""

import filecmp
import shutil

from parity import GRAPHS, ROOT, Report, compare_onnx, convert
from safetensors.numpy import load_file

from make_full import main as make_full
from make_graph_reference import write_graph_reference

FOLDER = ROOT / ".cache" / "full-size"
CHECKPOINT = FOLDER / "checkpoint"
# Per graph, artifact against f32 diffusers (docs/accuracy.md).
BARS = {"f32": 100.0, "f16": 65.0}
ANONYMOUS_LIMIT = 1 << 30


def same_files(left, right) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = sorted(p.relative_to(left) for p in left.rglob("*") if p.is_file())
    others = sorted(p.relative_to(right) for p in right.rglob("*") if p.is_file())
    return names == others and all(filecmp.cmp(left / n, right / n, shallow=False) for n in names)


def check_conversion(report: Report, target: str) -> None:
    """Two conversions in f16: their cost, and that they are equal."""
    first, second = FOLDER / f"{target}-f16", FOLDER / f"{target}-again"
    for output in (first, second):
        seconds, anonymous = convert(CHECKPOINT, target, output)
        print(f"convert --target {target}: {seconds:.1f} s, {anonymous / 1e6:.0f} MB anonymous", flush=True)
        report.require(f"convert --target {target}: at most 1 GiB anonymous", anonymous <= ANONYMOUS_LIMIT)
    report.require(f"convert --target {target}: two runs give the same bytes", same_files(first, second))
    shutil.rmtree(second)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (CHECKPOINT / "model_index.json").is_file():
        make_full(["-o", str(CHECKPOINT)])
    report = Report()
    for target in ("onnx", "coreml"):
        check_conversion(report, target)
    shutil.rmtree(FOLDER / "coreml-f16")

    reference = FOLDER / "graphs.safetensors"
    if not reference.is_file():
        write_graph_reference(CHECKPOINT, reference)
    tensors = load_file(reference)
    convert(CHECKPOINT, "onnx", FOLDER / "onnx-f32", "--precision", "f32")
    for precision, bar in BARS.items():
        artifact = FOLDER / f"onnx-{precision}"
        for graph in GRAPHS:
            compare_onnx(report, artifact, tensors, bar, f"full size {precision}", [graph])
        shutil.rmtree(artifact)
    report.finish()


if __name__ == "__main__":
    main()
