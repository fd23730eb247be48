"""Ranking: texts find the passages that belong to them by the cosine of their embeddings; recall@1 and MRR."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import RANKED_TEXT
from multitune.data.kind import Text
from multitune.errors import UserError
from multitune.results.shown import Shown
from multitune.tasks.task import IGNORED, Example, Inputs, Task, padded, padded_rows, ratio, sums, together

TEMPERATURE = 0.05
"""What cosines are divided by in the loss."""


@final
class Ranking(Task):
    """Records ``{"text": str, "positive": str}``: the second text is what the first one is to find.

    The embedding of a text is the mean of the encoder's last states over its tokens, at length 1. In training the
    positives of a batch are each other's negatives: the loss of text i is the cross-entropy of its positive among all
    of the batch, with logits cos(text i, positive j) / 0.05 (van den Oord et al. 2018, arXiv 1807.03748, Eq. 4; E5's is
    the same with 0.01, Wang et al. 2022, arXiv 2212.03533, Eq. 1). A positive that belongs to text i as well, since it
    is the same or its text is, is no negative of it.

    A prediction is ``{"rank": int, "first": str}``: at which place the positive comes among the positives of all test
    records of the language, and which comes first. Others of the same text do not count, and of those with the same
    cosine all others come before it.
    """

    fields = RANKED_TEXT
    auto_model = AutoModel
    pipeline_tag = "feature-extraction"
    metric = "recall_at_1"
    predicted = ("positive",)
    compares_within_batch = True
    can_replay = False

    @classmethod
    def texts(cls, record: Record) -> tuple[Text, ...]:
        return (record["text"], record["positive"]) if "positive" in record else (record["text"],)

    def configure(self, config: PretrainedConfig) -> None:
        """Leave the configuration as it is: the outputs are states.

        Raises:
            UserError: the last states are a decoder's, whose tokens are not the text's.
        """
        if config.is_encoder_decoder:
            raise UserError(
                f"model: it reads with one half and writes with the other (it is a {config.model_type}), and ranking "
                "needs the states of an encoder or a causal language model; choose another one"
            )

    @classmethod
    def labels_in(cls, config: PretrainedConfig) -> tuple[str, ...]:
        return ()

    @classmethod
    def tokens(cls, record: Record, tokenizer: PreTrainedTokenizerBase) -> int:
        """How many tokens the longer of the two texts has."""
        return max(len(ids) for ids in tokenizer(list(cls.texts(record)), verbose=False)["input_ids"])

    def idle(self, model: PreTrainedModel) -> list[nn.Module]:
        """The pooler: embeddings are means of states."""
        pooler = getattr(model, "pooler", None)
        return [] if pooler is None else [pooler]

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        """The tokens of the text and, but for new records, those of its positive, each cut to ``max_length``."""
        for some in together(records):
            texts = [text for record in some for text in self.texts(record)]
            encoded = iter(tokenizer(texts, truncation=True, max_length=max_length)["input_ids"])
            for record in some:
                own, *positive = (next(encoded) for _ in self.texts(record))
                yield {"input_ids": own + (positive[0] if positive else []), "text_length": len(own)}

    def inputs(self, examples: Sequence[Example], pad_id: int) -> Inputs:
        """The texts of all examples, then their positives, where they have any: [texts, length]."""
        return padded([{"input_ids": ids} for ids in _sides(examples)], pad_id)

    def targets(self, examples: Sequence[Example]) -> Tensor:
        """The token ids of texts and positives, ``IGNORED`` in the padding: [texts, length]."""
        return padded_rows(_sides(examples), IGNORED)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        texts, positives = embeddings(output, targets != IGNORED).chunk(2)
        own_texts, own_positives = (_alike(side) for side in targets.chunk(2))
        also = (own_texts | own_positives).fill_diagonal_(False)
        cosines = (texts @ positives.T / TEMPERATURE).masked_fill(also, -torch.inf)
        return torch.nn.functional.cross_entropy(cosines, torch.arange(len(texts), device=cosines.device))

    def labels_in_loss(self, targets: Tensor) -> int:
        return len(targets) // 2

    def decode(self, output: Any, examples: Sequence[Example]) -> list[NDArray[np.float32]]:
        """The embeddings of each example's texts, [1 or 2, hidden]."""
        mask = (self.targets(examples) != IGNORED).to(output.last_hidden_state.device)
        states = embeddings(output, mask).cpu().numpy()
        return [states[number :: len(examples)] for number in range(len(examples))]

    def join(
        self,
        records: Sequence[Record],
        examples: Sequence[Example],
        decoded: Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Any]:
        """The place of each record's positive; of records without one their embeddings, lists of numbers."""
        if any("positive" not in record for record in records):
            return [states[0].tolist() for states in decoded]
        candidates = {record["positive"]: states[1] for record, states in zip(records, decoded, strict=True)}
        return list(_places(records, [states[0] for states in decoded], candidates))

    def shown(self, record: Record, prediction: Any) -> Shown:
        first, rank = prediction["first"], prediction["rank"]
        said = first if rank == 1 else f"{first} (its own comes at place {rank})"
        return Shown(record["text"], record["positive"], said, rank == 1)

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        """Whether the positive comes first, and 1 / its place."""
        return (float(prediction["rank"] == 1), 1 / prediction["rank"])

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Recall@1 and mean reciprocal rank in percent, among the positives of the whole test set."""
        first, reciprocal = sums(rows, counts)
        return {"recall_at_1": ratio(first, counts.sum(-1)), "mrr": ratio(reciprocal, counts.sum(-1))}


def embeddings(output: Any, mask: Tensor) -> Tensor:
    """The means of the last hidden states over the tokens that ``mask`` [texts, length] has, each of length 1."""
    states = output.last_hidden_state.float() * mask[..., None]
    return torch.nn.functional.normalize(states.sum(1) / mask.sum(1, keepdim=True), dim=-1)


def _sides(examples: Sequence[Example]) -> list[Sequence[int]]:
    """The tokens of the texts of all examples, then those of their positives."""
    texts = [example["input_ids"][: example["text_length"]] for example in examples]
    positives = [example["input_ids"][example["text_length"] :] for example in examples]
    return texts + [ids for ids in positives if len(ids)]


def _alike(rows: Tensor) -> Tensor:
    """Which rows, [rows, length], are the same: [rows, rows]."""
    return (rows[:, None] == rows[None]).all(-1)


def _places(
    records: Sequence[Record], texts: Sequence[NDArray[np.float32]], candidates: Mapping[str, NDArray[np.float32]]
) -> Iterator[dict[str, Any]]:
    """The prediction for each record, from the embeddings of its text and of all different positives."""
    names, states = list(candidates), np.stack(list(candidates.values()))
    numbers = {name: number for number, name in enumerate(names)}
    own: dict[str, list[int]] = {}
    for record in records:
        own.setdefault(record["text"], []).append(numbers[record["positive"]])
    for some in together(range(len(records))):
        for row, cosines in zip(some, np.stack([texts[row] for row in some]) @ states.T, strict=True):
            record = records[row]
            others = np.ones(len(names), dtype=bool)
            others[own[record["text"]]] = False
            before = others & (cosines >= cosines[numbers[record["positive"]]])
            first = names[int(np.where(before, cosines, -np.inf).argmax())] if before.any() else record["positive"]
            yield {"rank": 1 + int(before.sum()), "first": first}
