"""Loads an exported checkpoint with diffusers and compares what its decoder makes of a latent with what snapc's evaluator made.

    SNAPC_CHECKPOINT=fixtures/tiny SNAPC_EXPORT=OUT cargo test -p snapc-passes --test full_size_pruning -- --ignored
    python tests/python/full/exported_decoder.py OUT OUT.decoded.safetensors
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from parity import Report

# As for every graph in float32.
MIN_PSNR = 100.0


def main() -> None:
    """Compares, prints, and fails under the bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("decoded", type=Path, help="safetensors with latent_sample and sample")
    arguments = parser.parse_args()
    decoded = load_file(arguments.decoded)
    vae = AutoencoderKL.from_pretrained(arguments.checkpoint / "vae", torch_dtype=torch.float32).eval()
    with torch.no_grad():
        expected = vae.decode(decoded["latent_sample"]).sample
    report = Report()
    report.compare(str(arguments.checkpoint), decoded["sample"].numpy(), expected.numpy(), MIN_PSNR)
    report.finish()


if __name__ == "__main__":
    main()
