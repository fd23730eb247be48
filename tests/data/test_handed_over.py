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


def changed(**attributes: Any) -> Corpus:
    """The good corpus with other attributes, of whatever types."""
    return replace(GOOD, **attributes)


def own(returned: Any) -> Corpus:
    """What a run gets of a data set whose function returns this."""
    with names_restored():
        DATASETS["own"] = lambda wanted, bad: returned
        return load("own", BadRecords(), TASKS)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "an object of type NoneType; it must return a Corpus"),
        (changed(dev={}), "no dev records of 'de', which it has for training"),
        (changed(test={"fi": ROWS}), "no test records of 'de', which it has for training"),
        (changed(train={"de": iter(ROWS)}), "train records of 'de' of type list_iterator; a list is needed"),
        (changed(labels=(0, 1)), r"labels that are no text: \(0, 1\)"),
        (changed(labels=()), "no labels, but a record of 'de' that has one"),
        (changed(train={"de": NUMBERS}), "a record of 'de' whose 'label' is 1, which is no text"),
        (changed(test={"de": ROWS, "fi": [("ana", "a")]}), "a record of 'fi' of type tuple; a dict is needed"),
        (changed(train={"de": [{"text": "ana"}]}), "a record of 'de' without 'label'"),
        (changed(heads={"fi": GOOD.head("fi")}), "heads without 'de'"),
    ],
)
def test_what_is_no_corpus_is_told(returned: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"data: the function of 'own' has returned {said}"):
        own(returned)


@pytest.mark.parametrize(
    "change",
    [
        lambda: GOOD,
        lambda: changed(test={"de": ROWS, "fi": []}),
        lambda: changed(train={"de": [{"text": "ana", "label": None}, *ROWS]}),
        lambda: changed(task="ranking", labels=()),
        lambda: changed(train={}, dev={}, labels=()),
    ],
)
def test_what_a_run_can_read_is_handed_on(change: Callable[[], Corpus]) -> None:
    handed = change()
    assert own(handed) is handed
