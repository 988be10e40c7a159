"""Random small diffusers components for the parity tests, and the call of an executable under test."""

import os
import subprocess
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BIN = Path(os.environ.get("RTLYNX_BIN_DIR", "build/engine/bin"))


def randomise(module, seed):
    """Every parameter gets values of its own, norms included, so that a mixed-up tensor shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.1 * noise)
    return module.eval()


def randn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(executable, *arguments):
    return subprocess.run([BIN / executable, *map(str, arguments)], capture_output=True, text=True)


def run_tensors(folder, executable, component, tensors, dtype="fp32"):
    """Calls `executable component folder input output dtype` and returns the tensors it wrote."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "input.safetensors")
    result = run(executable, component, folder, folder / "input.safetensors", folder / "output.safetensors", dtype)
    assert result.returncode == 0, result.stderr
    return load_file(folder / "output.safetensors")
