"""Lengths in tokens and the balance of labels, as ``multitune data`` prints them."""

from pathlib import Path
from typing import Any

import pytest

from multitune.data.corpus import Corpus
from multitune.data.records.balance import Balance, balance
from multitune.evaluation.lengths import Lengths, measure
from multitune.tasks import TASKS

RECORDS: dict[str, tuple[list[dict[str, Any]], Lengths]] = {
    # of the tiny tokenizer: one token a word, [CLS] and [SEP] around
    "classification": ([{"text": "ana sees"}, {"text": "ana"}], Lengths(3.5, 3.95, 50.0)),
    "tagging": ([{"tokens": ["ana", "sees"], "tags": ["O", "O"]}], Lengths(4.0, 4.0, 100.0)),
    "translation": ([{"source": "ana", "target": "ivo vidi i"}], Lengths(3.0, 3.0, 0.0)),
}


@pytest.mark.parametrize(("task", "records", "expected"), [(k, *v) for k, v in RECORDS.items()], ids=RECORDS)
def test_lengths(tiny_model: Path, task: str, records: list[dict[str, Any]], expected: Lengths) -> None:
    corpus = Corpus(task, (), {}, {}, {"aa": records, "bb": []})
    assert measure(corpus, str(tiny_model), 3) == {"aa": pytest.approx(expected)}


def test_a_pair_and_a_question_are_measured_together(tiny_model: Path) -> None:
    pair = {"text": "ana sees", "text_pair": "the old " * 4}
    question = {"question": "ana sees", "context": "the old " * 4}
    lengths = [
        measure(Corpus(task, (), {}, {}, {"aa": [record]}), str(tiny_model), 128)["aa"].mean
        for task, record in (("classification", pair), ("question_answering", question))
    ]
    assert lengths[0] == lengths[1] >= 10


def test_images_have_no_tokens(tiny_model: Path) -> None:
    corpus = Corpus("image_classification", ("a",), {}, {}, {"aa": [{"label": "a"}]})
    assert measure(corpus, str(tiny_model), 128) == {}


def test_no_tokenizer_no_lengths(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert (
        measure(Corpus("translation", (), {}, {}, {"de": [{"source": "a", "target": "b"}]}), str(tmp_path), 128) == {}
    )
    assert "tokens are not counted: model: cannot load the folder" in caplog.text


def test_balance() -> None:
    train = {"aa": [{"label": "x"}] * 3 + [{"label": "y"}], "bb": [{"label": "y"}] * 4}
    assert balance(Corpus("classification", ("x", "y"), train, {}, {}), TASKS) == [
        Balance("y", 5, 62.5, (25.0, "aa"), (100.0, "bb")),
        Balance("x", 3, 37.5, (0.0, "bb"), (75.0, "aa")),
    ]


def test_a_language_without_a_label_has_the_least_of_none() -> None:
    train = {"aa": [{"label": "x"}], "bb": [{"label": "x"}, {"label": "y"}], "cc": []}
    assert balance(Corpus("classification", ("x", "y"), train, {}, {}), TASKS) == [
        Balance("x", 2, 200 / 3, (50.0, "bb"), (100.0, "aa")),
        Balance("y", 1, 100 / 3, (0.0, "aa"), (50.0, "bb")),
    ]
    assert balance(Corpus("classification", ("x",), {"cc": []}, {}, {}), TASKS) == [
        Balance("x", 0, 0.0, (0.0, ""), (0.0, ""))
    ]


def test_a_model_made_for_its_data_has_no_tokenizer_yet(caplog: pytest.LogCaptureFixture) -> None:
    corpus = Corpus("classification", ("a", "b"), {}, {}, {"aa": [{"text": "x", "label": "a"}]})
    assert measure(corpus, "scratch:transformer", 16) == {}
    assert not caplog.messages
