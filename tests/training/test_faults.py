"""What a machine, a neighbour or the numbers do to a run: one line that says what helps, and nothing lost."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import multitune as mt
from builders import accept, disk, lines, recipe, stop_after
from multitune.errors import Interrupted, RunError, UserError
from multitune.recipe_files import read, to_yaml
from multitune.storage import lock
from multitune.storage.disk import disk_explained
from multitune.storage.scratch import scratch
from multitune.tasks import Task
from multitune.tasks.task import Example, Inputs
from multitune.training import run_folder, trainer
from multitune.training.checkpoint import RunState, flatten, load_newest, write
from multitune.training.memory import memory_explained

HOLD = """
import sys, time
from pathlib import Path
from multitune.storage.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the lock of ``tmp_path``."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path, owner: "subprocess.Popen[str]") -> None:
    for attempt in (lambda: lock.check_free(tmp_path), lock.held(tmp_path).__enter__):
        with pytest.raises(UserError, match=f"is in use by process {owner.pid} of .* since 20") as error:
            attempt()
        assert "\n" not in str(error.value)
    owner.kill()
    owner.wait()
    lock.check_free(tmp_path)
    with lock.held(tmp_path) as last:
        assert last is not None
        assert last.startswith(f"process {owner.pid} of ")
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path) as last:
        _ = 1 / len(last or "")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_with_nonsense_in_it_stops_nobody(tmp_path: Path) -> None:
    for content in (b"\xff\x00", b"[1]", b'{"pid": 3}', b"{" * 4096):
        (tmp_path / lock.OWNER).write_bytes(content)
        with lock.held(tmp_path) as last:
            assert last == "an unknown process"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP], ids=["NFS", "others"])
def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    said = rf"^--out: {tmp_path}: its disk has no locks \({os.strerror(number)}\).*; name a folder on another disk"
    with pytest.raises(UserError, match=said), lock.held(tmp_path):
        """Nobody comes here."""
    with pytest.raises(OSError, match=os.strerror(number)), scratch(tmp_path):
        """Nor here."""
    assert [path.name for path in tmp_path.iterdir()] == [lock.LOCK]


def test_a_folder_that_another_machine_has_may_be_freed(
    tmp_path: Path, owner: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of files keeps the lock of a machine that has gone without a word."""
    with pytest.raises(UserError, match=r"; wait for it to end, or name another folder$"):
        lock.check_free(tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    with pytest.raises(UserError, match=f"another folder; where that machine is gone, remove {tmp_path / lock.LOCK}$"):
        lock.check_free(tmp_path)
    (tmp_path / lock.LOCK).unlink()
    lock.check_free(tmp_path)


def test_the_second_run_on_a_folder_is_refused(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one, out = recipe(tiny_model, tiny_panx), tmp_path / "run"
    out.mkdir()
    with lock.held(out):
        for resume in (False, True):
            with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
                mt.train(one, out, resume=resume)
    assert list(out.iterdir()) == []
    mt.train(one, out)
    assert not any((out / name).exists() for name in lock.FILES)


def test_a_run_one_of_whose_languages_another_process_has_is_refused(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path
) -> None:
    """As where a comparison of several jobs trains them."""
    one, out = recipe(tiny_model, tiny_panx, "stl", budget=4), tmp_path / "run"
    run_folder.begin(out, one)
    language = run_folder.of_language(out, "bb")
    run_folder.begin(language, one)
    with lock.held(language), pytest.raises(UserError, match=f"--out: {language} is in use by process {os.getpid()}"):
        mt.train(one, out, resume=True)
    assert not (out / "languages" / "aa").exists()


READ_ONLY = {"refused by the system": Path("/sys/kernel/run"), "no folder": Path("/dev/null/run")}


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys")
@pytest.mark.parametrize("out", READ_ONLY.values(), ids=READ_ONLY)
def test_a_folder_that_cannot_be_written_is_told(out: Path, tiny_model: Path, tiny_panx: Path) -> None:
    with pytest.raises(UserError, match=f"--out: cannot write {out}: .*; name another folder"):
        mt.train(recipe(tiny_model, tiny_panx), out)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    with disk(tmp_path / "disk", megabytes=2) as folder:
        yield folder


def fill(folder: Path, rest: int) -> Path:
    """Write to a disk until only ``rest`` bytes are left."""
    filler = folder / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(folder).free - rest))
    return filler


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines(run)]


def test_a_full_disk_twice_loses_nothing(
    tmp_path: Path, small_disk: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(tiny_model, tiny_panx, "sequential_reptile", budget=24, validate_every=6)
    whole = mt.train(one, tmp_path / "whole")
    run = small_disk / "run"
    for at, rest in ((7, 40_000), (13, 0)):
        fill_at(at, small_disk, rest, monkeypatch)
        with pytest.raises(RunError, match=r"no space.*--resume"):
            mt.train(one, run, resume=at > 7)
        monkeypatch.undo()
        state, damages = load_newest(run / "checkpoints", one, accept)
        assert state is not None
        assert (state.progress.gradients, damages) == (at - 1, [])
        (small_disk / "filler").unlink()
    resumed = mt.train(one, run, resume=True)
    assert (resumed.seen, resumed.drift) == (whole.seen, whole.drift)
    assert timeless(run) == timeless(tmp_path / "whole")


def test_a_finished_run_whose_disk_takes_no_more(small_disk: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one, run = recipe(tiny_model, tiny_panx, budget=8), small_disk / "run"
    mt.train(one, run)
    (run / "report.html").unlink()
    filler = fill(small_disk, 0)
    with pytest.raises(RunError, match="the disk is full"):
        mt.train(one, run, resume=True)
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"cannot write .*report\.html"):
        mt.train(one, run, resume=True)
    with pytest.raises(UserError, match=r"run: cannot be written, and probes\.json belongs there"):
        mt.probe(run)


def fill_at(gradients: int, disk: Path, rest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill a disk in the step that passes ``gradients``."""
    step = trainer.Trainer._step

    def wrapped(self: trainer.Trainer) -> None:
        step(self)
        if self._now.gradients == gradients:
            self._writer.wait()
            fill(disk, rest)

    monkeypatch.setattr(trainer.Trainer, "_step", wrapped)


SHORT_OF_MEMORY = """
import resource, sys
import multitune as mt
mt.train(sys.argv[1], sys.argv[2] + "-small", overrides={"batch_size": 8})
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (32 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    mt.train(sys.argv[1], sys.argv[2])
except mt.RunError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.check
def test_too_little_memory_says_what_helps(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    (tmp_path / "data").mkdir()
    for file in tiny_panx.iterdir():
        (tmp_path / "data" / file.name).write_text(file.read_text() * (100 if file.name == "train-aa.tsv" else 1))
    keys: dict[str, Any] = {"path": str(tmp_path / "data"), "languages": ["aa"], "batch_size": 6000, "budget": 2}
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe(tiny_model, tiny_panx, **keys, trim_vocabulary=False)))
    words = [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path / "recipe.yaml"), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("not enough memory: what helps is a lower batch_size (now 6000)")
    assert "trim_vocabulary=true" in done.stdout


EXPLODING: dict[str, dict[str, Any]] = {
    "mtl": {"method": "mtl"},
    "mtl, no clipping, ema": {"method": "mtl", "clip": None, "average": "ema"},
    "gradvac": {"method": "gradvac"},
    "swep": {"method": "swep"},
    "sequential": {"method": "sequential"},
    "sequential_reptile": {"method": "sequential_reptile", "options": {"inner_steps": 50}},
    "fish of two trajectories": {"method": "fish", "options": {"inner_steps": 50, "trajectories": 2}},
    "lookahead": {"method": "lookahead", "options": {"inner_steps": 50}},
}


@pytest.mark.parametrize("keys", EXPLODING.values(), ids=EXPLODING)
def test_losses_that_are_not_finite_are_skipped_named_and_end_the_run(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, keys: dict[str, Any]
) -> None:
    exploding: dict[str, Any] = {"learning_rate": 1e15, "validate_every": 40, "checkpoint_every": 1}
    one = recipe(tiny_model, tiny_panx, non_finite_steps=3, **(exploding | keys))
    with pytest.raises(RunError, match=r"of .*(aa|bb) \(epoch \d+, batch \d+\).* the last of 3 such steps in a row"):
        mt.train(one, tmp_path / "run")
    skipped = [line for line in lines(tmp_path / "run") if line["event"] == "skip"]
    assert len(skipped) >= 3
    for line in skipped:
        assert line["what"] in ("loss", "gradient")
        for language, batch in line["batches"].items():
            assert language in ("aa", "bb")
            assert batch["epoch"] >= 0
            assert 1 <= len(batch["rows"]) <= 8
    state, _ = load_newest(tmp_path / "run" / "checkpoints", one, accept)
    assert state is not None
    assert all(weight.isfinite().all() for weight in state.weights.values())


def test_a_damaged_checkpoint_is_told_and_the_run_ends_as_if_it_were_not(
    tmp_path: Path,
    tiny_model: Path,
    tiny_panx: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = recipe(tiny_model, tiny_panx, budget=24, validate_every=6)
    whole = mt.train(one, tmp_path / "whole")
    stop_after(20, monkeypatch)
    with pytest.raises(Interrupted):
        mt.train(one, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "000000020-early"
    content = bytearray((newest / "tensors.safetensors").read_bytes())
    content[len(content) // 2] ^= 16
    (newest / "tensors.safetensors").write_bytes(content)
    capsys.readouterr()
    resumed = mt.train(one, tmp_path / "run", resume=True, progress=True)
    (told, *_) = capsys.readouterr().err.splitlines()
    assert f"{newest} is damaged (the hash of tensors.safetensors differs)" in told
    assert "resuming at 18 gradients" in told
    assert (resumed.seen, resumed.drift) == (whole.seen, whole.drift)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_panx: Path) -> Path:
    """A run with checkpoints at 6, 12 and 18 gradients; the best is the first."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(18, patch)
        with pytest.raises(Interrupted):
            mt.train(recipe(tiny_model, tiny_panx, "sequential_reptile", budget=24, validate_every=6), out)
    return out


def matrix(weights: dict[str, torch.Tensor]) -> str:
    """The name of one."""
    return next(name for name, weight in weights.items() if weight.ndim == 2)


MISFITS: dict[str, Callable[[RunState], object]] = {
    "another type": lambda state: state.weights.update(
        {matrix(state.weights): state.weights[matrix(state.weights)].half()}
    ),
    "one number for all": lambda state: state.weights.update({matrix(state.weights): torch.ones(1)}),
    "another shape": lambda state: state.weights.update({matrix(state.weights): torch.ones(3, 3)}),
    "a weight less": lambda state: state.weights.popitem(),
    "a weight more": lambda state: state.weights.update({"more": torch.ones(1)}),
    "no state of the method": lambda state: state.update.clear(),
    "a language less": lambda state: state.batches.popitem(),
    "no batches of a language": lambda state: state.batches["aa"].clear(),
}


@pytest.mark.parametrize("change", MISFITS.values(), ids=MISFITS)
def test_a_checkpoint_that_does_not_fit_is_passed_over(
    tmp_path: Path, stopped: Path, capsys: pytest.CaptureFixture[str], change: Callable[[RunState], object]
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    checkpoints, one = tmp_path / "run" / "checkpoints", read(tmp_path / "run" / "recipe.yaml").resolve()
    state, _ = load_newest(checkpoints, one, accept)
    assert state is not None
    change(state)
    write(flatten(state), checkpoints)
    mt.train(one, tmp_path / "run", resume=True, progress=True)
    (told, *_) = capsys.readouterr().err.splitlines()
    assert f"{checkpoints / '000000018'} is damaged (it does not fit the run: " in told
    assert "resuming at 12 gradients" in told


def interrupted_in_batch(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Send this process SIGINT in the so-many-th batch of its evaluations; the batches that there were are counted."""
    forward, count = Task.forward, [0]

    def wrapped(self: Task, model: PreTrainedModel, inputs: Inputs, examples: Sequence[Example]) -> Any:
        count[0] += 1
        if count[0] == number:
            signal.raise_signal(signal.SIGINT)
        return forward(self, model, inputs, examples)

    monkeypatch.setattr(Task, "forward", wrapped)
    return count


@pytest.mark.parametrize("place", [1, 2, -1], ids=["first validation", "in its midst", "last evaluation"])
def test_a_run_stopped_in_an_evaluation_goes_on_there(
    tmp_path: Path, tiny_model: Path, tiny_panx: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr("multitune.evaluation.scoring.TOKENS", 60)
    one = recipe(tiny_model, tiny_panx, "reptile", budget=12, validate_every=6, average="ema", dev_limit=12)
    with monkeypatch.context() as patch:
        batches = interrupted_in_batch(0, patch)
        whole = mt.train(one, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupted_in_batch(place if place > 0 else batches[0] + place, patch)
        with pytest.raises(Interrupted, match="--resume") as stopped:
            mt.train(one, tmp_path / "parts")
    assert stopped.value.signal is signal.SIGINT
    resumed = mt.train(one, tmp_path / "parts", resume=True)
    assert (resumed.seen, resumed.unseen, resumed.drift) == (whole.seen, whole.unseen, whole.drift)
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


def test_a_torn_log_is_mended(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx, budget=12, validate_every=6)
    mt.train(one, tmp_path / "run")
    whole = timeless(tmp_path / "run")
    for torn in ('{"gradients": 3, "ev', "", json.dumps({"gradients": 4, "event": "train"}) * 2):
        run = tmp_path / f"torn{len(torn)}"
        run.mkdir()
        (run / "recipe.yaml").write_text(to_yaml(one))
        (run / "metrics.jsonl").write_text(torn)
        mt.train(one, run, resume=True)
        assert timeless(run) == whole


def test_faults_that_are_no_user_s_keep_their_traceback(tmp_path: Path, tiny_model: Path, tiny_panx: Path) -> None:
    one = recipe(tiny_model, tiny_panx)
    with pytest.raises(FileNotFoundError), disk_explained(tmp_path):
        (tmp_path / "none").read_text()
    with pytest.raises(RuntimeError, match="shape"), memory_explained(one):
        torch.zeros(2).view(3)
    with pytest.raises(RunError, match=r"the disk failed \(Input.output error\)"), disk_explained(tmp_path):
        raise OSError(errno.EIO, "Input/output error")
