"""What every data source hands over: labelled records by split and language."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from multitune.data.records.rows import Row
from multitune.errors import UserError

if TYPE_CHECKING:
    from multitune.data.kind import Kind
    from multitune.data.label_spelling import LabelSpelling

Record = Row


class Place(NamedTuple):
    """Where a record stands: its file, and the line (from 1) of each of its labels, or its one line, or none."""

    file: str
    lines: Sequence[int] = ()

    def of(self, label: int = 0) -> str:
        """file:line of one of the record's labels."""
        return f"{self.file}:{self.lines[min(label, len(self.lines) - 1)]}" if self.lines else self.file


Placed = tuple[Place, Record]


class Head(NamedTuple):
    """A kind of task with its labels."""

    task: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """What a recipe asks of a data set.

    Attributes:
        kinds: the kinds of task by name: how records of each are checked, and which fields they have in own files.
        path: the folder with the files.
        languages: to train on; None leaves the choice to the data set, () trains on none.
        unseen: to evaluate beside these; None leaves the choice to the data set.
        columns: field of a record -> column, where the files have columns of a user's own.
        task: the kind of task, where the files alone do not settle it.
        renamed: labels that the recipe takes for others, so that a set with fixed labels may have them.
        test_only: a model is to be scored, so that test records alone are read, and no training file need be there.
        trained: languages whose other splits the model to be scored may have seen, beside ``languages``.
        spelling: what is done to labels before they are checked; None: nothing.
    """

    kinds: Mapping[str, "type[Kind]"]
    path: str | None = None
    languages: Sequence[str] | None = None
    unseen: Sequence[str] | None = None
    columns: Mapping[str, str] | None = None
    task: str | None = None
    renamed: Collection[str] = ()
    test_only: bool = False
    trained: Collection[str] = ()
    spelling: "LabelSpelling | None" = None

    @property
    def trains(self) -> bool:
        """Whether a language is to be trained on, chosen here or by the data set."""
        return self.languages is None or bool(self.languages)

    def trained_on(self, by_default: Sequence[str]) -> tuple[str, ...]:
        """The languages to train on: those that are named, or of the data set's own choice those that are not unseen.

        Raises:
            UserError: all of these are named as unseen, where some are to be trained on.
        """
        if self.languages is not None:
            return tuple(self.languages)
        chosen = tuple(code for code in by_default if code not in (self.unseen or ()))
        if by_default and not chosen and not self.test_only:
            raise UserError(f"unseen: names all languages that there are to train on: {', '.join(by_default)}")
        return chosen


@dataclass(frozen=True)
class Corpus:
    """Records of one task in several languages, some to train on, others met only at the end.

    A source may add keys of its own to records. The order of languages is the order they were asked for; those of
    another set are called ``set:language``.

    Attributes:
        task: the kind of task, a name in ``multitune.tasks.TASKS``; docs/tasks.md has the records of each.
        labels: every label or tag that the data set allows, or else that training shows, sorted; dev and test records
            may have others, which no prediction equals.
        train: training language -> records.
        dev: training language -> records, for choosing the best weights.
        test: language -> records; the training languages come first, then the unseen ones.
        dropped: language -> how many records were left out because the recipe ignores all their labels.
        test_is_dev: the source has no test split of its own, and ``test`` is the whole of dev.
        skipped: language -> how many of its records are bad, and so not here.
        heads: where the "languages" are tasks with heads of their own (GLUE): each one's kind and labels; ``task`` and
            ``labels`` are then those of the first.
    """

    task: str
    labels: tuple[str, ...]
    train: Mapping[str, Sequence[Record]]
    dev: Mapping[str, Sequence[Record]]
    test: Mapping[str, Sequence[Record]]
    dropped: dict[str, int] = field(default_factory=dict)
    test_is_dev: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)

    @property
    def unseen(self) -> list[str]:
        """The languages that are met only at the end."""
        return [language for language in self.test if language not in self.train]

    def head(self, language: str) -> Head:
        """The kind of task and the labels of a language."""
        return self.heads[language] if self.heads else Head(self.task, self.labels)
