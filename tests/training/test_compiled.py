"""Layers that torch compiles: the same losses and gradients, few compilations, the same bits after a resume."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import multitune as mt
import tiny_causal
from builders import RECORDS, assert_resumes, corpus, prepared, recipe
from multitune.data import sets
from multitune.errors import UserError
from multitune.models.compiling import length_of_rows
from multitune.recipe import Recipe
from multitune.tasks import TASKS
from multitune.tasks.task import filled_up
from multitune.training.loading import load_plan
from multitune.training.run import Run

# torch warns of its own code while it compiles
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "UserWarning")]
COMPILER = torch._inductor.config.cpp.cxx[-1]
NEEDS_COMPILER = pytest.mark.skipif(
    not (isinstance(COMPILER, str) and shutil.which(COMPILER)), reason=f"needs a C++ compiler ({COMPILER})"
)
FILLED_UP = [kind for kind in RECORDS if kind not in ("image_classification", "translation")]
LORA: dict[str, Any] = {"rank": 2, "targets": ["query", "value"], "dropout": 0.0}


def of_kind(kind: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> Recipe:
    monkeypatch.setitem(sets.DATASETS, kind, lambda wanted, bad: corpus(kind))
    given: dict[str, Any] = {"model": str(tiny_model), "data": kind, "method": "sequential", "precision": "fp32"}
    return Recipe(**(given | {"dropout": 0.0, "batch_size": 7, "max_length": 24} | keys))


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Of a causal language model."""
    monkeypatch.setitem(sets.DATASETS, "commands", lambda wanted, bad: tiny_causal.commands())
    given: dict[str, Any] = {"data": "commands", "method": "sequential", "precision": "fp32", "batch_size": 4}
    return Recipe(model=str(tiny_causal.make(tmp_path / "llama")), max_length=96, **given)


def gradients(run: Run, batches: int = 4) -> tuple[float, dict[str, Tensor]]:
    """The sum of the losses of the first mini-batches, and its gradient."""
    total = 0.0
    for _ in range(batches):
        for term in run.next_loss(0, [])():
            term.backward()
            total += float(term.detach())
    return total, {name: weight.grad for name, weight in run.encoder.parameters() if weight.grad is not None}


def assert_same(run: Run, other: Run, rtol: float, within: Callable[[], Any] = nullcontext) -> None:
    """Both losses and gradients are the same, but for so much of the norm of all; the second is made in a context."""
    loss, own = gradients(run)
    with within():
        theirs, others = gradients(other)
    assert loss == pytest.approx(theirs, rel=rtol)
    assert own.keys() == others.keys()
    norm = float(torch.cat([gradient.flatten() for gradient in own.values()]).norm())
    assert norm > 0
    assert max(float((gradient - others[name]).norm()) for name, gradient in own.items()) <= rtol * norm


@pytest.mark.parametrize(
    ("longest", "length"), [(1, 16), (16, 16), (17, 32), (100, 112), (128, 128), (129, 160), (257, 320), (512, 512)]
)
def test_batches_on_a_card_have_one_of_few_lengths(longest: int, length: int) -> None:
    assert length_of_rows(longest) == length


@pytest.mark.parametrize("kind", FILLED_UP)
def test_longer_rows_have_the_same_gradients(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """But where the kind says that the loss reads padding."""
    one = of_kind(kind, tiny_model, monkeypatch)
    differ = pytest.raises(AssertionError) if TASKS[kind].reads_padding else nullcontext()
    with differ:
        assert_same(prepared(one), prepared(one), 2e-6, lambda: filled_up(lambda longest: 32))


def test_longer_rows_of_a_causal_model_have_the_same_gradients(chat: Recipe) -> None:
    assert_same(prepared(chat), prepared(chat), 2e-6, lambda: filled_up(lambda longest: 96))


def test_rows_are_filled_up_inside_alone() -> None:
    task, examples = TASKS["classification"](()), [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
    with filled_up(lambda longest: 2 * longest):
        inputs = task.inputs(examples, 1)
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 1, 1, 1], [8, 1, 1, 1, 1, 1]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert task.inputs(examples, 1)["input_ids"].shape == (2, 3)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"gradient_checkpointing": True}, "compile: cannot stand beside gradient_checkpointing; set one of them to"),
        ({"packing": True}, "compile: cannot stand beside packing; set one of them to false"),
        ({"shard": True}, "compile: cannot stand beside shard; set one of them to false"),
        ({"device": "mps"}, "compile: is for device cpu or cuda, not for mps; set it to false"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_data_are_read(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_plan(Recipe(data="panx", compile=True, **keys))
    load_plan(Recipe(data="panx", **keys))


@pytest.mark.check
@pytest.mark.parametrize(
    ("kind", "model"), [("image_classification", "scratch:convnet"), ("translation", "scratch:transformer")]
)
def test_other_models_are_refused(monkeypatch: pytest.MonkeyPatch, kind: str, model: str) -> None:
    monkeypatch.setitem(sets.DATASETS, kind, lambda wanted, bad: corpus(kind))
    with pytest.raises(UserError, match="compile: is for encoders of text and causal language models, not for"):
        prepared(Recipe(model=model, data=kind, layers=1, compile=True))


@pytest.mark.check
def test_without_a_compiler_nothing_is_written(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential", compile=True)
    none = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with none, pytest.raises(UserError, match=r"^compile: needs a C\+\+ compiler, such as g\+\+, and this machine"):
        mt.train(one, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def assert_compiled(one: Recipe, graphs: int) -> Run:
    """Compiled, a recipe has the gradients that it has else, of batches of several lengths, with so many graphs."""
    counted = torch._dynamo.utils.counters
    counted.clear()
    run, generator = prepared(one.model_copy(update={"compile": True})), torch.get_rng_state()
    assert all(weight.grad is None for _, weight in run.encoder.parameters())
    assert_same(prepared(one), run, 2e-6)
    assert (counted["stats"]["unique_graphs"], counted["graph_break"]) == (graphs, {})
    assert torch.equal(torch.get_rng_state(), generator)
    return run


@pytest.mark.check
@NEEDS_COMPILER
def test_an_encoder_has_the_same_gradients(tiny_lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_compiled(of_kind("masked_language_modelling", tiny_lm, monkeypatch), graphs=1)


@pytest.mark.check
@NEEDS_COMPILER
def test_adapters_under_two_heads_have_the_same_gradients(tiny_lm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer has a graph of its own, since nothing below it trains."""
    keys: dict[str, Any] = {"lora": LORA, "replay": {}, "micro_batch_size": 4}
    assert_compiled(of_kind("pos_tagging", tiny_lm, monkeypatch, **keys), graphs=2)


@pytest.mark.check
@NEEDS_COMPILER
def test_a_causal_model_has_the_same_gradients(chat: Recipe) -> None:
    """Its cache, which is of no use in training, would have each layer compiled by itself."""
    run = assert_compiled(chat, graphs=1)
    assert run.encoder.model.config.use_cache


@pytest.mark.check
@NEEDS_COMPILER
def test_a_run_resumes_to_the_same_bits_and_ships_an_ordinary_model(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose masks follow from the seed as ever."""
    keys: dict[str, Any] = {"compile": True, "dropout": 0.1, "budget": 12, "validate_every": 6}
    one = recipe(tiny_model, tiny_panx, "sequential_reptile", **keys)
    assert_resumes(one, tmp_path, 8, monkeypatch)
    names = prepared(one.model_copy(update={"compile": False})).encoder.model.state_dict().keys()
    assert load_file(tmp_path / "whole" / "model" / "model.safetensors").keys() == names
