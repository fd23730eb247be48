"""Recipes: what is read, what wins over what, and one-line errors that say how to mend it."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import multitune as mt
from multitune import recipe_files as recipes
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.recipe_files import RecipeFile

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
    "buget: 3": ("unknown key 'buget' (did you mean 'budget'?)",),
    "zzz: 3": ("unknown key 'zzz'; allowed: model, layers", "learning_rate"),
    "3: 3": ("unknown key '3'",),
    "methods: {mtl: {3: 3}}\nmethod: mtl": ("unknown key '3'",),
    "budget: many": ("budget: must be a whole number, not 'many'",),
    "budget: 0": ("budget: must be at least 1, not 0",),
    "budget: 1.5": ("budget: must be a whole number, not 1.5",),
    "budget: null": ("budget: must be a whole number, not null",),
    "budget: 3000000000": ("budget: must be at most 2147483647",),
    "seed: 18446744073709551616": ("seed: must be at most 4294967295",),
    "seed: 1000000000000000000000000000000": ("seed: must be at most 4294967295",),
    "batch_size: 1000000": ("batch_size: must be at most 65536",),
    "max_length: 10000000": ("max_length: must be at most 1048576",),
    "clip: inf": ("clip: must be a finite number, not 'inf'",),
    "learning_rate: nan": ("learning_rate: must be a finite number",),
    "save_model: perhaps": ("save_model: must be true or false",),
    "languages: []": ("languages: must be a list of at least 1, not []",),
    "languages: en": ("languages: must be a list such as [en], not 'en'",),
    "unseen: fi": ("unseen: must be a list such as [fi], not 'fi'",),
    "languages: 3": ("languages: must be a list, not 3",),
    "languages: [de, 3]": ("languages.1: must be text, not 3",),
    "schedule: cosine": ("schedule: must be 'linear' or 'constant', not 'cosine'",),
    "probe_every: often": ("probe_every: must be a whole number or 'auto', not 'often'",),
    "dropout: 1.5": ("dropout: must be at most 1, not 1.5",),
    "columns: text": ("columns: must be a mapping such as {key: value}, not 'text'",),
    "path: [a]": ("path: must be text or a mapping such as {key: value}, not ['a']",),
    "label_names: [good, bad, good]": ("label_names: has 'good' twice",),
    "label_names: ['1', '2']": ("label_names: must be names, none blank or a whole number, not '1'",),
    "label_names: [good, ' ']": ("label_names: must be names, none blank or a whole number, not ' '",),
    "label_names: []": ("label_names: must be a list of at least 1, not []",),
    r'path: "\uDCFF/x"': ("path: is no name in UTF-8",),
    f"path: {'x' * 256}": ("path: has a name of more than 255 bytes",),
    "pseudo_tasks: {cluster: 3}": (
        "pseudo_tasks: unknown key 'cluster' (did you mean 'clusters'?); allowed: clusters, pca",
    ),
    "pseudo_tasks: {3: 3}": ("pseudo_tasks: unknown key '3'; allowed: clusters, pca",),
    "pseudo_tasks: {clusters: 1}": ("pseudo_tasks.clusters: must be at least 2, not 1",),
    "pseudo_tasks: 4": ("pseudo_tasks: must be a mapping of keys (clusters, pca) to values, not 4",),
    "replay: {languages: en}": ("replay.languages: must be a list such as [en], not 'en'",),
    "options: mtl": ("options: must be a mapping such as {key: value}, not 'mtl'",),
    "data: xnli": (":2", "'data' is given twice"),
    "methods: {mtl: {method: stl}}": ("methods: mtl cannot have a key method: it is mtl already",),
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


NUMBERS = [0, 1, -1, 0.5, -0.0, 1e-5, 1e300, 5e-324, math.inf, -math.inf, math.nan, 2**31, 2**64, True, False, None]
LIKE_NUMBERS = ["1e-4", "1E5", "+1e5", "1_000", "0x1F", "017", "1:30", "1.", ".5", "inf", ".inf", "nan", "2020-01-01"]
LIKE_OTHERS = [
    "no",
    "on",
    "null",
    "~",
    "true",
    "TRUE",
    "=",
    "<<",
    "-",
    "---",
    "?",
    "&a",
    "*a",
    "!a",
    "#a",
    "a: b",
    "[a]",
]
TEXTS = ["", " a ", "a\nb", "a\tb", "\r\n", "\x1b[31m", "\x85", "\u2028", "\ufeff", "é", "😀", '"', "'", "x " * 200]
LISTS: list[object] = [[], ["a"], [*LIKE_NUMBERS, *LIKE_OTHERS, *TEXTS], ("a", "b"), [1]]
MAPPINGS: list[object] = [{}, {"a": 1}, {"1e5": "1e5"}, {"a": [1, {"b": None}]}, {"a": math.inf}, {"a": (1,)}, {1: 2}]


@pytest.mark.parametrize("key", Recipe.model_fields)
def test_what_a_recipe_takes_it_writes_and_reads_back(key: str) -> None:
    """Whatever value is given in Python: it is refused in one line, or YAML gives the same recipe back."""
    refused = []
    for value in [*NUMBERS, *LIKE_NUMBERS, *LIKE_OTHERS, *TEXTS, *LISTS, *MAPPINGS, object()]:
        try:
            recipe = Recipe(**{"data": "panx", key: value})  # type: ignore[arg-type]
        except UserError as error:
            refused.append(str(error))
        else:
            assert recipes.validated(recipes.parse(recipes.to_yaml(recipe), "recipe"), "recipe") == recipe
    for line in refused:
        assert line.startswith(key)
        assert "\n" not in line
        assert not re.search(r"tuple|None|dict|[Ii]nput|pydantic", line.split(", not ")[0]), line


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), min_size=1), st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False)))
def test_any_text_is_written_and_read_back(text: str, languages: list[str], options: dict[str, object]) -> None:
    keys = {"data": text, "languages": languages, "columns": {text: text}, "options": options}
    try:
        recipe = Recipe(**keys)  # type: ignore[arg-type]
    except UserError:
        assert math.inf in map(abs, (value for value in options.values() if isinstance(value, float)))
    else:
        assert recipes.validated(recipes.parse(recipes.to_yaml(recipe), "recipe"), "recipe") == recipe


def test_in_python_a_mistake_is_the_same_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as in_a_file:
        recipes.read(written(tmp_path, "data: panx\nbuget: 3\n")).resolve()
    with pytest.raises(UserError) as in_python:
        mt.Recipe(data="panx", buget=3)  # type: ignore[call-arg]
    assert str(in_a_file.value) == f"{tmp_path / 'recipe.yaml'}: {in_python.value}"
    assert str(in_python.value) == "unknown key 'buget' (did you mean 'budget'?)"


def test_options_belong_to_the_method_that_the_recipe_names() -> None:
    keys = {"model": "m", "data": "panx", "method": "sequential_reptile", "options": {"inner_steps": 6}}
    named = RecipeFile(run=keys, methods={"pcgrad": {"options": {"tasks_per_step": 3}}}, source="r.yaml")
    assert named.resolve().options == named.resolve("sequential_reptile").options == {"inner_steps": 6}
    assert named.resolve("mtl").options == named.resolve(overrides={"method": "mtl"}).options == {}
    assert named.resolve("pcgrad").options == {"tasks_per_step": 3}
    assert named.resolve("mtl", {"options": {"tasks_per_step": 2}}).options == {"tasks_per_step": 2}
    del keys["method"]
    assert named.resolve("reptile").options == {"inner_steps": 6}, "no method is named: they are any method's"
