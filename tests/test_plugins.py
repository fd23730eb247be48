"""The example of docs/plugins.md as an installed package: its kind, method and data set in every command."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import multitune as mt
from builders import names_restored
from multitune import plugins
from multitune.cli.app import app
from multitune.commands.init import recipe_for
from multitune.commands.schema import schema
from multitune.errors import UserError
from multitune.plans import METHODS, find
from multitune.recipe_files import parse, read
from multitune.reports import verdict
from multitune.tasks import TASKS, Task
from multitune.training.loading import load_corpus

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
TUTORIAL = (Path(__file__).parents[1] / "docs" / "tutorials" / "own-method.md").read_text(encoding="utf-8")
COMMENTS = ("sees", "and the old", "roma", "oslo sees", "ana and bela")


def block(language: str) -> str:
    """The first block of a language in the page."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def install(folder: Path, code: str, requires: str = block("toml")) -> None:
    """Write what pip leaves of a package with one module: the module, and a .dist-info folder beside it."""
    project = tomllib.loads(requires)["project"]
    ((name, module),) = project["entry-points"][plugins.GROUP].items()
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    about = folder / f"{module}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{name} = {module}\n", encoding="utf-8")


@pytest.fixture
def stars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's package is installed, and gone again afterwards."""
    site = tmp_path / "site-packages"
    site.mkdir()
    install(site, block("python"))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)  # runs side by side are processes of their own
    with names_restored():
        yield
    sys.modules.pop("multitune_stars", None)


def multitune(*words: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def review(n: int, language: str) -> dict[str, Any]:
    """In Finnish, which nobody trains on, the ratings are others."""
    return {"comment": f"{COMMENTS[n % 5]} " * (1 + n // 5 % 4), "rating": (n + (language == "fi")) % 5 + 1}


@pytest.fixture
def recipe(tmp_path: Path, tiny_lm: Path, stars: None) -> Path:
    """The page's recipe with a tiny model, and files of reviews beside it."""
    folder = tmp_path / "my-reviews"
    folder.mkdir()
    sizes = {"train-de": 80, "train-sw": 40, "dev-de": 10, "dev-sw": 10, "test-de": 20, "test-sw": 20, "test-fi": 20}
    for name, size in sizes.items():
        lines = "".join(json.dumps(review(n, name[-2:])) + "\n" for n in range(size))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    keys = parse(block("yaml"), "docs/plugins.md") | {"path": str(folder), "model": str(tiny_lm)}
    keys |= {"budget": 60, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32"}
    path = tmp_path / "reviews.yaml"
    path.write_text(json.dumps(keys), encoding="utf-8")
    return path


def test_data_counts_labels_and_tokens_and_names_bad_records(recipe: Path) -> None:
    printed = multitune("data", recipe, "languages=[de,sw]")
    assert "stars, 5 labels" in printed
    assert re.search(r"^ +1 +24 +20\.0", printed, re.MULTILINE), "24 of 120 reviews have one star"
    assert re.search(r"^ +de +80 +10 +20 +0 +0 +\d+\.\d", printed, re.MULTILINE), "lengths in tokens"
    with (recipe.parent / "my-reviews" / "train-de.jsonl").open("a") as file:
        file.write('{"comment": "ana", "rating": 7}\n')
    with pytest.raises(UserError, match="1 bad record;"):
        multitune("data", recipe)


def test_a_run_is_trained_scored_again_probed_and_reported(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "gentle" in multitune("methods")
    printed = multitune("train", recipe, "options.outer_lr=1", "budget=100", "--out", run, "--by-language")
    assert "seen closeness" in printed
    results = json.loads((run / "results.json").read_text())
    assert results["metric"] == "closeness"
    (predicted,) = mt.predict(run, ["great great great"])
    assert (predicted["review"], set(predicted["scores"])) == ("great great great", {"1", "2", "3", "4", "5"})
    assert results["average"]["seen"] > 80
    assert list(results["unseen"]) == ["fi"]
    assert f"{results['unseen']['fi']['closeness']:.1f}" in multitune("evaluate", run)
    assert "cosine" in multitune("probe", run)
    (run / "report.html").unlink()
    multitune("report", run)
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    wrong = [line["shown"] for line in lines if line["prediction"] != line["record"]["label"]]
    assert wrong
    assert all(not shown["right"] and shown["reference"] in "12345" for shown in wrong)
    assert wrong[0]["text"].strip() in (run / "report.html").read_text()


def test_methods_are_compared(recipe: Path, tmp_path: Path) -> None:
    printed = multitune("compare", recipe, "budget=16", "--methods", "gentle,mtl", "--out", tmp_path / "all")
    assert "gentle" in printed
    assert json.loads((tmp_path / "all" / "results.json").read_text())["metric"] == "closeness"


@pytest.mark.parametrize("key", ["replay={share: 0.2}", "pseudo_tasks={clusters: 2, pca: 2}", "method=stl"])
def test_a_replay_pseudo_tasks_and_single_models_know_the_kind(recipe: Path, tmp_path: Path, key: str) -> None:
    multitune("train", recipe, key, "budget=16", "--out", tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "results.json").read_text())["seen"]) == 2
    assert key.startswith("method") or "gentle" in (tmp_path / "run" / "report.html").read_text()


def test_the_tutorials_own_method_is_listed_trained_and_reported(recipe: Path, tmp_path: Path) -> None:
    """Its plan names no paper, as a new idea has none."""
    cells = re.findall(r"^```{code-cell} ipython3\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for cell in cells:
        if re.search(r"^class Agreement", cell, re.MULTILINE):
            exec(cell, names)
    assert "agreement" in multitune("methods")
    multitune("train", recipe, "method=agreement", "budget=16", "--out", tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert re.search(r"<dd>tasks whose gradients agree with the others count more\.</dd>", page)


def test_its_texts_are_those_of_masked_language_modelling(recipe: Path, tmp_path: Path) -> None:
    keys = ("task=masked_language_modelling", "budget=4")
    multitune("train", recipe, *keys, "--out", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metric"] == "accuracy"


def test_its_data_set(tmp_path: Path, tiny_model: Path, stars: None) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps({"data": "reviews", "model": str(tiny_model)}))
    printed = multitune("data", tmp_path / "r.yaml")
    assert "tlh" in printed
    assert "stars, 5 labels" in printed


def test_plugins_are_imported_once(stars: None) -> None:
    assert "gentle" not in METHODS
    plugins.load()
    assert "gentle" in METHODS
    del METHODS["gentle"]
    plugins.load()
    assert "gentle" not in METHODS


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from multitune.errors import Gone", "ImportError: cannot import name 'Gone'"),
        ("def load(", "SyntaxError: '(' was never closed"),
        ("from multitune.plans import METHODS\nMETHODS['gone']", "KeyError: 'gone'"),
        ("from multitune.data.fields import Fields\nFields(old={})", "TypeError: Fields.__init__() got an unexpected"),
        (
            "from multitune.plans import METHODS\nclass Own(METHODS['mtl']):\n    power = 2",
            "PydanticUserError: A non-annotated attribute was detected",
        ),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    install(tmp_path, code)
    (tmp_path / "r.yaml").write_text("data: panx\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with names_restored(), pytest.raises(UserError) as error:
        read(tmp_path / "r.yaml").resolve()
    sys.modules.pop("multitune_stars", None)
    assert str(error.value).startswith(
        f"package multitune-stars 1.0: its plugin multitune_stars cannot be imported ({said}"
    )
    assert "\n" not in str(error.value)


def test_a_name_of_a_plugin_is_known_before_any_recipe_is(stars: None) -> None:
    assert {"const": "gentle"} in [rule["if"]["properties"]["method"] for rule in schema()["allOf"]]
    assert "reviews" in schema()["properties"]["data"]["anyOf"][0]["enum"]
    METHODS.pop("gentle")
    plugins.load.cache_clear()
    sys.modules.pop("multitune_stars")
    assert find("gentle") is METHODS["gentle"]


def test_a_table_in_a_format_of_a_plugin_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path,
        "from pathlib import Path\n"
        "from multitune.data.corpus import Place\n"
        "from multitune.data.tabular import READERS\n"
        "def rows(path, columns, bad):\n"
        "    for number, line in enumerate(Path(path).read_text().splitlines(), 1):\n"
        "        values = dict(pair.split('=') for pair in line.split(';'))\n"
        "        yield Place(str(path), [number]), {field: values[column] for field, column in columns.items()}\n"
        "READERS['.pairs'] = rows\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own").mkdir()
    table = tmp_path / "own" / "de.pairs"
    table.write_text("".join(f"said=ana{n};is={n % 2 + 10}\n" for n in range(40)))
    columns = {"text": "said", "label": "is"}
    with names_restored():
        assert load_corpus(recipe_for(table, {"columns": columns}).resolve()).labels == ("10", "11")
        with pytest.raises(UserError, match="does not say what its columns hold; say it"):
            recipe_for(table)
        (table.parent / "aa.jsonl").write_text('{"text": "ana", "label": "b"}\n')
        with pytest.raises(UserError, match=r"de\.pairs: a file of this format does not say"):
            recipe_for(table.parent)
    sys.modules.pop("multitune_stars", None)


def test_the_command_line_finds_an_installed_plugin(tmp_path: Path) -> None:
    install(tmp_path, "import no_such_module")
    (tmp_path / "r.yaml").write_text("data: panx\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "multitune", "train", str(tmp_path / "r.yaml")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "multitune: package multitune-stars 1.0: its plugin multitune_stars cannot be imported"
    )
    assert ended.stderr.count("\n") == 1


def test_the_page_has_all_that_a_kind_says() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.partition("## What a kind says")[2], re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"\w+", row)}
    for_callers = {"all_statistics", "number", "score", "score_rows"}
    own = {name for name in dir(Task) if not name.startswith("_")} | {"auto_model", "metric"}
    assert names == own - for_callers


def test_kinds_that_came_along_say_what_they_must() -> None:
    for kind in TASKS.values():
        assert issubclass(kind, Task)
        assert (kind.fields is None) == (not kind.tokenised)


def twins() -> tuple[type[Task], type[Task]]:
    """Two kinds that differ in their main score alone: the share of right labels rises, that of wrong ones falls."""
    kind: Any = TASKS["classification"]

    class Right(kind):  # type: ignore[misc]
        metric = "hits"

        def scores(self, rows: Any, counts: Any) -> dict[str, Any]:
            return {"hits": kind.scores(self, rows, counts)["accuracy"]}

    class Wrong(Right):
        metric = "error_rate"

        def scores(self, rows: Any, counts: Any) -> dict[str, Any]:
            return {"error_rate": 100 - super().scores(rows, counts)["hits"]}

    return Right, Wrong


def test_a_main_score_that_falls_chooses_what_its_opposite_chooses(recipe: Path, tmp_path: Path) -> None:
    """A run's weights, the point of a grid, a sweep and a merge, the leader of a report, the signs of gains."""
    keys = {"columns": {"text": "comment", "label": "rating"}, "method": "mtl", "select": "best", "validate_every": 20}
    one = read(recipe).resolve().model_copy(update=keys)
    rates, found = {"learning_rate": [1e-4, 3e-2]}, {}
    for name, kind in zip(("right", "wrong"), twins(), strict=True):
        TASKS["classification"] = kind
        out = tmp_path / name
        compared = mt.compare(one, out / "compared", methods=["mtl", "sequential_reptile"], grid=rates)
        swept = mt.sweep(one, out / "swept", grid=rates, rungs=2)
        merged = mt.merge(
            out / "compared" / compared.runs[1].folder, out=out / "merged", toward_pretrained=True, weights=[1, 0]
        )
        shipped = [run.shipped.gradients for run in compared.runs]
        (gained,) = compared.differences.values()
        assert gained.seen is not None
        leader = [lead.leader for lead in verdict.leads(compared)]
        order = [[point.grid for point in rung.points] for rung in swept.rungs]
        found[name] = (shipped, compared.chosen, astuple(gained.seen), leader, order, swept.winner, merged.chosen)
        assert "lowest average error_rate" in (out / "compared" / "report.html").read_text() or name == "right"
    for ours, theirs in zip(found["right"], found["wrong"], strict=True):
        assert ours == (pytest.approx(theirs) if isinstance(theirs, tuple) else theirs)
