"""Signals while a run goes on: the first one is noted, a second one ends it, and an echo of the first does not."""

from collections.abc import Iterator
from signal import SIG_DFL, SIG_IGN, SIGHUP, SIGINT, SIGTERM, Signals, getsignal, raise_signal, signal

import pytest

from multitune.storage import interrupt
from multitune.storage.interrupt import Leave, StopSignal, leaving

SECOND = {
    "Ctrl-C, twice": ((SIGINT, SIGINT), 5.0, True),
    "SIGTERM after Ctrl-C": ((SIGINT, SIGTERM), 5.0, True),
    "Ctrl-C after SIGTERM": ((SIGTERM, SIGINT), 5.0, True),
    "a cluster's SIGTERM and its launcher's": ((SIGTERM, SIGTERM, SIGTERM), 5.0, False),
    "another SIGTERM, later": ((SIGTERM, SIGTERM), 0.0, True),
    "a closed terminal, which several tell": ((SIGHUP, SIGHUP, SIGHUP), 0.0, False),
    "a terminal that is closed after Ctrl-C": ((SIGINT, SIGHUP), 0.0, False),
    "systemd, which sends both": ((SIGTERM, SIGHUP), 0.0, False),
    "SIGTERM soon after the terminal is closed": ((SIGHUP, SIGTERM), 5.0, False),
    "SIGTERM, later": ((SIGHUP, SIGTERM), 0.0, True),
    "Ctrl-C after SIGHUP": ((SIGHUP, SIGINT), 5.0, True),
}


@pytest.fixture(autouse=True)
def not_under_nohup() -> Iterator[None]:
    """These tests may themselves be run so."""
    before = signal(SIGHUP, SIG_DFL)
    yield
    signal(SIGHUP, before)


@pytest.mark.parametrize(("numbers", "echo", "leaves"), SECOND.values(), ids=SECOND)
def test_a_second_signal_ends_a_run_at_once_but_for_an_echo(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[Signals, ...], echo: float, leaves: bool
) -> None:
    monkeypatch.setattr(interrupt, "ECHO", echo)
    before = [getsignal(number) for number in (SIGINT, SIGTERM, SIGHUP)]
    left: list[Signals] = []
    with leaving(), StopSignal() as stop:
        try:
            for number in numbers:
                raise_signal(number)
        except Leave as leave:
            left.append(leave.signal)
    assert stop.requested == numbers[0]
    assert left == ([numbers[1]] if leaves else [])
    assert [getsignal(number) for number in (SIGINT, SIGTERM, SIGHUP)] == before


def test_a_closed_terminal_ends_what_has_nothing_to_save() -> None:
    with pytest.raises(Leave) as left, leaving():
        raise_signal(SIGHUP)
    assert left.value.signal == SIGHUP


def test_a_closed_terminal_is_ignored_under_nohup() -> None:
    signal(SIGHUP, SIG_IGN)
    with leaving(), StopSignal() as stop:
        raise_signal(SIGHUP)
        assert getsignal(SIGHUP) == SIG_IGN
        raise_signal(SIGTERM)
    assert stop.requested == SIGTERM
    assert getsignal(SIGHUP) == SIG_IGN
