"""Less memory for the same gradients: micro-batches, and layers that are computed anew in the backward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from builders import RECORDS, assert_resumes, corpus, prepared, recipe
from multitune.data import sets
from multitune.errors import UserError
from multitune.models.checkpointing import checkpoint_layers
from multitune.recipe import Recipe
from multitune.tasks import TASKS

OWN_MODEL = {
    "image_classification": {"model": "scratch:convnet", "layers": 1},
    "translation": {"model": "scratch:transformer", "layers": 1},
}
KINDS = [
    pytest.param(kind, marks=pytest.mark.check if kind in OWN_MODEL else ())
    for kind in RECORDS
    if not TASKS[kind].compares_within_batch
]
"""Those whose tiny models take seconds are make check's."""


def of_kind(kind: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> Recipe:
    monkeypatch.setitem(sets.DATASETS, kind, lambda wanted, bad: corpus(kind))
    given: dict[str, Any] = {"model": str(tiny_model), "data": kind, "method": "sequential", "precision": "fp32"}
    return Recipe(**(given | {"dropout": 0.0, "batch_size": 7, "max_length": 24} | OWN_MODEL.get(kind, {}) | keys))


def gradients(one: Recipe) -> tuple[float, dict[str, Tensor]]:
    """The loss of the first mini-batch, and its gradient."""
    run = prepared(one)
    total = 0.0
    for term in run.next_loss(0, [])():
        term.backward()
        total += float(term.detach())
    return total, {name: weight.grad for name, weight in run.encoder.parameters() if weight.grad is not None}


def assert_same(one: Recipe, other: Recipe, rtol: float = 1e-6) -> None:
    """Both losses and gradients are the same, but for so much of the norm of all."""
    (loss, own), (theirs, others) = gradients(one), gradients(other)
    assert loss == pytest.approx(theirs, rel=rtol)
    assert own.keys() == others.keys()
    norm = float(torch.cat([gradient.flatten() for gradient in own.values()]).norm())
    assert norm > 0
    apart = {name: float((gradient - others[name]).norm()) for name, gradient in own.items()}
    assert max(apart.values()) <= rtol * norm, apart


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_have_the_gradient_of_the_batch(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Texts of several lengths, whose labels are not alike many; the last micro-batch is smaller."""
    whole = of_kind(kind, tiny_model, monkeypatch)
    assert_same(whole, whole.model_copy(update={"micro_batch_size": 3}))
    assert_same(whole, whole.model_copy(update={"micro_batch_size": 1}))


def test_a_micro_batch_without_labels_counts_for_nothing(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own mean, over none, would be NaN; of a whole batch without any it is."""
    run = prepared(of_kind("pos_tagging", tiny_model, monkeypatch, micro_batch_size=1))
    good, other = run.examples["aa"][0], run.examples["aa"][1]
    bare = other | {"labels": [-100] * len(other["input_ids"])}
    draw = torch.Generator()
    assert [part.share for part in run._parts(0, [bare, good], 1.0, draw)] == [1.0]
    assert [part.share for part in run._parts(0, [bare, bare], 1.0, draw)] == [0.5, 0.5]


@pytest.mark.parametrize("method", ["mtl", "gradvac", "gradnorm", "famo", "torchjd:UPGrad", "mixed", "reptile"])
def test_every_method_takes_the_same_steps(tiny_model: Path, tiny_panx: Path, method: str) -> None:
    """Rows of a Combiner are gradients of whole batches: tags of sentences of several lengths."""
    ends = []
    for keys in ({}, {"micro_batch_size": 3}):
        options = {"tasks_per_step": 2} if method.startswith("torchjd") else {}
        own: dict[str, Any] = {"dropout": 0.0, "options": options, "learning_rate": 1e-3}
        run = prepared(recipe(tiny_model, tiny_panx, method, **own, **keys))
        for _ in range(3):
            run.update.advance(1e-3, 0.0)
            drawn = run.update.draw(9)
            run.update.step(drawn, (run.next_loss(number, []) for number in drawn))
        ends.append({name: weight.detach().clone() for name, weight in run.encoder.parameters()})
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=0, atol=3e-5)


LORA: dict[str, Any] = {"rank": 2, "targets": ["query", "value"], "dropout": 0.1}
CHECKPOINTED: dict[str, dict[str, Any]] = {
    "all weights": {},
    "adapters, whose inputs have no gradient": {"lora": LORA},
    "dropout": {"dropout": 0.1},
    "micro-batches": {"micro_batch_size": 3, "lora": LORA, "dropout": 0.1},
}


@pytest.mark.parametrize("keys", CHECKPOINTED.values(), ids=CHECKPOINTED)
@pytest.mark.parametrize("kind", ["pos_tagging", "masked_language_modelling"])
def test_layers_computed_anew_have_the_same_gradients(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, kind: str, keys: dict[str, Any]
) -> None:
    one = of_kind(kind, tiny_model, monkeypatch, **keys)
    assert_same(one, one.model_copy(update={"gradient_checkpointing": True}), rtol=0.0)


def test_t5_computed_anew_has_the_same_gradients_in_bf16() -> None:
    """Its attention may not get another kernel, which rounds otherwise."""
    ends = []
    for anew in (False, True):
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        config = T5Config(**sizes, vocab_size=32, dropout_rate=0.0)
        config.decoder_start_token_id = 0
        model = T5ForConditionalGeneration(config).train()
        if anew:
            checkpoint_layers(model)
        ids = torch.randint(2, 32, (3, 7), generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        ends.append({"loss": loss.detach()} | {name: weight.grad for name, weight in model.named_parameters()})
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)


def test_layers_are_computed_anew(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepared(of_kind("pos_tagging", tiny_model, monkeypatch, lora=LORA, gradient_checkpointing=True))
    calls: list[str] = []
    layer = run.encoder.model.get_submodule("bert.encoder.layer.0.output.dense")
    layer.register_forward_hook(lambda *_: calls.append("forward"))
    run.loss(0).backward()
    assert len(calls) == 2


def test_an_architecture_that_cannot_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"^gradient_checkpointing: ConvNextModel has no layers that can; set it to false"
    ):
        prepared(of_kind("image_classification", tiny_model, monkeypatch, gradient_checkpointing=True))


def test_a_run_with_both_resumes_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: dict[str, Any] = {"micro_batch_size": 3, "gradient_checkpointing": True, "dropout": 0.1, "lora": LORA}
    one = recipe(tiny_model, tiny_panx, "sequential_reptile", budget=12, validate_every=6, **keys)
    assert_resumes(one, tmp_path, 8, monkeypatch)


def test_every_kind_counts_its_labels() -> None:
    """``labels_in_loss`` is what ``loss`` divides by: a regression's number is never one to ignore."""
    assert TASKS["regression"](()).labels_in_loss(torch.tensor([-100.0, 2.0])) == 2
    assert TASKS["pos_tagging"](("A",)).labels_in_loss(torch.tensor([[0, -100], [0, 0]])) == 3
