"""fp16: gradients that it could not hold by itself, steps left out where they overflow, and the scale of losses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import multitune as mt
from builders import lines, prepared, recipe, stop_after
from multitune.errors import Interrupted, RunError, UserError
from multitune.models import loss_scale
from multitune.models.loss_scale import FIRST, PATIENCE, LossScale, following
from multitune.plans import METHODS
from multitune.results.run import RunResult
from multitune.training.launch import check_shard
from multitune.training.loading import load_plan
from multitune.training.progress import Silent
from multitune.training.run import Run
from multitune.training.run_folder import CHECKPOINTS

WITHOUT_STEPS_OF_THEIR_OWN = {"stl"}


def gradients(run: Run, scale: float | None = None) -> list[Tensor]:
    """Of the first mini-batch's loss by the model's weights and the method's own, as `torch.autograd.grad` has them."""
    weights = [*(weight for _, weight in run.encoder.parameters()), *run.update.own_weights]
    if scale is not None:
        assert run.loss_scale is not None
        run.loss_scale.value = scale
    return [found for found in torch.autograd.grad(run.loss(0), weights, allow_unused=True) if found is not None]


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_gradients_that_fp16_cannot_hold_arrive() -> None:
    """Its smallest number is 6e-8."""
    weight = nn.Parameter(torch.ones(3))
    scale = LossScale([weight])

    def loss() -> Tensor:
        return (weight.half() * 1e-4).sum().float() * 1e-5

    torch.testing.assert_close(torch.autograd.grad(loss(), [weight])[0], torch.zeros(3), rtol=0, atol=1e-10)
    (by_grad,) = torch.autograd.grad(scale.scaled(loss()), [weight])
    scale.scaled(loss()).backward()
    for gradient in (by_grad, weight.grad):
        torch.testing.assert_close(gradient, torch.full((3,), 1e-9), rtol=1e-3, atol=0)
    with scale.off():
        (plain,) = torch.autograd.grad(weight.sum(), [weight])
    assert plain.tolist() == [1, 1, 1]


def test_a_value_stays_and_an_overflow_is_seen() -> None:
    weight = nn.Parameter(torch.ones(2))
    scale = LossScale([weight])
    loss = scale.scaled((weight.half() * 60000).float().sum())
    assert loss.isfinite()
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.isinf().all()


@pytest.mark.parametrize(
    ("value", "good", "overflowed", "next_one"),
    [
        (FIRST, 5, True, (FIRST / 2, 0)),
        (FIRST, 5, False, (FIRST, 6)),
        (FIRST, PATIENCE - 1, False, (2 * FIRST, 0)),
        (1.0, 0, True, (1.0, 0)),
    ],
)
def test_the_scale_follows_the_steps(value: float, good: int, overflowed: bool, next_one: tuple[float, int]) -> None:
    assert following(value, good, overflowed=overflowed) == next_one


@pytest.mark.parametrize("method", ["sequential", "swep"])
def test_gradients_are_those_of_fp32_but_for_rounding(tiny_model: Path, tiny_panx: Path, method: str) -> None:
    """Another power of two changes the bits of the smallest numbers alone."""

    def run(precision: str) -> Run:
        return prepared(recipe(tiny_model, tiny_panx, method, precision=precision, dropout=0.0))

    exact, rounded = gradients(run("fp32")), gradients(run("fp16"), 2.0**12)
    assert 0 < (flat(rounded) - flat(exact)).norm() < 0.01 * flat(exact).norm()
    assert (flat(gradients(run("fp16"), 2.0**11)) - flat(rounded)).norm() < 1e-5 * flat(exact).norm()


@pytest.mark.check
@pytest.mark.parametrize("method", sorted(METHODS.keys() - WITHOUT_STEPS_OF_THEIR_OWN))
def test_every_method_trains_in_fp16(tiny_model: Path, tiny_panx: Path, tmp_path: Path, method: str) -> None:
    def run(precision: str) -> RunResult:
        one = recipe(tiny_model, tiny_panx, method, precision=precision, dropout=0.0, test_limit=8, save_model=False)
        return mt.train(one, tmp_path / precision)

    half, full = run("fp16"), run("fp32")
    assert half.precision == "fp16"
    assert half.skipped_steps == (3 if method == "swep" else 0)  # its divergence overflows at the first scales
    assert half.drift == pytest.approx(full.drift, rel=0.05) or method == "swep"


def test_steps_that_overflow_are_skipped_until_the_scale_fits_and_a_resume_has_it(
    tiny_model: Path,
    tiny_panx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a first scale of 2^28 no gradient fits; the run stops within its first good steps, and goes on alike."""
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**28)
    keys: dict[str, Any] = {"precision": "fp16", "non_finite_steps": 100, "checkpoint_every": 4, "budget": 40}
    one = recipe(tiny_model, tiny_panx, "sequential", **keys)
    whole = mt.train(one, tmp_path / "whole")
    assert 0 < whole.skipped_steps < 20
    assert whole.steps == 40 - whole.skipped_steps
    skipped = [line for line in lines(tmp_path / "whole") if line["event"] == "skip"]
    assert {line["what"] for line in skipped} == {"gradient"}
    with monkeypatch.context() as stopping:
        stop_after(24, stopping)
        with pytest.raises(Interrupted):
            mt.train(one, tmp_path / "parts")
    parts = mt.train(one, tmp_path / "parts", resume=True)
    assert (parts.seen, parts.skipped_steps, parts.drift) == (whole.seen, whole.skipped_steps, whole.drift)


def scored(folder: Path, outliers: int) -> dict[str, Any]:
    """The keys of 32 texts with scores; the squared error of the first ones in training is infinite."""
    folder.mkdir()
    for split, count in (("train", 32), ("dev", 8)):
        far = outliers if split == "train" else 0
        rows = [{"text": "roma", "score": 1e30 if n < far else n % 3} for n in range(count)]
        (folder / f"{split}-aa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": "folder", "path": str(folder), "columns": {"text": "text", "score": "score"}}


class Sayings(Silent):
    """Keeps what is said."""

    def __init__(self, found: list[str]) -> None:
        self._found = found

    def say(self, text: str) -> None:
        self._found.append(text)


def test_a_loss_that_is_not_finite_says_nothing_of_the_scale(
    tiny_model: Path, tiny_panx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no overflow of the gradient, which a lower scale would help, and no good step."""
    monkeypatch.setattr(loss_scale, "FIRST", 2.0**8)
    keys = scored(tmp_path / "data", outliers=2) | {"precision": "fp16", "budget": 12, "keep_checkpoints": True}
    one, heard = recipe(tiny_model, tiny_panx, "sequential", **keys), list[str]()
    result = mt.train(one, tmp_path / "run", progress=lambda title, budget: Sayings(heard))
    assert 0 < result.skipped_steps < 12
    (newest, *_) = sorted((tmp_path / "run" / CHECKPOINTS).glob("0*/state.json"), reverse=True)
    progress = dict(json.loads(newest.read_text())["progress"]["items"])
    assert (progress["loss_scale"], progress["steps_at_scale"]) == (2.0**8, result.steps)
    said = [line for line in heard if "step skipped" in line]
    assert len(said) == result.skipped_steps
    assert not any("loss scale" in line for line in said)


def test_a_run_that_fails_in_fp16_is_told_of_other_precisions(
    tiny_model: Path, tiny_panx: Path, tmp_path: Path
) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential", **scored(tmp_path / "data", outliers=32), precision="fp16")
    with pytest.raises(RunError, match="set precision to bf16 or fp32, lower learning_rate, or look at the data"):
        mt.train(one, tmp_path / "run")


def test_probes_in_fp16_are_those_of_fp32(tiny_model: Path, tiny_panx: Path, tmp_path: Path) -> None:
    def cosines(precision: str) -> Any:
        one = recipe(tiny_model, tiny_panx, "mtl", precision=precision, budget=8, learning_rate=1e-30, probe_every=8)
        mt.train(one, tmp_path / precision)
        return [line for line in lines(tmp_path / precision) if line["event"] == "probe"][-1]["cosine"]

    torch.testing.assert_close(torch.tensor(cosines("fp16")), torch.tensor(cosines("fp32")), rtol=1e-5, atol=1e-6)


def test_shards_do_not_scale(tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, "mixed", precision="fp16", shard=True)
    with pytest.raises(UserError, match="shard: cannot stand beside precision: fp16; set that to bf16 or fp32"):
        check_shard(one, load_plan(one))
