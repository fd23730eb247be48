"""Voice commands as chat: the user says a sentence, the assistant answers with a call as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from multitune.data.chat import ASSISTANT
from multitune.data.corpus import Corpus, Record
from multitune.data.records.rows import View

TASK = "causal_lm"


def as_calls(corpus: Corpus) -> Corpus:
    """The sentences of ``data: assistant`` as records ``{"messages": [what the user says, the call]}``."""
    train, dev, test = map(_calls, (corpus.train, corpus.dev, corpus.test))
    return replace(corpus, task=TASK, labels=(), train=train, dev=dev, test=test)


def call(record: Record) -> str:
    """``{"intent": ..., slot: its words, ...}`` as JSON; a slot that a sentence fills several times has a list."""
    words: dict[str, list[str]] = {}
    for slot in record["slots"]:
        words.setdefault(slot["name"], []).append(record["text"][slot["start"] : slot["end"]])
    slots = {name: own[0] if len(own) == 1 else own for name, own in words.items()}
    return json.dumps({"intent": record["label"]} | slots, ensure_ascii=False)


def _calls(split: Mapping[str, Sequence[Record]]) -> dict[str, Sequence[Record]]:
    return {language: _chats(records) for language, records in split.items()}


def _chats(records: Sequence[Record]) -> View:
    return View(len(records), lambda number: _chat(records[number]))


def _chat(record: Record) -> Record:
    said = {"role": "user", "content": record["text"]}
    return {"messages": [said, {"role": ASSISTANT, "content": call(record)}]}
