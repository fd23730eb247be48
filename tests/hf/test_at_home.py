"""What else a Trainer does: mixed precision, layers computed anew, and what it pushes to the Hub."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from multitune.hf import MultitaskTrainer
from small_hub import SmallHub, serving
from tiny import same, saved, trainer, weights

pytestmark = pytest.mark.check
OPEN: dict[str, Any] = {"inner_steps": 6, "outer_lr": 0.5}
METHODS: dict[str, dict[str, Any]] = {
    "sequential_reptile": {"options": OPEN},
    "gradvac": {"gradient_accumulation_steps": 3},
}


def trained(folder: Path, method: str, **settings: Any) -> MultitaskTrainer:
    one = trainer(folder, method, **(METHODS[method] | settings))
    one.train()
    return one


@pytest.mark.parametrize("method", METHODS)
def test_layers_computed_anew_leave_the_weights_as_they_are(tmp_path: Path, method: str) -> None:
    plain = trained(tmp_path / "plain", method)
    anew = trained(tmp_path / "anew", method, activation_checkpointing=True)
    assert same(weights(plain.model), weights(anew.model))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_weights_stay_in_fp32_and_near_under_mixed_precision(tmp_path: Path, method: str, precision: str) -> None:
    plain = trained(tmp_path / "plain", method)
    mixed = trained(tmp_path / "mixed", method, **{precision: True})
    assert {weight.dtype for weight in weights(mixed.model).values()} == {torch.float32}
    assert precision == "fp16" or not same(weights(plain.model), weights(mixed.model))
    for name, weight in weights(mixed.model).items():
        torch.testing.assert_close(weight, weights(plain.model)[name], atol=0.05, rtol=0.05, msg=name)


def test_with_eta_1_the_steps_are_the_trainers_own_under_bf16(tmp_path: Path) -> None:
    options = {"inner_steps": 4, "outer_lr": 1.0}
    one = trained(tmp_path / "one", "sequential_reptile", options=options, bf16=True)
    two = trainer(tmp_path / "two", "sequential", bf16=True)
    two.train()
    assert same(weights(one.model), weights(two.model))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_what_is_pushed_are_the_slow_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(monkeypatch) as hub:
        one = trainer(
            tmp_path / "model",
            options=OPEN,
            push_to_hub=True,
            hub_model_id="me/new",
            hub_token=SmallHub.token,
            save_strategy="steps",
            save_steps=4,
        )
        one.train()
        one.push_to_hub(blocking=True)
        files = hub.repositories["me/new"]["files"]
    pushed = load(files["model.safetensors"])
    expected = weights(one.model)
    assert {name: tensor.tolist() for name, tensor in pushed.items()} == {k: v.tolist() for k, v in expected.items()}
    assert same(saved(tmp_path / "model"), expected)
    assert "config.json" in files
