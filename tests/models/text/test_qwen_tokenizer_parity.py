"""QwenTokenizer gives exactly the ids of transformers' Qwen2Tokenizer, and of the pipelines' chat templates."""

import json
import shutil

import pytest
from awkward_prompts import prompts
from tokenizing import all_of_unicode, assert_same_ids, needs_published, our_ids, published, train_qwen
from transformers import Qwen2Tokenizer

QWEN_IMAGE = published("qwen_image/tokenizer")
Z_IMAGE = published("z_image/tokenizer")
QWEN_IMAGE_TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


def compare(folder, max_length, texts, tmp_path):
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    full = []
    for start in range(0, len(texts), 20000):
        full += tokenizer(texts[start : start + 20000]).input_ids
    sizes = [len(ids) for ids in full]
    is_cut = max(sizes) > max_length
    expected = tokenizer(texts, max_length=max_length, truncation=True).input_ids if is_cut else full
    ours = our_ids("qwen-ids", folder, max_length, texts, tmp_path)
    assert_same_ids(texts, ours, expected)
    assert [a["dropped"] for a in ours] == [max(0, n - max_length) for n in sizes]


def split_files(folder):
    """The same tokenizer in the files of older checkpoints: vocab.json, merges.txt, added_tokens_decoder."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    model = tokenizer["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in model["merges"]))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(t.pop("id")): t for t in tokenizer["added_tokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@needs_published(QWEN_IMAGE)
@pytest.mark.parametrize("max_length", [8192, 7])
@pytest.mark.parametrize("folder", [QWEN_IMAGE, Z_IMAGE], ids=["qwen-image", "z-image"])
def test_on_published_vocabulary(tmp_path, folder, max_length):
    compare(folder, max_length, prompts(2500), tmp_path)


@needs_published(QWEN_IMAGE)
def test_on_published_vocab_and_merges(tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(QWEN_IMAGE / name, folder)
    compare(folder, 8192, prompts(500, seed=4), tmp_path)


@needs_published(QWEN_IMAGE)
def test_on_published_tokenizer_json_alone(tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(Z_IMAGE / "tokenizer.json", folder)
    compare(folder, 8192, prompts(500, seed=5), tmp_path)


@pytest.mark.parametrize("max_length", [8192, 7])
def test_on_own_vocabulary(tmp_path, max_length):
    compare(train_qwen(tmp_path / "qwen"), max_length, prompts(1200, seed=1), tmp_path)


def test_on_own_vocabulary_in_the_older_files(tmp_path):
    compare(split_files(train_qwen(tmp_path / "qwen")), 8192, prompts(1200, seed=2), tmp_path)


def test_on_all_of_unicode(tmp_path):
    texts = all_of_unicode("a@b@@1 '@x @\u0301e@\u0323 !@\n@ @  @")
    compare(train_qwen(tmp_path / "qwen"), 64, texts, tmp_path)


@pytest.mark.parametrize("flags", [{"lstrip": True}, {"rstrip": True}, {"single_word": True}, {"normalized": True}])
def test_added_tokens_with_flags(tmp_path, flags):
    folder = split_files(train_qwen(tmp_path / "qwen"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    size = len(json.loads((folder / "vocab.json").read_text())) + len(config["added_tokens_decoder"])
    token = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": False, **flags}
    config["added_tokens_decoder"][str(size)] = {"content": "<Fox\u00e9>", **token}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    texts = ["a @ b", "a@b", "@", "@@x", "a \t@\n b", "é@é", "_@", "\u0301@", "<Foxe\u0301> <FOX\u00c9>"]
    compare(folder, 40, [text.replace("@", "<Fox\u00e9>") for text in texts], tmp_path)


@needs_published(QWEN_IMAGE)
@pytest.mark.parametrize("max_features", [1024, 9])
def test_prompt_of_qwen_image(tmp_path, max_features):
    tokenizer = Qwen2Tokenizer.from_pretrained(QWEN_IMAGE)
    texts = prompts(800, seed=11)
    templated = [QWEN_IMAGE_TEMPLATE.format(text) for text in texts]
    expected = tokenizer(templated, max_length=max_features + 34, truncation=True).input_ids
    ours = our_ids("qwen-image-ids", QWEN_IMAGE, max_features, texts, tmp_path)
    assert_same_ids(texts, ours, expected)
    full = [len(ids) for ids in tokenizer(templated).input_ids]
    assert [a["dropped"] for a in ours] == [max(0, n - 5 - max_features - 34) for n in full]


@needs_published(Z_IMAGE)
@pytest.mark.parametrize("max_features", [512, 9])
def test_prompt_of_z_image(tmp_path, max_features):
    tokenizer = Qwen2Tokenizer.from_pretrained(Z_IMAGE)
    texts = prompts(800, seed=12)
    templated = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        for text in texts
    ]
    expected = tokenizer(templated, max_length=max_features, truncation=True).input_ids
    assert_same_ids(texts, our_ids("z-image-ids", Z_IMAGE, max_features, texts, tmp_path), expected)
