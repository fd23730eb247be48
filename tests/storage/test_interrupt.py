"""Signals while a run goes on: the first one is noted, a second one ends it, and an echo of the first does not."""

from signal import SIGINT, SIGTERM, Signals, getsignal, raise_signal

import pytest

from multitune.storage import interrupt
from multitune.storage.interrupt import Leave, StopSignal, leaving

SECOND = {
    "Ctrl-C, twice": ((SIGINT, SIGINT), 5.0, True),
    "SIGTERM after Ctrl-C": ((SIGINT, SIGTERM), 5.0, True),
    "Ctrl-C after SIGTERM": ((SIGTERM, SIGINT), 5.0, True),
    "a cluster's SIGTERM and its launcher's": ((SIGTERM, SIGTERM, SIGTERM), 5.0, False),
    "another SIGTERM, later": ((SIGTERM, SIGTERM), 0.0, True),
}


@pytest.mark.parametrize(("numbers", "echo", "leaves"), SECOND.values(), ids=SECOND)
def test_a_second_signal_ends_a_run_at_once_but_for_an_echo(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[Signals, ...], echo: float, leaves: bool
) -> None:
    monkeypatch.setattr(interrupt, "ECHO", echo)
    before = [getsignal(number) for number in (SIGINT, SIGTERM)]
    left: list[Signals] = []
    with leaving(), StopSignal() as stop:
        try:
            for number in numbers:
                raise_signal(number)
        except Leave as leave:
            left.append(leave.signal)
    assert stop.requested == numbers[0]
    assert left == ([numbers[1]] if leaves else [])
    assert [getsignal(number) for number in (SIGINT, SIGTERM)] == before
