"""Optimum's own pipeline class loads the ONNX artifact and gives diffusers' latents after eight guided steps."""

import json
import tempfile
from pathlib import Path

import torch
from optimum.onnxruntime import ORTStableDiffusionPipeline
from parity import FIXTURES, Report, convert
from safetensors import safe_open
from safetensors.torch import load_file

# Final latents of the guided run, artifact against f32 diffusers (docs/accuracy.md).
BARS = {"f32": 100.0, "f16": 55.0}


def main() -> None:
    reference_path = FIXTURES / "tiny" / "reference.safetensors"
    reference = load_file(reference_path)
    with safe_open(reference_path, "np") as file:
        settings = json.loads(file.metadata()["snapc"])
    last = f"step_{settings['steps'] - 1}.latents"
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        for precision, bar in BARS.items():
            artifact = Path(folder) / precision
            convert(FIXTURES / "tiny", "onnx", artifact, "--precision", precision)
            pipeline = ORTStableDiffusionPipeline.from_pretrained(artifact)
            pipeline.set_progress_bar_config(disable=True)
            result = pipeline(
                settings["prompt"],
                negative_prompt=settings["negative"],
                num_inference_steps=settings["steps"],
                guidance_scale=settings["guidance"],
                latents=reference["init_latents"].clone(),
                output_type="latent",
            )
            latents = torch.as_tensor(result.images).float()
            report.compare(f"Optimum, {precision}: latents after the last step", latents, reference[last], bar)
    report.finish()


if __name__ == "__main__":
    main()
