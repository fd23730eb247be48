"""How a model is told into which language it translates: by a token of its own, or by a mark before the text."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from multitune.data.bad import first_of
from multitune.data.corpus import Record
from multitune.data.languages import Language, language
from multitune.errors import UserError

FORCED = re.compile(r"(?P<nllb>[a-z]{3}_[A-Z][a-z]{3})|(?P<mbart>[a-z]{2,3}_[A-Z]{2})|__(?P<m2m>[a-z]{2,3})__")
"""The tokens with which the translations of NLLB, mBART and M2M begin."""
PREFIX = re.compile(r">>(\w+)<<")
"""The tokens with which the source texts of Marian's models for several languages begin."""
FEW = 20
"""Codes that a message lists."""

Mark = TypeVar("Mark", int, str)

Codes = dict[Language, int]
"""Language -> the number of its token."""


class LanguageMarks:
    """The marks of a tokenizer's model.

    NLLB's, mBART's and M2M's models begin a translation with the target language's token, after the decoder's start.
    Texts of both sides have their token where the tokenizer puts it: first (NLLB, mBART-50, M2M) or last (the first
    mBART, whose decoder starts with the token itself). Marian's models for several languages have ``>>deu<<`` before
    the source, all others get ``<2de>`` there (Johnson et al. 2017, arXiv 1611.04558).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.get_added_vocab()
        self._forced = _codes(
            {name: match[match.lastgroup or 0] for name in added if (match := FORCED.fullmatch(name))}, added
        )
        self._prefixes: Mapping[Language, str] = {} if self._forced else _prefixes(tokenizer)
        own = tokenizer("")["input_ids"]
        self._first = not (own and own[-1] in self._forced.values())
        self._has_place = any(number in self._forced.values() for number in own)
        self._end: int = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else -1

    def source_text(self, record: Record) -> str:
        """The source text, with a mark of its target language before it where the model wants it there."""
        code = record.get("target_language")
        if code is None or self._forced:
            text: str = record["source"]
            return text
        return f"{_of_language(code, self._prefixes) or language_mark(code)} {record['source']}"

    def source_ids(self, record: Record, ids: Sequence[int]) -> Sequence[int]:
        """The tokens of a source text with the token of its language, where the record names that."""
        code = record.get("source_language")
        return ids if code is None or not self._has_place else self._marked(ids, self._number(code))

    def target_ids(self, record: Record, ids: Sequence[int]) -> Sequence[int]:
        """The tokens of a translation with that of its language, where the model wants one."""
        code = record.get("target_language")
        return ids if code is None or not self._forced else self._marked(ids, self._number(code))

    def start(self, target_ids: Sequence[int]) -> int:
        """The token before the first one of a translation, where the model begins with a language's; else -1."""
        if not self._forced:
            return -1
        return self._end if self._first else target_ids[-1]

    def _marked(self, ids: Sequence[int], number: int) -> Sequence[int]:
        if not self._has_place:
            return [number, *ids]
        return [number, *ids[1:]] if self._first else [*ids[:-1], number]

    def _number(self, code: str) -> int:
        """The token of a language.

        Raises:
            UserError: the model has none, or several.
        """
        number = _of_language(code, self._forced)
        if number is not None:
            return number
        names = sorted({known.code for known in self._forced})
        raise UserError(
            f"model: it has no code for the language {code!r}, which names a file or stands in a column; it has "
            f"{first_of(names, FEW)}"
        )


def _of_language(code: str, marks: Mapping[Language, Mark]) -> Mark | None:
    """The mark of a language: the one in its script, where there are several; None where there is none.

    Raises:
        UserError: several, and the code does not say the script.
    """
    wanted = language(code)
    fitting = [known for known in marks if known.code == wanted.code]
    exact = [known for known in fitting if wanted.script in (None, known.script)] if len(fitting) > 1 else fitting
    if len(exact) > 1:
        scripts = ", ".join(sorted(f"{known.code}_{known.script}" for known in exact))
        raise UserError(
            f"model: it has several codes for the language {code!r}; name the file or value one of {scripts}"
        )
    return marks[exact[0]] if exact else None


def _codes(spelt: dict[str, str], numbers: dict[str, int]) -> Codes:
    return {language(code): numbers[name] for name, code in spelt.items()}


@lru_cache(maxsize=1)
def _prefixes(tokenizer: PreTrainedTokenizerBase) -> Mapping[Language, str]:
    """Language -> Marian's token for it; kept, as texts are encoded in blocks, and a vocabulary is long."""
    matches = map(PREFIX.fullmatch, tokenizer.get_vocab())
    return {language(match[1]): match[0] for match in matches if match is not None}


def language_mark(code: str) -> str:
    """What stands before a text that is to be translated into a language."""
    return f"<2{code}>"
