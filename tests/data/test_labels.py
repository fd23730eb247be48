"""Labels that training or a model lacks, labels taken for others, labels that follow from others, one label alone."""

import logging

import pytest

from multitune.data.corpus import Corpus, Record
from multitune.data.records.labels import (
    completed,
    relabelled,
    unknown_labels,
    warn_of_one_label,
    warn_of_unanswered,
    warn_of_unknown,
)
from multitune.errors import UserError
from multitune.tasks import TASKS

TEXTS = [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}, {"text": "c", "label": "perhaps"}]
ENTITIES = [
    {"tokens": ["Ana", "Li", "now"], "tags": ["B-PER", "I-PER", "O"]},
    {"tokens": ["Oslo", "May", "3"], "tags": ["B-LOC", "B-DATE", "I-DATE"]},
    {"tokens": ["May"], "tags": ["B-DATE"]},
]
POS = [{"tokens": ["a", "b"], "tags": ["NOUN", "_"]}, {"tokens": ["c"], "tags": ["_"]}]
KNOWN = {
    "classification": ("no", "yes"),
    "tagging": ("B-LOC", "B-PER", "I-LOC", "I-PER", "O"),
    "pos_tagging": ("NOUN", "VERB"),
}


def corpus(kind: str, records: list[Record], labels: tuple[str, ...] | None = None) -> Corpus:
    """A language to train on, whose records are also tested, and one to test on."""
    own = KNOWN[kind] if labels is None else labels
    return Corpus(kind, own, {"aa": records[:1]}, {"aa": records[:1]}, {"aa": records[:1], "bb": records})


NAMES = {
    "a class taken for another": ("classification", TEXTS, {"perhaps": "no"}, ["yes", "no", "no"], 0),
    "a class ignored": ("classification", TEXTS, {"perhaps": "ignore"}, ["yes", "no"], 1),
    "entities ignored": (
        "tagging",
        ENTITIES,
        {"DATE": "ignore"},
        [["B-PER", "I-PER", "O"], ["B-LOC", None, None]],
        1,
    ),
    "entities that are none": (
        "tagging",
        ENTITIES,
        {"DATE": "O"},
        [["B-PER", "I-PER", "O"], ["B-LOC", "O", "O"], ["O"]],
        0,
    ),
    "entities of another type": (
        "tagging",
        ENTITIES,
        {"DATE": "PER"},
        [["B-PER", "I-PER", "O"], ["B-LOC", "B-PER", "I-PER"], ["B-PER"]],
        0,
    ),
    "a part of speech ignored": ("pos_tagging", POS, {"_": "ignore"}, [["NOUN", None]], 1),
    "a part of speech taken for another": ("pos_tagging", POS, {"_": "VERB"}, [["NOUN", "VERB"], ["VERB"]], 0),
}


@pytest.mark.parametrize(("kind", "records", "names", "expected", "dropped"), NAMES.values(), ids=NAMES)
def test_labels_are_taken_for_others_and_counted(
    kind: str,
    records: list[Record],
    names: dict[str, str],
    expected: list[object],
    dropped: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = corpus(kind, records)
    assert unknown_labels(before, before.test, TASKS)["bb"]
    with caplog.at_level(logging.WARNING):
        after = relabelled(before, TASKS, names)
    field = TASKS[kind].label_field
    assert field is not None
    assert [record[field] for record in after.test["bb"]] == expected
    assert after.dropped == ({"bb": dropped} if dropped else {})
    assert unknown_labels(after, after.test, TASKS) == {}
    assert after.labels == before.labels
    (said,) = caplog.messages
    (name, new), *_ = names.items()
    assert said.startswith(f"labels: {name!r} -> {new!r} (")
    assert ("left out: bb 1" in said) == (dropped == 1)


def test_a_label_of_training_that_is_taken_for_another_goes() -> None:
    shown = corpus("classification", TEXTS, ("no", "perhaps", "yes"))
    assert relabelled(shown, TASKS, {"perhaps": "no"}).labels == ("no", "yes")
    tagged = corpus("tagging", ENTITIES, (*KNOWN["tagging"], "B-DATE", "I-DATE"))
    assert relabelled(tagged, TASKS, {"DATE": "O"}).labels == KNOWN["tagging"]


REFUSED = {
    "a label that there is not": ("classification", TEXTS, {"perhaps": "ingore"}, "'ingore'; allowed: ignore, no, yes"),
    "one that is renamed itself": ("classification", TEXTS, {"yes": "no", "no": "yes"}, "allowed: ignore"),
    "a tag for a type": (
        "tagging",
        ENTITIES,
        {"B-PER": "ignore"},
        "'B-PER' is not to be taken for others; .* by their type",
    ),
    "no entity": ("tagging", ENTITIES, {"O": "PER"}, "named by their type"),
    "all of them": ("classification", TEXTS, {"yes": "ignore"}, "ignores all labels of a split of 'aa'"),
}


@pytest.mark.parametrize(("kind", "records", "names", "said"), REFUSED.values(), ids=REFUSED)
def test_names_that_make_no_sense(kind: str, records: list[Record], names: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        relabelled(corpus(kind, records), TASKS, names)


def test_unknown_labels_are_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    mixed = corpus("tagging", ENTITIES)

    assert unknown_labels(mixed, mixed.test, TASKS) == {"bb": {"B-DATE": 2, "I-DATE": 1}}
    warn_of_unknown(mixed, mixed.test, TASKS, "test", "training")
    (said,) = caplog.messages
    assert said.startswith("test labels that training lacks count as wrong")
    assert said.endswith("bb: 'B-DATE' (2), 'I-DATE' (1)")


COMPLETED = {
    "an entity of one token": ("tagging", ("B-LOC", "B-PER", "I-PER", "O"), KNOWN["tagging"]),
    "nothing to add": ("tagging", KNOWN["tagging"], KNOWN["tagging"]),
    "classes like tags": ("classification", ("B-1", "B-2"), ("B-1", "B-2")),
}


@pytest.mark.parametrize(("kind", "labels", "expected"), COMPLETED.values(), ids=COMPLETED)
def test_where_an_entity_begins_it_may_go_on(kind: str, labels: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert completed(Corpus(kind, labels, {}, {}, {}), TASKS).labels == expected


SINGLE = {
    "one class": ("classification", TEXTS[:1], "training has one label alone, 'yes'"),
    "two classes": ("classification", TEXTS, None),
    "no entity": ("tagging", [{"tokens": ["a"], "tags": ["O"]}] * 3, "training has one label alone, 'O'"),
    "no labels at all": ("regression", [{"text": "a", "label": 1.0}], None),
}


@pytest.mark.parametrize(("kind", "records", "said"), SINGLE.values(), ids=SINGLE)
def test_one_label_alone_is_told(
    kind: str, records: list[Record], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_one_label(Corpus(kind, (), {"aa": records}, {}, {}), TASKS)
    assert len(caplog.messages) == (said is not None)
    assert (said or "") in caplog.text


ASKED, ANSWERED = (
    {"id": "1", "question": "who", "context": "a dog", "answers": {"text": text, "answer_start": [0] * len(text)}}
    for text in ([], ["a dog"])
)
UNANSWERED = {
    "none of a language": ("question_answering", {"aa": [ANSWERED], "bb": [ASKED, ASKED]}, "no test record of bb has"),
    "some of a language, as in SQuAD 2.0": ("question_answering", {"aa": [ASKED, ANSWERED]}, None),
    "many languages": ("question_answering", {f"l{n}": [ASKED] for n in range(10)}, "l7 and 2 more has an answer"),
    "a kind without questions": ("classification", {"aa": TEXTS}, None),
}


@pytest.mark.parametrize(("kind", "test", "said"), UNANSWERED.values(), ids=UNANSWERED)
def test_a_language_without_answers_is_told(
    kind: str, test: dict[str, list[Record]], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unanswered(Corpus(kind, (), {}, {}, test), TASKS)
    assert len(caplog.messages) == (said is not None)
    assert (said or "") in caplog.text


SCORED = {
    # true, predicted, scores
    "a type that the model lacks is missed": (
        ["B-PER", "O", "B-DATE"],
        ["B-PER", "O", "O"],
        {"f1": 200 / 3, "precision": 100.0, "recall": 50.0},
    ),
    "what is ignored is neither missed nor wrong": (["B-PER", "O", None], ["B-PER", "O", "B-LOC"], {"f1": 100.0}),
    "beside it an entity counts": (["B-PER", None, "O"], ["B-PER", "I-PER", "O"], {"f1": 100.0}),
}


@pytest.mark.parametrize(("true", "predicted", "expected"), SCORED.values(), ids=SCORED)
def test_entities_that_are_unknown_or_ignored(
    true: list[str | None], predicted: list[str], expected: dict[str, float]
) -> None:
    record = {"tokens": ["a", "b", "c"], "tags": true}
    task = TASKS["tagging"](KNOWN["tagging"])
    scores = task.score([record], [predicted])
    assert {metric: scores[metric] for metric in expected} == {k: pytest.approx(v) for k, v in expected.items()}
    assert task.shown(record, predicted).right == (scores["f1"] == 100)


TAKEN = {
    "a class": ("classification", ("no", "perhaps", "yes"), "perhaps", "no"),
    "entities, one of which is ignored": (
        "tagging",
        KNOWN["tagging"],
        ["B-LOC", "I-LOC", "B-PER"],
        ["O", "O", "B-PER"],
    ),
    "a part of speech that is not read": ("pos_tagging", KNOWN["pos_tagging"], ["VERB", ""], ["NOUN", ""]),
    "several labels": ("multi_label", ("no", "perhaps", "yes"), ["no", "perhaps"], ["no"]),
    "a number": ("regression", (), 0.5, 0.5),
}


@pytest.mark.parametrize(("kind", "labels", "said", "expected"), TAKEN.values(), ids=TAKEN)
def test_predictions_are_taken_for_others_as_records_are(
    kind: str, labels: tuple[str, ...], said: object, expected: object
) -> None:
    names = {"perhaps": "no", "LOC": "O", "PER": "ignore", "VERB": "NOUN"}
    assert TASKS[kind](labels).taken_for(said, names) == expected


def test_classes_and_parts_of_speech_that_are_unknown_are_wrong() -> None:
    classes = TASKS["classification"](KNOWN["classification"])
    rows = classes.all_statistics(TEXTS, ["yes", "no", "no"])
    assert classes.score_rows(rows)["accuracy"] == pytest.approx(200 / 3)
    assert set(classes.by_class(rows)) == {"no", "yes"}
    words = TASKS["pos_tagging"](KNOWN["pos_tagging"])
    assert words.score(POS, [["NOUN", "VERB"], ["VERB"]]) == {"accuracy": pytest.approx(100 / 3)}
    ignored = [{"tokens": ["a", "b"], "tags": ["NOUN", None]}]
    assert words.score(ignored, [["NOUN", "VERB"]]) == {"accuracy": 100.0}
