"""Writes the trained parts in the layout of FLUX.1-dev's diffusers folder, and the scorer's folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .captions import WITHOUT_ARTICLE
from .models import TextEncoders, build_scheduler
from .scenes import COLOURS, CONCEPTS, IMAGE_SIZE, PATTERNS, POSITIONS, RELATIONS
from .scorer import CHANNELS, FEATURES, GROUPS, HEADS, Scorer

# Small shards: no file of the repository is larger than the limits of common hosts, and the loader's
# handling of an index is exercised by the default model.
_SHARD = "14MB"
_METADATA = {"format": "pt"}


def round_to_bf16(module: nn.Module) -> None:
    """In place, keeping the dtype: what is evaluated afterwards is what the files will hold."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.bfloat16())


def export_pipeline(
    folder: Path,
    transformer: FluxTransformer2DModel,
    text: TextEncoders,
    vae: AutoencoderKL,
    tokenizers: Path,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"transformer": transformer, "vae": vae, "text_encoder": text.clip, "text_encoder_2": text.t5}
    for name, part in parts.items():
        dtype = next(part.parameters()).dtype
        part.to(torch.bfloat16)
        part.save_pretrained(folder / name, max_shard_size=_SHARD)
        part.to(dtype)
    _prefix_clip(folder / "text_encoder" / "model.safetensors")
    build_scheduler().save_pretrained(folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tokenizers / name, folder / name, dirs_exist_ok=True)
    index = {
        "_class_name": "FluxPipeline",
        "_diffusers_version": json.loads((folder / "transformer" / "config.json").read_text())["_diffusers_version"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    _tidy(folder)


def _prefix_clip(path: Path) -> None:
    """FLUX.1-dev's file names CLIP's tensors `text_model.*`; newer transformers write them bare and read both."""
    tensors = load_file(path)
    save_file({f"text_model.{name.removeprefix('text_model.')}": t for name, t in tensors.items()}, path, _METADATA)


def _tidy(folder: Path) -> None:
    """Configurations without paths of the training machine; files readable by all."""
    for path in folder.rglob("*"):
        if path.name in ("config.json", "scheduler_config.json"):
            config = json.loads(path.read_text())
            config.pop("_name_or_path", None)
            path.write_text(json.dumps(config, indent=2) + "\n")
        if path.is_file():
            path.chmod(0o644)


def load_denoiser(folder: Path, transformer: FluxTransformer2DModel, text: TextEncoders) -> None:
    """Weights of an exported folder into existing modules."""
    for module, part in ((transformer, "transformer"), (text.clip, "text_encoder"), (text.t5, "text_encoder_2")):
        tensors = {}
        for path in sorted((folder / part).glob("*.safetensors")):
            tensors |= {name.removeprefix("text_model."): t.float() for name, t in load_file(path).items()}
        missing, unexpected = module.load_state_dict(tensors, strict=False)
        # T5's table has two names and is stored under one.
        if unexpected or any("embed_tokens" not in name for name in missing):
            raise ValueError(f"{folder / part}: missing {missing}, unexpected {unexpected}")


def export_scorer(folder: Path, scorer: Scorer, reference: tuple[Tensor, Tensor], count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "image_size": IMAGE_SIZE,
        "channels": list(CHANNELS),
        "norm_groups": GROUPS,
        "norm_eps": 1e-5,
        "features": FEATURES,
        "heads": HEADS,
        "positions": list(POSITIONS),
        "concepts": list(CONCEPTS),
        "colours": list(COLOURS),  # a list: the order of an object's keys means nothing
        "patterns": list(PATTERNS),
        "relations": list(RELATIONS),
        "without_article": sorted(WITHOUT_ARTICLE),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: t.detach().bfloat16().cpu().contiguous() for name, t in scorer.state_dict().items()}
    save_file(weights, folder / "model.safetensors", _METADATA)
    mean, covariance = reference
    moments = {
        "mean": mean.float().cpu().contiguous(),
        "covariance": covariance.float().cpu().contiguous(),
        "count": torch.tensor(count),
    }
    save_file(moments, folder / "reference.safetensors", _METADATA)
    for path in folder.iterdir():
        path.chmod(0o644)


def load_scorer(folder: Path, device: torch.device) -> tuple[Scorer, tuple[Tensor, Tensor]]:
    scorer = Scorer()
    scorer.load_state_dict({name: t.float() for name, t in load_file(folder / "model.safetensors").items()})
    reference = load_file(folder / "reference.safetensors")
    return scorer.to(device).eval(), (reference["mean"], reference["covariance"])
