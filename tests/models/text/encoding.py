"""What the parity tests of the text encoders share."""

import os
import subprocess
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BINARY = Path(os.environ["RTLYNX_BIN_DIR"]) / "text_parity"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def randomise(model, seed):
    """Every parameter off its special starting value, at a scale that keeps a deep stack from running off."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            elif any(part in name for part in ("embed", "shared", "relative_attention_bias")):
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
    return model.eval()


def ours(kind, folder, ids, dtype, tmp_path):
    save_file({"ids": ids.contiguous()}, tmp_path / "ids.safetensors")
    output = tmp_path / "out.safetensors"
    subprocess.run([BINARY, kind, folder, tmp_path / "ids.safetensors", output, dtype], check=True)
    return load_file(output)
