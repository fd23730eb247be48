"""Ranks that join a group, once or several times, and of several with an error the one that says it."""

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from torch import distributed

from launching import RANKS, environment, started
from multitune.errors import AlreadySaid, UserError
from multitune.methods.ranks import Ranks
from multitune.storage.interrupt import leaving
from multitune.training import launch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch has no torch.distributed here")


def test_a_port_that_is_taken_is_a_mistake_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name, value in environment(0, port).items():
            monkeypatch.setenv(name, value)
        said = rf"cannot meet at MASTER_ADDR:MASTER_PORT, 127.0.0.1:{port}: .*in use"
        with pytest.raises(UserError, match=said), launch.joined():
            pass


@pytest.mark.parametrize("missing", launch.MEETING)
def test_ranks_that_do_not_know_where_to_meet_are_no_runs_of_their_own(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name, value in environment(1, 1).items():
        monkeypatch.setenv(name, value)
    assert launch.launched()
    monkeypatch.delenv(missing)
    with pytest.raises(UserError, match=f"WORLD_SIZE is 2, but {missing} is not set"):
        launch.launched()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launch.launched()


def test_a_rank_that_needs_the_folder_of_rank_0_and_does_not_see_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "VISIBLE", 0.0)
    ranks = Ranks()
    launch.check_shared(ranks, tmp_path)
    ranks.rank = 1
    with pytest.raises(UserError, match="select: best: rank 1 does not see the folder"):
        launch.check_shared(ranks, tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    launch.check_shared(ranks, tmp_path)


def again() -> None:
    """What each rank does: it joins twice, as a program that trains one run after the other."""
    for text in ("first", "second"):
        with launch.joined() as ranks:
            assert ranks.tell(text if ranks.rank == 0 else "") == text


@pytest.mark.check
def test_a_program_joins_once_for_each_of_its_runs() -> None:
    processes = started("-c", "import test_joined; test_joined.again()", folder=Path(__file__).parent)
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said


def ends(store: "Store", rank: int, ended: dict[int, type[BaseException]]) -> None:
    """Make the same mistake as the other ranks."""
    try:
        with launch._said_once(store, rank, RANKS):
            raise UserError("budget: is wrong")
    except (UserError, AlreadySaid) as error:
        ended[rank] = type(error)


@pytest.mark.parametrize("first", [0, 1])
def test_a_mistake_of_all_ranks_is_said_once_and_at_once(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """Rank 0 does not wait for one that has ended itself."""
    monkeypatch.setattr(launch, "LINGERING", 120.0)
    store, ended = distributed.HashStore(), dict[int, type[BaseException]]()  # type: ignore[attr-defined]
    threads = [threading.Thread(target=ends, args=(store, rank, ended)) for rank in (first, 1 - first)]
    for thread in threads:
        thread.start()
        while not store.add("multitune/said", 0):
            time.sleep(0.001)
    for thread in threads:
        thread.join(60)
    assert ended == {first: UserError, 1 - first: AlreadySaid}


def test_a_launcher_that_ends_rank_0_does_not_silence_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LINGERING", 0.5)
    ended = dict[int, type[BaseException]]()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    with leaving():
        timer.start()
        ends(distributed.HashStore(), 0, ended)  # type: ignore[attr-defined]
        timer.join()
    assert ended == {0: UserError}
