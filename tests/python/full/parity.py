"""Comparison of tensors, shared by the checks in this folder."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "fixtures"
GRAPHS = ("text_encoder", "unet", "vae_decoder")

# Fixture scripts are plain modules beside each other.
sys.path.insert(0, str(FIXTURES))


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    """20 log10((max - min of expected) / RMSE) in dB; infinite when equal."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        sys.exit(f"shape {found.shape}, expected {expected.shape}")
    rmse = math.sqrt(np.mean((found - expected) ** 2))
    return math.inf if rmse == 0 else 20 * math.log10((expected.max() - expected.min()) / rmse)


class Report:
    """Collects comparisons, prints each, and fails at the end when one was under its bar."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.compared = 0

    def compare(self, what: str, found: np.ndarray, expected: np.ndarray, bar: float) -> None:
        """One comparison; a result that is not a number is under any bar."""
        figure = psnr(found, expected)
        verdict = "ok" if figure >= bar else "UNDER THE BAR"
        print(f"{what:58} {figure:8.1f} dB  (bar {bar:.0f})  {verdict}", flush=True)
        self.compared += 1
        if not figure >= bar:
            self.failures.append(what)

    def require(self, what: str, holds: bool) -> None:
        """A condition that is not a comparison."""
        print(f"{what:58} {'ok' if holds else 'DOES NOT HOLD'}", flush=True)
        self.compared += 1
        if not holds:
            self.failures.append(what)

    def finish(self) -> None:
        """Exits with 1 when something failed or nothing was compared."""
        if self.failures or not self.compared:
            sys.exit(f"failed: {', '.join(self.failures) or 'nothing was compared'}")


def convert(checkpoint: Path, target: str, output: Path, *options: str) -> tuple[float, int]:
    """Runs the binary named by SNAPC; gives wall-clock seconds and the peak of anonymous memory in bytes."""
    command = [os.environ["SNAPC"], "convert", str(checkpoint), "--target", target, "-o", str(output), "--force", "--quiet"]
    start = time.monotonic()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.01)
    if process.returncode != 0:
        sys.exit(f"{' '.join(process.args)} exited with {process.returncode}")
    return time.monotonic() - start, peak


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process, 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return 1024 * int(kilobytes[0]) if kilobytes else 0


def onnx_session(model: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU."""
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name; inputs are converted to the declared element types."""
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
    feed = {i.name: inputs[i.name].astype(types[i.type]) for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def call(tensors: dict[str, np.ndarray], graph: str, batch: int) -> dict[str, np.ndarray]:
    """Inputs and outputs of one recorded call of a graph, by feature name."""
    prefix = f"{graph}.b{batch}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def compare_onnx(
    report: Report, artifact: Path, tensors: dict[str, np.ndarray], bar: float, label: str, graphs: Iterable[str] = GRAPHS
) -> None:
    """Compares every output of every recorded call with ONNX Runtime on the emitted models."""
    for graph in graphs:
        session = onnx_session(artifact / graph / "model.onnx")
        for batch in (1, 2):
            recorded = call(tensors, graph, batch)
            for name, found in run_onnx(session, recorded).items():
                report.compare(f"{label} {graph} batch {batch} {name}", found, recorded[name], bar)
