"""What the columns of a user's own table hold, by their names, else by what stands in them."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any

from multitune.data.chat import COMPLETION, MESSAGES
from multitune.data.fields import ENTITIES, PARTS_OF_SPEECH, QUESTION, RANKED_TEXT, SEPARATOR, TRANSLATION, Fields
from multitune.data.languages import is_language
from multitune.data.sets import splits
from multitune.data.sets.by_language import LANGUAGE, USUAL_NAMES
from multitune.data.sets.splits import SPLIT
from multitune.errors import UserError
from multitune.recipe_files import dumped

Columns = dict[str, str]
"""Field of a record -> column, as a recipe has them."""

NAMES: dict[str, tuple[str, ...]] = {
    LANGUAGE: USUAL_NAMES,
    "text": (
        *("sentence", "review", "content", "comment", "body", "utterance", "tweet", "message", "document"),
        *("premise", "sentence1", "sentence_1", "question1", "text1", "query", "anchor"),
        *("sentence_a", "sent_a", "sent1", "text_a", "text_1"),
    ),
    "positive": ("positive_passage", "relevant_passage"),
    "text_pair": (
        *("hypothesis", "sentence2", "sentence_2", "question2", "text2"),
        *("sentence_b", "sent_b", "sent2", "text_b", "text_2"),
    ),
    "label": (
        *("labels", "class", "category", "sentiment", "intent", "stars", "rating", "topic", "genre", "emotion"),
        "gold_label",
    ),
    "score": ("similarity", "similarity_score"),
    "tokens": ("words",),
    "tags": ("ner_tags", "ner"),
    "pos": ("upos", "pos_tags"),
    "source": ("src",),
    "target": ("tgt",),
    "target_language": ("target_lang", "tgt_lang"),
    "source_language": ("source_lang", "src_lang"),
    "context": ("passage",),
    "question": (),
    "answers": (),
    "id": (),
    "messages": ("conversation", "conversations"),
    "prompt": ("instruction",),
    "completion": ("response",),
}
"""Field -> what its column is also called; one that is called as the field comes first."""
LOOKS = {"answers": '{"text": [...], "answer_start": [...]}', "tags": "one a token"}
"""Field -> its values in words, where a reader may have others."""
LABELS = ("label", "labels", "score")
"""Fields, one of which goes with a text or two."""
NO_LABELS = ("id", "idx", "index", "unnamed:_0", "level_0", "__index_level_0__", "split", "fold", "")
"""Columns that have few values, or one a row, and are no labels; pandas calls its index by four of the names."""
SPLIT_NAMES = {*splits.VALUES, "testing", "eval"}
"""What stands in a column that says to which split a row belongs, also where ``columns:`` does not read it."""
ANSWERS = {"no", "si"}
"""Codes of Norwegian and Sinhala that, alone in a column, say yes and no in Spanish."""
MOST_LABELS = 100
"""Different values of a column that is taken for labels."""
LONGEST_LABEL = 60
"""Characters on average."""
ALIKE = 0.8
"""Share of the longest column's length from which on another may be the text just as well."""


@dataclass(frozen=True)
class Table:
    """Rows of a table as an example of all.

    Attributes:
        source: its file, for messages.
        rows: column -> value of each.
        by_file: the name of the file says the language, so that no column need.
        by_split: the name of the file says the split, likewise.
    """

    source: str
    rows: Sequence[Mapping[str, Any]]
    by_file: bool = False
    by_split: bool = False

    @cached_property
    def names(self) -> list[str]:
        """The columns that a row has; whoever reads one names the rows that lack it."""
        return list(dict.fromkeys(chain.from_iterable(self.rows)))

    def values(self, name: str) -> list[Any]:
        """The values of a column that are not empty."""
        return [value for row in self.rows if (value := row.get(name)) not in (None, "")]

    def unused_texts(self, columns: Columns) -> list[str]:
        """The columns of prose that are not among those that are read as one text, or as a prompt."""
        if not columns.keys() & {"text", "prompt"} or "text_pair" in columns:
            return []
        return _with_prose(self, [name for name in self.names if name not in columns.values()])

    def value_as_name(self, columns: Columns) -> str | None:
        """A column of labels or languages that is called like one of its values: the first row may be no header."""
        named = (columns[field] for field in (LANGUAGE, *LABELS) if field in columns)
        return next((name for name in named if name in self.values(name)), None)

    def splits(self, given: Mapping[str, str]) -> Columns:
        """The column that says the split of each row, by its name and all of its values; none where it is unclear."""
        free = (name for name in self.names if name not in given.values() and _plain(name) in splits.USUAL_NAMES)
        said = [name for name in free if all(splits.said_by(row.get(name)) for row in self.rows)]
        return {SPLIT: said[0]} if len(said) == 1 and not self.by_split else {}

    def split_column(self, columns: Columns) -> str | None:
        """A column of the names of splits that is not among those that are read."""
        free = (name for name in self.names if name not in columns.values())
        return next((name for name in free if _plain(name) == "split" or _are_splits(self.values(name))), None)


def columns_of(table: Table, given: Mapping[str, str]) -> Columns:
    """Field -> column, as far as one can tell.

    Args:
        table: some of its rows.
        given: what the user says of some fields.

    Raises:
        UserError: the table can be read in several ways, or in none.
    """
    said = {SPLIT: given[SPLIT]} if SPLIT in given else table.splits(given)
    others = {field: column for field, column in given.items() if field != SPLIT}
    ways = [way | said for way in _ways(table, others, said.values())]
    if len(ways) == 1:
        return ways[0]
    has = ", ".join(table.names) or "none"
    if not ways:
        if (almost := _almost(table.names)) is not None:
            raise UserError(f"{table.source}: {almost} (columns: {has})")
        raise UserError(
            f"{table.source}: which columns are text and label is not to be told (columns: {has}); say it, e.g. "
            f"{_written({'text': _first(table.names), 'label': _first(table.names[1:])})}"
        )
    both = " or ".join(map(_written, ways[:2]))
    more = f" (or {len(ways) - 2} more)" if len(ways) > 2 else ""
    raise UserError(f"{table.source}: the columns can be read in {len(ways)} ways; add {both}{more}")


def _almost(names: Sequence[str]) -> str | None:
    """What lacks of a kind of task all of whose other columns are there by name."""
    for fields in (QUESTION, TRANSLATION, ENTITIES):
        there = {field: _first(_called(field, names)) for field in fields.required if _called(field, names)}
        lacking = [field for field in fields.required if field not in there]
        if there and len(lacking) == 1:
            say = _written(there | {lacking[0]: "COLUMN"})
            looks = f", which are {LOOKS[lacking[0]]}" if lacking[0] in LOOKS else ""
            return f"has {' and '.join(there.values())}, but no {lacking[0]}{looks}; if a column holds them, say {say}"
    return None


def _first(names: Sequence[str]) -> str:
    return names[0] if names else "COLUMN"


def _written(columns: Columns) -> str:
    """The columns as an override on the command line, quoted for a shell."""
    keys = " ".join(dumped({"columns": columns}).removeprefix("columns: ").split())
    return shlex.quote(f"columns={keys}")


def _ways(table: Table, given: Mapping[str, str], apart: Collection[str]) -> Iterator[Columns]:
    """Every way to read the table without some columns that are ``apart``; what ``given`` says is so in each.

    What other kinds of task have by name goes before texts and labels, unless these have names, too.
    """
    free = [name for name in table.names if name not in (*given.values(), *apart)]
    for spoken in [{LANGUAGE: given[LANGUAGE]}] if LANGUAGE in given else _languages(table, free):
        rest = [name for name in free if name not in spoken.values()]
        fixed = {field: column for field, column in given.items() if field != LANGUAGE}
        others = list(_of_other_kinds(rest, fixed))
        is_labelled = _called("text", rest) and (_called("label", rest) or _called("score", rest))
        for way in (*others, *(_texts(table, rest, fixed) if is_labelled or not others else ())):
            yield spoken | way
            if way.keys() == {"text"} and LANGUAGE not in given:
                yield from (way | {"label": name} for name in spoken.values() if _may_be_label(table, name))


def _languages(table: Table, free: Sequence[str]) -> list[Columns]:
    """The columns that may say the language of each row; one without any where there is none."""
    if table.by_file:
        return [{}]
    other = {name for field in NAMES if field != LANGUAGE for name in _called(field, free)}
    by_content = (name for name in free if name not in other and _are_codes(table.values(name)))
    return [{LANGUAGE: name} for name in _called(LANGUAGE, free) or by_content] or [{}]


def _are_codes(values: Sequence[Any]) -> bool:
    """Whether these are the codes of at least two languages."""
    spelt = {value for value in values if isinstance(value, str)}
    return (
        len(spelt) > 1
        and len(spelt) < len(values) == sum(isinstance(value, str) for value in values)
        and all(map(is_language, spelt))
        and not {value.strip().lower() for value in spelt} <= ANSWERS
    )


def _are_splits(values: Sequence[Any]) -> bool:
    """Whether these are the names of at least two splits."""
    spelt = {value.strip().lower() if isinstance(value, str) else "" for value in values}
    return len(spelt) > 1 and spelt <= SPLIT_NAMES


def _of_other_kinds(free: Sequence[str], given: Columns) -> Iterator[Columns]:
    """Readings as kinds of task other than one text or two with a label; all of their columns are known by name."""
    for fields in (QUESTION, TRANSLATION, RANKED_TEXT, ENTITIES, PARTS_OF_SPEECH, MESSAGES, COMPLETION):
        if given.keys() <= fields.checks.keys():
            yield from _by_name(fields, free, given)


def _by_name(fields: Fields, free: Sequence[str], given: Columns) -> Iterator[Columns]:
    options = [[given[field]] if field in given else _called(field, free) for field in fields.required]
    further = {
        field: given.get(field) or _first(_called(field, free)) for field in fields.optional if _called(field, free)
    }
    for chosen in product(*options):
        yield dict(zip(fields.required, chosen, strict=True)) | further | given


def _texts(table: Table, free: Sequence[str], given: Columns) -> Iterator[Columns]:
    """Readings as one text or two with a label or a score, or as texts alone."""
    if not given.keys() <= {"text", "text_pair", *LABELS}:
        return
    pairs = [] if "text_pair" in given else _called("text_pair", free)[:1]
    named = [] if "text" in given else _called("text", free)
    labels = _labels(table, [name for name in free if name not in (*named, *pairs)], given)
    rest = [name for name in free if name not in (*labels, *pairs)]
    texts = [given["text"]] if "text" in given else named or _longest(table, rest)
    pair = {"text_pair": pairs[0]} if pairs else {}
    for text, (label, field) in product(texts, labels.items()):
        yield {"text": text, **pair, field: label} | given
    if not labels and len(texts) == 1 and not set(rest) - set(texts):
        yield {"text": texts[0]} | given


def _labels(table: Table, free: Sequence[str], given: Columns) -> dict[str, str]:
    """The columns that may be label, labels or score -> which of these."""
    said: dict[str, str] = {given[field]: field for field in LABELS if field in given}
    by_name: dict[str, str] = {
        name: "labels" if field == "label" and _are_lists(table.values(name)) else field
        for field in ("label", "score")
        for name in _called(field, free)
    }
    others = ((name, table.values(name)) for name in free if _plain(name) not in NO_LABELS)
    by_content = ((name, _kind_of_label(values)) for name, values in others if not _are_splits(values))
    return said or by_name or {name: field for name, field in by_content if field is not None}


def _may_be_label(table: Table, language: str) -> bool:
    """Whether what was taken for codes of languages by its look alone may be labels just as well."""
    return not _called(LANGUAGE, [language]) and _kind_of_label(table.values(language)) == "label"


def _kind_of_label(values: Sequence[Any]) -> str | None:
    """``label`` or ``labels`` where these values may be that: few different ones, and short."""
    if _are_lists(values) and _are_few([part for value in values for part in _parts(value)], len(values)):
        return "labels"
    return "label" if _are_few(values, len(values)) else None


def _are_lists(values: Sequence[Any]) -> bool:
    """Whether these are lists of labels, or texts with what stands between the labels of a record."""
    are_texts = all(isinstance(value, str) for value in values) and any(SEPARATOR in value for value in values)
    return bool(values) and (are_texts or all(isinstance(value, list) for value in values))


def _parts(value: Any) -> list[Any]:
    return [part.strip() for part in value.split(SEPARATOR)] if isinstance(value, str) else value


def _are_few(values: Sequence[Any], rows: int) -> bool:
    if not all(isinstance(value, str | int) for value in values):
        return False
    spelt = {str(value) for value in values}
    short = sum(map(len, spelt)) <= LONGEST_LABEL * len(spelt)
    return short and 2 <= len(spelt) <= max(2, min(MOST_LABELS, rows // 4))


def _longest(table: Table, free: Sequence[str]) -> list[str]:
    """The column with the longest texts, and those about as long; keys, addresses, dates if all are such."""
    columns = _with_prose(table, free) or [name for name in free if _are_texts(table.values(name))]
    lengths = {name: sum(map(len, table.values(name))) / len(table.values(name)) for name in columns}
    longest = max(lengths.values(), default=0.0)
    return [name for name, length in lengths.items() if length >= ALIKE * longest]


def _with_prose(table: Table, free: Sequence[str]) -> list[str]:
    """The columns half of whose values are prose, at least."""
    texts = ((name, values) for name in free if _are_texts(values := table.values(name)))
    return [name for name, values in texts if 2 * sum(map(_is_prose, values)) >= len(values)]


def _are_texts(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _is_prose(value: str) -> bool:
    """Whether this may be of a language: two words with letters, or a letter beyond ASCII; no address."""
    words = [word for word in value.split() if "://" not in word and any(map(str.isalpha, word))]
    return len(words) > 1 or any(not word.isascii() for word in words)


def _called(field: str, free: Sequence[str]) -> list[str]:
    """The columns that are called like a field, or else as its columns often are."""
    exact = [name for name in free if _plain(name) == field]
    return exact or [name for name in free if _plain(name) in NAMES[field]]


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
