"""The two passes over a [tasks, params] buffer: the Gram matrix of its rows, and their weighted sum."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from multitune.methods.groups import BLOCK

CHUNK = 512
"""Blocks that are converted to fp32 at a time, where the rows are bf16 or fp16."""
MOST = 2**15
"""Blocks of one batched product: CUDA's grids end at 65,535, and XLM-R base has 135,000 blocks."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inside, products of float32 matrices are float32's, whatever a caller's autocast or TF32 setting says."""
    settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def gram_matrices(rows: Tensor, blocks: Sequence[int]) -> Tensor:
    """<g_i, g_j> by group, in one pass.

    Args:
        rows: [tasks, BLOCK * sum(blocks)].
        blocks: how many blocks each group has.

    Returns:
        [groups, tasks, tasks], float64. Within a block sums are in fp32 (for bf16 rows too; in float64 for float64),
        over the blocks in float64.
    """
    chunks = torch.split(_blocked(rows), _at_once(rows))
    products = torch.cat([torch.bmm(chunk, chunk.mT) for chunk in map(_compute_dtype, chunks)])
    return torch.stack([group.sum(0, dtype=torch.float64) for group in torch.split(products, list(blocks))])


def combine_rows(rows: Tensor, weights: Tensor, blocks: Sequence[int], out: Tensor) -> None:
    """sum_i w_i g_i by group, in one pass.

    Args:
        rows: [tasks, width].
        weights: [groups, tasks].
        blocks: how many blocks each group has.
        out: [width]; the sums are written there.
    """
    by_group = weights.to(rows.device, non_blocking=True)
    per_block = torch.cat([weight.expand(count, -1) for weight, count in zip(by_group, blocks, strict=True)])[:, None]
    blocked, into = _blocked(rows), out.view(-1, 1, BLOCK)
    for weight, chunk, part in zip(*(torch.split(t, _at_once(rows)) for t in (per_block, blocked, into)), strict=True):
        if _is_low(rows):
            part.copy_(torch.bmm(weight.float(), chunk.float()))
        else:
            torch.bmm(weight.to(rows.dtype), chunk, out=part)


def _blocked(rows: Tensor) -> Tensor:
    """[tasks, width] -> [blocks, tasks, BLOCK], a view."""
    return rows.view(len(rows), rows.shape[1] // BLOCK, BLOCK).transpose(0, 1)


def _at_once(rows: Tensor) -> int:
    """Blocks of one batched product."""
    return CHUNK if _is_low(rows) else MOST


def _is_low(rows: Tensor) -> bool:
    return rows.dtype in (torch.bfloat16, torch.float16)


def _compute_dtype(rows: Tensor) -> Tensor:
    return rows.float() if _is_low(rows) else rows
