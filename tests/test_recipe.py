"""Recipes: what is read, what wins over what, and one-line errors that say how to mend it."""

from pathlib import Path

import pytest

from multitune import recipe as recipes
from multitune.errors import UserError
from multitune.recipe import Recipe

GOOD = "data: panx\npath: somewhere\nlanguages: [no, de]\nlearning_rate: 3e-4\n"
METHODS = GOOD + "budget: 7\nmethods:\n  mtl: {learning_rate: 1e-3, options: {tasks_per_step: 4}}\n  stl: {budget: 9}\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_norwegian_is_a_language_and_1e_4_a_number(tmp_path: Path) -> None:
    recipe = recipes.read(written(tmp_path, GOOD)).resolve()
    assert recipe.languages == ("no", "de")
    assert recipe.learning_rate == 3e-4


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        (None, {}, {"method": "sequential_reptile", "learning_rate": 3e-4, "budget": 7, "options": {}}),
        ("mtl", {}, {"method": "mtl", "learning_rate": 1e-3, "budget": 7, "options": {"tasks_per_step": 4}}),
        (None, {"method": "stl"}, {"method": "stl", "learning_rate": 3e-4, "budget": 9}),
        ("mtl", {"learning_rate": 5e-5}, {"learning_rate": 5e-5, "options": {"tasks_per_step": 4}}),
        ("mtl", {"options": {"tasks_per_step": 2}}, {"learning_rate": 1e-3, "options": {"tasks_per_step": 2}}),
    ],
)
def test_overrides_win_over_the_method_and_it_over_the_file(
    tmp_path: Path, method: str | None, overrides: dict[str, object], expected: dict[str, object]
) -> None:
    resolved = recipes.read(written(tmp_path, METHODS)).resolve(method, overrides).model_dump()
    assert {key: resolved[key] for key in expected} == expected


def test_saved_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = recipes.read(written(tmp_path, METHODS)).resolve("mtl")
    again = recipes.read(written(tmp_path, recipes.to_yaml(recipe))).resolve()
    assert again == recipe
    assert set(Recipe.model_fields) == set(again.model_dump())


def test_overrides_on_the_command_line() -> None:
    words = ["budget=400", "options.outer_lr=0.5", "options.inner_steps=3", "unseen=[ja, th]", "layers=null"]
    assert recipes.parse_overrides(words) == {
        "budget": 400,
        "options": {"outer_lr": 0.5, "inner_steps": 3},
        "unseen": ["ja", "th"],
        "layers": None,
    }


BAD = {
    "buget: 3": ("buget", "did you mean 'budget'", "learning_rate"),
    "budget: many": ("budget", "integer", "'many'"),
    "budget: 0": ("budget", "greater than or equal to 1", "0"),
    "languages: []": ("languages", "at least 1"),
    "languages: [de, 3]": ("languages.1", "string", "3"),
    "schedule: cosine": ("schedule", "'linear' or 'constant'", "'cosine'"),
    "probe_every: often": ("probe_every", "a valid integer", "or input should be 'auto'", "'often'"),
    "dropout: 1.5": ("dropout", "less than or equal to 1"),
    "pseudo_tasks: {cluster: 3}": (
        "unknown key 'pseudo_tasks.cluster' (did you mean 'pseudo_tasks.clusters'?)",
        "allowed: pseudo_tasks.clusters, pseudo_tasks.pca",
    ),
    "pseudo_tasks: {clusters: 1}": ("pseudo_tasks.clusters", "greater than or equal to 2", "not 1"),
    "pseudo_tasks: 4": ("pseudo_tasks", "not 4"),
    "data: xnli": (":2", "'data' is given twice"),
    "methods: [mtl]": ("methods", "learning_rate"),
    "path: &a x\nmodel: *a": ("aliases",),
    "path: [": (":3", "not valid YAML"),
    "path: !!python/object:os.system x": ("not valid YAML",),
}


@pytest.mark.parametrize(("line", "said"), BAD.items(), ids=BAD)
def test_mistakes_are_told_in_one_line(tmp_path: Path, line: str, said: tuple[str, ...]) -> None:
    path = written(tmp_path, f"data: panx\n{line}\n")
    with pytest.raises(UserError) as error:
        recipes.read(path).resolve()
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "nothing"), (b"- a", "list"), (b"\xff\xfe", "UTF-8"), (None, "cannot read")]
)
def test_files_that_hold_no_recipe(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        recipes.read(path)


def test_data_is_required() -> None:
    with pytest.raises(UserError, match="data: is missing"):
        recipes.validated({}, "recipe")


@pytest.mark.parametrize("word", ["budget", "=3", "budget=["])
def test_bad_overrides(word: str) -> None:
    with pytest.raises(UserError, match="command line"):
        recipes.parse_overrides([word])
