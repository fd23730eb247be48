"""Masks made without reading the batch: those of transformers, for encoders and causal models, padded or not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, MistralConfig, MistralForCausalLM, PreTrainedModel

from multitune.models.dropout import use_attention
from multitune.models.masks import padding_is

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def bert() -> PreTrainedModel:
    return BertForTokenClassification(BertConfig(**SIZES))


def mistral() -> PreTrainedModel:
    """A causal model whose tokens see the last three alone."""
    return MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=1, sliding_window=3))


@pytest.mark.parametrize("make", [bert, mistral])
@pytest.mark.parametrize("lengths", [(6, 6), (6, 4)])
@pytest.mark.parametrize("known", [True, False])
def test_masks_are_those_of_transformers(
    make: Callable[[], PreTrainedModel], lengths: tuple[int, int], known: bool
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": torch.arange(12).view(2, 6), "attention_mask": mask}
    expected = model(**inputs).logits
    use_attention(model)
    with padding_is(min(lengths) < 6 if known else None):
        assert torch.equal(model(**inputs).logits, expected)


def test_what_is_said_of_a_batch_ends_with_it() -> None:
    model = bert().eval()
    use_attention(model)
    inputs = {"input_ids": torch.arange(6)[None], "attention_mask": (torch.arange(6) < 4).long()[None]}
    expected = model(**inputs).logits
    with padding_is(False):
        assert not torch.equal(model(**inputs).logits, expected)
    assert torch.equal(model(**inputs).logits, expected)
