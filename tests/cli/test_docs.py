"""What the docs say is so: every Python block runs, tables of options are the plans', links and named tests exist."""

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.core import TyperGroup
from typer.main import get_command

from builders import names_restored, run_result
from multitune.cli.app import app
from multitune.data.sets import DATASETS
from multitune.plans import METHODS
from multitune.plans.combined import TorchJDPlan
from multitune.plans.plan import Plan
from multitune.plans.two_loop import ManyWalks, TwoLoopPlan
from multitune.recipe import Recipe
from multitune.recipe_files import RecipeFile, parse_overrides, read
from multitune.tasks.task import Task
from multitune.training.loading import load_plan

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
METHOD_PAGES = sorted(ROOT.glob("docs/methods/*.md"))
RECIPES = sorted(ROOT.glob("recipes/**/*.yaml"))
PLANS = METHODS | {"torchjd": TorchJDPlan}
NEEDS = {"torchjd.md": "quadprog"}
FIXED = {"number", "score", "score_rows", "all_statistics"}
"""What a kind of task inherits and never defines."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class Regression(torch.nn.Linear):
    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        error: torch.Tensor = self(batch).square().mean()
        return error


def readers_own(page: Path, folder: Path) -> dict[str, Any]:
    """What a page's reader has: a loop with a model and its loss, an optimizer, batches; or a finished run."""
    if page.name == "run-folder.md":
        run_result({"de": {"accuracy": 71.0}}).write(folder / "runs" / "demo-mtl")
    if page.name != "README.md":
        return {}
    model = Regression(3, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    return {"model": model, "optimizer": optimizer, "batches": torch.randn(48, 5, 3)}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_every_python_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    namespace = readers_own(page, tmp_path)
    with names_restored():
        for block in blocks(page, "python"):
            exec(compile(block, name(page), "exec"), namespace)


EXAMPLES = [
    pytest.param(path, marks=pytest.mark.check if "multitune.hf" in path.read_text(encoding="utf-8") else ())
    for path in sorted(ROOT.glob("examples/*.py"))
]


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
# TRL and PEFT read names that transformers has renamed.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")
def test_every_example_learns(
    example: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "1")  # TRL counts its users elsewhere
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60
    runpy.run_path(str(example), run_name="__main__")
    losses = [float(number) for number in re.findall(r"0\.\d+", capsys.readouterr().out)]
    assert max(losses[-3:]) < 0.03


def options(text: str) -> dict[str, str]:
    """The rows of a page's tables: an option (or recipe key) and its default."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))


def default(value: object) -> str:
    return "null" if value is None else str(value)


@pytest.mark.parametrize("method", PLANS)
def test_tables_of_options_are_the_plans(method: str) -> None:
    text = (ROOT / "docs" / "methods" / f"{method}.md").read_text(encoding="utf-8")
    shared = "The other options are [Sequential Reptile](sequential_reptile.md)" in text
    others = options((ROOT / "docs/methods/sequential_reptile.md").read_text(encoding="utf-8")) if shared else {}
    kind = ManyWalks if issubclass(PLANS[method], ManyWalks) else TwoLoopPlan
    documented = {key: value for key, value in others.items() if key in kind.model_fields}
    fields = PLANS[method].model_fields
    assert documented | options(text) == {key: default(field.default) for key, field in fields.items()}


@pytest.mark.parametrize("page", ["methods/averaging.md", "methods/keeping.md", "methods/samplers.md"])
def test_tables_of_keys_are_the_recipes(page: str) -> None:
    documented = options((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert documented
    for key, value in documented.items():
        assert value == default(Recipe.model_fields[key].default)


def test_the_table_of_recipe_keys_is_the_recipes() -> None:
    """Keys and defaults; of a default that is none or empty, the table says in words what that means."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    documented: dict[str, str] = {}
    for keys, values in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", text, re.MULTILINE):
        names = re.findall(r"\w+", keys)
        documented |= zip(names, values.split(", ") if len(names) > 1 else [values], strict=True)
    assert documented.keys() == Recipe.model_fields.keys()
    for key, field in Recipe.model_fields.items():
        if isinstance(field.default, str | float | int):
            assert parse_overrides([f"{key}={documented[key].strip('`')}"]) == {key: field.default}


@pytest.mark.parametrize(("heading", "base"), [("What a kind says", Task), ("What a method says", Plan)])
def test_tables_for_plugins_have_all_that_a_class_may_define(heading: str, base: type) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    documented = re.findall(r"`(\w+)", " ".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)))
    ours = [each for each in base.__mro__ if each.__module__.startswith("multitune")]
    own = {name for each in ours for name in [*each.__dict__, *each.__annotations__]}
    assert set(documented) == {name for name in own if not name.startswith(("_", "model_"))} - FIXED


def test_the_index_has_every_method() -> None:
    index = (ROOT / "docs/methods/index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`([\w:]+)`\]\((\w+)\.md\)", index, re.MULTILINE)
    assert [method for method, _ in rows] == [*METHODS, "torchjd:NAME"]
    assert all(method.split(":")[0] == page for method, page in rows)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page has after its ``#``, on GitHub and on the site."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or there.suffix != ".md" or anchor in anchors(there), target


@pytest.mark.parametrize("page", METHOD_PAGES, ids=name)
def test_named_tests_exist(page: Path) -> None:
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("**/test_*.py"))
    for test in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")):
        assert f"def {test}(" in tests, test


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_every_recipe_resolves_to_a_method(path: Path) -> None:
    file: RecipeFile = read(path)
    for method in file.methods or [None]:
        one = file.resolve(method)
        load_plan(one)
        others = {name.partition(":")[0] for name in one.unseen or () if ":" in name}
        assert {one.data, *others, *(one.path if isinstance(one.path, dict) else ())} <= set(DATASETS)


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/table*.yaml")), ids=name)
def test_recipes_of_the_papers_tables_do_as_the_paper(path: Path) -> None:
    file = read(path)
    assert file.resolve("mtl").task_weights == "equal"
    assert file.resolve("sequential_reptile").options == {"inner_steps": 1000, "outer_lr": 0.1}


def commands() -> list[str]:
    """The lines of the pages' shell blocks, and what bench files and recipes tell to type, without comments."""
    text = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    text += [line for file in ROOT.glob("bench/*.py") for line in file.read_text(encoding="utf-8").splitlines()]
    matches = (re.match(r"\s*(?:\.venv/bin/)?((?:multitune|make|python bench)\b[^#>]*)", line) for line in text)
    return sorted({match[1].strip() for match in matches if match})


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one(command: str) -> None:
    """Targets and files exist, options are known, and recipes resolve with the overrides that the command gives."""
    program, what, *words = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{what}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    if program == "python":
        source = (ROOT / what).read_text(encoding="utf-8")
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))
        return
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    parameters = {option: given for given in group.commands[what].params for option in given.opts}
    overrides, given, recipe = [], iter(words), None
    for word in given:
        if word.startswith("--"):
            assert word in parameters, word
            _ = None if getattr(parameters[word], "is_flag", False) else next(given)
        elif word.endswith(".yaml"):
            recipe = read(ROOT / word)
        else:
            overrides.append(word)
    if recipe is not None:
        load_plan(recipe.resolve(overrides=parse_overrides(overrides)))


@pytest.mark.parametrize("file", ["README.md", ".github/workflows/ci.yml"])
def test_extras_are_the_makefile_s(file: str) -> None:
    """A reader without make, and the systems on which make is not at hand, install what the tests need."""
    made = re.search(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert made is not None
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.findall(r"--editable ['\"]\.\[(.*)\]", text) == [f"{made[1]},dev"]


def test_there_are_commands_to_check() -> None:
    assert {command.split()[0] for command in commands()} == {"make", "multitune", "python"}
