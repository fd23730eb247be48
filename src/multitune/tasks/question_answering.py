"""Extractive question answering: the answer is a stretch of the context, found through windows of tokens."""

import logging
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, BatchEncoding, PretrainedConfig, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import QUESTION
from multitune.data.kind import Text, readable
from multitune.results.shown import Shown
from multitune.tasks.answers import exact_and_f1
from multitune.tasks.task import Example, Task, ratio, together

log = logging.getLogger(__name__)

SHARE, OVERLAP = 6, 3
"""A question is cut after a sixth of a window's tokens, two windows share a third: of 384 these are the papers' 64
and 128."""
ANSWER_TOKENS = 30
"""Tokens of the longest answer that is predicted."""
N_BEST = 20
"""How many of the best starts and ends are paired, and how many pairs a window hands on."""
KEPT = 5
"""How many of the best answers a prediction lists."""
HANGUL = frozenset(map(chr, (*range(0x1160, 0x1200), *range(0xD7B0, 0xD800))))
"""The letters that go on a syllable of Korean that is written letter by letter: its vowel and what ends it."""
NO_ANSWER = 0
"""The token that a window without the answer points at: the first."""


class Span(NamedTuple):
    """A stretch of the context, in characters, with the sum of its start's and its end's logit."""

    score: float
    start: int
    end: int


class Window(NamedTuple):
    """What was found in one window: the best stretches, best first, and the score of there being no answer."""

    spans: list[Span]
    no_answer: float


@final
class QuestionAnswering(Task):
    """Records as in SQuAD: ``{"id", "context", "question", "answers": {"text": [str], "answer_start": [int]}}``.

    A question without answers has none. A record with ``"mlqa_language"`` is scored with MLQA's normalisation for that
    language, any other one with SQuAD's.

    A prediction is ``{"text", "start", "n_best": [[text, score], ...], "no_answer": score}``; text is "" and start -1
    where "no answer" scores better than every stretch. That is considered where the split has questions without
    answers, i.e. in sets of SQuAD 2.0's kind.
    """

    fields = QUESTION
    auto_model = AutoModelForQuestionAnswering
    pipeline_tag = "question-answering"
    reads_padding = True  # an answer may begin at any place of the row, as in transformers' own loss
    metric = "f1"
    predicted = ("answers",)

    @classmethod
    def texts(cls, record: Record) -> tuple[Text, ...]:
        return (record["question"], record["context"])

    @classmethod
    def is_answered(cls, record: Record) -> bool:
        return bool(record["answers"]["text"])

    @classmethod
    def plain_text(cls, record: Record) -> str:
        context: str = record["context"]
        return context

    @classmethod
    def content(cls, record: Record) -> str:
        """The context: its questions stay together."""
        return cls.plain_text(record)

    def stand_in(self, record: Record) -> Record:
        """The first character is the answer, so that a question has one: "no answer" is not considered."""
        return record | {"answers": {"text": [record["context"][0]], "answer_start": [0]}}

    def configure(self, config: PretrainedConfig) -> None:
        config.num_labels = 2  # where an answer starts, and where it ends

    @classmethod
    def labels_in(cls, config: PretrainedConfig) -> tuple[str, ...]:
        return ()

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        first, lost = 0, 0
        for some in together(records):
            held = set()
            for example in _examples(_windows(some, tokenizer, max_length), some, first):
                if example["answer"][1] > NO_ANSWER:
                    held.add(example["record"])
                yield example
            first += len(some)
            lost += sum(bool(record["answers"]["text"]) for record in some) - len(held)
        if lost:
            log.warning("%d of %d answers fit in no window of %d tokens", lost, len(records), max_length)

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return torch.from_numpy(np.array([example["answer"] for example in examples], dtype=np.int64))

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Mean cross-entropy of starts and ends over the tokens of a window; targets [windows, 2]."""
        logits = torch.stack([output.start_logits, output.end_logits], dim=1).float()
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def decode(self, output: Any, examples: Sequence[Example]) -> list[Window]:
        starts, ends = output.start_logits.float().cpu(), output.end_logits.float().cpu()
        no_answer = (starts[:, NO_ANSWER] + ends[:, NO_ANSWER]).tolist()
        inside = np.zeros(starts.shape, dtype=np.bool_)
        for row, example in enumerate(examples):
            inside[row, example["tokens"]] = True
        outside = torch.from_numpy(~inside)
        best = best_pairs(starts.masked_fill(outside, -torch.inf), ends.masked_fill(outside, -torch.inf))
        return [
            Window(_spans(example, *(part[row] for part in best)), no_answer[row])
            for row, example in enumerate(examples)
        ]

    def join(
        self,
        records: Sequence[Record],
        examples: Sequence[Example],
        decoded: Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Any]:
        windows: list[list[Window]] = [[] for _ in records]
        for example, window in zip(examples, decoded, strict=True):
            windows[example["record"]].append(window)
        may_have_none = not all(map(self.is_answered, records))
        pairs = zip(records, windows, strict=True)
        return [_prediction(record["context"], own, may_have_none) for record, own in pairs]

    def shown(self, record: Record, prediction: Any) -> Shown:
        answers = " | ".join(dict.fromkeys(record["answers"]["text"]))
        exact, _ = self.statistics(record, prediction)
        return Shown(
            readable(self.texts(record)), answers or "no answer", prediction["text"] or "no answer", right=exact == 1
        )

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        return exact_and_f1(prediction["text"], record["answers"]["text"], record.get("mlqa_language"))

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        exact, f1 = np.moveaxis(counts @ rows, -1, 0)
        return {"f1": ratio(f1, counts.sum(-1)), "exact_match": ratio(exact, counts.sum(-1))}


def best_pairs(starts: Tensor, ends: Tensor) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Scores, first and last tokens of the best stretches of each window, each [windows, N_BEST], best first.

    Args:
        starts, ends: logits [windows, length], -inf outside the context.
    """
    start_scores, firsts = starts.topk(min(N_BEST, starts.shape[1]))
    end_scores, lasts = ends.topk(min(N_BEST, ends.shape[1]))
    tokens = lasts[:, None, :] - firsts[:, :, None] + 1
    scores = start_scores[:, :, None] + end_scores[:, None, :]
    scores = scores.masked_fill((tokens < 1) | (tokens > ANSWER_TOKENS), -torch.inf)
    best, pair = scores.flatten(1).topk(min(N_BEST, scores[0].numel()))
    first, last = pair // lasts.shape[1], pair % lasts.shape[1]
    return best.numpy(), firsts.gather(1, first).numpy(), lasts.gather(1, last).numpy()


def _windows(records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int) -> BatchEncoding:
    windows: BatchEncoding = tokenizer(
        _cut([record["question"] for record in records], tokenizer, max(1, max_length // SHARE)),
        [record["context"] for record in records],
        truncation="only_second",
        max_length=max_length,
        stride=max_length // OVERLAP,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    return windows


def _cut(questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[str]:
    """The questions, without what comes after so many tokens."""
    offsets = tokenizer(list(questions), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        question[: places[tokens - 1][1]] if len(places) > tokens else question
        for question, places in zip(questions, offsets, strict=True)
    ]


def _examples(encoded: BatchEncoding, records: Sequence[Record], first_record: int) -> Iterator[Example]:
    """Each window with the characters of its tokens.

    An example has ``record`` (its place in the split), ``tokens`` (those of the context, [n]), ``starts`` and ``ends``
    (where each of them begins and ends in the context, in characters, [n]) and ``answer`` (its first and last token;
    ``NO_ANSWER`` twice where the window does not hold all of it).
    """
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    before = None
    for row, sample in enumerate(encoded["overflow_to_sample_mapping"]):
        characters = np.array(encoded["offset_mapping"][row], dtype=np.int32)
        of_context = np.array([part == 1 for part in encoded.sequence_ids(row)])
        tokens = np.flatnonzero(of_context & (characters[:, 0] < characters[:, 1]))
        starts, ends = characters[tokens].T
        floors = np.append(starts[:1], ends[:-1])  # a later window may begin within a word
        if sample != before:
            before, context = sample, _Characters(records[sample]["context"])
            floors[:1] = 0
        starts = _with_lost_characters(starts, floors, context.shown)
        ends = _with_lost_marks(ends, starts[1:], context.marks)
        starts = _without_blanks(starts, ends, context.blank)
        yield {name: encoded[name][row] for name in names} | {
            "record": first_record + sample,
            "tokens": tokens.tolist(),
            "starts": starts.tolist(),
            "ends": ends.tolist(),
            "answer": _answer(records[sample], tokens, starts, ends),
        }


class _Characters:
    """What the characters of a context are, bool [characters] each.

    Attributes:
        shown: to be seen.
        blank: a blank.
        marks: part of the character before it: an accent, a sign of a vowel, all but the first letter of a syllable of
            Hangul that is written letter by letter.
    """

    def __init__(self, context: str) -> None:
        self.shown = np.fromiter(map(_is_shown, context), dtype=np.bool_)
        self.blank = np.fromiter(map(str.isspace, context), dtype=np.bool_)
        self.marks = np.fromiter(map(_is_mark, context), dtype=np.bool_)


def _with_lost_characters(
    starts: NDArray[np.int32], floors: NDArray[np.int32], shown: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Where tokens begin, moved back over characters just before them that are in no token.

    A tokenizer that splits at blanks before it maps bytes (RobBERT's) says of a word's first token that it begins at
    the second character.

    Args:
        starts: characters where the tokens begin, [n].
        floors: how far back each may go: where the token before ends, [n].
        shown: whether each character of the context is to be seen.
    """
    moved = starts.copy()
    for token in np.flatnonzero((starts > floors) & shown[starts - 1]):
        while moved[token] > floors[token] and shown[moved[token] - 1]:
            moved[token] -= 1
    return moved


def _with_lost_marks(
    ends: NDArray[np.int32], ceilings: NDArray[np.int32], marks: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Where tokens end, moved on over marks just behind them that are in no token.

    A tokenizer that leaves accents out (mBERT's without capitals does so with signs of vowels, too), or joins the
    letters of a syllable, says of a word's last token that it ends before them.

    Args:
        ends: characters behind the tokens, [n].
        ceilings: how far on all but the last may go: where the token behind begins, [n - 1].
        marks: whether each character of the context is one.
    """
    moved = ends.copy()
    limits = np.append(ceilings, len(marks))[: len(ends)]
    for token in np.flatnonzero((ends < limits) & np.append(marks, False)[ends]):
        while moved[token] < limits[token] and marks[moved[token]]:
            moved[token] += 1
    return moved


def _without_blanks(starts: NDArray[np.int32], ends: NDArray[np.int32], blank: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Where tokens begin, behind the blanks before a word that are a part of its token, as in Llama's and Qwen's."""
    moved = starts.copy()
    for token in np.flatnonzero(blank[starts]):
        while moved[token] + 1 < ends[token] and blank[moved[token]]:
            moved[token] += 1
    return moved


def _answer(record: Record, tokens: NDArray[Any], starts: NDArray[Any], ends: NDArray[Any]) -> tuple[int, int]:
    """The first and the last token that have a character of the first answer, blanks at its edges left out."""
    answers = record["answers"]
    if not answers["text"] or not len(tokens):
        return NO_ANSWER, NO_ANSWER
    text = answers["text"][0]
    shown = [place for place, character in enumerate(text) if _is_shown(character)] or range(len(text))
    start, end = answers["answer_start"][0] + shown[0], answers["answer_start"][0] + shown[-1] + 1
    first, last = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(starts, end)) - 1
    if starts[0] > start or ends[-1] < end or first > last:
        return NO_ANSWER, NO_ANSWER
    return int(tokens[first]), int(tokens[last])


def _is_shown(character: str) -> bool:
    """Whether a character may be part of a token: not a blank, a mark of direction, a joiner or another of no width."""
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")


def _is_mark(character: str) -> bool:
    """Whether a character is part of the one before it."""
    return unicodedata.category(character).startswith("M") or character in HANGUL


def _spans(example: Example, scores: NDArray[Any], firsts: NDArray[Any], lasts: NDArray[Any]) -> list[Span]:
    """Tokens back to characters."""
    real = scores > -np.inf
    places = np.searchsorted(example["tokens"], np.stack([firsts[real], lasts[real]]))
    starts, ends = np.asarray(example["starts"])[places[0]], np.asarray(example["ends"])[places[1]]
    return [Span(*span) for span in zip(scores[real].tolist(), starts.tolist(), ends.tolist(), strict=True)]


def _prediction(context: str, windows: Sequence[Window], may_have_none: bool) -> dict[str, Any]:
    best = sorted((span for window in windows for span in window.spans), key=lambda span: -span.score)[:KEPT]
    no_answer = min(window.no_answer for window in windows)
    nothing = not best or (may_have_none and no_answer > best[0].score)
    return {
        "text": "" if nothing else context[best[0].start : best[0].end],
        "start": -1 if nothing else best[0].start,
        "n_best": [[context[span.start : span.end], span.score] for span in best],
        "no_answer": no_answer,
    }
