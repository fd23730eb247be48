"""Runs that fail amid others: noted and left out, the others go on, and the next call tries again."""

import logging
import re
import shutil
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import comparison_file, names_restored, recipe
from multitune.cli import tables
from multitune.cli.app import main
from multitune.cli.layout import fitted
from multitune.cli.sheet import Sheet
from multitune.errors import Interrupted, RunError, UserError
from multitune.plans import METHODS
from multitune.recipe_files import to_yaml
from multitune.results.comparison import Comparison
from multitune.training import trainer

SHORT: dict[str, Any] = {"budget": 8, "dev_limit": 8, "test_limit": 8}


def failing(runs: Collection[tuple[str, int]], error: Exception, patch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let the runs of some methods and seeds fail at their first step; the runs that were begun are listed."""
    step, begun = trainer.Trainer._step, list[tuple[str, int]]()

    def wrapped(self: trainer.Trainer) -> None:
        run = (self._run.recipe.method, self._run.recipe.seed)
        if run not in begun:
            begun.append(run)
        if run in runs:
            raise error
        step(self)

    patch.setattr(trainer.Trainer, "_step", wrapped)
    return begun


def rendered(*sheets: Sheet) -> str:
    return "\n".join(fitted(sheet, None).plain for sheet in sheets)


ERRORS = {
    "its numbers": (RunError("the model has diverged"), "the model has diverged"),
    "a mistake": (UserError("budget: is too small"), "budget: is too small"),
    "a fault of its method": (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize(("error", "said"), ERRORS.values(), ids=ERRORS)
def test_the_others_go_on(
    tmp_path: Path,
    tiny_model: Path,
    tiny_panx: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
) -> None:
    """The baseline itself fails."""
    file, out = comparison_file(tiny_model, tiny_panx), tmp_path / "all"
    with monkeypatch.context() as patch:
        failing([("mtl", 0)], error, patch)
        found = mt.compare(file, out, overrides=SHORT)
    assert Comparison.read(out) == found
    assert [(run.method, run.seed, run.folder, run.grid, run.error) for run in found.failed] == [
        ("mtl", 0, "mtl-seed0", {}, said)
    ]
    assert [run.method for run in found.runs] == [found.baseline] == list(found.summary) == ["sequential_reptile"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.message == f"{out / 'mtl-seed0'} failed: {said}"
    assert (record.exc_info is not None) == isinstance(error, ZeroDivisionError), "a defect keeps its traceback"
    table = rendered(tables.summary(found), tables.languages(found.chosen_runs), *tables.classes(found.chosen_runs))
    assert f"failed, and in no figure: mtl-seed0: {said}" in table
    page = (out / "report.html").read_text()
    assert f"Failed, and in no figure: Joint training: {said}." in page
    repeated = page.partition('aria-label="recipe.yaml">')[2].partition("</pre>")[0]
    assert re.search(r"^methods:.*mtl: \{.*learning_rate: 0.005", repeated, re.DOTALL | re.MULTILINE)

    finished = {path: path.stat().st_mtime_ns for path in (out / "sequential_reptile-seed0").rglob("*")}
    begun = failing([], error, monkeypatch)
    again = mt.compare(file, out, overrides=SHORT)
    assert (begun, again.failed, again.baseline) == ([("mtl", 0)], [], "mtl")
    assert {path: path.stat().st_mtime_ns for path in (out / "sequential_reptile-seed0").rglob("*")} == finished


def test_seeds_are_paired_as_far_as_both_methods_have_them(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing([("mtl", 0), ("sequential", 1), ("sequential", 2)], RunError("it diverged"), monkeypatch)
    methods = ["mtl", "sequential_reptile", "sequential"]
    found = mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path, methods=methods, seeds=3, overrides=SHORT)
    assert [(run.method, run.seed) for run in found.failed] == [("mtl", 0), ("sequential", 1), ("sequential", 2)]
    scores = {(run.method, run.seed): run.average.seen or 0.0 for run in found.runs}
    own, gain = found.summary["mtl"].seen, found.differences["sequential_reptile"].seen
    assert own is not None
    assert own.mean == pytest.approx((scores["mtl", 1] + scores["mtl", 2]) / 2)
    assert gain is not None
    differences = [scores["sequential_reptile", seed] - scores["mtl", seed] for seed in (1, 2)]
    assert gain.mean == pytest.approx(sum(differences) / 2)
    assert found.summary["sequential"].seen is found.differences["sequential"].seen is None, "one seed has no interval"
    assert "Failed, and in no figure: Single-task steps seed 2: it diverged." in (tmp_path / "report.html").read_text()
    assert rendered(tables.summary(found)).count("in no figure") == 3


def test_a_point_of_a_grid_with_a_failed_seed_is_chosen_last(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, grid = comparison_file(tiny_model, tiny_panx), {"learning_rate": [1e-6, 1e-2]}
    best = mt.compare(file, tmp_path, methods=["mtl"], seeds=2, grid=grid, overrides=SHORT)
    assert best.chosen == {"mtl": {"learning_rate": 1e-2}}
    shutil.rmtree(tmp_path / "mtl-learning_rate=0.01-seed1")
    failing([("mtl", 1)], RunError("it diverged"), monkeypatch)
    found = mt.compare(file, tmp_path, methods=["mtl"], seeds=2, grid=grid, overrides=SHORT)
    assert found.chosen == {"mtl": {"learning_rate": 1e-6}}
    lines = [line.split()[:4] for line in rendered(tables.points(found)).splitlines()]
    assert ["mtl", "learning_rate=0.01", "1", "failed"] in lines
    page = (tmp_path / "report.html").read_text()
    assert "--seeds 2 --grid learning_rate=1e-06,0.01" in page


def test_a_rate_that_diverges_ends_with_1_after_tables_and_report(
    tmp_path: Path,
    tiny_model: Path,
    tiny_panx: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, out = tmp_path / "r.yaml", tmp_path / "all"
    one.write_text(to_yaml(recipe(tiny_model, tiny_panx, clip=None, options={}, **SHORT)))
    words = ["compare", one, "--methods", "mtl,sequential", "--grid", "learning_rate=1e-3,1e30", "--out", out]
    monkeypatch.setattr("sys.argv", ["multitune", *map(str, words), "--by-language", "--jobs", "1"])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 1
    told, table = capsys.readouterr().err.splitlines()[-1], Comparison.read(out)
    assert told.startswith(
        "multitune: 2 of 4 runs failed: mtl-learning_rate=1e+30-seed0, sequential-learning_rate=1e+30-"
    )
    assert {run.grid["learning_rate"] for run in table.failed} == {1e30}
    assert len(table.runs) == 2


@pytest.mark.check
def test_a_figure_of_the_paper_may_be_lost(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for split, language in (("train", "aa"), ("dev", "aa")):
        shutil.copy(tiny_panx / f"{split}-{language}.tsv", tmp_path / "data" / f"{split}-de.tsv")
    file = comparison_file(tiny_model, tmp_path / "data")
    given: dict[str, Any] = {"overrides": SHORT, "paper": "table2", "methods": ["mtl", "sequential_reptile", "mixed"]}
    with monkeypatch.context() as patch:
        failing([("mtl", 0)], RunError("it diverged"), patch)
        found = mt.compare(file, tmp_path / "one", **given)
        assert [list(beside.mean) for beside in found.paper] == [["sequential_reptile"]]
        assert found.paper[0].gains == {}
        rendered(tables.beside(found.paper[0]))
    failing([("mtl", 0), ("sequential_reptile", 0)], RunError("it diverged"), monkeypatch)
    assert mt.compare(file, tmp_path / "both", **given).paper == []


@pytest.mark.parametrize(
    ("error", "kind"), [(RunError("it diverged"), RunError), (UserError("batch_size: is wrong"), UserError)]
)
def test_where_all_fail_that_is_the_answer(
    tmp_path: Path,
    tiny_model: Path,
    tiny_panx: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
) -> None:
    begun = failing([("mtl", 0), ("sequential_reptile", 0)], error, monkeypatch)
    with pytest.raises(kind, match=f"^all 2 runs failed; mtl-seed0: {error}$"):
        mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path, overrides=SHORT)
    assert len(begun) == 2


def test_what_concerns_all_runs_ends_them_at_once(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Interrupted("stopped after 6 of 12 gradients; --resume goes on from there", signal.SIGTERM)
    begun = failing([("sequential_reptile", 0)], stopped, monkeypatch)
    told = "^stopped; 1 of 4 runs are finished, and the same command goes on from there$"  # --resume is train's
    with pytest.raises(Interrupted, match=told) as raised:
        mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path / "stopped", seeds=2, overrides=SHORT)
    assert raised.value.signal is signal.SIGTERM
    assert begun == [("mtl", 0), ("sequential_reptile", 0)]
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=str(model)) as damaged:
        mt.compare(comparison_file(model, tiny_panx), tmp_path / "damaged", overrides=SHORT)
    assert "runs failed" not in str(damaged.value)


def test_a_damaged_model_amid_others_is_noted(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "model.safetensors").write_bytes(b"cut")
    grid = {"model": [str(model), str(tiny_model)]}
    found = mt.compare(comparison_file(tiny_model, tiny_panx), tmp_path, methods=["mtl"], grid=grid, overrides=SHORT)
    assert [run.grid["model"] for run in found.failed] == [str(model)]
    assert len(found.runs) == 1


def test_a_method_of_a_script_is_refused_where_other_processes_run_it(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    """Before the first of them begins: what ``__main__`` is to them is not the script."""
    with names_restored():
        METHODS["idea"] = type("Idea", (METHODS["mtl"],), {"__module__": "__main__"})
        with pytest.raises(UserError, match="method: 'idea' is defined in this script or notebook"):
            mt.compare(recipe(tiny_model, tiny_panx, **SHORT), tmp_path / "all", methods=["mtl", "idea"], jobs=2)
    assert not (tmp_path / "all").exists()
