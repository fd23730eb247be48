"""What a causal language model learns from: conversations, prompts with what completes them, or texts alone."""

from collections.abc import Sequence
from typing import Any

from multitune.data.bad import BadRecord
from multitune.data.corpus import Record
from multitune.data.fields import Fields, text
from multitune.errors import kind_of_value

ASSISTANT = "assistant"
ROLES = ("system", "user", ASSISTANT, "tool")
TURN = ("role", "content")
SHAREGPT = ("from", "value")
"""What ShareGPT's files call the two."""

Turn = dict[str, str]
"""``{"role": str, "content": str}``."""


def turns(value: Any, name: str) -> list[Turn]:
    """A list of ``{"role": one of ROLES, "content": text}`` that is not empty; other keys may be null or empty."""
    if not isinstance(value, list):
        raise BadRecord(f"{name} is {kind_of_value(value)}; it must be a list of turns {{'role': ..., 'content': ...}}")
    if not value:
        raise BadRecord(f"{name} is empty; a conversation has at least one turn")
    return [_turn(each, f"{name}[{number}]") for number, each in enumerate(value)]


def _turn(value: Any, name: str) -> Turn:
    if not isinstance(value, dict):
        raise BadRecord(f"{name} is {kind_of_value(value)}; it must be {{'role': ..., 'content': ...}}")
    if all(key in value for key in SHAREGPT):
        raise BadRecord(f"{name} has 'from' and 'value'; write role and content (for human: user, for gpt: assistant)")
    other = next((key for key, own in value.items() if key not in TURN and own not in (None, "", [], {})), None)
    if other is not None:
        raise BadRecord(f"{name} has {other!r}, which is not read; a turn has role and content")
    role = value.get("role")
    if role not in ROLES:
        advice = "; write system" if role == "developer" else ""
        raise BadRecord(f"{name} has the role {role!r}; allowed: {', '.join(ROLES)}{advice}")
    if isinstance(value.get("content"), list):
        raise BadRecord(f"{name}'s content is a list of parts; it must be text: write theirs one after the other")
    return {"role": role, "content": text(value.get("content"), f"{name}'s content")}


def check_answered(record: Record) -> None:
    """Raise ``BadRecord`` where a conversation does not end with a turn of the assistant, which is what is learnt."""
    roles = [turn["role"] for turn in record.get("messages", ())]
    if not roles or roles[-1] == ASSISTANT:
        return
    if ASSISTANT not in roles:
        raise BadRecord("messages have no turn of the assistant, which is what is learnt")
    raise BadRecord(f"messages end with a turn of the role {roles[-1]!r}; the last is to be the assistant's")


def spoken(messages: Sequence[Turn]) -> str:
    """The turns of a conversation for a reader, a line each."""
    return "\n".join(turn["content"] for turn in messages)


MESSAGES = Fields({"messages": turns}, check=check_answered)
COMPLETION = Fields({"prompt": text, "completion": text})
ANY = Fields(
    {},
    {"messages": turns, "prompt": text, "completion": text, "text": text},
    check_answered,
    shapes=(("messages",), ("prompt", "completion"), ("text",)),
)
"""One of the two, or a text alone."""
