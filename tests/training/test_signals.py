"""Ctrl-C, SIGTERM and SIGHUP in each phase of a run: how it ends, what it leaves, and how long that takes.

Run as a script, ``python tests/training/test_signals.py RECIPE FOLDER SIGNAL ...`` begins a run for each phase, in a
child that sends itself a signal as the phase begins: where a phase cannot be left in its midst, that is the longest it
can take.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from builders import in_its_own_process, recipe
from multitune.cli import app as cli
from multitune.commands import train as training
from multitune.evaluation.scoring import Encoded
from multitune.models.encoder import Encoder
from multitune.recipe_files import read, to_yaml
from multitune.reports import page
from multitune.results.run import FILE as RESULTS
from multitune.storage import interrupt
from multitune.storage.lock import LOCK
from multitune.training import checkpoint_writer, run, trainer

LONGEST = 30.0
"""Seconds from a signal to the end, which clusters give."""


class Phase(NamedTuple):
    """Where a signal comes: as ``owner.name`` is called for the so-many-th time; and how the run is to end.

    ``perhaps`` may be among what is left, or not: another thread was about to write it.
    """

    owner: Any
    name: str
    call: int
    told: str
    left: frozenset[str]
    signals: int = 1
    command: str = "train"
    perhaps: frozenset[str] = frozenset()


WRITTEN = frozenset({"checkpoints"})
BEGUN = WRITTEN | {"metrics.jsonl", "recipe.yaml"}
STOPPED = BEGUN | {"model"}
FINISHED = STOPPED | {"predictions.jsonl", RESULTS}
PHASES = {
    "reading the data": Phase(training, "load_corpus", 1, "stopped at once", frozenset()),
    "loading the model": Phase(run, "load_encoder", 1, "stopped at once", frozenset()),
    "tokenising": Phase(Encoded, "of", 1, "stopped at once", frozenset()),
    "a step": Phase(trainer.Trainer, "_step", 2, "--resume goes on", STOPPED),
    "a validation": Phase(trainer.Trainer, "_validate", 1, "--resume goes on", STOPPED),
    "writing a checkpoint": Phase(checkpoint_writer, "write", 1, "--resume goes on", STOPPED),
    "a step, twice": Phase(trainer.Trainer, "_step", 4, "stopped at once", BEGUN, signals=2, perhaps=WRITTEN),
    "the last evaluation": Phase(trainer.Trainer, "ship", 1, "--resume goes on", BEGUN),
    "saving the model": Phase(Encoder, "save", 1, "was finished", FINISHED),
    "the report": Phase(page, "write", 1, "stopped at once", FINISHED),
    "saving the model, of two runs": Phase(
        Encoder, "save", 1, "; 1 of 2 runs are finished", FINISHED, command="compare"
    ),
}


def signalling(phase: Phase, number: int, told: Path) -> Callable[..., Any]:
    """The phase's function, which sends this process the signal first, and tells when."""
    function, calls = getattr(phase.owner, phase.name), [0]

    def wrapped(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == phase.call:
            told.write_text(json.dumps(time.monotonic()))
            for _ in range(phase.signals):
                os.kill(os.getpid(), number)
        return function(*given, **named)

    return wrapped


def begun(phase: Phase, number: int, recipe: str, out: Path) -> int:
    """A child that runs the command line."""
    if child := os.fork():
        return child
    for stream in (1, 2):
        os.dup2(os.open(out.with_suffix(f".{stream}"), os.O_WRONLY | os.O_CREAT, 0o600), stream)
    setattr(phase.owner, phase.name, signalling(phase, number, out.with_suffix(".at")))
    sys.argv = ["multitune", phase.command, recipe, "--out", str(out)]
    sys.argv += ["--methods", "mtl,gradvac", "--jobs", "1"] if phase.command == "compare" else []
    try:
        cli.main()
        os._exit(99)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 98)


def main(recipe: str, folder: Path, signals: list[str]) -> None:
    """Print a JSON line for each phase; the signals take turns."""
    interrupt.ECHO = 0.0  # a second signal comes at once here, whichever it is
    one = read(recipe).resolve()
    training.train(one.model_copy(update={"budget": 2}), folder / "first")  # what children need is imported once
    for row, (name, phase) in enumerate(PHASES.items()):
        number = signal.Signals[signals[row % len(signals)]]
        out = folder / str(row)
        _, status = os.waitpid(begun(phase, number, recipe, out), 0)
        seconds = time.monotonic() - float(out.with_suffix(".at").read_text())
        code, said = os.waitstatus_to_exitcode(status), out.with_suffix(".2").read_text()
        found = {"phase": name, "signal": number.name, "code": code, "seconds": seconds, "said": said.splitlines()[-1:]}
        print(json.dumps(found), flush=True)


def check(recipe: Path, folder: Path, signals: list[str]) -> None:
    """Every run ends as it should, in time, and leaves what it should."""
    done = in_its_own_process(__file__, recipe, folder, *signals)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    print("".join(f"\n{line['signal']} in {line['phase']}: {line['seconds']:.1f} s" for line in found))
    assert [line["phase"] for line in found] == list(PHASES)
    for row, (line, phase) in enumerate(zip(found, PHASES.values(), strict=True)):
        assert line["code"] == 128 + signal.Signals[line["signal"]], line
        assert phase.told in line["said"][0], line
        assert line["seconds"] < LONGEST
        (out,) = (folder / str(row)).glob("*") if phase.command == "compare" else [folder / str(row)]
        left = set(os.listdir(out)) if out.exists() else set()
        assert left | phase.perhaps == phase.left | phase.perhaps, line
        assert not list(folder.glob(f"**/{LOCK}"))


@pytest.mark.check
def test_a_signal_in_each_phase(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, budget=12, validate_every=6, test_limit=8)
    (tmp_path / "recipe.yaml").write_text(to_yaml(one))
    check(tmp_path / "recipe.yaml", tmp_path, ["SIGINT", "SIGTERM", "SIGHUP"])


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_in_each_phase_of_a_larger_run(tmp_path: Path, number: str) -> None:
    pytest.importorskip("hassil")
    languages = "languages: [bg, cs, de, el, en, es, fi, fr, hu, it, ja, ko, nl, pl, pt, ru, sv, tr, uk]\nunseen: []\n"
    data = "data: assistant\ntrain_limit: 1000\ndev_limit: 100\ntest_limit: 100\n"
    run = "model: offline:e5-small\nmethod: mtl\nbudget: 32\nvalidate_every: 16\nbatch_size: 16\n"
    (tmp_path / "recipe.yaml").write_text(run + data + languages)
    check(tmp_path / "recipe.yaml", tmp_path, [number])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
