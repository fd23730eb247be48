"""Other records than those that a run was made with: refused where they would be mixed, else told."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from builders import comparison_file, recipe, stop_after
from multitune.commands.probe import probe
from multitune.errors import Interrupted, UserError
from multitune.results.run import RunResult
from multitune.training.checkpoint import newest_digests


@pytest.fixture
def files(tmp_path: Path, tiny_panx: Path) -> Path:
    """Data that a test may change."""
    return Path(shutil.copytree(tiny_panx, tmp_path / "data"))


def change(file: Path) -> None:
    """Write one label in place of another, and change nothing else."""
    file.write_text(file.read_text().replace("B-LOC", "B-PER"))


def swap(file: Path) -> None:
    """Bring the same sentences in another order."""
    first, second, *rest = file.read_text().split("\n\n")
    file.write_text("\n\n".join([second, first, *rest]))


def stopped(one: mt.Recipe, run: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(6, patch)
        with pytest.raises(Interrupted):
            mt.train(one, run)


REPLAY = {"replay": {"share": 0.5, "data": "folder", "path": "replayed"}}
CHANGES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "labels": ("mtl", "train-aa.tsv", {}, "the train records of aa"),
    "dev": ("mtl", "dev-bb.tsv", {}, "the dev records of bb"),
    "a language that stl has not come to": ("stl", "train-bb.tsv", {}, "the train records of bb"),
    "replayed texts": ("mtl", "../replayed/xx.jsonl", REPLAY, "the replayed texts"),
}


@pytest.mark.parametrize(("method", "file", "keys", "said"), CHANGES.values(), ids=CHANGES)
def test_no_run_goes_on_with_other_data(
    tmp_path: Path,
    tiny_model: Path,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    file: str,
    keys: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    replayed = tmp_path / "replayed" / "xx.jsonl"
    replayed.parent.mkdir()
    replayed.write_text("".join(f'{{"text": "ana sees B-LOC {n}", "label": "a"}}\n' for n in range(40)))
    one, run = recipe(tiny_model, files, method, budget=12, select="last", **keys), tmp_path / "run"
    stopped(one, run)
    whole = (files / file).read_bytes()
    change(files / file)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"^--resume: the data changed: {said}( and|) .*are not those that {run}"):
        mt.train(one, run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (files / file).write_bytes(whole)
    assert mt.train(one, run, resume=True).digests == RunResult.read(run).digests


def test_test_records_may_change_until_a_run_is_scored_on_them(tmp_path: Path, tiny_model: Path, files: Path) -> None:
    one, run = recipe(tiny_model, files, budget=12), tmp_path / "run"
    stopped(one, run)
    seen = newest_digests(run / "checkpoints")
    assert seen is not None
    swap(files / "dev-cc.tsv")
    result = mt.train(one, run, resume=True)
    assert result.digests is not None
    assert result.digests.changes(seen) == "the test records of cc"
    assert result.digests.train == seen.train


def test_a_language_that_stl_has_scored_must_not_change(tmp_path: Path, tiny_model: Path, files: Path) -> None:
    one, run = recipe(tiny_model, files, "stl", budget=12), tmp_path / "run"
    mt.train(one, run)
    (run / "results.json").unlink()  # as where it was killed before the last language
    swap(files / "dev-aa.tsv")
    with pytest.raises(
        UserError, match=r"the dev records of aa and the test records of aa are not those that .*/aa was"
    ):
        mt.train(one, run, resume=True)


def test_a_run_goes_on_where_its_data_lie_now(tmp_path: Path, tiny_model: Path, files: Path) -> None:
    one, run = recipe(tiny_model, files, budget=12), tmp_path / "run"
    whole = mt.train(one, tmp_path / "whole")
    stopped(one, run)
    moved, other = (one.model_copy(update={"path": str(tmp_path / name)}) for name in ("moved", "other"))
    change(Path(shutil.copytree(files, tmp_path / "other")) / "train-aa.tsv")
    files.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"^--resume: the data changed: the train records of aa"):
        mt.train(other, run, resume=True)
    resumed = mt.train(moved, run, resume=True)
    assert (resumed.seen, resumed.drift, resumed.digests) == (whole.seen, whole.drift, whole.digests)
    assert mt.evaluate(run) == whole.seen | whole.unseen
    assert mt.train(moved, tmp_path / "whole", resume=True) == whole
    with pytest.raises(UserError, match=r"^--resume: the data changed: the train records of aa"):
        mt.train(other, run, resume=True)


def test_a_run_that_is_overwritten_has_no_say(tmp_path: Path, tiny_model: Path, files: Path) -> None:
    """Neither its data nor the precision and threads that were settled for it are those of the new one."""
    one, run = recipe(tiny_model, files, budget=4, precision="auto"), tmp_path / "run"
    fresh = mt.train(one, tmp_path / "fresh")
    mt.train(one.model_copy(update={"precision": "fp32", "threads": 2}), run)
    change(files / "train-aa.tsv")
    now = mt.train(one, run, overwrite=True)
    assert (now.precision, now.threads) == (fresh.precision, fresh.threads)
    assert fresh.digests is not None
    assert now.digests is not None
    assert fresh.digests.changes(now.digests) == "the train records of aa"
    (run / "results.json").write_text("{")
    assert mt.train(one, run, overwrite=True).digests == now.digests


def test_a_comparison_takes_no_run_on_other_data(tmp_path: Path, tiny_model: Path, files: Path) -> None:
    file, out = comparison_file(tiny_model, files), tmp_path / "all"
    mt.compare(file, out, methods=["mtl"], overrides={"budget": 8})
    swap(files / "dev-cc.tsv")
    with pytest.raises(UserError, match=r"^--out: the data changed: the test records of cc .* \S+/mtl-seed0 was made"):
        mt.compare(file, out, overrides={"budget": 8})
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["mtl-seed0"]


def test_a_report_says_that_its_runs_were_tested_on_different_records(
    tmp_path: Path, tiny_model: Path, files: Path
) -> None:
    """One of them was trained anew since they were compared."""
    file, out = comparison_file(tiny_model, files), tmp_path / "all"
    mt.compare(file, out, overrides={"budget": 8})
    told = "The runs were tested on different records of cc: their scores cannot be compared."
    assert told not in (out / "report.html").read_text()
    swap(files / "dev-cc.tsv")
    shutil.rmtree(out / "mtl-seed0")
    mt.train(file.resolve("mtl", {"budget": 8}), out / "mtl-seed0")
    mt.report(out)
    assert told in (out / "report.html").read_text()


def test_runs_on_different_test_records_are_not_compared(tmp_path: Path, tiny_model: Path, files: Path) -> None:
    with pytest.raises(
        UserError, match="the test records of aa in mtl-test_limit=6-seed0 are not those in mtl-test_lim"
    ):
        mt.compare(comparison_file(tiny_model, files), tmp_path / "all", methods=["mtl"], grid={"test_limit": [5, 6]})
    assert not (tmp_path / "all").exists()


def test_a_score_on_other_records_says_so(
    tmp_path: Path, tiny_model: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    mt.train(recipe(tiny_model, files, budget=8), run)
    with caplog.at_level(logging.WARNING):
        mt.evaluate(run)
        assert caplog.messages == []
        change(files / "dev-aa.tsv")
        for overrides in ({}, {"test_limit": 3}, {"languages": ["bb"], "unseen": ["cc"]}):
            mt.evaluate(run, overrides)
    assert caplog.messages == [f"the data changed: the test records of aa are not those that {run} was made with"]
    notes = probe(run).notes
    assert f"the data changed: the dev records of aa and the test records of aa are not those that {run} was made" in (
        " ".join(notes)
    )
