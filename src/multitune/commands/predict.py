"""What the model of a run says of new texts."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from multitune import plugins
from multitune.commands.init import way_out
from multitune.data import lines, tabular
from multitune.data.bad import BadRecord
from multitune.data.corpus import Record
from multitune.data.fields import Check, text
from multitune.data.in_memory import plain
from multitune.data.records.stored import stored
from multitune.errors import UserError, unknown
from multitune.evaluation import scoring
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.models.shipped import shipped
from multitune.recipe import Recipe
from multitune.recipe_files import read
from multitune.results.json_files import parsed
from multitune.results.predictions import FILE, read_predictions
from multitune.storage.disk import check_readable
from multitune.tasks import HeadMap, Task
from multitune.tasks.task import TOGETHER, Example

SAID = ("prediction", "scores")
"""What is said of a text, beside what was given."""
JSON_LINES = (".ndjson", ".jsonlines")
"""What else JSON Lines are called: whatever a file is called, its first line tells of them."""
WORDS_A_LINE = (".conll", ".conllu")
"""Files of sentences, of which no line is a text."""
OPTIONAL = ("target_language",)
"""What a record of some kinds may say that no file's column is."""
READ = ("text_pair", "target_language")
"""What a model reads of every record if it reads it of one, although records of its kind may lack it."""

Learnt = Mapping[str, Sequence[str]]
"""Field in ``READ`` that a model's records have -> the languages that they name; nothing of a text."""


def predict(
    run: str | Path, texts: Iterable[str | Mapping[str, Any]], *, language: str | None = None, source: str | None = None
) -> Iterator[dict[str, Any]]:
    """Ask a run's ``model/`` about new texts; no data set is read.

    Args:
        run: a run folder.
        texts: of kinds of task that read one text a string each (words with blanks between, where the kind wants
            words); else mappings with the kind's fields, but for what is to be predicted, or with the columns that
            the recipe names for them. Other keys come back as they are.
        source: the file that they are the lines or rows of, which messages name.
        language: which model or head, where a run has several: a language of ``stl``, a task with a head of its own.

    Returns:
        For each text a dict with its fields, the ``prediction``, and where the kind has some the ``scores``: the
        probability of each label, or of each token's tag.

    Raises:
        UserError: not a run folder with a model, a language that it has none of, a kind of task that predicts nothing
            of a text, or texts that lack a field or have a ``prediction`` or ``scores``; before anything is predicted.
        RunError: the model has diverged.
    """
    run = Path(run)
    check_readable(run)
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"{run}: holds no finished run; predict needs its recipe.yaml and model/")
    recipe = read(run / "recipe.yaml").resolve()
    folder, task = _model(run / "model", language)

    before = "text " if source is None else f"{source}: row " if _is_table(Path(source)) else f"{source}:"

    def place(number: int) -> str:
        return f"{before}{number}"

    columns = recipe.columns or {}
    given = [_as_mapping(each, task, columns, place(number)) for number, each in enumerate(texts, 1)]
    for number, each in enumerate(given, 1):
        if own := [name for name in SAID if name in each]:
            raise UserError(f"{place(number)}: has {own[0]!r}, which the model's would replace; give it another name")
    learnt = _learnt(run, task, language)
    records = [_record(each, task, columns, learnt, place(number)) for number, each in enumerate(given, 1)]
    for number, record in enumerate(records, 1):
        if record.keys() != records[0].keys():
            raise UserError(f"{place(number)}: has other fields than the first: {', '.join(record)}")
    return _predictions(given, records, task, folder, recipe)


def read_texts(file: Path) -> list[str | dict[str, Any]]:
    """The texts in a file, or for ``-`` those on standard input: lines as they are, JSON Lines, or rows of a table.

    They are JSON Lines where the first line is a JSON object, and rows where the name ends as that of a CSV, TSV,
    Parquet or Arrow file.

    Raises:
        UserError: it cannot be read; or naming the line: too long, not UTF-8, blank, or no JSON object; a bad row.
    """
    if _is_table(file):
        rows = tabular.OBJECTS[tabular.suffix_of(file)](file, None)
        return [plain(dict(row), f"{file}: row {number}") for number, row in enumerate(rows, 1)]
    if tabular.suffix_of(file) in WORDS_A_LINE:
        raise UserError(f"{file}: has a word a line; predict reads a sentence a line, its words with blanks between")
    if (advice := way_out(file)) is not None and file.suffix.lower() not in JSON_LINES:
        raise UserError(f"{file}: holds neither lines of text nor a table that is read; {advice}")
    if str(file) == "-":
        return _texts(lines.numbered_in(sys.stdin.buffer, "standard input"), "standard input")
    return _texts(lines.numbered(file), str(file))


def _is_table(file: Path) -> bool:
    """Whether this is a file of rows with columns, not of lines."""
    return tabular.suffix_of(file) in tabular.OBJECTS.keys() - {".jsonl"}


def _texts(numbered: Iterable[tuple[int, str]], source: str) -> list[str | dict[str, Any]]:
    placed = [(f"{source}:{number}", line) for number, line in numbered]
    for place, line in placed:
        if not line.strip():
            raise UserError(f"{place}: a blank line; each line is a text, or a JSON object")
    if placed and placed[0][1].lstrip().startswith("{"):
        return [parsed(line.encode(), place) for place, line in placed]
    return [line for _, line in placed]


def _model(folder: Path, language: str | None) -> tuple[Path, Task]:
    """The folder of the one model, or of that of a language, and its kind of task.

    Raises:
        UserError: no such model, or one that says nothing of a text.
    """
    plugins.load()
    models = shipped(folder)
    if "" in models and language is not None:
        raise UserError(f"--language: {folder} is one model for all languages; leave it out")
    if "" not in models and language is None:
        raise UserError(f"--language: {folder} holds a model for each of {', '.join(models)}; name one of them")
    if language is not None and language not in models:
        raise UserError(f"--language: {unknown('model', language, models)}")
    task = models[language or ""]
    if not task.predicted or task.fields is None:
        raise UserError(f"{folder}: its kind of task says nothing of new texts, so that predict has nothing to do")
    return folder / (language or ""), task


def _as_mapping(given: str | Mapping[str, Any], task: Task, columns: Mapping[str, str], place: str) -> dict[str, Any]:
    """A text under the name of the one field of a new record, if there is one; a mapping as it is.

    Of records with other fields, it is one of those that the recipe has columns for.
    """
    assert task.fields is not None
    lists = task.fields.lists(task.predicted)
    if not isinstance(given, str):
        return dict(given)
    names = next((each for each in lists if each[0] in columns), lists[0])
    if len(names) > 1:
        raise UserError(f"{place}: has no {names[0]!r}; {_wanted(lists)}")
    return {names[0]: task.from_text(given) if names is lists[0] else given}


def _wanted(lists: Sequence[Sequence[str]]) -> str:
    return f"each is a JSON object with {' or '.join(' and '.join(names) for names in lists)}, or such a row of a table"


def _learnt(run: Path, task: Task, language: str | None) -> Learnt:
    """What the model reads of records beside what it must, from the run's test records; nothing where it has none.

    Raises:
        UserError: these are damaged.
    """
    assert task.fields is not None
    fields = [name for name in READ if name in task.fields.optional]
    if not fields or not (run / FILE).exists():
        return {}
    records = (row.record for row in read_predictions(run) if language in (None, row.language))
    if "target_language" not in fields:
        return {name: () for record in islice(records, 1) for name in fields if name in record}
    named = sorted({record["target_language"] for record in records if "target_language" in record})
    return {"target_language": named} if named else {}


def _completed(record: Record, learnt: Learnt, place: str) -> Record:
    """The record with the one language that the model translates into.

    Raises:
        UserError: it lacks what the model reads of every record.
    """
    for name, values in learnt.items():
        if name not in record and len(values) != 1:
            into = (
                f"; the model translates into {', '.join(values)}" if values else ", which the model was trained with"
            )
            raise UserError(f"{place}: has no {name!r}{into}")
    return {name: values[0] for name, values in learnt.items() if values} | record


def _record(row: Mapping[str, Any], task: Task, columns: Mapping[str, str], learnt: Learnt, place: str) -> Record:
    """The record that a task makes of a mapping with its fields, or with the columns that a recipe has for them.

    Raises:
        UserError: a field is missing, or not as it should be.
    """
    assert task.fields is not None
    given = {**row, **{field: row[column] for field, column in columns.items() if column in row}}
    lists = task.fields.lists(task.predicted)
    names = next((each for each in lists if given.keys() >= {*each}), None)
    if names is None:
        lacking = next(name for name in lists[0] if name not in given)
        column = f" (the recipe's column {columns[lacking]!r})" if columns.get(lacking, lacking) != lacking else ""
        raise UserError(f"{place}: has no {lacking!r}{column}; {_wanted(lists)}")
    checks: dict[str, Check] = dict.fromkeys(OPTIONAL, text)
    allowed = {*names, *(() if task.fields.shapes else task.fields.optional)} - {*task.predicted}
    checks |= {name: check for name, check in task.fields.checks.items() if name in allowed}
    try:
        known = {name: check(given[name], name) for name, check in checks.items() if name in given}
        record = {task.fields.renamed.get(name, name): value for name, value in known.items()}
        return task.stand_in(_completed(record, learnt, place))
    except BadRecord as error:
        raise UserError(f"{place}: {error}") from error


def _predictions(
    given: Sequence[dict[str, Any]], records: Sequence[Record], task: Task, folder: Path, recipe: Recipe
) -> Iterator[dict[str, Any]]:
    encoder = encoders.load(str(folder), HeadMap.of_all(task), layers=None, dropout=None, seed=recipe.seed)
    for first in range(0, len(records), TOGETHER):
        predicted = _predicted(records[first : first + TOGETHER], task, encoder, recipe)
        for own, (prediction, scores) in zip(given[first : first + TOGETHER], predicted, strict=True):
            yield own | {"prediction": prediction} | ({} if scores is None else {"scores": scores})


def _predicted(records: Sequence[Record], task: Task, encoder: Encoder, recipe: Recipe) -> list[tuple[Any, Any]]:
    """The prediction for each record, and how sure the model is."""

    def decode(output: Any, examples: Sequence[Example]) -> list[tuple[Any, Any]]:
        return list(zip(task.decode(output, examples), task.confidence(output, examples), strict=True))

    examples = stored(task.encode(records, encoder.tokenizer, encoder.room_for(recipe.max_length)))
    sizes, model = task.sizes(examples), encoder.numbered(0)
    both = scoring.predict(encoder, task, model, examples, sizes, recipe.precision, _go_on, decode)
    decoded, scores = zip(*both, strict=True)
    predictions = list(map(task.of_new, task.join(records, examples, decoded, encoder.tokenizer)))
    return list(zip(predictions, scores if len(examples) == len(records) else [None] * len(records), strict=True))


def _go_on() -> None:
    """Nothing stops a prediction between two batches."""
