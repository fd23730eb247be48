"""What functions of data sets hand over: mistakes of those of other packages are told in one line."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from builders import names_restored
from multitune.data import DATASETS
from multitune.data.bad import BadRecords
from multitune.data.corpus import Corpus
from multitune.data.sets import load
from multitune.errors import UserError
from multitune.tasks import TASKS

ROWS = [{"text": "ana", "label": "a"}, {"text": "bela", "label": "b"}]
GOOD = Corpus("classification", ("a", "b"), {"de": ROWS}, dev={"de": ROWS}, test={"de": ROWS, "fi": ROWS})
NUMBERS = [{"text": "ana", "label": 1}]


def own(returned: Any) -> Corpus:
    """What a run gets of a data set whose function returns this."""
    with names_restored():
        DATASETS["own"] = lambda wanted, bad: returned
        return load("own", BadRecords(), TASKS)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "an object of type NoneType; it must return a Corpus"),
        (replace(GOOD, dev={}), "no dev records of 'de', which it has for training"),
        (replace(GOOD, test={"fi": ROWS}), "no test records of 'de', which it has for training"),
        (replace(GOOD, train={"de": iter(ROWS)}), "train records of 'de' of type list_iterator; a list is needed"),
        (replace(GOOD, labels=(0, 1)), r"labels that are no text: \(0, 1\)"),
        (replace(GOOD, labels=()), "no labels, but a record of 'de' that has one"),
        (replace(GOOD, train={"de": NUMBERS}), "a record of 'de' whose 'label' is 1, which is no text"),
        (replace(GOOD, test={"de": ROWS, "fi": [("ana", "a")]}), "a record of 'fi' of type tuple; a dict is needed"),
        (replace(GOOD, train={"de": [{"text": "ana"}]}), "a record of 'de' without 'label'"),
        (replace(GOOD, heads={"fi": GOOD.head("fi")}), "heads without 'de'"),
    ],
)
def test_what_is_no_corpus_is_told(returned: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"data: the function of 'own' has returned {said}"):
        own(returned)


@pytest.mark.parametrize(
    "change",
    [
        lambda corpus: corpus,
        lambda corpus: replace(corpus, test={"de": ROWS, "fi": []}),
        lambda corpus: replace(corpus, train={"de": [{"text": "ana", "label": None}, *ROWS]}),
        lambda corpus: replace(corpus, task="ranking", labels=()),
        lambda corpus: replace(corpus, train={}, dev={}, labels=()),
    ],
)
def test_what_a_run_can_read_is_handed_on(change: Callable[[Corpus], Corpus]) -> None:
    assert own(change(GOOD)) is not None
