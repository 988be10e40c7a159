"""Random small diffusers components for the parity tests, and the call of an executable under test."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
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


def run_tensors(folder, executable, component, tensors, dtype="fp32", *arguments):
    """Calls `executable component folder input output dtype ...` and returns the tensors it wrote."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "input.safetensors")
    files = (folder, folder / "input.safetensors", folder / "output.safetensors")
    result = run(executable, component, *files, dtype, *arguments)
    assert result.returncode == 0, result.stderr
    return load_file(folder / "output.safetensors")


def refuses(folder, component, tensors, message):
    """image_parity fails with an error that matches `message` and writes nothing."""
    with pytest.raises(AssertionError, match=message):
        run_tensors(folder, "image_parity", component, tensors)
    assert not (folder / "output.safetensors").exists()


def change_config(folder, file, **changes):
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**config, **changes}))


def replaceable_linears(folder):
    """The names that image_parity's last transformer listed."""
    with safe_open(folder / "output.safetensors", "pt") as file:
        return file.metadata()["linears"].split()


def block_linears(model, blocks, modulation):
    """Every linear below one of `blocks`, but for those whose name holds one of `modulation`."""
    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [n for n in names if n.startswith(blocks) and not any(part in n for part in modulation)]


def prune_24(x):
    """The 2 of each 4 neighbours that are largest, the others 0."""
    groups = x.unflatten(-1, (-1, 4))
    kept = groups.abs().topk(2, dim=-1).indices
    return torch.zeros_like(groups).scatter(-1, kept, groups.gather(-1, kept)).flatten(-2)


def prune_inputs(model, names):
    """Makes diffusers' own linears read 2:4 activations: the reference of mode "sa"."""
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: (prune_24(inputs[0]),))


def rope_table(folder, component, text, height, width, dtype="fp32"):
    """Complex64 [tokens, channels / 2]."""
    tensors = {"grid": torch.tensor([text, height, width])}
    return torch.view_as_complex(run_tensors(folder, "image_parity", f"{component}-rope", tensors, dtype)["output"])


def same_rotation(actual, expected):
    """To the last bits of fp32: an angle rounded elsewhere is off by 1e-5 at position 500."""
    assert actual.shape == expected.shape
    return (actual - expected).abs().max() <= 2e-7
