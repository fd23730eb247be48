"""What a job leaves half said, half told or half begun when it or whoever gave it is gone."""

import os
import queue
import sys
import threading
from pathlib import Path

import pytest

from launching import recipe
from multitune.commands import job as program
from multitune.errors import UserError
from multitune.jobs import processes
from multitune.jobs.job import Job, Message
from multitune.jobs.processes import Process
from multitune.jobs.schedule import Event, Gone
from multitune.storage.interrupt import Leave
from multitune.storage.lock import held, is_held

DIES = """
import os, signal, subprocess, sys
sys.stdin.readline()
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print('["say", %d]' % child.pid, flush=True)
print('["say", "half', end="", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A job that is killed in the midst of a line, and leaves a process which holds its stderr open."""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("mtl-seed0", recipe(Path("model"), "data", "mtl"), tmp_path)


def test_the_end_of_a_job_is_told_whatever_it_leaves(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-S", "-c", DIES))
    monkeypatch.setattr(processes, "LAST_WORDS", 0.2)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    Process(job, dict(os.environ), events.put)
    said, gone = (events.get(timeout=20)[1] for _ in range(2))
    assert gone == Gone("was killed by SIGKILL")
    assert isinstance(said, list)
    os.kill(said[1], 9)


def test_a_message_longer_than_a_pipe_arrives_whole() -> None:
    """Beside those of another thread."""
    into, out = os.pipe()
    long = [["say", "x" * 300_000], ["say", "y" * 300_000]]
    threads = [threading.Thread(target=program._write, args=(out, message)) for message in long]
    for thread in threads:
        thread.start()
    with os.fdopen(into, "rb") as read:
        lines = [read.readline() for _ in long]
    for thread in threads:
        thread.join()
    os.close(out)
    assert sorted(line[9:10] for line in lines) == [b"x", b"y"]
    assert {len(line) for line in lines} == {300_012}


def test_a_job_that_nobody_gives_ends() -> None:
    kept = os.dup(0)
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        with pytest.raises(Leave):
            program._order()
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_a_job_waits_for_the_process_of_its_earlier_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until that has gone, or for as long as it may take to save."""
    monkeypatch.setattr(program, "TICK", 0.01)
    told: list[Message] = []
    with held(tmp_path):
        monkeypatch.setattr(program, "SAVING", 0.1)
        program._wait_for(tmp_path, told.append)
        assert is_held(tmp_path)
        monkeypatch.setattr(program, "SAVING", 60.0)
        waiting = threading.Thread(target=program._wait_for, args=[tmp_path, told.append])
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(20)
    assert not waiting.is_alive()
    program._wait_for(tmp_path, told.append)
    assert [text for _, text in told] == ["waiting for its earlier process, which saves what it has"] * 2


def test_a_folder_that_a_node_has_not_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--on: .*/gone: No such file or directory on a node of the cluster"):
        program._run({"folder": str(tmp_path / "gone")}, lambda message: None)
