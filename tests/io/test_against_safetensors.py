"""RT-Lynx's reader and PyPI's safetensors on the same files: both accept with equal values, or both refuse, but for the
cases that RT-Lynx refuses on purpose; and in bounded memory."""

import json
import os
import pathlib
import resource
import subprocess

import numpy
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

TOOL = pathlib.Path(os.environ["RTLYNX_BIN_DIR"]) / "safetensors_dump"
TORCH_NAMES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def dump(*paths, limit=None):
    set_limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if limit else None
    done = subprocess.run([TOOL, *paths], capture_output=True, text=True, check=True, preexec_fn=set_limit)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[:-1], lines[-1]["peak_kib"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    subprocess.run([TOOL, "--corpus", folder], check=True)
    cases = json.loads((folder / "cases.json").read_text())
    assert len(cases) >= 100
    return [(case, folder / f"{case['name']}.safetensors") for case in cases]


def reference(path):
    """The tensors as PyPI's safetensors reads them, None where it refuses the file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except Exception:  # SafetensorError, UnicodeDecodeError, OverflowError, ...: all mean that it refuses
        return None


def assert_same(ours, theirs):
    assert ours["tensors"].keys() == theirs.keys()
    for name, tensor in theirs.items():
        mine = ours["tensors"][name]
        assert TORCH_NAMES[mine["dtype"]] == tensor.dtype
        assert mine["shape"] == list(tensor.shape)
        raw = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)
        assert bytes.fromhex(mine["bytes"]) == raw.numpy().tobytes()


def test_verdicts_agree(corpus):
    ours, _ = dump(*(path for _, path in corpus))
    accepted = 0
    for (case, path), mine in zip(corpus, ours, strict=True):
        assert mine["code"] == case["code"], case["name"]
        theirs = reference(path)
        if mine["code"] == "ok":
            assert theirs is not None, f"{case['name']}: the reference refuses what RT-Lynx accepts"
            assert_same(mine, theirs)
            accepted += 1
        else:
            assert (theirs is not None) == case["reference_accepts"], case["name"]
    assert accepted >= 15


def test_memory_is_bounded(corpus):
    """64 MB and 8 times the header, measured and enforced; 256 MB of address space for the libraries."""
    for case, path in corpus:
        (mine,), peak_kib = dump(path, limit=256 << 20)
        assert mine["code"] == case["code"], case["name"]
        if case["name"] != "tensors-100000":  # there the tool's own JSON is most of it
            assert 0 < peak_kib * 1024 < (64 << 20) + 8 * path.stat().st_size, case["name"]


def test_reads_what_the_reference_writes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, dtype in TORCH_NAMES.items():
        for shape in [(), (3,), (2, 0, 4), (5, 1, 7)]:
            count = int(numpy.prod(shape)) * dtype.itemsize
            raw = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), generator=generator, dtype=torch.uint8)
            tensors[f"{name}.{len(shape)}"] = raw.view(dtype).reshape(shape)
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "ü": "\n"})
    (mine,), _ = dump(path)
    assert mine["code"] == "ok"
    assert mine["metadata"] == {"format": "pt", "ü": "\n"}
    assert_same(mine, tensors)
