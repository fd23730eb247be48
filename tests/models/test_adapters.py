"""Low-rank adapters on backbones of several families: how many numbers, how far they lead, how they are written."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from multitune.errors import UserError
from multitune.models import lora
from multitune.models.lora import Adapters
from multitune.recipe import Lora

LLAMA: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}


def llama(**keys: int) -> LlamaConfig:
    return LlamaConfig(vocab_size=12, num_key_value_heads=2, pad_token_id=0, **(LLAMA | keys))


def test_rank_8_on_queries_and_values_of_smollm2_is_460800_numbers() -> None:
    """The shape of SmolLM2-135M, without memory."""
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=49152,
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                tie_word_embeddings=True,
            )
        )
        assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
        Adapters(model, Lora(rank=8, targets=("q_proj", "v_proj")), [], seed=0)
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == 460_800


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=2, pad_token_id=0))


def bert() -> BertForMaskedLM:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return BertForMaskedLM(BertConfig(vocab_size=12, **sizes))


def marian() -> MarianMTModel:
    sizes: dict[str, Any] = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    return MarianMTModel(
        MarianConfig(vocab_size=12, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, pad_token_id=0, **sizes)
    )


BACKBONES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": bert,
    "gpt2": gpt2,
    "llama": lambda: LlamaForCausalLM(llama()),
    "llama with a head": lambda: LlamaForSequenceClassification(llama()),
    "marian": marian,
}


@pytest.fixture(params=BACKBONES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = BACKBONES[request.param]()
    made.eval()
    return made


def trained(model: PreTrainedModel, rank: int = 3) -> Adapters:
    """Adapters that have been moved."""
    adapters = Adapters(model, Lora(rank=rank, alpha=5), [], seed=0)
    model.eval()  # the dropout of the adapters, too
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in adapters.weight_of:
                weight.copy_(torch.randn(weight.shape, generator=draw))
    return adapters


def output(model: nn.Module) -> torch.Tensor:
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 11]])
    further = {"decoder_input_ids": ids} if isinstance(model, MarianMTModel) else {}
    logits: torch.Tensor = model(input_ids=ids, **further).logits
    return logits


def test_drift_is_the_norm_of_the_merged_difference(model: PreTrainedModel) -> None:
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    adapters = trained(model)
    with adapters.merged():
        merged = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert merged.keys() == before.keys()
    norms = {k: float((merged[k].double() - before[k].double()).norm()) for k in before}
    assert adapters.moved() == {k: pytest.approx(norm, rel=1e-6) for k, norm in norms.items() if norm}
    assert not any("lm_head" in name or "embed" in name or "wte" in name for name in adapters.moved())


def test_nothing_has_moved_at_first_and_a_depends_on_the_seed_alone() -> None:
    starts = []
    for seed in (0, 0, 1):
        made = bert()
        adapters = Adapters(made, Lora(), [], seed=seed)
        assert set(adapters.moved().values()) == {0.0}
        starts.append(made.get_parameter("bert.encoder.layer.0.output.dense.lora_A.default.weight"))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


# peft reads a name that transformers has renamed.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")
def test_merged_adapted_and_loaded_by_peft_are_one_model(tmp_path: Path, model: PreTrainedModel) -> None:
    model.save_pretrained(tmp_path / "base")
    adapters = trained(model)
    adapted = output(model)
    with adapters.merged():
        torch.testing.assert_close(output(model), adapted, rtol=1e-4, atol=1e-4)
    assert torch.equal(output(model), adapted)
    adapters.save(model, tmp_path / "adapter", "base")
    base = type(model).from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(output(loaded.get_base_model()), adapted, rtol=1e-5, atol=1e-5)


def test_a_missing_package_is_told_by_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lora.check(None)
    with pytest.raises(UserError, match=r"lora: needs the package peft; pip install 'multitune\[lora\]'$"):
        lora.check(Lora())


def test_an_output_layer_in_the_body_gets_none() -> None:
    """T5's is the input embedding, too: merged into one, it would change the other."""
    model = T5ForConditionalGeneration(T5Config(vocab_size=12, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    before = model.shared.weight.clone()
    adapters = trained(model)
    assert not [name for name in adapters.weight_of.values() if "lm_head" in name]
    ids = torch.tensor([[4, 5, 6]])
    beside = model(input_ids=ids, decoder_input_ids=ids).logits
    with adapters.merged():
        assert torch.equal(model.shared.weight, before)
        torch.testing.assert_close(model(input_ids=ids, decoder_input_ids=ids).logits, beside, rtol=1e-3, atol=1e-3)
