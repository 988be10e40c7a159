"""The two tokenizers, trained on captions: a CLIP byte pair encoding and a T5 sentencepiece model."""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from torch import Tensor

from .captions import training_captions
from .scenes import draw_scenes

T5_LENGTH = 32
CLIP_LENGTH = 77
_CORPUS = 40_000
_CLIP_MERGES = 640
_T5_PIECES = 560
_START, _END = "<|startoftext|>", "<|endoftext|>"


def _corpus() -> list[str]:
    scenes = draw_scenes(_CORPUS, torch.Generator().manual_seed(20))
    return training_captions(scenes, random.Random(20))


def _byte_symbols() -> list[str]:
    """One printable character per byte, in CLIP's order: printable bytes first, the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(0x100 + i) for i in range(len(others))]


def train_clip_bpe(folder: Path) -> None:
    words = Counter(w for line in _corpus() for w in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", line.lower()))
    split = {w: (*w[:-1], w[-1] + "</w>") for w in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < _CLIP_MERGES:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in zip(split[word], split[word][1:], strict=False):
                pairs[pair] += count
        if not pairs:
            break  # every word of the captions is one token
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for word, parts in split.items():
            merged: list[str] = []
            for part in parts:
                if merged and (merged[-1], part) == best:
                    merged[-1] += part
                else:
                    merged.append(part)
            split[word] = tuple(merged)
    symbols = _byte_symbols()
    # The end marker has the highest id: readers that look for the largest id find it too.
    entries = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges] + [_START, _END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({e: i for i, e in enumerate(entries)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in merges)]) + "\n")
    specials = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    _write_json(folder / "special_tokens_map.json", specials)
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": CLIP_LENGTH}
    _write_json(folder / "tokenizer_config.json", specials | config | {"tokenizer_class": "CLIPTokenizer"})


def train_t5_pieces(folder: Path) -> None:
    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2 as schema

    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()),
        model_writer=model,
        model_type="unigram",
        vocab_size=_T5_PIECES,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        character_coverage=1.0,
        required_chars="".join(chr(c) for c in range(0x21, 0x7F)),  # no ASCII text is unknown
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    proto = schema.ModelProto.FromString(model.getvalue())
    tokenizer = Tokenizer(Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    specials = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    _write_json(folder / "special_tokens_map.json", specials)
    config = {"additional_special_tokens": [], "extra_ids": 0, "model_max_length": T5_LENGTH}
    _write_json(folder / "tokenizer_config.json", specials | config | {"tokenizer_class": "T5TokenizerFast"})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class Tokenizers:
    """Both tokenizers as the pipeline calls them, returning padded int64 ids [B, 77] and [B, 32]."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, CLIPTokenizer

        self.clip = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.t5 = AutoTokenizer.from_pretrained(folder / "tokenizer_2")

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        clip = self.clip(captions, padding="max_length", max_length=CLIP_LENGTH, truncation=True)["input_ids"]
        t5 = self.t5(captions, padding="max_length", max_length=T5_LENGTH, truncation=True)["input_ids"]
        return torch.tensor(clip), torch.tensor(t5)

    def t5_offsets(self, captions: list[str]) -> list[list[tuple[int, int]]]:
        """Per caption and T5 token, the characters it stands for; (0, 0) for padding."""
        found = self.t5(
            captions, padding="max_length", max_length=T5_LENGTH, truncation=True, return_offsets_mapping=True
        )
        return found["offset_mapping"]
