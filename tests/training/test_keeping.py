"""What keeps a run near its pretrained model: frozen parts, rates by layer, an anchor. Also over a resume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import multitune as mt
from builders import assert_resumes, prepared, recipe
from multitune.errors import UserError
from multitune.plans.update import Update
from multitune.recipe import Recipe
from multitune.training.optimizer import make_optimizer
from multitune.training.run import Run

METHODS = ("mtl", "gradvac", "sequential_reptile", "reptile", "recadam")
KEEPING: dict[str, Any] = {"freeze": ["embeddings", "layers 0"], "layer_decay": 0.5, "anchor": 3.0}


def step(run: Run, times: int = 1) -> None:
    for _ in range(times):
        run.update.advance(run.recipe.learning_rate, 0.0)
        drawn = run.update.draw(9)
        run.update.step(drawn, (run.loss(number) for number in drawn))


def values(run: Run) -> dict[str, Tensor]:
    """All weights, trained or not."""
    return {name: weight.detach().clone() for name, weight in run.encoder.model.named_parameters()}


def tensors(state: Any) -> list[Tensor]:
    """All tensors in a state."""
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def size(update: Update) -> int:
    """Fractions in an update's state, but for single ones: moments and copies of weights."""
    return sum(each.numel() for each in tensors(update.state_dict()) if each.ndim and each.is_floating_point())


def test_weight_decay_leaves_biases_with_a_row_for_each_head_alone() -> None:
    """As XLNet's."""
    named = [(name, torch.nn.Parameter(torch.ones(2, 3))) for name in ("layer.0.r_w_bias", "layer.0.q")]
    groups = make_optimizer(named, Recipe(data="panx", weight_decay=0.5), {}, ()).param_groups
    assert {id(group["params"][0]): group["weight_decay"] for group in groups} == {
        id(named[0][1]): 0.0,
        id(named[1][1]): 0.5,
    }


FROZEN = {
    "embeddings": ("bert.embeddings.",),
    "layers 0": ("bert.encoder.layer.0.",),
    "layer 1": ("bert.encoder.layer.1.",),
    "layers 0-1": ("bert.encoder.layer.0.", "bert.encoder.layer.1."),
    "encoder": ("bert.",),
}


@pytest.mark.parametrize("part", FROZEN)
@pytest.mark.parametrize("method", ["mtl", "sequential_reptile"])
def test_frozen_weights_take_no_gradient_no_state_and_no_copy(
    tiny_model: Path, tiny_panx: Path, method: str, part: str
) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, method, freeze=[part]))
    free = prepared(recipe(tiny_model, tiny_panx, method))
    before = values(run)
    step(run, times=9)
    step(free)
    for name, weight in run.encoder.model.named_parameters():
        frozen = name.startswith(FROZEN[part])
        assert weight.requires_grad != frozen
        assert torch.equal(weight, before[name]) == frozen, name
        assert not frozen or weight.grad is None
    trained = sum(weight.numel() for _, weight in run.encoder.parameters())
    assert size(run.update) == trained * (3 if method == "sequential_reptile" else 2)
    assert size(run.update) < size(free.update)


def test_a_layer_has_its_share_of_the_rate(tiny_model: Path, tiny_panx: Path) -> None:
    """AdamW's first step moves each weight by lr g / (|g| + eps): by the rate, where the gradient is not tiny."""
    run = prepared(recipe(tiny_model, tiny_panx, "sequential", layer_decay=0.5, clip=None))
    before = dict(run.encoder.parameters())
    old = {name: weight.detach().clone() for name, weight in before.items()}
    step(run)
    rate = run.recipe.learning_rate
    shares = {"bert.embeddings": 0.125, "bert.encoder.layer.0": 0.25, "bert.encoder.layer.1": 0.5, "classifier": 1.0}
    for part, share in shares.items():
        moved = [
            float((old[name] - weight).detach().abs().max()) for name, weight in before.items() if name.startswith(part)
        ]
        assert max(moved) == pytest.approx(share * rate, rel=1e-3), part


@pytest.mark.parametrize("method", ["sequential", "sequential_reptile", "recadam"])
def test_without_momentum_the_first_moment_is_the_gradient(tiny_model: Path, tiny_panx: Path, method: str) -> None:
    """Then v after two steps is (1 - beta2) (beta2 m_1^2 + m_2^2) of the first moments m_1 and m_2."""
    run = prepared(recipe(tiny_model, tiny_panx, method, adam_beta1=0.0, clip=None))
    moments: list[list[Tensor]] = []
    for _ in range(2):
        step(run)
        (optimizer,) = (part for part in run.update.state_dict().values() if "param_groups" in part)
        state = optimizer["state"].values()
        moments.append([entry[key].clone() for key in ("exp_avg", "exp_avg_sq") for entry in state])
    half = len(moments[0]) // 2
    for one, two, squares in zip(moments[0][:half], moments[1][:half], moments[1][half:], strict=True):
        torch.testing.assert_close(squares, 1e-3 * (0.999 * one.square() + two.square()), rtol=1e-3, atol=1e-12)


def test_an_anchor_is_its_formula_on_pretrained_weights_alone(tiny_model: Path, tiny_panx: Path) -> None:
    """Two runs whose first two steps have the same gradients: the first is pulled nowhere, the second by lr alpha."""
    alpha = 5.0
    free = prepared(recipe(tiny_model, tiny_panx, "sequential"))
    pulled = prepared(recipe(tiny_model, tiny_panx, "sequential", anchor=alpha))
    start = values(free)
    step(free)
    step(pulled)
    after = values(free)
    for name, weight in values(pulled).items():
        assert torch.equal(weight, after[name]), "at the start there is nowhere to be pulled to"
    step(free)
    step(pulled)
    rate, plain, held = free.recipe.learning_rate, values(free), values(pulled)
    for name in plain:
        pull = rate * alpha * (start[name] - after[name]) if name.startswith("bert.") else torch.zeros(())
        torch.testing.assert_close(held[name], plain[name] + pull, rtol=1e-4, atol=1e-6)


def test_an_anchor_keeps_a_run_nearer(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    drifts = [
        mt.train(
            recipe(tiny_model, tiny_panx, "sequential_reptile", budget=14, anchor=alpha), tmp_path / str(alpha)
        ).drift
        for alpha in (0.0, 50.0)
    ]
    assert drifts[0] is not None
    assert drifts[1] is not None
    assert drifts[1] < 0.8 * drifts[0]


@pytest.mark.check
@pytest.mark.parametrize("method", METHODS)
def test_a_run_with_all_of_it_resumes_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    keys = KEEPING | ({"anchor": 0} if method == "recadam" else {})
    one = recipe(tiny_model, tiny_panx, method, budget=24, validate_every=8, probe_every=12, dropout=0.1, **keys)
    assert_resumes(one, tmp_path, 11, monkeypatch)


@pytest.mark.parametrize(("every", "said"), [(39, False), (40, True), (None, False)])
def test_an_average_of_one_value_is_told(tiny_model: Path, tiny_panx: Path, every: int | None, said: bool) -> None:
    run = prepared(recipe(tiny_model, tiny_panx, average="snapshots", validate_every=every))
    assert any("snapshots took one value" in note for note in run.update.notes) == said


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no such part": (
        {"freeze": ["head"]},
        "freeze: 'head' is no part of this model; it has encoder, embeddings, layers 0-1$",
    ),
    "no such layer": ({"freeze": ["layers 1-2"]}, "freeze: 'layers 1-2' is no part of this model"),
    "layers backward": ({"freeze": ["layers 1-0"]}, "freeze: 'layers 1-0' is no part"),
    "a decoder": ({"freeze": ["decoder layers 0"]}, "freeze: 'decoder layers 0' is no part"),
    "an anchor beyond the start": (
        {"anchor": 101},
        "anchor: 101 times the learning rate 0.01 is above 1; choose at most 100",
    ),
    "an anchor on nothing": (
        {"anchor": 1, "freeze": ["encoder"]},
        "anchor: no weight that pretraining left trains, so that there is nothing to pull; set it to 0",
    ),
    "rates of no layer": (
        {"layer_decay": 0.9, "freeze": ["embeddings", "layers 0-1"]},
        "layer_decay: no layer and no embedding trains, so that all rates are alike; set it to 1",
    ),
    "two pulls": ({"anchor": 1, "method": "recadam"}, "anchor: recadam pulls back to the pretrained weights itself"),
    "recall of nothing": (
        {"method": "recadam", "freeze": ["encoder"]},
        "method: recadam recalls the weights that pretraining left, and none of them trains; take mtl, or freeze less$",
    ),
    "recall without pretraining": (
        {"method": "recadam", "model": "scratch:transformer"},
        "method: scratch:transformer has no pretrained weights that recadam could pull back to$",
    ),
    "nothing pretrained": (
        {"anchor": 1, "model": "scratch:transformer"},
        "anchor: scratch:transformer has no pretrained",
    ),
}


@pytest.mark.parametrize(("keys", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tiny_model: Path, tiny_panx: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        prepared(recipe(tiny_model, tiny_panx, **keys))
    assert "\n" not in str(raised.value)
