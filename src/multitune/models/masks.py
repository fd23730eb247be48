"""Attention masks of padded batches, for which the host need not wait for the device.

transformers leaves a mask out where no token is padding, which it reads from the batch on the device. Whoever has made
the batch knows: inside ``padding_is`` the masks are those that transformers makes, and nothing is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from transformers.masking_utils import sdpa_mask

_padded: ContextVar[bool | None] = ContextVar("_padded", default=None)


@contextmanager
def padding_is(padded: bool | None) -> Iterator[None]:
    """A context in which models are called with a batch that has padding or not; None is not known."""
    before = _padded.set(padded)
    try:
        yield
    finally:
        _padded.reset(before)


def mask(
    *,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **options: Any,
) -> Tensor | None:
    """transformers' ``sdpa_mask``, [batch, 1, queries, keys], or None where none is needed."""
    padded = _padded.get()
    if padded is not None:
        attention_mask = attention_mask if padded else None
        allow_is_causal_skip &= not padded
        allow_is_bidirectional_skip &= not padded
    return sdpa_mask(
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        allow_is_bidirectional_skip=allow_is_bidirectional_skip,
        **options,
    )
