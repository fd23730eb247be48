"""The data sets that are read from files, each as a table of its files' names and how they are read.

Which split is trained on, which chooses the best weights and which is reported follow the papers; docs/data.md says so
for each set.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from multitune.data import conll, pairs, parallel, separated, squad
from multitune.data.bad import BadRecords, parsed
from multitune.data.corpus import Place, Placed, Record
from multitune.data.fields import LABELLED_TEXT, SCORED_TEXT, Fields
from multitune.data.sets.folders import Layout, Part, Reader

TRAIN, DEV, TEST = Part(("train-{}.tsv",)), Part(("dev-{}.tsv",)), Part(("test-{}.tsv",))
"""XTREME's names."""

SENTENCES: dict[str, str | int] = {"text": "sentence1", "text_pair": "sentence2"}


def _one(read: Callable[[Path, BadRecords], Iterator[Placed]]) -> Reader:
    return lambda paths, code, bad: read(paths[0], bad)


def _iob2(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    return conll.unprefixed(conll.placed(paths[0], bad, strict=True), code)


def _any_tags(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    return conll.lenient(conll.unprefixed(conll.placed(paths[0], bad), code))


def _unchecked_tags(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    return conll.unprefixed(conll.unchecked(paths[0], bad), code)


def _treebanks(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    """A language may have several."""
    return chain.from_iterable(conll.placed(path, bad) for path in paths)


def _pairs(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    return pairs.placed(paths[0], bad, labels=paths[1] if len(paths) > 1 else None)


def _captions(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    """Multi30k's: one model translates into several languages, so each record says which."""
    placed = parallel.placed(paths[0], paths[1], bad)
    return ((place, record | {"target_language": code}) for place, record in placed)


def _mlqa(paths: Sequence[Path], code: str, bad: BadRecords) -> Iterator[Placed]:
    return with_mlqa_language(squad.placed(paths[0], bad), code)


def with_mlqa_language(placed: Iterator[Placed], code: str) -> Iterator[Placed]:
    """MLQA's scores depend on the language of the answers: the context's, in ``context`` or ``context-question``."""
    return ((place, record | {"mlqa_language": code.partition("-")[0]}) for place, record in placed)


def _table(fields: Fields, columns: Mapping[str, str | int], *, quoted: bool = False) -> Reader:
    return lambda paths, code, bad: parsed(separated.rows(paths[0], columns, bad, quoted=quoted), fields.record, bad)


# PAN-X: the papers report dev.
PANX = (Layout("panx", "tagging", _iob2, TRAIN, DEV, read_unseen=_any_tags, read_any_tags=_unchecked_tags),)

UPOS_TAGS = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"
UDPOS_NAMES = ("{}-{{}}.tsv", "{}-{{}}.conllu", "{{}}_*-ud-{}.conllu")
"""XTREME's, ours, and those that treebanks are published under: es_ancora-ud-train.conllu."""
UDPOS = tuple(
    Layout(
        "udpos",
        "pos_tagging",
        _treebanks,
        train=Part((name.format("train"),)),
        dev=Part((name.format("dev"),)),
        test=Part((name.format("test"),)),
        labels=tuple(UPOS_TAGS.split()),
    )
    for name in UDPOS_NAMES
)

TYDIQA_LANGUAGES = {
    "arabic": "ar",
    "bengali": "bn",
    "english": "en",
    "finnish": "fi",
    "indonesian": "id",
    "korean": "ko",
    "russian": "ru",
    "swahili": "sw",
    "telugu": "te",
}
TYDIQA = (
    Layout(
        "tydiqa",
        "question_answering",
        _one(squad.placed),
        Part(("{}_tydiqa_train.json",)),
        Part(("{}_tydiqa_dev.json",)),
        codes=TYDIQA_LANGUAGES,
    ),
)

SQUAD = tuple(
    Layout(
        "squad",
        "question_answering",
        _one(squad.placed),
        Part((f"train-{version}.json",)),
        Part((f"dev-{version}.json",)),
        codes={"": "en"},
    )
    for version in ("v1.1", "v2.0")
)
XQUAD = (Layout("xquad", "question_answering", _one(squad.placed), test=Part(("xquad.{}.json",))),)

MLQA_LANGUAGES = ("ar", "de", "en", "es", "hi", "vi", "zh")
MLQA_PAIRS = {
    f"{context}-question-{question}": context if context == question else f"{context}-{question}"
    for context in MLQA_LANGUAGES
    for question in MLQA_LANGUAGES
}
MLQA = (
    Layout(
        "mlqa",
        "question_answering",
        _mlqa,
        dev=Part(("dev-context-{}.json",)),
        codes=MLQA_PAIRS,
        by_name=[pair for pair in MLQA_PAIRS.values() if "-" in pair],
    ),
)


def _validates(place: Place, record: Record) -> bool:
    """Every tenth premise of XNLI's dev files: it has three hypotheses on three lines, the same in all languages."""
    return (place.lines[0] - 1) // 3 % 10 == 9


INFERENCES = ("contradiction", "entailment", "neutral")
"""The labels of XNLI and MNLI."""

# XNLI's training data are MultiNLI, English; without them dev, which is labelled, is trained on, and validates.
XNLI_TESTS = (Part(("test-{}.tsv", "test.labels.txt")), TEST)
XNLI_DEV = DEV.names
XNLI = (
    *(Layout("xnli", "classification", _pairs, TRAIN, DEV, test, labels=INFERENCES) for test in XNLI_TESTS),
    *(
        Layout(
            "xnli",
            "classification",
            _pairs,
            Part(XNLI_DEV, keep=lambda place, record: not _validates(place, record)),
            Part(XNLI_DEV, keep=_validates),
            test,
            trained=("en",),
            labels=INFERENCES,
        )
        for test in XNLI_TESTS
    ),
)

BINARY = ("0", "1")
PAWSX = (
    Layout("pawsx", "classification", _pairs, TRAIN, DEV, TEST, labels=BINARY),
    Layout(
        "pawsx",
        "classification",
        _table(LABELLED_TEXT, SENTENCES | {"label": "label"}),
        Part(("{}/train.tsv",)),
        Part(("{}/dev_2k.tsv",)),
        Part(("{}/test_2k.tsv",)),
        labels=BINARY,
    ),
)

# The texts of SIB-200, unlike those of the other sets, are quoted: "…""…".
SIB200 = (
    Layout(
        "sib200",
        "classification",
        _table(LABELLED_TEXT, {"text": "text", "label": "category"}, quoted=True),
        Part(("{}/train.tsv",)),
        Part(("{}/dev.tsv",)),
        Part(("{}/test.tsv",)),
    ),
)

# Languages are what is translated into, from English.
MULTI30K = (
    Layout(
        "multi30k",
        "translation",
        _captions,
        Part(("train.en.gz", "train.{}.gz")),
        Part(("val.en.gz", "val.{}.gz")),
        Part(("test_2016_flickr.en.gz", "test_2016_flickr.{}.gz")),
        codes={code: code for code in ("cs", "de", "fr")},
    ),
)

FOLDERS = {
    "mlqa": MLQA,
    "multi30k": MULTI30K,
    "panx": PANX,
    "pawsx": PAWSX,
    "sib200": SIB200,
    "squad": SQUAD,
    "tydiqa": TYDIQA,
    "udpos": UDPOS,
    "xnli": XNLI,
    "xquad": XQUAD,
}
"""Name -> the layouts in which it is found."""


ENTAILED = ("entailment", "not_entailment")
"""The labels of QNLI and RTE."""


def _glue(
    name: str,
    columns: Mapping[str, str | int],
    labels: tuple[str, ...],
    *,
    task: str = "classification",
    fields: Fields = LABELLED_TEXT,
    dev: str = "dev",
) -> tuple[Layout, ...]:
    """One task; the labels of its test file are not published, so dev is reported."""
    train, validation = Part((f"{name}/train.tsv",)), Part((f"{name}/{dev}.tsv",))
    return (Layout("glue", task, _table(fields, columns), train, validation, codes={"": name}, labels=labels),)


GLUE = {
    "CoLA": _glue("CoLA", {"text": 3, "label": 1}, BINARY),
    "MNLI": _glue("MNLI", SENTENCES | {"label": "gold_label"}, INFERENCES, dev="dev_matched"),
    "MRPC": _glue("MRPC", {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}, BINARY),
    "QNLI": _glue("QNLI", {"text": "question", "text_pair": "sentence", "label": "label"}, ENTAILED),
    "QQP": _glue("QQP", {"text": "question1", "text_pair": "question2", "label": "is_duplicate"}, BINARY),
    "RTE": _glue("RTE", SENTENCES | {"label": "label"}, ENTAILED),
    "SST-2": _glue("SST-2", {"text": "sentence", "label": "label"}, BINARY),
    "STS-B": _glue("STS-B", SENTENCES | {"score": "score"}, (), task="regression", fields=SCORED_TEXT),
}
"""Task -> its layout; the tasks have heads of their own."""
