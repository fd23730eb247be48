"""What data sets know of a kind of task: the fields of its records, what holds their labels, what their text is."""

from collections.abc import Mapping
from typing import Any, ClassVar

from multitune.data.corpus import Record
from multitune.data.fields import Fields

Text = str | list[str]
"""A text, or the list of its words."""

TEMPLATE = "template"
"""The key of a record that says which template it was made from."""
IGNORE = "ignore"
"""What a recipe's ``labels`` says of a label that is neither learnt nor scored; records then have None in its place."""


class Kind:
    """A kind of task as far as it can be told without a model. ``multitune.tasks.Task`` adds what a model needs.

    The defaults are those of records ``{"text": str}``, with ``"text_pair": str`` where there are two texts.
    """

    fields: ClassVar[Fields | None] = None
    """What a record has in a user's own files (``data: folder``); None where such files cannot hold it."""
    label_field: ClassVar[str | None] = None
    """What holds a record's label, or the list of its labels; None where it has none."""
    tokenised: ClassVar[bool] = True
    """Records are plain JSON values that a tokenizer reads; examples are numbers and lists of whole numbers,
    ``input_ids`` among them, that take time to make."""
    split_into_words: ClassVar[bool] = False
    """Texts are lists of words, before each of which a blank is meant."""
    unlabelled: ClassVar[bool] = False
    """Records are texts alone, so that the texts of any data set will do."""
    can_divide: ClassVar[bool] = True
    """Training records can be divided into pseudo-tasks: the model is an encoder of their texts."""
    can_replay: ClassVar[bool] = True
    """Language modelling can be replayed beside it: the model is an encoder of text, or a causal language model."""

    @classmethod
    def labels_of(cls, record: Record) -> list[str]:
        """All labels of a record that are not ignored: one, one a token, or none."""
        labels = [] if cls.label_field is None else record[cls.label_field]
        return [label for label in (labels if isinstance(labels, list) else [labels]) if label is not None]

    @classmethod
    def is_answered(cls, record: Record) -> bool:
        """Whether a record has what a prediction is to be compared with; not so of a question without an answer."""
        return True

    @classmethod
    def name_of(cls, label: str) -> str:
        """What a recipe's ``labels`` calls a label: of an entity its type; "" where it may not name it."""
        return label

    @classmethod
    def renamed(cls, label: str, names: Mapping[str, str]) -> str | None:
        """The label that ``names`` gives in place of one, by ``name_of``; None where it is ignored."""
        new = names.get(label, label)
        return None if new == IGNORE and label in names else new

    @classmethod
    def relabelled(cls, record: Record, names: Mapping[str, str]) -> Record:
        """The record with some labels taken for others, and None for those that are ignored."""
        assert cls.label_field is not None
        own = record[cls.label_field]
        many = [label and cls.renamed(label, names) for label in (own if isinstance(own, list) else [own])]
        return record | {cls.label_field: many if isinstance(own, list) else many[0]}

    @classmethod
    def completed(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The labels and those that follow from them, sorted; by default the labels as they are."""
        return labels

    @classmethod
    def texts(cls, record: Record) -> tuple[Text, ...]:
        """What the tokenizer reads of a record: one text or two; empty where a record is not of text."""
        pair = record.get("text_pair")
        return (record["text"],) if pair is None else (record["text"], pair)

    @classmethod
    def plain_text(cls, record: Record) -> str:
        """The text of a record for masked language modelling."""
        return " ".join(map(joined_words, cls.texts(record)))

    @classmethod
    def content(cls, record: Record) -> Any:
        """The text or array by which a file that holds all splits is divided: equal ones come into one split."""
        return cls.texts(record)[0]

    @classmethod
    def origin(cls, record: Record) -> Any:
        """What a test record shares with those that it is not independent of, which intervals count as one draw.

        By default the id of its template, where its source says one, else its ``content``: questions on one passage,
        hypotheses on one premise. None stands for a record that depends on no other; so do all that are no plain
        JSON values, for predictions are kept without their images.
        """
        return (record.get(TEMPLATE) or cls.content(record)) if cls.tokenised else None


def readable(texts: tuple[Text, ...]) -> str:
    """Texts for a reader, a bar between two."""
    return " | ".join(map(joined_words, texts))


def joined_words(text: Text) -> str:
    """A text, its words with blanks between."""
    return text if isinstance(text, str) else " ".join(text)
