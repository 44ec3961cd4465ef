"""SD v1.5's UNet at full size as torch.onnx exports it, read by snapc and evaluated against torch.

    python tests/python/full/foreign_onnx.py CHECKPOINT FOLDER

CHECKPOINT is a diffusers folder, such as the one that full_size.py makes; the export (3.4 GB, one file per weight) and
torch's numbers are written to FOLDER. About 12 GB of memory and some minutes are needed.
"""

import argparse
import os
import subprocess
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[3]
INPUTS = ["sample", "timestep", "encoder_hidden_states"]
SYMBOLS = {"sample": {0: "batch", 2: "height", 3: "width"}, "encoder_hidden_states": {0: "batch", 1: "sequence"}}


class Unet(torch.nn.Module):
    """The UNet as a function of tensors."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


def export(checkpoint: Path, folder: Path) -> None:
    """Writes unet.onnx with its weights and outputs.safetensors."""
    unet = Unet(checkpoint / "unet").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(20240312)
    width = unet.unet.config.cross_attention_dim
    sample = torch.randn((1, 4, 64, 64), generator=generator)
    operands = (sample, torch.tensor(500.0), torch.randn((1, 77, width), generator=generator))
    names = dict(zip(INPUTS, operands, strict=True))
    save_file(names | {"out_sample": unet(*operands)}, folder / "outputs.safetensors")
    torch.onnx.export(
        unet,
        operands,
        # A string: the exporter writes external data only beside a path that is one.
        str(folder / "unet.onnx"),
        input_names=INPUTS,
        output_names=["out_sample"],
        dynamic_axes=SYMBOLS,
        opset_version=17,
        dynamo=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="diffusers folder")
    parser.add_argument("folder", type=Path, help="where the export goes")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not (arguments.folder / "unet.onnx").is_file():
        export(arguments.checkpoint, arguments.folder)
    test = ["cargo", "test", "--release", "-p", "snapc-onnx", "--test", "foreign_full_size", "--", "--ignored"]
    environment = os.environ | {"SNAPC_FOREIGN": str(arguments.folder.resolve())}
    subprocess.run(test, cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
