"""Token tagging: entities, scored by F1 as seqeval (and so the papers) has it, and parts of speech, by accuracy."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import ENTITIES, PARTS_OF_SPEECH
from multitune.data.kind import Text, readable
from multitune.results.shown import Shown
from multitune.tasks.task import IGNORED, Example, Task, padded_rows, ratio, rows_of, sums, together


class TokenTask(Task):
    """Records ``{"tokens": [str], "tags": [str]}``; a prediction is the list of tags.

    The first subword of a token carries its tag. A token without one (cut off at the end, or of characters that the
    tokenizer drops) is predicted as ``unread``.
    """

    label_field = "tags"
    split_into_words = True
    auto_model = AutoModelForTokenClassification
    pipeline_tag = "token-classification"
    unread: ClassVar[str]

    def stand_in(self, record: Record) -> Record:
        return record | {"tags": [self.labels[0]] * len(record["tokens"])}

    @classmethod
    def texts(cls, record: Record) -> tuple[Text, ...]:
        return (record["tokens"],)

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        for some in together(records):
            encoded = tokenizer(
                [record["tokens"] for record in some],
                is_split_into_words=True,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
            )
            for row, (example, record) in enumerate(zip(rows_of(encoded), some, strict=True)):
                yield example | self._labelled(encoded.word_ids(row), record)

    def _labelled(self, words: Sequence[int | None], record: Record) -> Example:
        labels, firsts = [IGNORED] * len(words), [-1] * len(record["tokens"])
        for position, word in enumerate(words):
            if word is not None and firsts[word] < 0:
                firsts[word] = position
                labels[position] = self.number(record["tags"][word])
        return {"labels": labels, "firsts": firsts}

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return padded_rows([example["labels"] for example in examples], IGNORED)

    def decode(self, output: Any, examples: Sequence[Example]) -> list[list[str]]:
        names = (*self.labels, self.unread)
        best = output.logits.argmax(-1).cpu().numpy()
        firsts = (np.asarray(example["firsts"]) for example in examples)
        numbers = (np.where(own >= 0, best[row, own], len(self.labels)) for row, own in enumerate(firsts))
        return [[names[number] for number in own.tolist()] for own in numbers]

    def confidence(self, output: Any, examples: Sequence[Example]) -> list[list[float | None]]:
        """The probability of each token's tag; None of a token that is not read."""
        best = output.logits.float().softmax(-1).amax(-1).tolist()
        firsts = (np.asarray(example["firsts"]).tolist() for example in examples)
        return [[None if n < 0 else row[n] for n in own] for row, own in zip(best, firsts, strict=True)]

    def shown(self, record: Record, prediction: Any) -> Shown:
        true, predicted = self._scored(record, prediction)
        reference, said = (self._phrases(record["tokens"], tags) or "nothing" for tags in (true, predicted))
        return Shown(readable(self.texts(record)), reference, said, right=true == predicted)

    def _scored(self, record: Record, prediction: Sequence[str]) -> tuple[list[str], list[str]]:
        """The record's tags and those predicted, both ``unread`` where the recipe ignores the record's."""
        true = [self.unread if tag is None else tag for tag in record["tags"]]
        pairs = zip(record["tags"], prediction, strict=True)
        return true, [self.unread if tag is None else said for tag, said in pairs]

    @abstractmethod
    def _phrases(self, tokens: Sequence[str], tags: Sequence[str]) -> str:
        """What the tags say, each beside its tokens."""


@final
class Tagging(TokenTask):
    """Entities in IOB2, scored by the F1, precision and recall of whole ones."""

    fields = ENTITIES
    metric = "f1"
    unread = "O"
    predicted = ("tags",)

    @classmethod
    def name_of(cls, label: str) -> str:
        """The type of an entity; "" of O."""
        return label.partition("-")[2]

    @classmethod
    def renamed(cls, label: str, names: Mapping[str, str]) -> str | None:
        prefix, _, entity = label.partition("-")
        new = super().renamed(entity, names)
        return new if new in (None, cls.unread) else f"{prefix}-{new}" if entity else label

    @classmethod
    def completed(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        """B-X implies that there is I-X: an entity of one token in training may have two elsewhere."""
        implied = {f"I-{cls.name_of(label)}" for label in labels if label.startswith("B-")}
        return labels if implied <= set(labels) else tuple(sorted({*labels, *implied}))

    def _phrases(self, tokens: Sequence[str], tags: Sequence[str]) -> str:
        entities = get_entities(tags)
        return ", ".join(f"{kind}: {' '.join(tokens[first : last + 1])}" for kind, first, last in entities)

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        true, predicted = (set(get_entities(tags)) for tags in self._scored(record, prediction))
        return (float(len(true & predicted)), float(len(predicted)), float(len(true)))

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        right, predicted, true = sums(rows, counts)
        return {
            "f1": ratio(2 * right, predicted + true),
            "precision": ratio(right, predicted),
            "recall": ratio(right, true),
        }


@final
class PosTagging(TokenTask):
    """Parts of speech, scored by accuracy over all tokens; a token that is not read is wrong: no tag is empty."""

    fields = PARTS_OF_SPEECH
    metric = "accuracy"
    unread = ""
    predicted = ("pos",)

    def _phrases(self, tokens: Sequence[str], tags: Sequence[str]) -> str:
        return ", ".join(f"{tag or '-'}: {token}" for tag, token in zip(tags, tokens, strict=True))

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        right = sum(true == predicted for true, predicted in zip(record["tags"], prediction, strict=True))
        return (float(right), float(len(self.labels_of(record))))

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"accuracy": ratio(*sums(rows, counts))}


def get_entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities that tags name, as seqeval finds them by default: type, first token, last token.

    A tag is O, or a prefix and a type: ``B-PER``, in IOB2 and IOBES (whatever prefix another scheme has says only the
    type). No sequence is wrong: an I-PER that follows no PER begins one.
    """
    entities, first = [], 0
    previous, kind = "O", "_"
    for position, tag in enumerate([*tags, "O"]):
        prefix, own = tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_"
        if _ends(previous, prefix, same=kind == own):
            entities.append((kind, first, position - 1))
        if _begins(previous, prefix, same=kind == own):
            first = position
        previous, kind = prefix, own
    return entities


def _ends(previous: str, prefix: str, *, same: bool) -> bool:
    """Whether an entity ends between two tags, which name the same type or not."""
    return previous in "ES" or (previous in "BI" and prefix in "BSO") or (previous not in "O." and not same)


def _begins(previous: str, prefix: str, *, same: bool) -> bool:
    return prefix in "BS" or (previous in "ESO" and prefix in "EI") or (prefix not in "O." and not same)
