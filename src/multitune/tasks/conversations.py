"""Conversations, prompts and texts as tokens: which of them are learnt, and where the answer begins."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from multitune.data.chat import ASSISTANT, Turn, spoken
from multitune.data.corpus import Record
from multitune.errors import UserError, as_line

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What begins a template's own mark of what the assistant says."""

OTHER = "something else"
"""What a turn might say."""

Span = tuple[int, int]
"""The first character of a stretch of a text, and the one behind its last."""


class Token(NamedTuple):
    """A token: its number, whether it is learnt, the characters that it stands for (none of a special token)."""

    id: int
    learnt: bool
    span: Span


class Tokens(NamedTuple):
    """A record as tokens.

    Attributes:
        tokens: all of them.
        text: what the characters are of that learnt tokens stand for.
        prompt: how many tokens come before the last answer; 0 where there is none.
    """

    tokens: list[Token]
    text: str
    prompt: int

    def cut(self, most: int) -> "Tokens":
        """At most so many tokens: the prompt loses its beginning, down to half of them, then the answer its end."""
        answer = min(len(self.tokens) - self.prompt, max(most - self.prompt, most // 2))
        begin = max(0, self.prompt + answer - most)
        return Tokens(self.tokens[begin : self.prompt + answer], self.text, self.prompt - begin)

    @property
    def learnt_bytes(self) -> int:
        """Bytes in UTF-8 of what is learnt and predicted: not of special tokens, nor of the first token of all."""
        return sum(len(self.text[begin:end].encode()) for begin, end in self._stretches()) - self._unpredicted_bytes

    @property
    def _unpredicted_bytes(self) -> int:
        """Bytes of the first token, of which there is no loss; of a part of a character, its even share."""
        first = self.tokens[0]
        if not first.learnt:
            return 0
        begin, end = first.span
        return math.ceil(len(self.text[begin:end].encode()) / sum(own.span == first.span for own in self.tokens))

    def _stretches(self) -> Iterator[Span]:
        begin, end = 0, 0
        for token in self.tokens:
            if token.learnt and token.span[1] > 0:
                begin, end = (begin if end > begin else token.span[0]), token.span[1]
            elif end > begin:
                yield begin, end
                begin, end = 0, 0
        if end > begin:
            yield begin, end


class Reader:
    """Turns records into tokens.

    Attributes:
        unmarked: earlier turns of the assistant so far that are not learnt, since the template shows them otherwise
            once others follow, or cannot ask for a first turn, and does not mark them.
        left_out: role -> its turns so far of which the template shows nothing.
        begun: what answers begin with as they are learnt, where the template does not ask for one with it; else "".
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.unmarked, self.left_out, self.begun = 0, Counter[str](), ""
        added = tokenizer.added_tokens_decoder
        self._tokenizer = tokenizer
        self._special = {*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)}

    def read(self, record: Record) -> Tokens:
        """The tokens of a record; of a text and of what completes a prompt the end token is learnt, too.

        Raises:
            UserError: the tokenizer has no template, it cannot be applied, or no token is learnt.
        """
        if "messages" in record:
            read = self._conversation(record["messages"])
        elif "prompt" in record:
            prompt = self._without_end(self._tokenised(record["prompt"], special=True))
            answer = [*self._tokenised(record["completion"], [(0, len(record["completion"]))]), *self._end()]
            read = Tokens([*prompt, *answer], record["completion"], len(prompt))
        else:
            own = self._without_end(self._tokenised(record["text"], [(0, len(record["text"]))], special=True))
            read = Tokens([*own, *self._end()], record["text"], 0)
        if not any(token.learnt for token in read.tokens[1:]):
            raise UserError(f"data: no token of {_beginning(record)} is learnt: what the assistant says is not found")
        return read

    def end_of(self, read: Tokens) -> int:
        """The special token with which an answer ends; -1 where there is none."""
        last = next(token.id for token in reversed(read.tokens) if token.learnt)
        end = last if last in self._special else self._tokenizer.eos_token_id
        return -1 if end is None else end

    def _conversation(self, messages: Sequence[Turn]) -> Tokens:
        template = self._template()
        marked = MARKED.search(template) is not None
        text, spans = self._rendered(template, messages) if marked else self._by_prefixes(template, messages)
        self.left_out.update(self._left_out(template, messages, text))
        tokens = self._tokenised(text, spans)
        learnt = [number for number, token in enumerate(tokens) if token.learnt]
        gaps = [after for before, after in pairwise(learnt) if after > before + 1]
        return Tokens(tokens, text, max([*learnt[:1], *gaps], default=0))

    def _by_prefixes(self, template: str, messages: Sequence[Turn]) -> tuple[str, list[Span]]:
        """The conversation, and what each turn of the assistant adds to it: to what asks for it, up to its end."""
        whole, _ = self._rendered(template, messages)
        spans = []
        for number, turn in enumerate(messages):
            if turn["role"] != ASSISTANT:
                continue
            before = self._asked(template, messages[:number])
            after, _ = self._rendered(template, messages[: number + 1])
            if before is not None and whole.startswith(after) and after.startswith(before):
                spans.append((len(before), len(after.rstrip())))
                self.begun = self.begun or self._begun(template, messages[: number + 1], before, after)
            elif number + 1 < len(messages):
                self.unmarked += 1
            else:
                raise UserError(
                    "model: its chat template shows an answer otherwise than it asks for it, so that what is learnt "
                    "cannot be found; mark it in the template with {% generation %} and {% endgeneration %}"
                )
        return whole, spans

    def _begun(self, template: str, messages: Sequence[Turn], before: str, after: str) -> str:
        """What stands before the last answer and is not asked with, where the template asks for none; else nothing."""
        *earlier, answer = messages
        begun = after[len(before) :].partition(answer["content"].strip())[0]
        return begun if begun.strip() and self._rendered(template, earlier)[0] == before else ""

    def _left_out(self, template: str, messages: Sequence[Turn], text: str) -> Iterator[str]:
        """The role of each turn that could be another, and the text were the same."""
        for number, turn in enumerate(messages):
            if turn["content"].strip() not in text:  # as it stands: some templates cut a turn, or quote it
                other = [*messages[:number], turn | {"content": OTHER}, *messages[number + 1 :]]
                if self._rendered(template, other)[0] == text:
                    yield turn["role"]

    def _asked(self, template: str, messages: Sequence[Turn]) -> str | None:
        """What asks for the next turn; None where that is the first one, which many templates cannot ask for."""
        try:
            return self._rendered(template, messages, ask=True)[0]
        except UserError:
            if messages:
                raise
            return None

    def _template(self) -> str:
        if self._tokenizer.chat_template is None:
            raise UserError(
                "model: its tokenizer has no chat template, which messages need; give prompt and completion, or a "
                "model that was made for chat"
            )
        try:
            template: str = self._tokenizer.get_chat_template()
        except ValueError as error:  # it has several, and no default
            raise UserError(as_line(f"model: {error}")) from error
        return template

    def _rendered(self, template: str, messages: Sequence[Turn], *, ask: bool = False) -> tuple[str, list[Span]]:
        """A conversation as text, and the stretches that the template marks.

        Args:
            ask: end with what asks the assistant for an answer.

        Raises:
            UserError: the template cannot be applied.
        """
        special: dict[str, Any] = self._tokenizer.special_tokens_map
        try:
            found: Any = render_jinja_template(
                [list(messages)],
                chat_template=template,
                return_assistant_tokens_mask=MARKED.search(template) is not None,
                add_generation_prompt=ask,
                **special,
            )
        except (TemplateError, TypeError, ValueError) as error:
            of = _beginning({"messages": messages})
            raise UserError(as_line(f"model: its chat template cannot be applied to {of}: {error}")) from error
        (text, *_), marks = found
        return text, [(begin, end) for own in marks for begin, end in own]

    def _tokenised(self, text: str, spans: Sequence[Span] = (), *, special: bool = False) -> list[Token]:
        """The tokens of a text, learnt within ``spans``; ``special``: with those that the tokenizer adds."""
        encoded = self._tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
        return [
            Token(number, _within(own, spans), (0, 0) if number in self._special else own)
            for number, own in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]

    def _without_end(self, tokens: list[Token]) -> list[Token]:
        return tokens[:-1] if tokens and tokens[-1].id == self._tokenizer.eos_token_id else tokens

    def _end(self) -> list[Token]:
        end: Any = self._tokenizer.eos_token_id
        return [] if end is None else [Token(end, True, (0, 0))]


def _within(own: Span, spans: Sequence[Span]) -> bool:
    """Whether a token has a character of a span, be it with the blank before it, as transformers counts.

    Tokenizers that trim offsets leave a token of blanks without any: it is where it ends.
    """
    return any(begin < own[1] and (own[0] < end or own[1] <= end) for begin, end in spans)


def _beginning(record: Record) -> str:
    """What names a record whose place is not known any more."""
    first = spoken(record["messages"][:1]) if "messages" in record else record.get("prompt", record.get("text"))
    return f"the record that begins with {str(first)[:40]!r}"
