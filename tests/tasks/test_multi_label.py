"""Records with any number of labels: the loss against transformers, scores against scikit-learn, what is not known."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, pipeline
from transformers.modeling_outputs import SequenceClassifierOutput

from multitune.data.bad import BadRecord
from multitune.data.corpus import Record
from multitune.data.fields import MULTI_LABELLED_TEXT
from multitune.errors import UserError
from multitune.tasks import MultiLabel

NAMES = ("art", "sport", "war")
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def named(rows: NDArray[np.bool_]) -> list[list[str]]:
    return [[name for name, is_so in zip(NAMES, row, strict=True) if is_so] for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_scikit_learns(seed: int) -> None:
    draw = np.random.default_rng(seed)
    true, found = draw.random((2, 50, 3)) < 0.4
    records = [{"text": "", "labels": each} for each in named(true)]
    task = MultiLabel(NAMES)
    assert task.score(records, named(found)) == {
        "micro_f1": pytest.approx(100 * f1_score(true, found, average="micro")),
        "macro_f1": pytest.approx(100 * f1_score(true, found, average="macro")),
        "exact_match": pytest.approx(100 * accuracy_score(true, found)),
    }
    by_class = task.by_class(task.all_statistics(records, named(found)))
    columns = zip(*precision_recall_fscore_support(true, found), strict=True)
    for (precision, recall, f1, examples), scores in zip(columns, by_class.values(), strict=True):
        assert scores == {
            "examples": examples,
            "precision": pytest.approx(100 * precision),
            "recall": pytest.approx(100 * recall),
            "f1": pytest.approx(100 * f1),
        }


def test_labels_that_never_occur_are_left_out_of_macro_f1() -> None:
    true, found = np.array([[1, 0, 0], [0, 1, 0]], bool), np.array([[1, 0, 0], [1, 1, 0]], bool)
    records = [{"text": "", "labels": each} for each in named(true)]
    expected = f1_score(true, found, average="macro", zero_division=np.nan)
    assert MultiLabel(NAMES).score(records, named(found))["macro_f1"] == pytest.approx(100 * expected)


def test_labels_that_the_model_lacks_count_as_wrong_and_ignored_ones_do_not_count() -> None:
    records: list[Record] = [{"text": "", "labels": ["art", "new"]}, {"text": "", "labels": ["sport", None]}]
    scores = MultiLabel(NAMES).score(records, [["art"], ["sport"]])
    assert scores == {
        "micro_f1": pytest.approx(100 * 4 / 5),
        "macro_f1": pytest.approx(100 * 2 / 3),
        "exact_match": 50.0,
    }


def test_a_label_that_is_ignored_is_scored_nowhere_and_one_that_stands_for_two_stands_once() -> None:
    """A model that is scored on other data has the label all the same."""
    records: list[Record] = [{"text": "", "labels": each} for each in (["art", "war"], ["sport"], ["sport", "art"])]
    task, names = MultiLabel(NAMES), {"war": "ignore"}
    own = [task.relabelled(each, names) for each in records]
    said = [["art", "war"], ["sport", "war"], ["sport"]]
    assert task.score(own, said) == task.score(own, [["art"], ["sport"], ["sport"]])
    assert [task.shown(*pair).right for pair in zip(own, said, strict=True)] == [True, True, False]
    assert set(task.by_class(task.all_statistics(own, said))) == {"art", "sport"}
    assert task.relabelled(records[0], {"war": "art"}) == {"text": "", "labels": ["art"]}


def test_without_labels_on_either_side_every_record_is_right() -> None:
    scores = MultiLabel(NAMES).score([{"text": "", "labels": []}], [[]])
    assert scores == {"micro_f1": 0.0, "macro_f1": 0.0, "exact_match": 100.0}


def test_the_loss_is_that_of_transformers(tiny_model: object) -> None:
    task, config = MultiLabel(NAMES), BertConfig(vocab_size=40, **SIZES)
    task.configure(config)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    records = [{"text": "ana", "labels": ["war", "art"]}, {"text": "ana sees roma", "labels": []}]
    inputs, targets = task.collate(list(task.encode(records, tokenizer, 16)), 0)
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0]]
    model = BertForSequenceClassification(config).eval()
    output = model(**inputs, labels=targets)
    torch.testing.assert_close(task.loss(output, targets), output.loss)
    halves = [task.loss(SequenceClassifierOutput(logits=output.logits[[n]]), targets[[n]]) for n in (0, 1)]
    torch.testing.assert_close(sum(halves) / 2, output.loss)
    assert [task.labels_in_loss(targets[:1]), task.labels_in_loss(targets)] == [3, 6]


def test_predictions_are_the_labels_above_a_half_and_pipelines_say_the_same_scores(tiny_model: object) -> None:
    task, config = MultiLabel(NAMES), BertConfig(vocab_size=60, **SIZES)
    task.configure(config)
    model, tokenizer = BertForSequenceClassification(config).eval(), AutoTokenizer.from_pretrained(tiny_model)
    output = model(**tokenizer("ana", return_tensors="pt"))
    (said,) = task.decode(output, [{}])
    (scores,) = task.confidence(output, [{}])
    assert {name for name, score in scores.items() if score > 0.5} == set(said)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    ask = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    said_there: Any = ask(["ana"])
    assert {each["label"]: each["score"] for each in said_there[0]} == pytest.approx(scores, abs=1e-6)


GOOD = {
    "a list": (["b", "a"], ["b", "a"]),
    "numbers": ([1, 0], ["1", "0"]),
    "an empty list": ([], []),
    "a text with separators": ("b | a", ["b", "a"]),
    "one label": ("b", ["b"]),
    "an empty text": ("", []),
}
BAD = {
    "one twice": (["a", "b", "a"], "'a' twice"),
    "one twice in a text": ("a|a", "'a' twice"),
    "a blank one": (["a", " "], r"labels\[1\] is blank"),
    "nothing between separators": ("a||b", r"labels\[1\] is blank"),
    "a number": (3, "must be a list of labels"),
    "none": (None, "labels is missing"),
    "a fraction": ([0.5], r"labels\[0\] is"),
}


@pytest.mark.parametrize(("value", "labels"), GOOD.values(), ids=GOOD)
def test_lists_of_labels(value: object, labels: list[str]) -> None:
    assert MULTI_LABELLED_TEXT.record({"text": "t", "labels": value})["labels"] == labels


@pytest.mark.parametrize(("value", "said"), BAD.values(), ids=BAD)
def test_bad_lists_of_labels(value: object, said: str) -> None:
    with pytest.raises(BadRecord, match=said):
        MULTI_LABELLED_TEXT.record({"text": "t", "labels": value})


def test_without_any_label_there_is_nothing_to_learn() -> None:
    with pytest.raises(UserError, match="no training record has a label"):
        MultiLabel(()).configure(BertConfig())
