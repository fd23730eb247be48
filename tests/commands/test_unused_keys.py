"""Recipe keys that a command would take and not use are refused, and so are paths that no system has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multitune as mt
from multitune.commands import evaluate, probe
from multitune.recipe import Recipe

COMMANDS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "evaluate": (mt.evaluate, evaluate.USED),
    "probe": (mt.probe, probe.USED),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What looks like a finished run."""
    (tmp_path / "model").mkdir()
    (tmp_path / "recipe.yaml").write_text("data: panx\nmethod: mtl\n")
    (tmp_path / "results.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_keys_without_a_use_are_refused(run: Path, command: str) -> None:
    call, used = COMMANDS[command]
    assert set(used) < Recipe.model_fields.keys()
    for key in Recipe.model_fields.keys() - used:
        with pytest.raises(mt.UserError) as error:
            call(run, {key: None})
        assert str(error.value) == f"{key}: multitune {command} does not use it; it takes {', '.join(used)}"


@pytest.mark.parametrize("command", COMMANDS)
def test_keys_that_there_are_not_are_said_to_be_unknown(run: Path, command: str) -> None:
    with pytest.raises(mt.UserError, match=r"recipe.yaml: unknown key 'unsen' \(did you mean 'unseen'\?\)"):
        COMMANDS[command][0](run, {"unsen": ["fi"]})


def test_a_comparison_takes_its_methods_elsewhere(tmp_path: Path) -> None:
    one = mt.Recipe(data="panx", path=str(tmp_path))
    with pytest.raises(mt.UserError, match="method: compare takes its methods from --methods"):
        mt.compare(one, tmp_path / "out", methods=["mtl"], overrides={"method": "stl"})
    assert not (tmp_path / "out").exists()


LONG = "x" * 256


@pytest.mark.parametrize("call", [mt.evaluate, mt.probe, mt.report, lambda run: mt.probe(".", pairs=run)])
def test_a_name_that_no_folder_can_have_is_one_line(call: Callable[..., Any]) -> None:
    with pytest.raises(mt.UserError, match="x: cannot be read: File name too long"):
        call(LONG)


@pytest.mark.parametrize(("out", "said"), [(LONG, "--out: cannot write"), ("link", "--out: link is a link to nothing")])
def test_a_folder_that_cannot_be_is_found_before_the_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("nowhere")
    one = mt.Recipe(data="panx", path="no-such-folder")
    with pytest.raises(mt.UserError, match=said):
        mt.train(one, out)
