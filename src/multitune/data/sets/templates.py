"""Sentences from the templates of voice assistants, each by one random walk over the parsed template.

The templates are hassil's: ``(a|b)`` an alternative, ``[a]`` an optional, ``(a;b)`` a permutation, ``<rule>`` an
expansion rule, ``{list}`` or ``{list:slot}`` a slot filled from a list, a range of numbers or, for what people call
their rooms and devices, from words that the caller supplies. Needs the package hassil.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hassil.expression import Alternative, Expression, Group, ListReference, Permutation, RuleReference, TextChunk
from hassil.parse_expression import parse_sentence

MAX_CHARACTERS = 200
MAX_DEPTH = 64  # groups and rules within each other; deeper only where rules call themselves

# Scripts written without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han and their punctuation.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_STRAY_SPACE = re.compile(
    r"\A\s+|\s+\Z|(?<=\s)\s+|\s+(?=[,.?!])|(?<=\w['’])\s+(?=\w)"
    rf"|(?<=[{_SPACELESS}])\s+(?=[{_SPACELESS}])"
)
Span = tuple[str, int, int]


class Grammar:
    """The expansion rules and lists of one language, parsed when a walk first needs them.

    Args:
        rules: name -> template.
        lists: name -> ``{"values": [{"in": template}, ...]}``, ``{"range": {"from", "to", "step"}}`` or
            ``{"wildcard": True}``.
        words: the words for a wildcard and for a list that ``lists`` does not hold, by the list's name; never none.
    """

    def __init__(
        self, rules: Mapping[str, str], lists: Mapping[str, Any], words: Callable[[str], Sequence[str]]
    ) -> None:
        self.rules = rules
        self.lists = lists
        self.words = words
        self._parts: dict[str, Expression] = {}

    def draw(self, template: Expression, rng: random.Random) -> tuple[str, list[Span]] | None:
        """One sentence of a parsed template and its slots, as (name, start, end): ``text[start:end]`` are its words.

        None where the walk met too long or too deep a sentence, or one shorter than two characters: draw again.
        """
        walk = _Walk(self, rng)
        if not walk.follow(template, depth=0):
            return None
        text, spans = tidy("".join(walk.chunks), walk.spans)
        return (text, spans) if len(text) > 1 else None

    def part(self, template: str) -> Expression:
        """A rule's body or a list's value, parsed once."""
        if template not in self._parts:
            self._parts[template] = parse(template)
        return self._parts[template]


def parse(template: str) -> Expression:
    """The expression tree of a template.

    Raises:
        hassil.parser.ParseError: a bracket without its other half.
    """
    return parse_sentence(template).expression


class _Walk:
    """One walk: what it has written so far. ``follow`` and its kin return False to give the sentence up."""

    def __init__(self, grammar: Grammar, rng: random.Random) -> None:
        self.grammar = grammar
        self.rng = rng
        self.chunks: list[str] = []
        self.length = 0
        self.spans: list[Span] = []

    def follow(self, node: Expression, depth: int) -> bool:
        if isinstance(node, TextChunk):
            return self.write(node.original_text)
        if depth > MAX_DEPTH:
            return False
        if isinstance(node, ListReference):
            return self.fill(node, depth)
        if isinstance(node, RuleReference):
            return self.follow(self.grammar.part(self.grammar.rules[node.rule_name]), depth + 1)
        if isinstance(node, Alternative):
            return self.follow(self.choose(node), depth + 1)
        assert isinstance(node, Group), node
        items = self.rng.sample(node.items, len(node.items)) if isinstance(node, Permutation) else node.items
        return all(self.follow(item, depth + 1) for item in items)

    def write(self, text: str) -> bool:
        self.chunks.append(text)
        self.length += len(text)
        return self.length <= MAX_CHARACTERS

    def choose(self, node: Alternative) -> Expression:
        """An item; of an optional, whose last item is the empty one, that item half of the time."""
        if not node.is_optional:
            return self.rng.choice(node.items)
        return node.items[-1] if self.rng.random() < 0.5 else self.rng.choice(node.items[:-1])

    def fill(self, node: ListReference, depth: int) -> bool:
        start, inner = self.length, len(self.spans)
        if not self.write_value(node, depth):
            return False
        self.spans[inner:] = [(node.slot_name, start, self.length)]  # a slot within a slot is part of the outer one
        return True

    def write_value(self, node: ListReference, depth: int) -> bool:
        if (inline := node.get_inline_range()) is not None:
            return self.write_number(*inline)
        source = self.grammar.lists.get(node.list_name, {"wildcard": True})
        if "values" in source:
            return self.follow(self.grammar.part(self.rng.choice(source["values"])["in"]), depth + 1)
        if "range" in source:
            return self.write_number(source["range"]["from"], source["range"]["to"], source["range"].get("step", 1))
        return self.write(self.rng.choice(self.grammar.words(node.list_name)))

    def write_number(self, first: int, last: int, step: int) -> bool:
        return self.write(str(self.rng.randrange(first, last + 1, step)))


def tidy(text: str, spans: Sequence[Span]) -> tuple[str, list[Span]]:
    """Without the spaces that left-out parts leave behind; spans follow, and those left empty go.

    One space stays between words, none at the ends, before ``,.?!``, after an elision (``l'``) or within scripts that
    do not use them.
    """
    cuts = [match.span() for match in _STRAY_SPACE.finditer(text)]
    tidied = re.sub(r"\s", " ", _STRAY_SPACE.sub("", text))
    moved = []
    for name, start, end in spans:
        start, end = _after_cuts(start, cuts), _after_cuts(end, cuts)
        words = tidied[start:end]
        start += len(words) - len(words.lstrip())
        end = start + len(words.strip())
        if start < end:
            moved.append((name, start, end))
    return tidied, moved


def _after_cuts(position: int, cuts: Sequence[tuple[int, int]]) -> int:
    return position - sum(min(end, position) - start for start, end in cuts if start < position)
