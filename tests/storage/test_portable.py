"""Systems without what only POSIX has: its modules are hidden here. Windows itself is not tried."""

import subprocess
import sys
from pathlib import Path

import pytest

from multitune.data.records.spool import Spool
from multitune.storage import lock
from multitune.storage.atomic import write_text

HIDING = """
import builtins, sys
real = builtins.__import__
def without(name, globals=None, locals=None, fromlist=(), level=0):
    if name in ("fcntl", "resource", "pwd", "grp", "termios"):
        if (globals or {}).get("__name__", "").startswith("multitune"):
            raise ModuleNotFoundError(name)
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = without
import pkgutil, torch, multitune
from multitune.errors import UserError
for module in pkgutil.walk_packages(multitune.__path__, "multitune."):
    if module.name not in ("multitune.__main__", "multitune.experiments.synthetic_figures"):
        try:
            __import__(module.name)
        except UserError as error:  # an extra that is not installed
            assert "pip install" in str(error), error
from multitune.training.memory import peak_memory
print(peak_memory(torch.device("cpu")) > 0)
"""


@pytest.mark.check
def test_no_module_needs_what_posix_alone_has() -> None:
    done = subprocess.run([sys.executable, "-c", HIDING], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_records_are_spooled_without_pread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.pread")
    spool = Spool()
    kept = spool.keep([{"text": "a"}, {"text": "b"}]), spool.keep([{"text": "c"}])
    assert [list(each) for each in kept] == [[{"text": "a"}, {"text": "b"}], [{"text": "c"}]]


def test_an_unknown_user_has_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    with lock.held(tmp_path):
        assert "an unknown user" in (tmp_path / lock.OWNER).read_text()


def test_a_lock_is_free_for_whoever_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not lock.is_locked(path)
    for _ in range(2):
        held = lock.locked(path)
        assert lock.is_locked(path)
        held.release()
        assert not lock.is_locked(path)
    write_text(tmp_path / "text", "whole")
    assert (tmp_path / "text").read_text() == "whole"
