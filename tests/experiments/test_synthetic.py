"""The synthetic experiment: its losses, its walks against plain loops, where they end, and the command."""

import importlib
import json
import math
import sys
from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from multitune.cli.app import app
from multitune.errors import UserError
from multitune.experiments import alignment, funnels, synthetic
from multitune.experiments.funnels import OPTIMA
from multitune.experiments.synthetic import LEARNING_RATES, METHODS, STARTS, Outcome, Plane, Synthetic
from multitune.reports.colours import LOOKS
from multitune.results.comparison import Interval

SHORT = 60
LOOPS = [("sequential_reptile", 10, 0.1), ("sequential", 1, 1.0), ("fish", 3, 0.1)]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks of two outer steps of Reptile, 20 joint steps."""
    monkeypatch.setattr(synthetic, "BUDGET", SHORT)
    monkeypatch.setattr(alignment, "BUDGET", SHORT)


def points(*coordinates: tuple[float, float]) -> Tensor:
    return torch.tensor(coordinates, dtype=torch.float64)


def walked(name: str, plane: Plane) -> Tensor:
    return torch.stack([plane.snapshot(), *(plane.snapshot() for _ in METHODS[name].walk(plane))])


@pytest.mark.parametrize("task", range(3))
def test_a_loss_is_ackleys_funnel_with_a_rounded_tip(task: int) -> None:
    x, y = OPTIMA[task]
    found = funnels.task_losses(points((x, y), (x + 3.0, y + 4.0)))[:, task]
    expected = [-200 * math.exp(-0.2 * 0.5), -200 * math.exp(-0.2 * math.sqrt(25.25))]
    assert found.tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("point", [(20.0, 5.0), (0.0, 0.0), (-3.0, 40.0), (10.0, 1e-9)])
def test_gradients_are_those_of_autograd(point: tuple[float, float]) -> None:
    at = points(point)[0].requires_grad_()
    expected = torch.stack([torch.autograd.grad(funnels.task_losses(at)[task], at)[0] for task in range(3)])
    torch.testing.assert_close(funnels.task_gradients(at.detach()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((5.0, 0.0), [1 / math.sqrt(5), -1 / math.sqrt(5), -1.0]),
        ((5.0, 5.0), [0.0, -1.0, 0.0]),
        ((1e12, 1e12), [1.0, 1.0, 1.0]),
        ((0.0, 5.0), [-1.0, -1 / math.sqrt(5), 1 / math.sqrt(5)]),
    ],
)
def test_cosines_of_the_pairs_12_13_23(point: tuple[float, float], expected: list[float]) -> None:
    assert funnels.cosines(points(point))[0].tolist() == pytest.approx(expected, abs=1e-9)


def test_cosines_are_those_of_the_gradients() -> None:
    at = points((20.0, 5.0), (3.0, 3.0), (-40.0, 7.0))
    gradients = funnels.task_gradients(at)
    first, second = gradients[:, [0, 0, 1]], gradients[:, [1, 2, 2]]
    torch.testing.assert_close(funnels.cosines(at), torch.cosine_similarity(first, second, dim=-1, eps=0.0))


def test_mtl_is_gradient_descent(short: None) -> None:
    at, expected = points((20.0, 5.0))[0], []
    for _ in range(SHORT // 3):
        at = at - 0.02 * funnels.task_gradients(at).sum(0)
        expected.append(at)
    found = walked("mtl", Plane.of([(20.0, 5.0)], [0.02], [0]))[1:, 0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "K", "eta"), [("sequential_reptile", 10, 0.1), ("sequential", 1, 1.0), ("fish", 3, 0.1)]
)
def test_one_task_a_step_is_the_plain_loop(short: None, name: str, K: int, eta: float) -> None:
    plane = Plane.of([(20.0, 5.0)], [1.0], [4])
    draws = plane.draws(synthetic._epochs if name == "fish" else synthetic._categorical).flatten().tolist()
    phi, expected = points((20.0, 5.0))[0], []
    for tasks in _batched(draws, K):
        theta = phi
        for task in tasks:
            theta = theta - 1.0 * funnels.task_gradients(theta)[task]
        phi = phi - eta * (phi - theta)
        expected.append(phi)
    # Steps that are long beside the funnels multiply what rounding differs by.
    torch.testing.assert_close(walked(name, plane)[1:, 0], torch.stack(expected), rtol=1e-8, atol=1e-8)
    assert name != "fish" or all(set(tasks) == {0, 1, 2} for tasks in _batched(draws, 3))


def _batched(items: list[int], size: int) -> list[list[int]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def test_reptile_is_the_mean_of_trajectories(short: None) -> None:
    phi, expected = points((20.0, 5.0))[0], []
    for _ in range(SHORT // 30):
        thetas = phi.repeat(3, 1)
        for _ in range(10):
            thetas = thetas - torch.stack([funnels.task_gradients(theta)[t] for t, theta in enumerate(thetas)])
        phi = phi - 0.1 * (phi - thetas).mean(0)
        expected.append(phi)
    found = walked("reptile", Plane.of([(20.0, 5.0)], [1.0], [0]))[1:, 0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.sharing != "nothing"])
def test_points_do_not_see_each_other(short: None, name: str) -> None:
    seeds, sharing = [3, 7] if METHODS[name].drawn else [3], METHODS[name].sharing
    together = walked(name, Plane.of(STARTS, [0.02, 0.5], seeds, sharing)).unflatten(1, (2, 3, len(seeds)))
    alone = walked(name, Plane.of(STARTS[1:2], [0.5], seeds[-1:], sharing))
    torch.testing.assert_close(together[:, 1, 1, -1], alone[:, 0], rtol=1e-9, atol=1e-9)


def test_every_method_spends_the_same(short: None) -> None:
    a_record = {"reptile": 30, "sequential_reptile": 10, "sequential": 1, "lookahead": 30, "fish": 3}
    for name in METHODS:
        if name != "upgrad":
            records = len(walked(name, Plane.of(STARTS[:1], [0.02], [0]))) - 1
            assert records * a_record.get(name, 3) == SHORT, name


def test_the_seed_decides_and_nothing_else(short: None) -> None:
    first, again, other = synthetic.run(0), synthetic.run(0), synthetic.run(1)
    assert (first.walks, first.sweep) == (again.walks, again.sweep)
    assert {name for name in first.methods if _walks(first, name) != _walks(other, name)} >= {
        name for name, method in METHODS.items() if method.drawn
    }


def _walks(found: Synthetic, name: str) -> list[Outcome]:
    return [outcome for outcome in found.walks if outcome.method == name]


def test_where_the_walks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """MTL falls into each optimum in turn; Sequential Reptile stays away and is above it, but at no small step."""
    monkeypatch.setattr(synthetic, "LEARNING_RATES", (0.02, 0.2, 1.0))
    monkeypatch.setattr(synthetic, "METHODS", {name: METHODS[name] for name in ("mtl", "sequential_reptile")})
    found = synthetic.run(0)
    mtl = [found.of_figures(start)[0] for start in STARTS]
    assert [[round(value / 10) * 10 for value in outcome.end or []] for outcome in mtl] == [[10, 0], [0, 10], [0, 0]]
    assert [outcome.cosine.mean for outcome in mtl] == pytest.approx([-0.37, -0.37, -0.47], abs=0.01)
    (joint, *_), (_, small, large) = (
        [o for o in found.sweep if o.method == name] for name in ("mtl", "sequential_reptile")
    )
    assert large.cosine.low > joint.cosine.high
    assert large.distance.low > 2.0
    assert small.cosine.high < joint.cosine.low


@pytest.mark.parametrize(
    ("changes", "own", "same"),
    [
        ({}, 0.6, 0.6),
        ({("mtl", 1.0): 0.3}, 0.6, -0.2),
        ({("mtl", 0.02): 0.3}, -0.2, 0.6),
        ({("reptile", 1.0): 0.0}, 0.1, 0.1),
        ({("gradnorm", 0.02): 0.0, ("fish", 1.0): 0.9}, 0.1, 0.6),
    ],
)
def test_margins(changes: dict[tuple[str, float], float], own: float, same: float) -> None:
    cosine = {(name, METHODS[name].learning_rate): -0.5 for name in METHODS}
    cosine |= {(name, rate): -0.5 for name in synthetic.FIGURE_3 if name != "gradnorm" for rate in LEARNING_RATES}
    cosine |= {("sequential_reptile", 1.0): 0.1} | changes
    sweep = [_outcome(name, rate, value) for (name, rate), value in cosine.items()]
    (found,) = [margin for margin in Synthetic(0, [], sweep, {}).margins() if margin.learning_rate == 1.0]
    assert astuple(found.own) == pytest.approx((own, own - 0.1, own + 0.1))
    assert astuple(found.same) == pytest.approx((same, same - 0.1, same + 0.1))


def _outcome(name: str, rate: float, cosine: float) -> Outcome:
    interval = Interval(cosine, cosine - 0.1, cosine + 0.1)
    return Outcome(name, rate, None, interval, interval, interval, [])


def test_each_method_has_a_line_of_its_own() -> None:
    assert set(METHODS) <= set(LOOKS)
    assert len({LOOKS[method] for method in METHODS}) == len(METHODS)


@pytest.mark.check
def test_command(short: None, tmp_path: Path) -> None:
    pytest.importorskip("torchjd")
    result = CliRunner().invoke(app, ["synthetic", "--out", str(tmp_path / "new" / "folder")])
    assert result.exit_code == 0, result.output
    assert all(method.label in result.stdout for method in METHODS.values())
    folder = tmp_path / "new" / "folder"
    names = {f"synthetic-{which}" for which in ("start-1", "start-2", "start-3", "learning-rates", "alignment")}
    assert {p.name for p in folder.iterdir()} == {f"{n}.{e}" for n in names for e in ("png", "pdf")} | {
        "synthetic.json",
        "alignment.json",
    }
    assert all(p.stat().st_size < 200_000 for p in folder.glob("*.png"))
    found = json.loads((folder / "synthetic.json").read_text())
    assert len(found["walks"]) == 3 * len(found["sweep"])
    assert found["budget"] == SHORT
    assert [margin["learning_rate"] for margin in found["margins"]] == list(LEARNING_RATES)


def test_a_seed_beyond_all_that_recipes_may_have(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["synthetic", "--seed", str(2**32), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, UserError)
    assert str(result.exception) == "--seed: 4294967296 is too large; it may be 4294967295"
    assert not (tmp_path / "out").exists()


def test_without_figures(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "METHODS", {n: METHODS[n] for n in synthetic.FIGURE_3})
    result = CliRunner().invoke(app, ["synthetic", "--out", str(tmp_path), "--no-figures"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alignment.json", "synthetic.json"]
    for words in ("independent", "permuted", "Adam, beta1 = 0", "best of Figure 3", "modified loss"):
        assert words in result.stdout


def test_missing_matplotlib_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "multitune.reports.plotting", raising=False)
    with pytest.raises(UserError, match=r"pip install 'multitune\[figures\]'"):
        importlib.import_module("multitune.reports.plotting")
