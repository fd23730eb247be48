"""What the model of a run says of new texts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from multitune import plugins
from multitune.data.bad import BadRecord
from multitune.data.corpus import Record
from multitune.data.records.stored import stored
from multitune.errors import UserError, unknown
from multitune.evaluation import scoring
from multitune.models import encoder as encoders
from multitune.models.encoder import Encoder
from multitune.models.fetching import fetched
from multitune.recipe import Recipe, read
from multitune.results.json_files import parsed
from multitune.storage.disk import check_readable
from multitune.tasks import TASKS, HeadMap, Task
from multitune.tasks.task import TOGETHER, Example

CONFIG = "config.json"


def predict(
    run: str | Path, texts: Iterable[str | Mapping[str, Any]], *, language: str | None = None
) -> Iterator[dict[str, Any]]:
    """Ask a run's ``model/`` about new texts; no data set is read.

    Args:
        run: a run folder.
        texts: of kinds of task that read one text a string each (words with blanks between, where the kind wants
            words); else mappings with the kind's fields, but for what is to be predicted. Other keys come back as
            they are.
        language: which model or head, where a run has several: a language of ``stl``, a task with a head of its own.

    Returns:
        For each text a dict with its fields, the ``prediction``, and where the kind has some the ``scores``: the
        probability of each label, or of each token's tag.

    Raises:
        UserError: not a run folder with a model, a language that it has none of, a kind of task that predicts nothing
            of a text, or texts that lack a field; before anything is predicted.
        RunError: the model has diverged.
    """
    run = Path(run)
    check_readable(run)
    if not (run / "recipe.yaml").exists() or not (run / "model").exists():
        raise UserError(f"{run}: holds no finished run; predict needs its recipe.yaml and model/")
    recipe = read(run / "recipe.yaml").resolve()
    folder = _model(run / "model", language)
    task = _task(folder, recipe)
    given = [_fields(each, task, f"text {number}") for number, each in enumerate(texts, 1)]
    return _predictions(given, task, folder, recipe)


def parse(content: bytes, source: str) -> list[str | dict[str, Any]]:
    """The texts in a file: lines as they are, or JSON Lines where its first line is a JSON object.

    Raises:
        UserError: naming ``source`` and the line: not UTF-8, a blank line, or one that is no JSON object.
    """
    try:
        lines = content.decode("utf-8-sig").removesuffix("\n").split("\n") if content else []
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise UserError(f"{source}:{number}: not UTF-8: {error.reason}") from error
    placed = [(f"{source}:{number}", line.removesuffix("\r")) for number, line in enumerate(lines, 1)]
    for place, line in placed:
        if not line.strip():
            raise UserError(f"{place}: a blank line; each line is a text, or a JSON object")
    if placed and placed[0][1].lstrip().startswith("{"):
        return [parsed(line.encode(), place) for place, line in placed]
    return [line for _, line in placed]


def _model(folder: Path, language: str | None) -> Path:
    """The folder of the one model, or of that of a language."""
    if (folder / CONFIG).exists():
        if language is not None:
            raise UserError(f"--language: {folder} is one model for all languages; leave it out")
        return folder
    own = sorted(path.name for path in folder.iterdir() if (path / CONFIG).exists())
    if language is None:
        raise UserError(f"--language: {folder} holds a model for each of {', '.join(own)}; name one of them")
    if language not in own:
        raise UserError(f"--language: {unknown('model', language, own)}")
    return folder / language


def _task(folder: Path, recipe: Recipe) -> Task:
    """The kind of task that a model was trained for, with its labels: the recipe's, or what its head says."""
    plugins.load()
    config = fetched(str(folder), AutoConfig.from_pretrained)
    labels = [config.id2label[number] for number in sorted(config.id2label)] if config.id2label else []
    named = [recipe.task] if recipe.task in TASKS else list(TASKS)
    kinds = [name for name in named if TASKS[name].is_of(config, labels)]
    if not kinds or TASKS[kinds[0]].fields is None or not TASKS[kinds[0]].predicted:
        raise UserError(f"{folder}: predict knows no kind of task for it that says something of a text")
    return TASKS[kinds[0]](labels)


def _fields(given: str | Mapping[str, Any], task: Task, place: str) -> dict[str, Any]:
    """A text as a mapping whose fields are checked."""
    assert task.fields is not None
    wanted = [name for name in task.fields.required if name not in task.predicted]
    if isinstance(given, str):
        if len(wanted) > 1:
            raise UserError(f"{place}: this kind of task reads {' and '.join(wanted)}; give objects with these keys")
        given = {wanted[0]: given}
    lacking = [name for name in wanted if name not in given]
    if lacking:
        raise UserError(f"{place}: has no {lacking[0]!r}; this kind of task reads {' and '.join(wanted)}")
    return dict(given)


def _record(given: Mapping[str, Any], task: Task, place: str) -> Record:
    assert task.fields is not None
    known = {name: given[name] for name in task.fields.checks if name in given and name not in task.predicted}
    try:
        return task.unlabelled_record({name: task.fields.checks[name](value, name) for name, value in known.items()})
    except BadRecord as error:
        raise UserError(f"{place}: {error}") from error


def _predictions(
    given: Sequence[dict[str, Any]], task: Task, folder: Path, recipe: Recipe
) -> Iterator[dict[str, Any]]:
    records = [_record(each, task, f"text {number}") for number, each in enumerate(given, 1)]
    encoder = encoders.load(str(folder), HeadMap.of_all(task), layers=None, dropout=None, seed=recipe.seed)
    return _in_batches(given, records, task, encoder, recipe)


def _in_batches(
    given: Sequence[dict[str, Any]], records: Sequence[Record], task: Task, encoder: Encoder, recipe: Recipe
) -> Iterator[dict[str, Any]]:
    for first in range(0, len(records), TOGETHER):
        some = records[first : first + TOGETHER]
        found = _predicted(some, task, encoder, recipe)
        for own, (prediction, scores) in zip(given[first:], found, strict=False):
            yield own | {"prediction": prediction} | ({} if scores is None else {"scores": scores})


def _predicted(
    records: Sequence[Record], task: Task, encoder: Encoder, recipe: Recipe
) -> Iterable[tuple[Any, Any]]:
    """The prediction for each record and its scores."""

    def decode(output: Any, examples: Sequence[Example]) -> list[Any]:
        return list(zip(task.decode(output, examples), task.confidence(output, examples), strict=True))

    examples = stored(task.encode(records, encoder.tokenizer, encoder.room_for(recipe.max_length)))
    both = scoring.predict(
        encoder, task, encoder.numbered(0), examples, task.sizes(examples), recipe.precision, _go_on, decode
    )
    decoded, scores = zip(*both, strict=True)
    predictions = task.join(records, examples, decoded, encoder.tokenizer)
    return zip(predictions, scores if len(scores) == len(records) else [None] * len(records), strict=True)


def _go_on() -> None:
    """Nothing stops a prediction between two batches."""
