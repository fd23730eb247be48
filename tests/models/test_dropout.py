"""The quick dropout: how often it drops, what it leaves, and that a model with it is the same model."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForTokenClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from multitune.models.dropout import ATTENTION, LEVELS, QuickDropout, attention, thinned, use_quick_dropout


class SelfAttention(nn.Module):
    """What an attention function asks its module."""

    is_causal = False


def model(dropout: float = 0.1) -> BertForTokenClassification:
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(0)
    return BertForTokenClassification(config)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_drops_a_share_p_and_scales_up_the_rest(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    out = thinned(torch.ones(400, 501, dtype=dtype), p)
    kept = out[out != 0]
    share = 1 - len(kept) / out.numel()
    assert out.dtype == dtype
    assert abs(share - p) < 5 * (p * (1 - p) / out.numel()) ** 0.5 + 1 / LEVELS
    assert kept.unique().tolist() == pytest.approx([1 / (1 - p)], rel=4e-3 if dtype == torch.bfloat16 else 1e-4)


@pytest.mark.parametrize("position", range(4))
def test_every_element_of_a_draw_is_dropped_alike_and_on_its_own(position: int) -> None:
    torch.manual_seed(2)
    dropped = (thinned(torch.ones(40_000, 4), 0.3) == 0).double()
    correlation = torch.corrcoef(dropped.T)
    assert float(dropped[:, position].mean()) == pytest.approx(0.3, abs=0.012)
    assert float((correlation - torch.eye(4)).abs().max()) < 0.025


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1.0, 0.0), (1e-9, 1.0)])
def test_the_ends_are_exact(p: float, expected: float) -> None:
    assert thinned(torch.ones(7), p).tolist() == [expected] * 7


@pytest.mark.parametrize("size", [1, 3, 4, 5, 1023])
def test_gradient_is_the_mask_and_a_seed_repeats_it(size: int) -> None:
    values = torch.ones(size, requires_grad=True)
    torch.manual_seed(3)
    out = thinned(values, 0.5)
    out.sum().backward()
    torch.manual_seed(3)
    assert torch.equal(thinned(torch.ones(size), 0.5), out)
    assert values.grad is not None
    assert torch.equal(values.grad, out)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_transformers_where_nothing_is_dropped(masked: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(4))
    mask = (torch.arange(5) < torch.tensor([[3], [5]]))[:, None, None] if masked else None
    ours, _ = attention(
        SelfAttention(), query, key, value, mask, dropout=1e-5, scaling=0.3
    )  # below 2^-17 would be none at all
    plain, _ = sdpa_attention_forward(SelfAttention(), query, key, value, mask, 0.0, 0.3)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_attention_drops_weights_and_keeps_their_mean() -> None:
    query, key, value = torch.randn(3, 1, 2, 6, 8, generator=torch.Generator().manual_seed(5)).expand(3, 4000, 2, 6, 8)
    torch.manual_seed(6)
    dropped, _ = attention(SelfAttention(), query, key, value, None, dropout=0.3)
    plain, _ = attention(SelfAttention(), query[:1], key[:1], value[:1], None)
    torch.testing.assert_close(dropped.mean(0), plain[0], rtol=0, atol=0.05)
    assert float(dropped.std(0).min()) > 0.01


def test_a_model_keeps_its_weights_its_answers_and_its_configuration(tmp_path: Path) -> None:
    plain, quick = model().eval(), model().eval()
    use_quick_dropout(quick)
    ids = torch.arange(20).view(2, 10)
    assert quick.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(quick(ids).logits, plain(ids).logits)
    assert not [module for module in quick.modules() if type(module) is nn.Dropout]
    assert sum(isinstance(module, QuickDropout) for module in quick.modules()) == 8
    quick.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()


def test_training_draws_anew_and_repeats_with_a_seed() -> None:
    quick = model()
    use_quick_dropout(quick)
    ids = torch.arange(20).view(2, 10)
    logits = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        logits.append(quick(ids, attention_mask=torch.ones_like(ids)).logits)
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_without_dropout_is_computed_in_fp32_where_autocast_or_the_states_are_bf16(
    dtype: torch.dtype,
) -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(5)).to(dtype)
    exact, _ = sdpa_attention_forward(SelfAttention(), query.float(), key.float(), value.float(), None, 0.0, 0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.float32):
        found, _ = attention(SelfAttention(), query, key, value, None, dropout=0.0, scaling=0.3)
        assert (found @ found.mT).dtype == torch.bfloat16  # autocast goes on afterwards
    assert torch.equal(found, exact.to(dtype))
