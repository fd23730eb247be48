"""What ``import multitune as mt`` gives: the public names, all of them and nothing else."""

import builtins
import re
import subprocess
import sys
from importlib import metadata
from inspect import signature
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import multitune as mt
from multitune.cli.app import app

ROOT = Path(__file__).parents[1]


def test_dir_shows_the_public_names_and_no_imports() -> None:
    assert set(dir(mt)) == {*mt.__all__, "__version__"}
    for name in dir(mt):
        assert getattr(mt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mt.nonsense


def test_the_version_is_the_packages() -> None:
    assert mt.__version__ == metadata.version("multitune")


@pytest.mark.parametrize("page", sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]))
def test_names_in_the_docs_are_public(page: Path) -> None:
    for package, name in re.findall(r"\bmt\.(methods\.)?(\w+)", page.read_text(encoding="utf-8")):
        assert name in (mt.methods.__all__ if package else dir(mt))


def test_names_in_docstrings_are_public() -> None:
    """What a public function says that it raises can be caught."""
    for name in mt.__all__:
        raised = re.search(r"Raises:\n(.*)", getattr(mt, name).__doc__ or "", re.DOTALL)
        for error in re.findall(r"^\s+([A-Z]\w+): ", raised[1] if raised else "", re.MULTILINE):
            assert error in dir(mt) or hasattr(builtins, error), error


def test_importing_the_package_loads_nothing_that_takes_time() -> None:
    code = "import sys, multitune; dir(multitune); print(sorted({'torch', 'pydantic', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_samplers_and_the_whole_two_loop_family_stand_in_one_place() -> None:
    family = {"TwoLoop", "SequentialReptile", "Reptile", "Lookahead", "Fish"}
    samplers = {"CategoricalSampler", "EpochSampler", "proportional", "uniform", "unimax"}
    assert family | samplers <= set(mt.methods.__all__)
    assert len(mt.methods.__all__) == len(set(mt.methods.__all__))


@pytest.mark.parametrize("verb", ["train", "compare", "evaluate", "predict", "probe", "merge", "push", "report"])
def test_a_command_has_a_twin_in_python(verb: str) -> None:
    """Its options, but for what only a terminal has, and ``--dry-run``, which is ``multitune.commands.estimate``."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    shown = {"as_csv", "as_json", "by_class", "by_language", "dry_run", "quiet", "verbose"}
    options = {parameter.name for parameter in group.commands[verb].params} - shown
    assert options <= set(signature(getattr(mt, verb)).parameters)
