"""A recipe for data of a user's own, made by looking at them."""

import logging
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from multitune import plugins
from multitune.data import conll, separated, tabular
from multitune.data.bad import BadRecords, first_of
from multitune.data.sets import any_hub, hub
from multitune.data.sets.recognised import Table, columns_of
from multitune.data.sets.splits import SPLIT, said_by
from multitune.errors import UserError
from multitune.recipe import Recipe
from multitune.recipe_files import AnyRecipe, RecipeFile, as_file, dumped, merge
from multitune.storage.disk import check_listed, check_readable

log = logging.getLogger(__name__)

SAMPLE = 5000
"""Rows that the columns are recognised by."""
PASSES = 3
"""Passes over the training data, about."""
LARGEST_BUDGET = 200
"""Gradient computations: a first answer takes a minute or two."""
TREEBANK = {"tokens": "form", "pos": "upos"}
PREFIXED = re.compile(r"[BIESLU]-")
"""The beginning of a tag of an entity."""
CHAT_MODEL = "offline:smollm2"
"""For conversations and completions, which no encoder learns."""
BEGIN = 100
"""Bytes of a file that tell what it is."""
VALIDATIONS = 2
"""In such a run: each takes as long as a dozen gradient computations, and the weights at the end are what ships."""
NOT_READ = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV in UTF-8"),
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".7z"), "unpack it, or pack it with gzip"),
    **dict.fromkeys((".ndjson", ".jsonlines"), "call it .jsonl"),
    **dict.fromkeys((".pkl", ".pickle"), "write it as Parquet"),
    ".tab": "call it .tsv",
}
"""Endings of other files with rows -> what to do with them."""
ENDINGS = {",": "call it .csv", ";": "call it .csv"}
"""What separates the columns of a file with another ending -> what to do with it."""
TEXT = "call a file with a token and its tag a line .conll, and one with tabs between columns .tsv"
"""What to do with files whose names do not say what they hold."""
FEW = 8
"""Columns that a warning names."""
WIDTH = 100
"""Characters of a line of comment, at most."""


def recipe_for(recipe: AnyRecipe, overrides: Mapping[str, Any] | None = None) -> RecipeFile:
    """The recipe file that any kind of recipe stands for; of data, the one that ``init`` writes.

    Raises:
        UserError: as ``recipe.read`` and ``init`` do.
    """
    if not isinstance(recipe, str | Path):
        return as_file(recipe)
    if not hub.is_name(_posix(recipe)):
        check_readable(Path(recipe))
    if is_data(recipe):
        return init(recipe, overrides)
    _check_ending(Path(recipe))
    return as_file(recipe)


def way_out(path: Path) -> str | None:
    """What is to be done with a file of rows in a format that is not read; None of any other path."""
    if not path.is_file():
        return None
    if path.suffix.lower() == ".json":  # a recipe may be JSON, an object
        with path.open("rb") as file:
            return "jq -c '.[]' writes its objects as .jsonl" if file.read(BEGIN).lstrip()[:1] == b"[" else None
    return NOT_READ.get(path.suffix.lower())


def _advice(path: Path) -> str | None:
    """What is to be done with a file that may hold rows, so that it can be trained on."""
    return TEXT if path.suffix.lower() in (".txt", ".bio", ".iob", ".iob2") else way_out(path)


def _check_ending(path: Path) -> None:
    """Raise ``UserError`` where a file is a table in a format that is not read."""
    if path.is_file() and (advice := _advice(path)) is not None:
        raise UserError(
            f"{path}: is no recipe, and no table: the name of one ends in {', '.join(tabular.READERS)}; {advice}"
        )


def is_data(path: str | Path) -> bool:
    """Whether this is a table, a folder or a data set of the Hub, and so no recipe.

    Raises:
        UserError: a plugin is broken, which may read tables of its own.
    """
    plugins.load()
    is_file = tabular.suffix_of(Path(path)) in tabular.READERS
    return is_file or hub.is_name(_posix(path)) or Path(path).is_dir()


def _posix(path: str | Path) -> str:
    return path if isinstance(path, str) else path.as_posix()


def init(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RecipeFile:
    """The recipe for a table, a folder of tables, or a data set of the Hub (``hub:owner/name:config``).

    The columns are recognised by name, else by what stands in them; the budget is about three passes over the training
    data, at most 200 gradient computations.

    Args:
        path: of the data.
        overrides: recipe keys to set; ``columns`` may say some of them.

    Raises:
        UserError: no table, or columns that can be read in several ways or in none.
    """
    given = dict(overrides or {})
    name = _posix(path) if hub.is_name(_posix(path)) else None
    files = _files(Path(path)) if name is None else _of_hub(name, given.get("languages"))
    size = given.get("batch_size", Recipe.model_fields["batch_size"].default)
    batch_size = size if isinstance(size, int) and size > 0 else 1  # another one is refused when the recipe is resolved
    enough = math.ceil(LARGEST_BUDGET * batch_size / PASSES / files.share)
    columns, rows = _recognised(files, given.get("columns"), max(enough, SAMPLE))
    share = 1.0 if SPLIT in columns else files.share
    budget = max(1, min(LARGEST_BUDGET, round(PASSES * share * rows / batch_size)))
    spent = given.get("budget", budget)
    keys = {
        "model": CHAT_MODEL if columns.keys() & {"messages", "completion"} else Recipe.model_fields["model"].default,
        **({"data": "folder", "path": str(path)} if name is None else {"data": name}),
        "columns": columns,
        "method": Recipe.model_fields["method"].default,
        "budget": budget,
        "batch_size": Recipe.model_fields["batch_size"].default,
        "learning_rate": Recipe.model_fields["learning_rate"].default,
        "validate_every": max(1, (spent if isinstance(spent, int) else budget) // VALIDATIONS),
    }
    source = str(path) if name is None else "-".join(filter(None, hub.parsed_name(name))).rpartition("/")[2]
    return RecipeFile(run=merge(keys, given), methods={}, source=source)


def text(file: RecipeFile) -> str:
    """A recipe that ``init`` made, with a comment on each key."""
    head = (
        f"Made from {file.source}: columns by their names, else by what stands in them; the budget makes about "
        f"{PASSES} passes over the training data, at most {LARGEST_BUDGET} gradient computations."
    )
    return _comment(head) + "".join(
        f"\n{_comment(' '.join((Recipe.model_fields[key].description or '').split()))}{dumped({key: value})}"
        for key, value in file.run.items()
        if key in Recipe.model_fields
    )


def _comment(words: str) -> str:
    return textwrap.indent(textwrap.fill(words.replace("``", ""), WIDTH), "# ") + "\n"


@dataclass(frozen=True)
class _Files:
    """The tables with training rows.

    Attributes:
        paths: at least one.
        share: how much of them is for training.
        by_file: each is of one language, which its name says.
        by_split: each is of one split, which its name says.
    """

    paths: list[Path]
    share: float
    by_file: bool
    by_split: bool = False


def _files(path: Path) -> _Files:
    """The files of a path, as ``data: folder`` reads them."""
    if not path.exists():
        raise UserError(f"{path}: cannot be read: No such file or directory")
    if not path.is_dir():
        _check_ending(path)
        return _Files([path], 0.8, by_file=False)
    check_listed(path)
    if (path / "recipe.yaml").exists():
        raise UserError(f"{path}: is the folder of a run; its recipe is {path / 'recipe.yaml'}")
    tables = sorted(file for suffix in tabular.suffixes() for file in path.glob(f"[!.]*{suffix}"))
    if not tables:
        if runs := sorted(file.parent for among in ("*", "rung*/*") for file in path.glob(f"{among}/recipe.yaml")):
            raise UserError(f"{path}: is a folder of runs, such as {runs[0]}; name their recipe's file, or runs")
        raise UserError(f"{path}: has no table; the name of one ends in {', '.join(tabular.suffixes())}{_others(path)}")
    whole = [file for file in tables if tabular.stem_of(file) == "train"]
    by_split = [file for file in tables if file.name.startswith("train-")]
    if len(tables) > 1 and (whole or by_split):  # one alone is divided, whatever it is called
        return _Files(whole or by_split, 1.0, by_file=not whole, by_split=True)
    return _Files(tables, 0.8, by_file=len(tables) > 1)


def _others(folder: Path) -> str:
    """What a folder holds instead of tables, and what to do with it."""
    files = sorted(file for file in folder.glob("[!.]*") if file.is_file())
    advice = next((f": {advice}" for file in files if (advice := _advice(file)) is not None), "")
    return f"; it has {first_of([file.name for file in files], FEW)}{advice}" if files else ""


def _of_hub(name: str, languages: object) -> _Files:
    """The training files of a data set of the Hub."""
    given = [str(each) for each in languages] if isinstance(languages, list | tuple) else None
    paths, is_divided, by_file = any_hub.training_files(name, given)
    return _Files(paths, 1.0 if is_divided else 0.8, by_file, by_split=is_divided)


def _recognised(files: _Files, given: object, most: int) -> tuple[dict[str, str], int]:
    """The columns, and how many rows there are (of train, where a column says that), if not more than ``most``."""
    said = {str(field): str(column) for field, column in given.items()} if isinstance(given, dict) else {}
    nameless = [path for path in files.paths if tabular.suffix_of(path) not in tabular.OBJECTS]
    if nameless:
        columns = said or _of_nameless(files.paths, nameless[0])
        bad = BadRecords()
        rows = chain.from_iterable(tabular.rows(path, columns, bad) for path in files.paths)
        return columns, sum(1 for _ in islice(rows, most))
    _check_separated(files.paths[0])
    first = list(islice(_rows([files.paths[0]]), SAMPLE))
    table = Table(str(files.paths[0]), first, files.by_file, files.by_split)
    columns = columns_of(table, said)
    _warn(table, columns, said)
    return columns, sum(1 for _ in islice(_training(_rows(files.paths), columns.get(SPLIT)), most))


def _training(rows: Iterator[Mapping[str, Any]], column: str | None) -> Iterator[Mapping[str, Any]]:
    """The rows that are of train where a column says the split, else all."""
    return rows if column is None else (row for row in rows if said_by(row.get(column)) == "train")


def _warn(table: Table, columns: dict[str, str], said: Mapping[str, str]) -> None:
    """Say what a table has that is not read, and what may not be what it seems."""
    if (split := table.split_column(columns)) is not None:
        log.warning(
            "%s: the column %r is not used; files called train, dev and test are, and columns: {split: %s} where each "
            "row says train, dev or test",
            table.source,
            split,
            split,
        )
    if not said.keys() & {"text", "prompt"} and (unused := table.unused_texts(columns)):
        beside = f"; columns: {{text_pair: {unused[0]}}} reads them beside the first" if "text" in columns else ""
        log.warning("%s: texts in %s are not used%s", table.source, first_of(list(map(repr, unused)), FEW), beside)
    if (name := table.value_as_name(columns)) is not None:
        log.warning(
            "%s: the column %r has a value of that name; a table without a header loses its first row",
            table.source,
            name,
        )


def _check_separated(path: Path) -> None:
    """Raise ``UserError`` where a header of one column has what separates the columns of other files."""
    names = separated.header(path, BadRecords()) if tabular.suffix_of(path) in (".csv", ".tsv") else []
    for mark in (";", "|", ","):
        if len(names) == 1 and mark in names[0]:
            raise UserError(
                f"{path}:1: one column, {names[0]!r}; commas or semicolons separate the columns of a .csv and tabs "
                f"those of a .tsv, not {mark!r}; {ENDINGS.get(mark, 'save it with commas, or as .tsv with tabs')}"
            )


def _of_nameless(paths: Sequence[Path], nameless: Path) -> dict[str, str]:
    """The columns of CoNLL and CoNLL-U files.

    Args:
        paths: of all files.
        nameless: the first one whose format has no names for its columns.

    Raises:
        UserError: not all of them are such.
    """
    suffixes = {tabular.suffix_of(path) for path in paths}
    if suffixes == {".conll"}:
        return _of_conll(paths)
    if suffixes == {".conllu"}:
        return TREEBANK
    if not suffixes <= tabular.READERS.keys():
        raise UserError(f"{nameless}: the name of a table ends in one of {', '.join(tabular.suffixes())}")
    raise UserError(
        f"{nameless}: a file of this format does not say what its columns hold; "
        + (
            "keep the folder to one format"
            if suffixes & {".conll", ".conllu"}
            else "say it, e.g. 'columns={text: review, label: stars}'"
        )
    )


def _of_conll(paths: Sequence[Path]) -> dict[str, str]:
    """The columns of files with a tag a token: entities where a tag of the first sentences has a prefix, as B-PER."""
    token, tag = conll.COLUMNS
    rows = chain.from_iterable(tabular.rows(path, {"tags": tag}, BadRecords()) for path in paths)
    tags = {each for _, row in islice(rows, SAMPLE) for each in row["tags"]}
    return {"tokens": token, "tags" if any(map(PREFIXED.match, tags)) or tags <= {"O"} else "pos": tag}


def _rows(paths: list[Path]) -> Iterator[Mapping[str, Any]]:
    """The good rows of tables; where there is none, what is wrong with the first is told.

    Raises:
        UserError: no good row, or a file cannot be read.
    """
    bad, found = BadRecords(), False
    for path in paths:
        for row in tabular.OBJECTS[tabular.suffix_of(path)](path, bad):
            found = True
            yield row
    if not found:
        bad.refuse()
        raise UserError(f"{paths[0]}: holds no row")
