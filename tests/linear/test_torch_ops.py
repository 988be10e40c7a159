"""torch.ops.rtlynx.prune and .linear, loaded into Python, against plain numpy."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

torch.ops.load_library(str(Path(os.environ["RTLYNX_BIN_DIR"]) / "librtlynx_torch_ops.so"))


def prune_numpy(x: np.ndarray) -> np.ndarray:
    tokens, k = x.shape
    padded = np.zeros((tokens, -(-k // 4) * 4))
    padded[:, :k] = x
    groups = padded.reshape(tokens, -1, 4)
    order = np.argsort(-np.abs(groups), axis=-1, kind="stable")  # stable: ties go to the lower index
    kept = np.zeros_like(groups)
    np.put_along_axis(kept, order[..., :2], np.take_along_axis(groups, order[..., :2], -1), -1)
    return kept.reshape(tokens, -1)[:, :k]


@pytest.mark.parametrize("k", [3, 8, 66])
def test_prune(k: int) -> None:
    x = torch.randn(11, k, generator=torch.Generator().manual_seed(k)).mul(2).round()  # many ties
    np.testing.assert_array_equal(torch.ops.rtlynx.prune(x).numpy(), prune_numpy(x.numpy()))


@pytest.mark.parametrize("mode", ["dense", "sa", "sa-nc", "sa-nc-lora"])
def test_linear(mode: str) -> None:
    generator = torch.Generator().manual_seed(5)
    x, w, bias, a, b = (torch.randn(*s, generator=generator) for s in ((7, 24), (10, 24), (10,), (24, 3), (3, 10)))
    got = torch.ops.rtlynx.linear(x, w, bias, a, b, mode).double().numpy()
    xd, pruned = x.double().numpy(), prune_numpy(x.double().numpy())
    if mode == "dense":
        pruned = xd
    scale = 1.0
    if mode.startswith("sa-nc"):
        scale = np.sqrt((xd**2).sum(1, keepdims=True) / ((pruned**2).sum(1, keepdims=True) + 1e-8))
    wanted = scale * (pruned @ w.double().numpy().T) + bias.double().numpy()
    if mode == "sa-nc-lora":
        wanted += xd @ a.double().numpy() @ b.double().numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_operators_are_registered_soundly() -> None:
    x, w = torch.randn(4, 8), torch.randn(6, 8)
    utils = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.rtlynx.prune.default, (x,), test_utils=utils)
    torch.library.opcheck(torch.ops.rtlynx.linear.default, (x, w, None, None, None, "sa-nc"), test_utils=utils)


def test_shapes_of_the_gpu_operators_are_known_without_a_gpu() -> None:
    x = torch.empty(2, 65, 192, dtype=torch.bfloat16, device="meta")
    w = torch.empty(40, 192, dtype=torch.bfloat16, device="meta")
    blocks, scale = torch.ops.rtlynx.prune_compress(x)
    assert blocks.shape == (3 * 3 * 4608,) and blocks.dtype == torch.uint8
    assert scale.shape == (130,) and scale.dtype == torch.float32
    y = torch.ops.rtlynx.spmm(blocks, scale, w)
    assert y.shape == (130, 40) and y.dtype == torch.bfloat16


def test_gpu_operators_are_refused_on_a_cpu() -> None:
    with pytest.raises(NotImplementedError, match="CPU"):
        torch.ops.rtlynx.prune_compress(torch.randn(4, 64))


@pytest.mark.parametrize("mode", ["sa_nc", "sa-nc-lora"])
def test_wrong_use_is_an_exception(mode: str) -> None:
    with pytest.raises(RuntimeError, match="sa-nc-lora"):
        torch.ops.rtlynx.linear(torch.randn(4, 8), torch.randn(6, 8), None, None, None, mode)
