"""ClipTokenizer and T5Tokenizer give exactly the ids of transformers' fast tokenizers."""

import json
import os
import subprocess

import pytest
from awkward_prompts import SAMPLES, WORDS, prompts
from tokenizing import BINARY, all_of_unicode, assert_same_ids, needs_published, our_ids, published
from transformers import CLIPTokenizer, T5TokenizerFast

FLUX = published("flux/tokenizer_1")
needs_flux = needs_published(FLUX)


def compare(kind, folder, max_length, texts, tmp_path):
    tokenizer = (CLIPTokenizer if kind == "clip" else T5TokenizerFast).from_pretrained(folder)
    expected, full = [], []
    for start in range(0, len(texts), 20000):
        part = texts[start : start + 20000]
        expected += tokenizer(part, padding="max_length", max_length=max_length, truncation=True).input_ids
        full += [len(ids) for ids in tokenizer(part).input_ids]
    ours = our_ids(f"{kind}-ids", folder, max_length, texts, tmp_path)
    assert_same_ids(texts, ours, expected)
    assert [a["dropped"] for a in ours] == [max(0, n - max_length) for n in full]


def train_clip(folder):
    """A CLIP vocabulary of its own, in the files of a published one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts(300, seed=7), trainer)
    folder.mkdir()
    tokenizer.model.save(str(folder))
    special = {"lstrip": False, "rstrip": False, "single_word": False, "special": True}
    ids = {token: tokenizer.token_to_id(token) for token in ("<|startoftext|>", "<|endoftext|>")}
    config = {
        "added_tokens_decoder": {
            str(ids["<|startoftext|>"]): {"content": "<|startoftext|>", "normalized": True, **special},
            str(ids["<|endoftext|>"]): {"content": "<|endoftext|>", "normalized": False, **special},
        },
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def train_t5(folder, charsmap="nmt_nfkc"):
    import sentencepiece

    folder.mkdir()
    texts = SAMPLES + [" ".join(a + b for b in WORDS) for a in WORDS]
    corpus = [line for text in texts for line in text.replace("\0", "").split("\n") if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_prefix=str(folder / "spiece"),
        vocab_size=1500,
        character_coverage=0.98,
        hard_vocab_limit=False,
        normalization_rule_name=charsmap,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    return folder


@needs_flux
@pytest.mark.parametrize("max_length", [4096, 9])
def test_clip_on_flux_vocabulary(tmp_path, max_length):
    compare("clip", FLUX, max_length, prompts(2500), tmp_path)


@needs_flux
@pytest.mark.parametrize("max_length", [4096, 6])
def test_t5_on_flux_vocabulary(tmp_path, max_length):
    compare("t5", FLUX.parent / "tokenizer_2", max_length, prompts(2500), tmp_path)


@pytest.mark.parametrize("max_length", [4096, 9])
def test_clip_on_own_vocabulary(tmp_path, max_length):
    compare("clip", train_clip(tmp_path / "clip"), max_length, prompts(1200, seed=1), tmp_path)


@pytest.mark.parametrize("max_length", [4096, 6])
def test_t5_on_own_vocabulary(tmp_path, max_length):
    compare("t5", train_t5(tmp_path / "t5"), max_length, prompts(1200, seed=2), tmp_path)


@needs_flux
def test_a_published_file_that_was_cut_off_is_refused(tmp_path):
    """SDXL's second tokenizer in the same package has the first 40,212 lines of its merges, the last one "n"."""
    folder = FLUX.parents[1] / "sdxl" / "tokenizer_2"
    run = subprocess.run([BINARY, "clip-ids", folder, "77", os.devnull], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("bad-tokenizer") and "merges.txt: line 40213" in run.stderr, run.stderr


def test_clip_without_configs_takes_the_class_defaults(tmp_path):
    folder = train_clip(tmp_path / "clip")
    (folder / "tokenizer_config.json").unlink()
    compare("clip", folder, 40, prompts(200, seed=3), tmp_path)


def test_clip_reads_special_tokens_map_where_the_config_declares_none(tmp_path):
    folder = train_clip(tmp_path / "clip")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 77}')
    token = {"content": "<|startoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": token, "eos_token": "<|endoftext|>"}))
    compare("clip", folder, 40, prompts(200, seed=3), tmp_path)


@pytest.mark.parametrize("flags", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": True}])
def test_added_tokens_beyond_the_vocabulary(tmp_path, flags):
    folder = train_clip(tmp_path / "clip")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    size = len(json.loads((folder / "vocab.json").read_text()))
    token = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": False, **flags}
    config["added_tokens_decoder"][str(size)] = {"content": "<Fox>", **token}
    config["added_tokens_decoder"][str(size + 1)] = {"content": "<Fox><Fox>", **token}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    texts = ["a <Fox> b", "a<Fox>b", "<Fox>", "<Fox><Fox>x", "a \t<Fox>\n b"]
    texts += ["<fox> <FOX>", "é<Fox>é", "a<Fox> <Fox>", "_<Fox>", "\u0301<Fox>"]
    compare("clip", folder, 40, texts, tmp_path)


def test_clip_on_all_of_unicode(tmp_path):
    texts = all_of_unicode("a@b@@1 @\u0301e@\u0323")
    compare("clip", train_clip(tmp_path / "clip"), 40, texts, tmp_path)


@needs_flux
def test_t5_on_all_of_unicode(tmp_path):
    compare("t5", FLUX.parent / "tokenizer_2", 32, all_of_unicode("a@b ª@ @\u0301"), tmp_path)
