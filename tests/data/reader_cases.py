"""Every reader by a call of one shape, and what each of them yields or refuses."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from multitune.data import conll, fields, pairs, parallel, separated, squad, tabular
from multitune.data.bad import BadRecords, parsed, records
from multitune.data.corpus import Record

Read = Callable[[Path, BadRecords | None], Iterator[Record]]


def glue(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    """A table without a header, as CoLA's."""
    return records(parsed(separated.rows(path, {"text": 1, "label": 0}, bad), fields.LABELLED_TEXT.record, bad))


def scored(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return tabular.read(path, bad, columns={"text": "a", "text_pair": "b", "score": "s"})


def tagged(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return tabular.read(path, bad, columns={"tokens": "tokens", "tags": "tags"})


def answered(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return tabular.read(path, bad, columns={"id": "i", "context": "c", "question": "q", "answers": "a"})


def questions(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return squad.read(path, bad)


def sentences(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return conll.read(path, bad)


def entities(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return conll.read(path, bad, strict=True)


def texts(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return tabular.read(path, bad)


def inferences(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return pairs.read(path, bad)


def with_labels(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return pairs.read(path, bad, labels=path.with_name("labels.txt"))


def translations(path: Path, bad: BadRecords | None) -> Iterator[Record]:
    return parallel.read(path, path.with_name("target.txt"), bad)


def article(context: Any, *questions: Any) -> dict[str, Any]:
    return {"data": [{"title": "", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def question(start: Any = 0, text: Any = "ab", **more: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "which?", "answers": [{"text": text, "answer_start": start}]} | more


def answer_record() -> Record:
    """What the reader makes of ``article("ab", question())``."""
    return {"id": "q1", "context": "ab", "question": "which?", "answers": {"text": ["ab"], "answer_start": [0]}}


def dumped(content: Any, indent: int | None = None) -> bytes:
    return json.dumps(content, indent=indent).encode()


TAGGED = {"tokens": ["a", "b"], "tags": ["B-X", "O"]}


UPOS_LINES = (
    "# text = a b\n1-2\tab\t_\t_\t_\t_\t_\t_\t_\t_\n1\ta\ta\tDET\t_\t_\t2\tdet\t_\t_\n1.1\te\te\tX\t_\t_\t_\t_\t_\t_\n"
)


GOOD: dict[str, tuple[Read, str, bytes, list[Record]]] = {
    "CoNLL-U": (sentences, "x.conllu", f"{UPOS_LINES}\n".encode(), [{"tokens": ["a"], "tags": ["DET"]}]),
    "CoNLL-U with entities": (
        entities,
        "x.conllu",
        b"0\t#\tB-LOC\n1\ta\tI-LOC\n",
        [{"tokens": ["#", "a"], "tags": ["B-LOC", "I-LOC"]}],
    ),
    "SQuAD 2": (
        questions,
        "x.json",
        dumped(article("ab", question(is_impossible=True, answers=[], plausible_answers=[{"text": "x"}]))),
        [answer_record() | {"answers": {"text": [], "answer_start": []}}],
    ),
    "byte-order mark": (questions, "x.json", b"\xef\xbb\xbf" + dumped(article("ab", question())), [answer_record()]),
    "byte-order mark in a header": (texts, "x.tsv", b"\xef\xbb\xbftext\tlabel\na\tb\n", [{"text": "a", "label": "b"}]),
    "no header": (glue, "x.tsv", b'1\t"a\n0\tb"\n', [{"text": '"a', "label": "1"}, {"text": 'b"', "label": "0"}]),
    "a value over two lines": (texts, "x.csv", b'text,label\n"a\nb",c\n', [{"text": "a\nb", "label": "c"}]),
    "gzipped": (texts, "x.csv.gz", gzip.compress(b"text,label\na,1\n"), [{"text": "a", "label": "1"}]),
    "a number as label": (
        texts,
        "x.jsonl",
        b'{"text": "a", "label": 1, "more": []}\n\n',
        [{"text": "a", "label": "1"}],
    ),
    "scores": (scored, "x.csv", b"a,b,s\nx,y,2.5\n", [{"text": "x", "text_pair": "y", "label": 2.5}]),
    "tokens in a table": (
        tagged,
        "x.tsv",
        b"tokens\ttags\na b\tO B-PER\n",
        [{"tokens": ["a", "b"], "tags": ["O", "B-PER"]}],
    ),
    "answers": (
        answered,
        "x.jsonl",
        dumped({"i": "q1", "c": "ab", "q": "which?", "a": {"text": ["ab"], "answer_start": [0]}}),
        [answer_record()],
    ),
    "no labels": (inferences, "x.tsv", b"a\tb\n", [{"text": "a", "text_pair": "b"}]),
    "spaces between columns": (entities, "x.txt", b"a B-X\nb O\n\nc  O\n", [TAGGED, {"tokens": ["c"], "tags": ["O"]}]),
    "CoNLL-2003": (entities, "x.txt", b"-DOCSTART- -X- -X- O\n\na NNP B-NP B-X\nb VB B-VP O\n", [TAGGED]),
    "CoNLL-2002": (entities, "x.txt", b"-DOCSTART- -DOCSTART- O\na N B-X\nb V O\n", [TAGGED]),
    "four columns with tabs": (entities, "x.tsv", b"a\t_\t_\tB-X\nb\t_\t_\tO\n", [TAGGED]),
    "comments": (
        entities,
        "x.txt",
        b"# id 7 domain=en\na _ _ B-X\nb _ _ O\n\n# _ _ O\n",
        [TAGGED, {"tokens": ["#"], "tags": ["O"]}],
    ),
    "a no-break space as a token": (
        sentences,
        "x.tsv",
        "\u00a0\tO\n".encode(),
        [{"tokens": ["\u00a0"], "tags": ["O"]}],
    ),
    "a no-break space in a list": (
        tagged,
        "x.jsonl",
        dumped({"tokens": ["\u00a0"], "tags": ["O"]}),
        [{"tokens": ["\u00a0"], "tags": ["O"]}],
    ),
    "a long value in quotes": (
        texts,
        "x.csv",
        b'text,label\n"' + b"long " * 40_000 + b'",a\n',
        [{"text": "long " * 40_000, "label": "a"}],
    ),
    "semicolons, as where the comma is the decimal mark": (
        texts,
        "x.csv",
        b'\ntext;label\n"a;b, c";x\nd, e;y\n',
        [{"text": "a;b, c", "label": "x"}, {"text": "d, e", "label": "y"}],
    ),
    "tabs in a .csv": (texts, "x.csv", b'text\tlabel\n"a\tb"\tx\n', [{"text": "a\tb", "label": "x"}]),
    "a comma in the header, and semicolons": (
        texts,
        "x.csv",
        b"text,label,a;b\nd;e,x,1\n",
        [{"text": "d;e", "label": "x"}],
    ),
    "quoted as csv does": (
        inferences,
        "x.tsv",
        b'"a ""b"" c"\t"d"\te\n',
        [{"text": 'a "b" c', "text_pair": '"d"', "label": "e"}],
    ),
    "scores in any notation": (
        scored,
        "x.csv",
        b"a,b,s\nx,y, -1.5e2\nx,y,.5\n",
        [{"text": "x", "text_pair": "y", "label": -150.0}, {"text": "x", "text_pair": "y", "label": 0.5}],
    ),
}


DEEP = b'{"data": ' + b"[" * 200_000


ONE = dumped(article("ab", question(), question(id="q2")), indent=1)


BAD: dict[str, tuple[Read, str, bytes, str, int, str]] = {
    # reader, file, its content, where, good records beside, what is said
    "answer not at its offset": (
        questions,
        "x.json",
        ONE.replace(b'"answer_start": 0', b'"answer_start": 1', 1),
        ":10",
        1,
        "question 'q1': answer 'ab' is not at its offset 1",
    ),
    "carriage returns alone": (sentences, "x.tsv", b"a\tB-X\rb\tO\r\rc\tO\r", ":1", 0, "carriage returns alone end"),
    "carriage returns, and a line feed": (
        inferences,
        "x.tsv",
        b"a\tb\rc\td\r\n",
        ":1",
        0,
        "save the file with line",
    ),
    "a key of SQuAD's twice": (
        questions,
        "x.json",
        dumped(article("ab", question())).replace(b'"context"', b'"context": "cd", "context"'),
        *("", 0, "not JSON: key 'context' is given twice"),
    ),
    "offset in bytes": (
        questions,
        "x.json",
        dumped(article("\u0141\u00f3d\u017a ab", question(8))),
        *(":1", 0, "where the context has ''; it is there in bytes of UTF-8, and offsets count characters"),
    ),
    "offset in units of UTF-16": (
        questions,
        "x.json",
        dumped(article("\U0001f468\u200d\U0001f469 ab", question(6))),
        *(":1", 0, "where the context has ''; it is there in units of UTF-16, and offsets count characters"),
    ),
    "offset as text": (questions, "x.json", dumped(article("ab", question("0"))), ":1", 0, "answer_start is '0'"),
    "offset below zero": (questions, "x.json", dumped(article("ab", question(-2))), ":1", 0, "answer_start is -2"),
    "no question": (
        questions,
        "x.json",
        dumped(article("ab", {"id": "q", "answers": []})),
        ":1",
        0,
        "question is missing",
    ),
    "no answers": (
        questions,
        "x.json",
        dumped(article("ab", {"id": "q", "question": "?"})),
        ":1",
        0,
        "answers is missing",
    ),
    "no id": (questions, "x.json", dumped(article("ab", {"question": "?", "answers": []})), ":1", 0, "id is missing"),
    "no context": (questions, "x.json", dumped(article(None, question())), ":1", 0, "context is missing"),
    "half a surrogate pair": (
        questions,
        "x.json",
        dumped(article("ab\ud83d", question())),
        ":1",
        0,
        "surrogate pair at 2",
    ),
    "no list of paragraphs": (
        questions,
        "x.json",
        dumped({"data": [{"paragraphs": 3}]}),
        ": data[0]",
        0,
        "has no list 'paragraphs'",
    ),
    "a question that is none": (
        questions,
        "x.json",
        dumped(article("ab", 3, question())),
        ": data[0].paragraphs[0].qas[0]",
        1,
        "is a whole number",
    ),
    "broken JSON": (questions, "x.json", b'{"data":\n [}', ":2", 0, "not JSON"),
    "deep JSON": (questions, "x.json", DEEP, ":1", 0, "too deeply nested"),
    "not UTF-8": (sentences, "x.tsv", b"a\tO\n\nb\tO\n\xff\tO\nc\tO\n\nd\tO\n", ":4", 2, "not UTF-8"),
    "not UTF-8 at a sentence's end": (sentences, "x.tsv", b"a\tO\n\nb\tO\n\xff\tO", ":4", 1, "not UTF-8"),
    "mixed schemes: IOBES": (
        sentences,
        "x.tsv",
        b"a\tB-X\nb\tI-X\n\nc\tS-X\n\nd\tL-X\n",
        ":6",
        2,
        "'L-X' mixes schemes: the tags before it are IOBES",
    ),
    "mixed schemes: parts of speech": (
        sentences,
        "x.tsv",
        b"a\tNOUN\n\nb\tO\nc\tB-PER\n",
        ":4",
        1,
        "the tags before it are plain tags",
    ),
    "not IOB2": (entities, "x.tsv", b"a\tB-X\n\nb\tO\nc\tI-X\n", ":4", 1, "'I-X' after 'O'"),
    "CoNLL-U of five columns": (sentences, "x.conllu", b"1\ta\tb\tc\td\n\n1\ta\tO\n", ":1", 1, "5 columns"),
    "label column missing": (
        texts,
        "x.csv",
        b"text,intent\na,b\n",
        ":1",
        0,
        "no column 'label' for label: the header has text, intent",
    ),
    "label position missing": (glue, "x.tsv", b"1\n", ":1", 0, "no column 1 for text: the first row has 1 columns"),
    "label key missing": (texts, "x.jsonl", b'{"text": "a"}\n{"text": "a", "label": "b"}', ":1", 1, "no key 'label'"),
    "row too short": (texts, "x.tsv", b"text\tlabel\na\tb\nc\nd\te\n", ":3", 2, "1 columns; the first row has 2"),
    "open quote": (texts, "x.csv", b'text,label\na,b\n"c,d\ne,f\n', ":3", 1, "broken quoting"),
    "quote within a value": (texts, "x.csv", b'text,label\n"a"b,c\nd,e\n', ":2", 1, "broken quoting"),
    "not UTF-8 within quotes": (texts, "x.csv", b'text,label\n"a\n\xff\nb",c\nd,e\n', ":3", 1, "not UTF-8"),
    "blank text": (texts, "x.jsonl", b'{"text": " ", "label": "b"}', ":1", 0, "text is blank"),
    "text that is none": (texts, "x.jsonl", b'{"text": 3, "label": "b"}', ":1", 0, "text is a whole number"),
    "no object": (texts, "x.jsonl", b'[1]\n{"text": "a", "label": "b"}', ":1", 1, "a list; a line is one JSON object"),
    "deep line": (texts, "x.jsonl", b"[" * 200_000, ":1", 0, "too deeply nested"),
    "gz that is none": (texts, "x.csv.gz", b"text,label\n", ":1", 0, "the gzipped file is damaged or cut short"),
    "a label of 5,000 digits": (texts, "x.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}", ":1", 0, "not JSON"),
    "an offset of 5,000 digits": (
        questions,
        "x.json",
        dumped(article("ab", question("0"))).replace(b'"0"', b"9" * 5000),
        ":1",
        0,
        "not JSON",
    ),
    "score beyond all numbers": (
        scored,
        "x.jsonl",
        b'{"a": "x", "b": "y", "s": 1' + b"0" * 400 + b"}",
        ":1",
        0,
        "it must be a finite number",
    ),
    "score that is none": (scored, "x.csv", b"a,b,s\nx,y,z\nx,y,1\n", ":2", 1, "score is 'z'"),
    "score not finite": (scored, "x.csv", b"a,b,s\nx,y,nan\n", ":2", 0, "finite"),
    "fewer tags": (tagged, "x.jsonl", b'{"tokens": ["a", "b"], "tags": ["O"]}', ":1", 0, "2 tokens, but 1 tags"),
    "answers in a user's file": (
        answered,
        "x.jsonl",
        dumped({"i": 1, "c": "abc", "q": "?", "a": {"text": ["bc"], "answer_start": [0]}}),
        ":1",
        0,
        "not at its offset 0",
    ),
    "four columns": (inferences, "x.tsv", b"a\tb\tc\nd\te\tf\tg\n", ":2", 1, "4 columns"),
    "label missing in a line": (inferences, "x.tsv", b"a\tb\tc\nd\te\n", ":2", 1, "2 columns"),
    "blank hypothesis": (inferences, "x.tsv", b"a\t\tc\n", ":1", 0, "text_pair is blank"),
    "fewer labels than texts": (with_labels, "x.tsv", b"a\tb\nc\td\ne\tf\n\n", ":3", 2, "labels.txt has 2 lines"),
    "unequal lengths": (translations, "x.txt", b"a\nb\nc\n", ":3", 2, "x.txt has 3 lines"),
    "blank line on one side": (translations, "x.txt", b" \nc\n", ":1", 1, "the line is blank"),
    "a column twice": (texts, "x.csv", b"text,label,text\na,b,c\n", ":1", 0, "column 'text' stands 2 times"),
    "a key twice": (
        texts,
        "x.jsonl",
        b'{"text": "a", "text": "b", "label": "c"}',
        ":1",
        0,
        "key 'text' is given twice",
    ),
    "a JSON array": (texts, "x.jsonl", b'[\n {"text": "a",\n  "label": "b"}\n]\n', ":1", 0, "a JSON array"),
    "columns: is forgotten": (texts, "x.jsonl", b'{"review": "a"}', ":1", 0, "(columns: in the recipe names the keys)"),
    "no tokens": (tagged, "x.jsonl", b'{"tokens": [], "tags": []}', ":1", 0, "tokens is empty"),
    "a blank token": (tagged, "x.jsonl", b'{"tokens": [" "], "tags": ["O"]}', ":1", 0, "tokens[0] is blank"),
    "a blank token in a line": (sentences, "x.tsv", b"  \tO\n", ":1", 0, "the token is empty"),
    "words that are counted": (sentences, "x.tsv", b"1\tder\tO\tO\n2\tHund\tO\tO\n", ":1", 0, "counts the words"),
    "fewer columns than before": (entities, "x.txt", b"a N B-X\n\nb O\n", ":3", 1, "a line is 3 columns"),
    "no column of CoNLL-U": (
        lambda path, bad: tabular.read(path, bad, columns={"tokens": "form", "pos": "tag"}),
        "x.conllu",
        b"1\ta\t_\tX\t_\t_\t_\t_\t_\t_\n",
        "",
        0,
        "no column 'tag' for pos; CoNLL-U has id, form",
    ),
    "score with underscores": (scored, "x.csv", b"a,b,s\nx,y,1_000\n", ":2", 0, "score is '1_000'"),
    "score in other digits": (scored, "x.csv", "a,b,s\nx,y,\u0663\n".encode(), ":2", 0, "it must be a finite number"),
    "not UTF-8 on one side": (translations, "x.txt", b"\xff\nb\n", ":1", 1, "not UTF-8"),
}
