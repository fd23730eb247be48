"""Attention within each text of a row that holds several, for decoders (tasks/packed.py lays them out).

Only attention sees that a row has several texts. Its queries, keys and values are gathered into one row a text, where
it is what it always is; all other layers work on tokens, and waste none on padding. The layout comes to attention as
its mask, which models hand through as it is where it has four dimensions, so that layers computed anew in the backward
pass have it, too.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from multitune.errors import UserError
from multitune.models import dropout as quick
from multitune.models.heads import Heads
from multitune.models.masks import mask
from multitune.tasks.packed import NOWHERE, packed
from multitune.tasks.task import IGNORED

PACKED = "multitune_packed"
"""The name under which transformers knows ``attention``."""
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
WRITTEN_OUT = 512
"""Tokens up to which attention in bf16 is written out on a CPU: torch's own kernel takes four times as long there, and
the weights of attention, which it does not keep, are small."""
TOLERANCE = 1e-4
"""By how much the states of a packed row may differ from those of its texts, as a share of the largest."""


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention within each text of a packed row; of other rows ``dropout.attention``.

    query: [1, heads, tokens, size], key and value the same with as many heads or fewer; attention_mask: the layout,
    [1, 1, texts, length] of whole numbers, or another mask. Returns [1, tokens, heads, size].
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        return quick.attention(module, query, key, value, attention_mask, dropout, scaling, **options)
    places = attention_mask[0, 0]
    heads = query.shape[1]
    of_products = _type_of_products(query)
    rows = [
        _rows(each.to(of_products), places).repeat_interleave(heads // each.shape[1], 0) for each in (query, key, value)
    ]
    seen = _seen(places.shape[1], options.get("sliding_window"), query.device)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _row(_attended(rows[0], rows[1], rows[2], seen, dropout, scale), places, query.shape[2]), None


def _type_of_products(states: Tensor) -> torch.dtype:
    """What autocast makes of these in matrix products."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def _rows(states: Tensor, places: Tensor) -> Tensor:
    """[1, heads, tokens, size] -> [heads, texts, length, size]."""
    flat = states[0].transpose(0, 1).flatten(1)
    taken = flat.index_select(0, places.clamp_min(0).flatten())
    return taken.view(*places.shape, states.shape[1], states.shape[3]).permute(2, 0, 1, 3)


def _row(states: Tensor, places: Tensor, tokens: int) -> Tensor:
    """[heads, texts, length, size] -> [1, tokens, heads, size]: what several texts share, from the first of them."""
    end = places.numel()
    order = torch.arange(end, device=places.device)
    first = torch.full((tokens + 1,), end, device=places.device)
    first.scatter_reduce_(0, torch.where(places == NOWHERE, tokens, places).flatten(), order, "amin")
    flat = states.permute(1, 2, 0, 3).flatten(0, 1).flatten(1)
    return flat.index_select(0, first[:tokens]).view(1, tokens, states.shape[0], states.shape[3])


def _seen(length: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys a query sees: no later ones, and of a window so many; [length, length]."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen if window is None or window >= length else seen & ~seen.tril(-window)


def _attended(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, dropout: float, scale: float) -> Tensor:
    """Attention of [heads, texts, length, size] to the keys that ``seen`` allows."""
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and len(seen) <= WRITTEN_OUT
    if dropout == 0 and not slow:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, seen, scale=scale)
    return quick.written_out(query, key, value, seen, dropout, scale)


def use_packing(model: PreTrainedModel | Heads, longest: int) -> None:
    """Let a model take packed rows.

    Args:
        model: a causal language model.
        longest: tokens of the longest text that it will meet.

    Raises:
        UserError: its attention cannot be kept within texts, or it mixes tokens elsewhere, too.
    """
    body = model.base_model
    assert isinstance(body, PreTrainedModel)
    layers = set(getattr(body.config, "layer_types", None) or KNOWN_LAYERS)
    if (
        body.config._attn_implementation not in ("sdpa", quick.ATTENTION)
        or not body._can_set_attn_implementation()
        or "position_ids" not in inspect.signature(body.forward).parameters
        or not layers <= KNOWN_LAYERS
    ):
        raise _refused(body)
    AttentionInterface.register(PACKED, attention)
    AttentionMaskInterface.register(PACKED, mask)
    body.set_attn_implementation(PACKED)
    window = getattr(body.config, "sliding_window", None)
    if not _agrees(body, min(longest, window + 2) if window else 4):
        raise _refused(body)


def _refused(body: PreTrainedModel) -> UserError:
    return UserError(f"packing: attention of {type(body).__name__} cannot be kept within texts; set it to false")


@torch.no_grad()
def _agrees(body: PreTrainedModel, length: int) -> bool:
    """Whether two texts of so many tokens and one have in one row the states that they have alone."""
    embedding = body.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    count = embedding.num_embeddings
    ids = [[1 % count, *(n % count for n in range(first, first + length))] for first in (2, 3)]
    row, _ = packed([{"input_ids": own, "labels": [IGNORED] * len(own)} for own in ids])
    trains, device = body.training, next(body.parameters()).device
    body.eval()
    alone = torch.cat([body(input_ids=torch.tensor([own], device=device)).last_hidden_state[0] for own in ids])
    together = body(**{name: own.to(device) for name, own in row.items()}).last_hidden_state[0]
    together = together[row["attention_mask"].flatten().to(device)]
    body.train(trains)
    return bool((together - alone).abs().max() <= TOLERANCE * alone.abs().max())
