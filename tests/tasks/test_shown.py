"""How reports show the records and predictions of each kind."""

from typing import Any

import numpy as np
import pytest

from multitune.results.shown import LONGEST, Shown
from multitune.tasks import TASKS

IMAGE = {"image": np.zeros((2, 2), dtype=np.uint8), "label": "cat"}
ENTITIES = {"tokens": ["Ana", "in", "Rio", "Claro"], "tags": ["B-PER", "O", "B-LOC", "I-LOC"]}
PARTS = {"tokens": ["go", "on"], "tags": ["VERB", "ADP"]}
QUESTION = {"id": "1", "question": "Who?", "context": "It was Ada.", "answers": {"text": ["Ada"], "answer_start": [7]}}
UNANSWERED = QUESTION | {"answers": {"text": [], "answer_start": []}}
CHAT = {"messages": [{"role": "user", "content": each} for each in ("on?", "no")]}
CHAT["messages"].append({"role": "assistant", "content": "{}"})
ANSWER = {"answer": "{ }", "nats": 1.0, "tokens": 2, "right": 1, "bytes": 2}
LISTED = {"text": "t", "labels": ["a", "b"]}
RANKED = {"text": "t", "positive": "p"}
PAIR = {"text": "a", "text_pair": "b", "label": "yes"}


def said(text: str) -> dict[str, Any]:
    return {"text": text, "start": 0, "n_best": [], "no_answer": 0.0}


RECORDS: list[tuple[str, dict[str, Any], Any, Shown]] = [
    ("classification", PAIR, "yes", Shown("a | b", "yes", "yes", True)),
    ("classification", PAIR, "no", Shown("a | b", "yes", "no", False)),
    ("image_classification", IMAGE, "dog", Shown("", "cat", "dog", False)),
    ("multi_label", LISTED, ["b", "a"], Shown("t", "a, b", "b, a", True)),
    ("multi_label", LISTED | {"labels": []}, ["a"], Shown("t", "no label", "a", False)),
    ("multi_label", LISTED, [], Shown("t", "a, b", "no label", False)),
    ("ranking", RANKED, {"rank": 1, "first": "p"}, Shown("t", "p", "p", True)),
    ("ranking", RANKED, {"rank": 3, "first": "q"}, Shown("t", "p", "q (its own comes at place 3)", False)),
    ("regression", PAIR | {"label": 2.5}, 3.0, Shown("a | b", "2.50", "3.00", None)),
    (
        "tagging",
        ENTITIES,
        ENTITIES["tags"],
        Shown("Ana in Rio Claro", "PER: Ana, LOC: Rio Claro", "PER: Ana, LOC: Rio Claro", True),
    ),
    ("tagging", ENTITIES, ["O"] * 4, Shown("Ana in Rio Claro", "PER: Ana, LOC: Rio Claro", "nothing", False)),
    ("pos_tagging", PARTS, ["NOUN", "ADP"], Shown("go on", "VERB: go, ADP: on", "NOUN: go, ADP: on", False)),
    ("question_answering", QUESTION, said("ada."), Shown("Who? | It was Ada.", "Ada", "ada.", True)),
    ("question_answering", QUESTION, said(""), Shown("Who? | It was Ada.", "Ada", "no answer", False)),
    ("question_answering", UNANSWERED, said(""), Shown("Who? | It was Ada.", "no answer", "no answer", True)),
    ("causal_lm", CHAT, ANSWER, Shown("on?\nno", "{}", "{ }", True)),
    ("causal_lm", {"prompt": "a", "completion": "b"}, ANSWER, Shown("a", "b", "{ }", False)),
    ("causal_lm", {"text": "a"}, ANSWER | {"answer": None}, Shown("a", "a", "1 of 2 tokens would be its own", None)),
    ("translation", {"source": "ja", "target": "yes"}, "no", Shown("ja", "yes", "no", None)),
    (
        "masked_language_modelling",
        {"text": "a b c"},
        {"tokens": ["a", "c"], "guesses": ["a", "b"], "loss": 1.0},
        Shown("a b c", "a c", "a b", None),
    ),
]


@pytest.mark.parametrize(("kind", "record", "prediction", "shown"), RECORDS)
def test_records_of_every_kind_are_shown(kind: str, record: dict[str, Any], prediction: Any, shown: Shown) -> None:
    assert TASKS[kind](()).shown(record, prediction) == shown


def test_every_kind_is_here() -> None:
    assert {kind for kind, *_ in RECORDS} >= set(TASKS)


def test_long_texts_are_cut() -> None:
    long, cut = "x" * (LONGEST + 1), "x" * LONGEST + "…"
    assert Shown(long, long, "short", None).cut() == Shown(cut, cut, "short", None)
