"""The Gram matrix of a buffer's rows, and their weighted sum, against plain products."""

import pytest
import torch
from torch import Tensor

from multitune.methods import gram
from multitune.methods.gram import combine_rows, full_precision, gram_matrices
from multitune.methods.groups import BLOCK


def make_rows(blocks: list[int], dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, BLOCK * sum(blocks), generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("blocks", [[1], [3, 1, 7], [600]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gram_matrices_and_combination(blocks: list[int], dtype: torch.dtype) -> None:
    rows = make_rows(blocks, dtype)
    weights = torch.linspace(-1, 1, 5 * len(blocks), dtype=torch.float64).view(-1, 5)
    out = torch.empty(rows.shape[1], dtype=dtype)
    combine_rows(rows, weights, blocks, out)
    grams = gram_matrices(rows, blocks)
    assert grams.dtype == torch.float64
    rtol = 1e-12 if dtype == torch.float64 else 2e-6  # bf16 rows too: their products are summed in fp32
    for own, weight, group, result in zip(
        grams,
        weights,
        rows.double().split([BLOCK * n for n in blocks], 1),
        out.split([BLOCK * n for n in blocks]),
        strict=True,
    ):
        torch.testing.assert_close(own, group @ group.T, rtol=rtol, atol=rtol * float(group.square().sum() / 5))
        expected = (weight @ group).to(dtype)
        torch.testing.assert_close(result, expected, rtol=2 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def test_gram_matrices_feel_what_bf16_sums_would_lose() -> None:
    rows = torch.ones(2, BLOCK * 4, dtype=torch.bfloat16)
    rows[:, 0] = 16
    assert gram_matrices(rows, [4]).flatten().tolist() == [BLOCK * 4 - 1 + 256.0] * 4


@pytest.mark.parametrize("matmul", ["highest", "medium"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_callers_precision_does_not_reach_the_products(matmul: str, autocast: bool) -> None:
    rows, weights = make_rows([3, 1], torch.float32), torch.ones(2, 5)
    expected, out = gram_matrices(rows, [3, 1]), torch.empty_like(rows[0])
    torch.set_float32_matmul_precision(matmul)
    try:
        with torch.autocast("cpu", enabled=autocast), full_precision(rows.device):
            grams = gram_matrices(rows, [3, 1])
            combine_rows(rows, weights, [3, 1], out)
        assert torch.get_float32_matmul_precision() == matmul
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(grams, expected)
    torch.testing.assert_close(out, rows.sum(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_large_buffers_are_gone_through_in_parts(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [3, 1, 7]
    rows, weights = make_rows(blocks, dtype), torch.linspace(-1, 1, 15, dtype=torch.float64).view(3, 5)
    whole, parts = torch.empty(2, rows.shape[1], dtype=dtype)
    expected = gram_matrices(rows, blocks)
    combine_rows(rows, weights, blocks, whole)
    monkeypatch.setattr(gram, "MOST", 2)
    torch.testing.assert_close(gram_matrices(rows, blocks), expected)
    combine_rows(rows, weights, blocks, parts)
    torch.testing.assert_close(parts, whole)
