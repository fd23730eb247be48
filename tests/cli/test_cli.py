"""The command line as a user meets it: output, exit codes, one-line errors, Ctrl-C. Each call is a process."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multitune.cli.app import main

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "multitune"]


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*COMMAND, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As ``run`` in the test's folder, in this process: what it imports is imported once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("multitune.storage.hub.HF_HUB_OFFLINE", True)

    def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["multitune", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"model: {tiny_model}\ndata: panx\npath: {tiny_panx}\nbudget: 24\nbatch_size: 4\n"
        "methods:\n  mtl: {learning_rate: 1e-2}\n  sequential: {learning_rate: 1e-2}\n"
    )
    return path


@pytest.mark.check
def test_compare_prints_a_table_and_leaves_models(tmp_path: Path, tiny_recipe: Path) -> None:
    done = run("compare", tiny_recipe, "--by-language", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("mtl", "sequential", "seen f1", "unseen f1", "drift", "peak GiB", "aa", "cc"):
        assert word in done.stdout
    assert (tmp_path / "runs" / "tiny" / "mtl-seed0" / "model" / "config.json").exists()
    again = run("compare", tiny_recipe, cwd=tmp_path)
    assert again.returncode == 0
    assert "24/24" not in again.stderr, "finished runs are not run again"


def test_train_evaluate_and_data(run_here: Run, tiny_recipe: Path) -> None:
    done = run_here("train", tiny_recipe, "method=mtl", "budget=8", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "mtl" in done.stdout
    evaluated = run_here("evaluate", "out", "unseen=[]")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "aa" in evaluated.stdout
    assert "cc" not in evaluated.stdout
    counted = run_here("data", tiny_recipe)
    assert counted.returncode == 0, counted.stderr
    for word in ("60", "tokens", "% over 128", "B-PER"):
        assert word in counted.stdout


SAID = {(): ("dev f1", "run folder"), ("-v",): ("checkpoint 000000008 of", "dev f1"), ("-q",): ()}


@pytest.mark.parametrize(("words", "lines"), SAID.items(), ids=["plainly", "at length", "quietly"])
def test_what_is_told_while_a_run_trains(
    run_here: Run, tiny_recipe: Path, words: tuple[str, ...], lines: tuple[str, ...]
) -> None:
    try:
        done = run_here("train", tiny_recipe, "method=mtl", "budget=8", "dev_limit=1", "--out", "out", "--json", *words)
    finally:
        logging.getLogger("multitune").setLevel(logging.NOTSET)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"]["rows"][0]["method"] == "mtl"
    assert all(line in done.stderr for line in lines)
    assert ("checkpoint 0" in done.stderr) is ("-v" in words)
    assert bool(done.stderr) is bool(lines)


CLASHES = [("--json", "--csv"), ("-v", "-q"), ("--resume", "--overwrite")]


@pytest.mark.parametrize("words", CLASHES, ids=" ".join)
def test_options_that_exclude_each_other(run_here: Run, tiny_recipe: Path, words: tuple[str, ...]) -> None:
    done = run_here("train", tiny_recipe, "--out", "out", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot stand beside" in done.stderr


def test_tables_of_data_are_told_to_programs(run_here: Run, tiny_recipe: Path) -> None:
    told = json.loads(run_here("data", tiny_recipe, "--json").stdout)
    assert [row["language"] for row in told["records"]["rows"]] == ["aa", "bb", "cc"]
    assert told["labels"]["rows"][0].keys() >= {"label", "times", "least_share", "least_language"}
    heads = [part.splitlines()[0] for part in run_here("data", tiny_recipe, "--csv").stdout.split("\n\n")]
    assert [head.split(",")[0] for head in heads] == ["language", "label"]


def test_data_lists_every_bad_record(tmp_path: Path, run_here: Run, tiny_recipe: Path, tiny_panx: Path) -> None:
    (tmp_path / "bad").mkdir()
    for source in tiny_panx.iterdir():
        (tmp_path / "bad" / source.name).write_text(source.read_text())
    (tmp_path / "bad" / "train-aa.tsv").write_text("ana\tB-PER\n\nana\tI-PER\n\n[x]\n\nana\tB-PER\n")
    listed = run_here("data", tiny_recipe, "path=bad")
    assert listed.returncode == 2
    assert "bad/train-aa.tsv:3: 'I-PER' after 'O'" in listed.stdout
    assert "bad/train-aa.tsv:5: 1 columns" in listed.stdout
    assert listed.stderr.count("\n") == 1
    assert "2 bad records" in listed.stderr
    skipped = run_here("data", tiny_recipe, "path=bad", "skip_bad=true")
    assert skipped.returncode == 0
    assert skipped.stdout == listed.stdout


MISTAKES = {
    "unknown key": (["train", "tiny.yaml", "buget=3"], "tiny.yaml: unknown key 'buget' (did you mean 'budget'?)"),
    "no such recipe": (["train", "none.yaml"], "none.yaml: cannot read the recipe: No such file"),
    "unknown method": (["compare", "tiny.yaml", "--methods", "mlt"], "method: unknown method 'mlt'"),
    "three columns": (["train", "tiny.yaml", "path=bad"], "train-aa.tsv:2: 3 columns"),
    "model not to be had": (["train", "tiny.yaml", "model=bert-base-multilingual-cased"], "hf download"),
    "data not to be had": (
        ["data", "tiny.yaml", "data=xnli", "path=null"],
        "looked for en/train-*.parquet, en/validation",
    ),
    "no run": (["evaluate", "nowhere"], "nowhere: holds no finished run"),
    "folder in use": (["train", "tiny.yaml", "--out", "bad"], "bad is not empty"),
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_and_exit_2(
    tmp_path: Path, run_here: Run, tiny_recipe: Path, tiny_panx: Path, words: list[str], said: str
) -> None:
    (tmp_path / "bad").mkdir()
    for source in tiny_panx.iterdir():
        (tmp_path / "bad" / source.name).write_text(source.read_text())
    (tmp_path / "bad" / "train-aa.tsv").write_text("a\tO\nb\tx\tO\n")
    done = run_here(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("size", "code"), [("2", 2), ("", 0), ("1", 0)])
def test_only_a_launcher_that_says_how_many_there_are_has_started_several(
    run_here: Run, monkeypatch: pytest.MonkeyPatch, size: str, code: int
) -> None:
    """``export WORLD_SIZE=$SLURM_NTASKS`` leaves it empty outside of a job."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", size)
    done = run_here("recipes")
    assert done.returncode == code
    assert ("start it without torchrun" in done.stderr) == (code == 2)


@pytest.mark.check
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_save_what_was_learnt(
    tmp_path: Path, tiny_recipe: Path, sent: signal.Signals, code: int
) -> None:
    words = ["train", str(tiny_recipe), "method=mtl", "budget=1000000", "--out", "out"]
    with subprocess.Popen([*COMMAND, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "out" / "metrics.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.1)
        process.send_signal(sent)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert "--resume" in said
    assert "Traceback" not in said
    assert (tmp_path / "out" / "model" / "config.json").exists()
