"""Between runs and their pretrained model: what is mixed, scored, chosen and written, and which runs do not fit."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForTokenClassification, AutoTokenizer

import multitune as mt
from builders import RECORDS, corpus, recipe
from multitune.cli import tables
from multitune.commands.merge import merge
from multitune.data import sets
from multitune.data.corpus import Head
from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.reports.merging import plane
from multitune.tasks import HeadMap, Tagging

SEEDS = (0, 1)
HEAD = "classifier."


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> list[Path]:
    """The same run with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in SEEDS:
        mt.train(recipe(tiny_model, tiny_panx, seed=seed, average="ema"), folder / f"seed{seed}")
    return [folder / f"seed{seed}" for seed in SEEDS]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def pretrained(tiny_model: Path) -> dict[str, Tensor]:
    """The tiny model's own weights, as a model with a head names them."""
    heads = HeadMap.of_all(Tagging(("O",)))
    model = encoders.load(str(tiny_model), heads, layers=None, dropout=None, seed=0)
    return {name: weight.detach() for name, weight in model.pretrained_parameters()}


@pytest.mark.parametrize("weight", [1.0, 0.75, 0.0])
def test_a_point_toward_pretraining_is_the_formula_and_keeps_the_head(
    tmp_path: Path, runs: Sequence[Path], tiny_model: Path, weight: float
) -> None:
    """theta_0 + w (theta - theta_0); the run itself at 1, bitwise, and the pretrained encoder at 0."""
    found = merge(runs[0], tmp_path / "out", toward_pretrained=True, weights=[weight])
    own, start, made = weights(runs[0]), pretrained(tiny_model), weights(tmp_path / "out")
    assert made.keys() == own.keys()
    for name, weighed in made.items():
        if name in start:
            torch.testing.assert_close(weighed, start[name] + weight * (own[name] - start[name]))
        if weight == 1.0 or name.startswith(HEAD):
            assert torch.equal(weighed, own[name])
        elif weight == 0.0:
            assert torch.equal(weighed, start[name])
    (point,) = found.points
    distance = torch.stack([(own[name] - start[name]).norm() for name in start]).norm()
    assert point.drift == pytest.approx(weight * float(distance), rel=1e-4)


def test_the_run_itself_has_its_own_scores(tmp_path: Path, runs: Sequence[Path]) -> None:
    result = mt.RunResult.read(runs[0])
    found = merge(runs[0], tmp_path / "out", toward_pretrained=True, weights=[1])
    assert found.best.seen == {k: pytest.approx(v) for k, v in result.seen.items()}
    assert found.best.unseen == {k: pytest.approx(v) for k, v in result.unseen.items()}
    assert found.best.drift == pytest.approx(result.drift)
    assert found.best.dev == pytest.approx(result.shipped.dev)


def test_the_mean_of_runs_is_a_model_like_any_other(tmp_path: Path, runs: Sequence[Path]) -> None:
    found = merge(runs, tmp_path / "out")
    one, other, made = map(weights, (*runs, tmp_path / "out"))
    for name, weighed in made.items():
        torch.testing.assert_close(weighed, (one[name] + other[name]) / 2)
    _, info = AutoModelForTokenClassification.from_pretrained(tmp_path / "out" / "model", output_loading_info=True)
    assert not any(info.values())
    AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert mt.Merged.read(tmp_path / "out") == found
    assert (found.pretrained, found.best.weight, found.best.drift) == (None, 1.0, None)
    assert [(run.method, run.seed) for run in found.runs] == [("mtl", seed) for seed in SEEDS]
    with pytest.raises(UserError, match="already holds a merged model; name another folder"):
        mt.train(tmp_path / "out" / "recipe.yaml", tmp_path / "out", resume=True)
    scores = found.best.seen | found.best.unseen
    assert mt.evaluate(tmp_path / "out") == {code: pytest.approx(score) for code, score in scores.items()}


def test_the_best_on_dev_is_written_and_the_front_drawn(tmp_path: Path, runs: Sequence[Path]) -> None:
    found = merge(runs, tmp_path / "out", toward_pretrained=True, weights=[0, 1, 0.9, 1])
    assert [point.weight for point in found.points] == [0.0, 1.0, 0.9]
    assert found.best.dev == max(point.dev for point in found.points if point.dev is not None)
    assert found.chosen == 1.0, "the first of equals, and better than a head on an encoder that it does not know"
    merge(runs, tmp_path / "mean")
    for name, weight in weights(tmp_path / "mean").items():
        assert torch.equal(weights(tmp_path / "out")[name], weight)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("model", "recipe.yaml", "merge.json", "front.png", "front.svg", "front.pdf")
    }
    (note,) = found.notes
    assert note.startswith("this data has no test split of its own"), "PAN-X"
    picture = plane(found)
    assert picture is not None
    assert [(point.x, point.y) for point in picture.series[0].points] == [
        (point.average.seen, point.average.unseen) for point in sorted(found.points, key=lambda point: point.weight)
    ]
    assert [series.method for series in picture.series] == ["merged", "mtl", "mtl"]


def test_the_table_has_every_point_and_run(runs: Sequence[Path], tmp_path: Path) -> None:
    sheet = tables.merged(merge(runs, tmp_path / "out", toward_pretrained=True, figures=False))
    rows = sheet.records()
    assert [row["weight"] for row in rows] == ["1", "0.9", "0.8", None, None]
    assert [row["chosen"] for row in rows][3:] == ["mtl 0", "mtl 1"]
    assert [row["chosen"] for row in rows][:3].count("*") == 1


@pytest.mark.check
@pytest.mark.parametrize("kind", [kind for kind in RECORDS if kind not in ("translation", "image_classification")])
def test_every_kind_of_text_encoders(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sets.DATASETS, kind, lambda wanted, bad: corpus(kind))
    keys: dict[str, Any] = {"data": kind, "path": None, "budget": 8, "method": "sequential_reptile", "options": {}}
    result = mt.train(recipe(tiny_model, tmp_path, **keys, max_length=24), tmp_path / "run")
    found = merge(tmp_path / "run", tmp_path / "out", toward_pretrained=True, weights=[1, 0.5], figures=False)
    assert found.points[0].seen == {k: pytest.approx(v) for k, v in result.seen.items()}
    assert [list(point.unseen) for point in found.points] == [["cc"]] * 2


def test_a_scratch_model_has_a_mean_but_no_pretraining(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sets.DATASETS, "see", lambda wanted, bad: corpus("image_classification"))
    keys: dict[str, Any] = {"model": "scratch:convnet", "layers": 1, "data": "see", "path": None, "budget": 4}
    for name, more in {"one": {}, "longer": {"budget": 8}, "other": {"seed": 1}}.items():
        mt.train(recipe(tiny_model, tmp_path, **(keys | more)), tmp_path / name)
    merge([tmp_path / "one", tmp_path / "longer"], tmp_path / "mean", figures=False)
    with pytest.raises(UserError, match="other seeds began at other weights"):
        merge([tmp_path / "one", tmp_path / "other"], tmp_path / "out")
    with pytest.raises(UserError, match="one began at scratch:convnet, without pretraining"):
        merge(tmp_path / "one", tmp_path / "out", toward_pretrained=True)
    assert not (tmp_path / "out").exists()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to merge": ({}, "merge: a single run has no mean"),
    "weights alone": ({"weights": [1, 0.5]}, "--weights: are shares against the pretrained weights"),
    "a weight beyond the run": ({"toward_pretrained": True, "weights": [1.5]}, "--weights: 1.5 is not a share"),
    "no number": ({"toward_pretrained": True, "weights": [float("nan")]}, "--weights: nan is not a share"),
    "no weight": ({"toward_pretrained": True, "weights": []}, "--weights: is empty"),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_merged(tmp_path: Path, runs: Sequence[Path], given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        merge(runs[0], tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_no_run_or_are_taken(tmp_path: Path, runs: Sequence[Path]) -> None:
    with pytest.raises(UserError, match="holds no finished run; merge needs"):
        merge([runs[0], tmp_path], tmp_path / "out")
    shutil.copytree(runs[0], tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    with pytest.raises(UserError, match="has no model/; merge needs runs with save_model: true"):
        merge([runs[0], tmp_path / "run"], tmp_path / "out")
    with pytest.raises(UserError, match="is not empty; name a new folder"):
        merge(runs, tmp_path)


@pytest.mark.parametrize(("device", "asked"), [("cuda:99", "auto"), ("cpu", "cpu")])
def test_all_weights_are_where_the_first_run_was_or_where_this_machine_has_room(
    tmp_path: Path, runs: Sequence[Path], monkeypatch: pytest.MonkeyPatch, device: str, asked: str
) -> None:
    """Weights on the card and pretrained ones on the CPU have no points between them."""
    for run in runs:
        shutil.copytree(run, tmp_path / run.name)
        file = tmp_path / run.name / "recipe.yaml"
        file.write_text(file.read_text().replace("device: auto", f"device: {device}"))
    where: list[str] = []

    def noted(name: str) -> torch.device:
        where.append(name)
        return torch.device("cpu")

    monkeypatch.setattr(encoders, "chosen", noted)
    merge([tmp_path / run.name for run in runs], tmp_path / "out", toward_pretrained=True, weights=[0.5], figures=False)
    assert where == [asked] * len(where)
    assert len(where) == 6, "two runs and the pretrained model, once to score and once to save"


def test_a_pretrained_model_that_has_changed_is_told(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "base")
    mt.train(recipe(tmp_path / "base", tiny_panx, budget=4), tmp_path / "run")
    first = merge(tmp_path / "run", tmp_path / "one", toward_pretrained=True, figures=False)
    assert not [note for note in first.notes if "began at" in note]
    file = tmp_path / "base" / "model.safetensors"
    save_file({k: v + 0.1 for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    (note,) = (n for n in merge(tmp_path / "run", tmp_path / "two", toward_pretrained=True).notes if "began at" in n)
    assert re.match(rf"{tmp_path}/base is not what {tmp_path}/run began at: its weights are \S+ away from it", note)


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "layers": ({"layers": 1}, "number of layers 1; .* has all: runs to merge have the same number of layers"),
    "languages": ({"languages": ["aa"], "unseen": ["cc"]}, "training languages aa; .* has aa, bb: runs to merge"),
    "kind": ({"task": "masked_language_modelling"}, "kind of task masked_language_modelling; .* has tagging"),
    "labels": ({"labels": {"PER": "ignore"}}, "labels B-LOC, I-LOC, .*: runs to merge have the same labels"),
    "a model each": ({"method": "stl", "options": {}}, "stl trains one model per language; merge needs one model"),
}


@pytest.mark.parametrize(("keys", "said"), OTHERS.values(), ids=OTHERS)
def test_runs_that_do_not_fit(
    tmp_path: Path, runs: Sequence[Path], tiny_model: Path, tiny_panx: Path, keys: dict[str, Any], said: str
) -> None:
    mt.train(recipe(tiny_model, tiny_panx, budget=4, **keys), tmp_path / "other")
    with pytest.raises(UserError, match=said) as raised:
        merge([runs[0], tmp_path / "other"], tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_heads_of_their_own_are_kept_and_their_encoder_is_one(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = corpus("classification")
    train, dev, test = ({k: split[k] for k in ("aa", "bb")} for split in (made.train, made.dev, made.test))
    own = {code: Head("classification", made.labels) for code in ("aa", "bb")}
    monkeypatch.setitem(
        sets.DATASETS, "two", lambda wanted, bad: replace(made, train=train, dev=dev, test=test, heads=own)
    )
    result = mt.train(recipe(tiny_model, tmp_path, data="two", path=None, budget=8), tmp_path / "run")
    found = merge(tmp_path / "run", tmp_path / "out", toward_pretrained=True, weights=[1, 0.5])
    assert found.points[0].seen == {k: pytest.approx(v) for k, v in result.seen.items()}
    assert found.metric == "score"
    one, other = (load_file(tmp_path / "out" / "model" / code / "model.safetensors") for code in ("aa", "bb"))
    for name, weight in one.items():
        assert torch.equal(weight, other[name]) != name.startswith(HEAD)
