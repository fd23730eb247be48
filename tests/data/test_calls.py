"""The assistant's sentences as chat: what is said, and the call that answers it."""

import json
from importlib.util import find_spec
from typing import Any

import pytest

from multitune.data import sets
from multitune.data.bad import BadRecords
from multitune.data.chat import ANY
from multitune.data.sets import assistant
from multitune.data.sets.calls import call
from multitune.tasks import TASKS

needs_packages = pytest.mark.skipif(
    not all(map(find_spec, assistant.PACKAGES)),
    reason="needs babel, hassil, home-assistant-intents (multitune[offline])",
)


def slot(text: str, name: str, words: str) -> dict[str, object]:
    start = text.index(words)
    return {"name": name, "start": start, "end": start + len(words)}


def test_a_call_is_the_intent_and_the_words_of_its_slots() -> None:
    text = "schalte das Licht in der Küche an"
    record = {"text": text, "label": "HassTurnOn", "slots": [slot(text, "area", "Küche")], "template": "a"}
    assert call(record) == '{"intent": "HassTurnOn", "area": "Küche"}'
    assert call(record | {"slots": []}) == '{"intent": "HassTurnOn"}'


def test_a_slot_that_is_filled_twice_has_a_list() -> None:
    text = "milk and eggs"
    slots = [slot(text, "item", "milk"), slot(text, "item", "eggs")]
    record = {"text": text, "label": "HassListAddItem", "slots": slots, "template": "a"}
    assert json.loads(call(record)) == {"intent": "HassListAddItem", "item": ["milk", "eggs"]}


@needs_packages
def test_every_sentence_of_the_assistant_becomes_a_conversation() -> None:
    wanted: dict[str, Any] = {"languages": ("te",), "unseen": ("ml",)}
    plain = sets.load("assistant", BadRecords(), TASKS, **wanted)
    chat = sets.load("assistant", BadRecords(), TASKS, task="causal_lm", **wanted)
    assert (chat.task, chat.labels) == ("causal_lm", ())
    for of_plain, of_chat in ((plain.train, chat.train), (plain.dev, chat.dev), (plain.test, chat.test)):
        assert list(of_plain) == list(of_chat)
        for before, after in ((a, b) for code in of_plain for a, b in zip(of_plain[code], of_chat[code], strict=True)):
            asked, answer = ANY.record(after)["messages"]
            assert (asked["content"], answer["role"]) == (before["text"], "assistant")
            said = json.loads(answer["content"])
            assert said.pop("intent") == before["label"]
            assert said.keys() == {slot["name"] for slot in before["slots"]}


@needs_packages
def test_its_texts_alone_are_another_kind_of_task() -> None:
    texts = sets.load("assistant", BadRecords(), TASKS, languages=("te",), unseen=())
    assert texts.task == "classification"
