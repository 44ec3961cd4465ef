"""The committed reference numbers are still what diffusers gives: makes them again and compares.

Another version of torch or another processor may round differently, so the bar is 120 dB rather than equal bytes.
"""

import tempfile
from pathlib import Path

import numpy as np
from parity import FIXTURES, Report
from safetensors.numpy import load_file

from make_graph_reference import write_graph_reference
from make_reference import main as make_reference

BAR = 120.0
FOLDERS = ("tiny", "variants/lean", "variants/sd2")


def compare_files(report: Report, what: str, found: Path, expected: Path) -> None:
    """Compares all tensors of two files."""
    found_tensors, expected_tensors = load_file(found), load_file(expected)
    report.require(f"{what}: same keys", found_tensors.keys() == expected_tensors.keys())
    for key, tensor in expected_tensors.items():
        if tensor.dtype == np.int32:
            report.require(f"{what} {key}", bool((found_tensors[key] == tensor).all()))
        else:
            spread = tensor.max() > tensor.min()
            if spread:
                report.compare(f"{what} {key}", found_tensors[key], tensor, BAR)
            else:
                report.require(f"{what} {key}", bool((found_tensors[key] == tensor).all()))


def main() -> None:
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.safetensors"
        for name in FOLDERS:
            write_graph_reference(FIXTURES / name, again)
            compare_files(report, name, again, FIXTURES / name / "graphs.safetensors")
        make_reference([str(FIXTURES / "tiny"), "-o", str(again)])
        compare_files(report, "tiny run", again, FIXTURES / "tiny" / "reference.safetensors")
    report.finish()


if __name__ == "__main__":
    main()
