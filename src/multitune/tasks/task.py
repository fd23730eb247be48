"""A kind of task: its records, head, encoding, loss, predictions and scores, and how reports show it."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from itertools import compress
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, BatchEncoding, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.kind import IGNORE, Kind, readable
from multitune.data.records.stored import Stored
from multitune.results.shown import Shown

Example = dict[str, Any]
"""An encoded record, or a part of one: ``input_ids`` of a text, and what the kind of task needs, numbers and lists of
whole numbers; where they come from ``Stored``, lists are read-only arrays."""

Inputs = dict[str, Tensor]
"""What a model is called with, by name; the first dimension of each is the examples of a batch."""

Processor = Any
"""A model's tokenizer, or its image processor; ``auto_processor`` says which."""

TOGETHER = 1000
"""Texts, or records with texts, tokenised at a time."""

ClassScores = dict[str, float]
"""Scores of one label: its ``examples``, and ``precision``, ``recall`` and ``f1`` in percent."""

IGNORED = -100
"""The label of a position that has none; cross-entropy leaves it out."""

Item = TypeVar("Item")
_length: ContextVar[Callable[[int], int] | None] = ContextVar("_length", default=None)


class Task(Kind, ABC):
    """A kind of task with its labels. Its head is the Hugging Face architecture's own.

    Records become examples (``encode``), examples batches (``collate``); the model's output for a batch becomes what it
    says of each example (``decode``), and that predictions of records (``join``), which become rows of statistics, and
    those scores.
    """

    auto_model: ClassVar[Any]
    """The transformers Auto class whose architecture has the head."""
    auto_processor: ClassVar[Any] = AutoTokenizer
    """The transformers Auto class of what turns a record into a model's input."""
    pipeline_tag: ClassVar[str | None] = None
    """What the Hugging Face Hub calls models of this kind; None where it has no word for them."""
    metric: ClassVar[str]
    """The name of the score that averages, comparisons and the choice of the best weights use."""

    can_trim: ClassVar[bool] = True
    """Only tokens that occur in training have a gradient. Not so where the outputs are tokens, or there are none."""
    can_pack: ClassVar[bool] = False
    """Texts of a batch can be laid end to end in one row, ``packed``: one token's states depend on none behind it."""
    version: ClassVar[str | None] = None
    """Version of ``encode`` in a kind from outside the package; the two change together. Examples of a kind without one
    are not kept on disk, so that nobody is given those of an older ``encode``."""

    compares_within_batch: ClassVar[bool] = False
    """The loss of an example depends on the others of its batch, so that a batch has several and stays whole."""

    reads_padding: ClassVar[bool] = False
    """The loss of an example depends on how far its row is filled up."""

    predicted: ClassVar[tuple[str, ...]] = ()
    """The fields that a new record lacks: what is to be predicted; none where nothing is predicted of new records."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._number = {label: number for number, label in enumerate(self.labels)}

    def number(self, label: str | None) -> int:
        """The index of a label in the head's output; ``IGNORED`` of one that the model lacks or the recipe ignores."""
        return IGNORED if label is None else self._number.get(label, IGNORED)

    def configure(self, config: PretrainedConfig) -> None:
        """Say in the model's configuration what the head's outputs are."""
        config.id2label = dict(enumerate(self.labels))
        config.label2id = {label: number for number, label in config.id2label.items()}

    @classmethod
    def labels_in(cls, config: PretrainedConfig) -> tuple[str, ...]:
        """The labels that ``configure`` has written there, by the number of the output."""
        return tuple(label for _, label in sorted((config.id2label or {}).items()))

    @classmethod
    def tokens(cls, record: Record, tokenizer: PreTrainedTokenizerBase) -> int:
        """How many tokens a record has, special ones included, before it is cut."""
        texts = cls.texts(record)
        words = isinstance(texts[0], list)
        return len(tokenizer(*texts, is_split_into_words=words, verbose=False)["input_ids"])

    @abstractmethod
    def encode(self, records: Sequence[Record], tokenizer: Processor, max_length: int, /) -> Iterator[Example]:
        """Records to token ids and labels, cut to ``max_length`` tokens, not padded; in the records' order.

        A record may have several examples, where ``join`` knows which are whose.
        """

    def stop_after(self, model: PreTrainedModel, examples: Sequence[Example]) -> None:
        """Let a model that writes texts stop where these end, wherever it is loaded; by default nothing."""

    def augmented(self, example: Example, generator: torch.Generator) -> Example:
        """An example as training meets it this time; by default as it is."""
        return example

    def sizes(self, examples: Sequence[Example]) -> NDArray[np.int64]:
        """Tokens of each example, [examples]: batches hold examples of like size."""
        assert isinstance(examples, Stored)
        return examples.lengths("input_ids")

    def collate(self, examples: Sequence[Example], pad_id: int) -> tuple[Inputs, Tensor]:
        """A batch: what the model takes, and the targets that ``loss`` compares its output with."""
        return self.inputs(examples, pad_id), self.targets(examples)

    def inputs(self, examples: Sequence[Example], pad_id: int) -> Inputs:
        """What the model takes: ``input_ids`` and ``attention_mask``, each [examples, length]."""
        return padded(examples, pad_id)

    def packed(self, examples: Sequence[Example]) -> tuple[Inputs, Tensor]:
        """``collate`` without padding, in one row, where ``can_pack``."""
        raise AssertionError(f"{type(self).__name__} cannot pack")

    @abstractmethod
    def targets(self, examples: Sequence[Example]) -> Tensor:
        """The labels of a batch, [examples, ...]; ``IGNORED`` where there is none."""

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the output's logits, [..., labels], over the targets, [...], that are labels."""
        return torch.nn.functional.cross_entropy(
            output.logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="mean"
        )

    def labels_in_loss(self, targets: Tensor) -> int:
        """How many labels ``loss`` is the mean over: parts of a batch weigh as many as they have."""
        return int((targets != IGNORED).sum())

    def idle(self, model: PreTrainedModel) -> Sequence[nn.Module]:
        """The parts of the model that ``loss`` does not read: they do not train. By default none."""
        return ()

    def fewer_logits(self, model: PreTrainedModel, targets: Tensor) -> AbstractContextManager[None]:
        """A context in which the model computes only the logits that ``loss`` and ``decode`` read; by default all.

        ``targets`` on the CPU spare a wait for the device that the model is on.
        """
        return nullcontext()

    def forward(self, model: PreTrainedModel, inputs: Inputs, examples: Sequence[Example]) -> Any:
        """The model's output at evaluation for a batch of these examples, as ``decode`` reads it."""
        with self.fewer_logits(model, self.targets(examples)):
            return model(**inputs)

    @abstractmethod
    def decode(self, output: Any, examples: Sequence[Example]) -> list[Any]:
        """For each example of a batch what the model's output says of it."""

    def join(
        self,
        records: Sequence[Record],
        examples: Sequence[Example],
        decoded: Sequence[Any],
        tokenizer: Processor,
    ) -> list[Any]:
        """A prediction for each record, plain JSON values, from what was decoded in their examples."""
        assert len(records) == len(examples)
        return list(decoded)

    def stand_in(self, record: Record) -> Record:
        """A new record with something in the place of what is to be predicted, so that it can be encoded.

        No prediction depends on it. Kinds with fields in ``predicted`` have to say what it is.
        """
        return record

    def from_text(self, text: str) -> Any:
        """What a text alone is as the one field of a new record; by default the text."""
        return text

    def of_new(self, prediction: Any) -> Any:
        """What of a prediction is said of a new record, which has nothing to compare it with; by default all."""
        return prediction

    def confidence(self, output: Any, examples: Sequence[Example]) -> list[Any]:
        """For each example of a batch how sure the model is of what ``decode`` says, in plain JSON; None by default."""
        return [None] * len(examples)

    def shown(self, record: Record, prediction: Any) -> Shown:
        """How a report shows a test record and its prediction; by default, right is what equals the label."""
        right = None if self.label_field is None else bool(record[self.label_field] == prediction)
        said = prediction if isinstance(prediction, str) else json.dumps(prediction, ensure_ascii=False)
        return Shown(readable(self.texts(record)), ", ".join(self.labels_of(record)), said, right)

    def taken_for(self, prediction: Any, names: Mapping[str, str]) -> Any:
        """A prediction with some of its labels taken for others, as ``relabelled`` takes those of a record."""
        field = self.label_field
        others = {label: name for label, name in names.items() if name != IGNORE}
        return prediction if field is None else self.relabelled({field: prediction}, others)[field]

    @abstractmethod
    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        """All that ``scores`` has to know of one record and its prediction."""

    @abstractmethod
    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Scores in percent of resamples of a test set, {metric: [...]}.

        Args:
            rows: the statistics of its records, [records, statistics].
            counts: how often each record is in each resample, [..., records]. Where a score is a function of sums,
                ``counts @ rows`` has them all, so that a bootstrap is one matrix product.
        """

    def by_class(self, rows: NDArray[np.float64]) -> dict[str, ClassScores]:
        """The scores of each label, from the statistics of each record; none where a record has no label of its own."""
        return {}

    def versions(self) -> dict[str, str]:
        """What results are to say of how they were scored, beside the packages' versions."""
        return {}

    def score(self, records: Sequence[Record], predictions: Sequence[Any]) -> dict[str, float]:
        """Scores in percent of predictions for records of one language."""
        return self.score_rows(self.all_statistics(records, predictions))

    def score_rows(self, rows: NDArray[np.float64]) -> dict[str, float]:
        """Scores in percent from the statistics of each record, [records, statistics]."""
        return {metric: float(value) for metric, value in self.scores(rows, np.ones(len(rows))).items()}

    def all_statistics(self, records: Sequence[Record], predictions: Sequence[Any]) -> NDArray[np.float64]:
        """The statistics of each record, [records, statistics]."""
        pairs = zip(records, predictions, strict=True)
        return np.array([self.statistics(record, prediction) for record, prediction in pairs], dtype=np.float64)


def together(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """``TOGETHER`` items at a time."""
    return (items[first : first + TOGETHER] for first in range(0, len(items), TOGETHER))


def encode_texts(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[tuple[Record, Example]]:
    """Each record with the example of its text or pair of texts.

    Where the tokenizer is to split special tokens, an end token that a text itself spells is left out: a vocabulary may
    have its spelling as a piece.
    """
    split: bool = tokenizer.split_special_tokens
    for some in together(records):
        pairs = [record["text_pair"] for record in some] if "text_pair" in some[0] else None
        texts = [record["text"] for record in some]
        encoded = tokenizer(
            texts,
            pairs,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_special_tokens_mask=split,
        )
        rows = rows_of(encoded)
        if split:
            added = encoded["special_tokens_mask"]
            rows = [_without_ends(*each, tokenizer.eos_token_id) for each in zip(rows, added, strict=True)]
        yield from zip(some, rows, strict=True)


def _without_ends(row: Example, added: Sequence[int], end: int | None) -> Example:
    """A row without end tokens but those that the tokenizer has ``added``, [length]."""
    kept = [is_added or token != end for token, is_added in zip(row["input_ids"], added, strict=True)]
    return {name: list(compress(values, kept)) for name, values in row.items()}


def rows_of(encoding: BatchEncoding) -> list[Example]:
    """The model's inputs in a tokenizer's output, one example a row."""
    names = [name for name in ("input_ids", "token_type_ids") if name in encoding]
    return [dict(zip(names, row, strict=True)) for row in zip(*(encoding[name] for name in names), strict=True)]


def padded(examples: Sequence[Example], pad_id: int) -> Inputs:
    """``input_ids`` and ``attention_mask`` (and ``token_type_ids``, where there are any), each [examples, length]."""
    lengths = torch.tensor([len(example["input_ids"]) for example in examples])
    ids = padded_rows([example["input_ids"] for example in examples], pad_id)
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = padded_rows([example["token_type_ids"] for example in examples], 0)
    return inputs


@contextmanager
def filled_up(length: Callable[[int], int]) -> Iterator[None]:
    """A context in which rows are filled up to the length that a function makes of the longest one's."""
    before = _length.set(length)
    try:
        yield
    finally:
        _length.reset(before)


@contextmanager
def logits_at(model: PreTrainedModel, chosen: Tensor) -> Iterator[None]:
    """A context in which a language model's logits are those of some tokens, [chosen tokens, vocabulary].

    Args:
        model: its output embeddings are a module.
        chosen: bool [batch, length].
    """
    output = model.get_output_embeddings()
    assert isinstance(output, nn.Module)
    places = chosen.flatten().nonzero()[:, 0]

    def of_chosen(whole: Tensor) -> Tensor:
        return whole.flatten(0, 1)[places.to(whole.device, non_blocking=True)]

    def choose(_: nn.Module, states: tuple[Tensor]) -> tuple[Tensor]:
        return (of_chosen(states[0]),)

    def choose_late(_: nn.Module, inputs: Any, outputs: Any) -> None:
        if outputs.logits.ndim > 2:  # a head (MobileBERT's) has read the output's weights, and not called it
            outputs.logits = of_chosen(outputs.logits)

    handles = output.register_forward_pre_hook(choose), model.register_forward_hook(choose_late)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def known_labels(targets: Tensor, count: int) -> Tensor:
    """The labels in ``targets`` that are not ``IGNORED``, in order, [count].

    Their number is told, so that the host need not wait for the device to find it.
    """
    labels = targets.flatten()
    return labels[(labels == IGNORED).int().argsort(stable=True)[:count]]


def padded_rows(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Rows of whole numbers, filled up at the end: [rows, length of the longest, or as ``filled_up`` has it]."""
    longest, length = max(map(len, rows)), _length.get()
    table = np.full((len(rows), longest if length is None else length(longest)), padding)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return torch.from_numpy(table)


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """100 * part / whole, and 0 where whole is 0."""
    return np.divide(100.0 * part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def sums(rows: NDArray[np.float64], counts: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The columns of ``rows`` [records, statistics], each summed over the resamples ``counts`` [..., records]."""
    return list(np.moveaxis(counts @ rows, -1, 0))
