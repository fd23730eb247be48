"""What the command line says of itself: help at any width, version, completion, schema, keys written as options."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from multitune.cli.app import app
from multitune.errors import UserError

GROUP = get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = GROUP.commands
WITH_OVERRIDES = ["train", "compare", "evaluate", "probe", "data"]


def said(*words: str, columns: int = 80) -> str:
    done = CliRunner().invoke(app, words, env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    return done.output


def letters(text: str | None) -> str:
    """A text without the blanks and line breaks that depend on the width."""
    return "".join((text or "").split())


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_text_is_shown_whole(command: str, columns: int) -> None:
    shown = said(command, "--help", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    for text in (COMMANDS[command].help, *(getattr(each, "help", "") for each in COMMANDS[command].params)):
        assert letters(text) in letters(shown)


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_list_of_commands_says_what_each_does(columns: int) -> None:
    shown = said("--help", columns=columns)
    assert "..." not in shown.partition("Commands:")[2]
    for name, command in COMMANDS.items():
        assert f"{name} {(command.help or '').splitlines()[0]}" in " ".join(shown.split())


def test_brackets_are_shown_as_they_are() -> None:
    assert "unseen=[ja,th]" in said("evaluate", "--help")


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_h_is_help(command: str | None) -> None:
    words = [command] if command else []
    assert said(*words, "-h") == said(*words, "--help")


def test_the_version_is_the_packages() -> None:
    assert said("--version") == f"multitune {metadata.version('multitune')}\n"


HEAVY = ("torch", "transformers", "numpy", "yaml")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
def test_help_and_version_load_nothing_that_takes_time(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['multitune', *{words}]\n"
        "from multitune.cli.app import main\n"
        f"try: main()\nexcept SystemExit: print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_that_completes(shell: str) -> None:
    asked = {"_MULTITUNE_COMPLETE": f"source_{shell}"}
    script = CliRunner().invoke(app, [], prog_name="multitune", env=asked)
    assert script.exit_code == 0
    assert f"_MULTITUNE_COMPLETE=complete_{shell}" in script.output
    assert "--show-completion" in said("--help")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("multitune ev", ["evaluate"]),
        ("multitune compare --se", ["--seeds"]),
        ("multitune train r --by-l", ["--by-language"]),
    ],
)
def test_commands_and_options_complete(line: str, completed: list[str]) -> None:
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_MULTITUNE_COMPLETE": "complete_bash"}
    assert CliRunner().invoke(app, [], prog_name="multitune", env=asked).output.split() == completed


KEYS = {
    "--budget 10": "--budget: recipe keys are written without dashes: budget=10",
    "--budget=10": "--budget: recipe keys are written without dashes: budget=10",
    "--seed 3": "seed=3",
    "--lr 3e-4": "--lr: recipe keys are written without dashes: learning_rate=3e-4",
    "--lr=3e-4": "learning_rate=3e-4",
    "-lr 3e-4": "learning_rate=3e-4",
    "--learning-rate 3e-4": "learning_rate=3e-4",
    "--batch-size": "batch_size=VALUE",
    "--languages en": "languages=[en]",
    "--languages [en,de]": "languages=[en,de]",
    "--trim-vocabulary": "trim_vocabulary=true",
    "--trim-vocabulary budget=3": "trim_vocabulary=true",
    "--freeze embeddings": "freeze=[embeddings]",
    "--options.inner_steps 5": "options.inner_steps=5",
    "--inner-steps 5": "options.inner_steps=5",
    "--bugdet 10": "budget=10",
    "--epochs 3": "--epochs: a run is as long as its budget",
    "--device cpu": "--device: recipe keys are written without dashes: device=cpu",
    "--gpus 2": "--gpus: device: cpu keeps a run on the CPU",
}


@pytest.mark.parametrize("command", WITH_OVERRIDES)
@pytest.mark.parametrize(("words", "told"), KEYS.items(), ids=KEYS)
def test_a_key_written_as_an_option_is_told_how_to_be_written(command: str, words: str, told: str) -> None:
    done = CliRunner().invoke(app, [command, "r.yaml", *words.split()])
    assert isinstance(done.exception, UserError)
    assert told in str(done.exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train r.yaml --method mtl", "recipe keys are written without dashes: method=mtl"),
        ("compare r.yaml --method mtl", "--method: did you mean --methods, or the recipe key method=mtl?"),
        ("compare r.yaml --seed 3", "--seed: did you mean --seeds, or the recipe key seed=3?"),
        ("train r.yaml --seeds 3", "--seeds: it is an option of multitune compare: --seeds N"),
    ],
)
def test_a_key_that_is_like_an_option(words: str, told: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert isinstance(done.exception, UserError)
    assert told in str(done.exception)


@pytest.mark.parametrize("words", ["train r --frobnicate", "train r --outt x", "train", "report r --budget 3"])
def test_other_mistakes_are_the_parsers(words: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)


def test_the_schema_is_printed_as_json() -> None:
    assert json.loads(said("schema"))["title"] == "multitune recipe"
