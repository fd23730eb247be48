"""Masked language modelling: to adapt an encoder to text, to replay its pretraining, to see what it forgot."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from multitune.data.corpus import Record
from multitune.data.fields import TEXT
from multitune.errors import UserError
from multitune.results.shown import Shown
from multitune.seeds import seeded
from multitune.tasks.task import (
    IGNORED,
    Example,
    Task,
    known_labels,
    logits_at,
    padded_rows,
    ratio,
    rows_of,
    sums,
    together,
)

SHARE = 0.15
"""Share of a text's tokens that are to be guessed (Devlin et al. 2019, arXiv 1810.04805, section 3.1)."""
AS_MASK, AS_ANY = 0.8, 0.1
"""Shares of those that are shown as the mask, and as any token of the vocabulary; the rest is shown as it is."""


@final
class MaskedLanguageModelling(Task):
    """Records ``{"text": str}``; a prediction is ``{"tokens": [str], "guesses": [str], "loss": float}``.

    ``tokens`` were masked, ``guesses`` are the model's, ``loss`` is the sum of the tokens' negative log-likelihoods in
    nats. In evaluations a text's masked tokens depend on the text alone: any two models face the same ones. In
    training they are drawn anew each time.

    Scores: ``accuracy`` in percent, and ``loss`` in nats per masked token.
    """

    fields = TEXT
    unlabelled = True
    can_divide = can_replay = can_trim = False
    auto_model = AutoModelForMaskedLM
    pipeline_tag = "fill-mask"
    metric = "accuracy"

    def configure(self, config: PretrainedConfig) -> None:
        """Leave the configuration as it is: the outputs are the vocabulary."""

    @classmethod
    def labels_in(cls, config: PretrainedConfig) -> tuple[str, ...]:
        return ()

    def encode(
        self, records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Iterator[Example]:
        if tokenizer.mask_token_id is None:
            raise UserError("model: its tokenizer has no mask token, which masked language modelling needs")
        vocabulary = {"mask": tokenizer.mask_token_id, "vocabulary_size": len(tokenizer)}
        for some in together(records):
            encoded = tokenizer(
                [record["text"] for record in some],
                truncation=True,
                max_length=max_length,
                return_special_tokens_mask=True,
            )
            for example, special, record in zip(rows_of(encoded), encoded["special_tokens_mask"], some, strict=True):
                whole = example | {"original": example["input_ids"], "special": special} | vocabulary
                yield self.augmented(whole, seeded("mask", record["text"]))

    def augmented(self, example: Example, generator: torch.Generator) -> Example:
        original = torch.tensor(example["original"], dtype=torch.long)
        ordinary = torch.tensor(example["special"]).logical_not().nonzero()[:, 0]
        count = max(1, round(SHARE * len(ordinary)))
        chosen = ordinary[torch.randperm(len(ordinary), generator=generator)[:count]]
        shown, labels = original.clone(), torch.full_like(original, IGNORED)
        labels[chosen] = original[chosen]
        lot = torch.rand(len(chosen), generator=generator)
        any_token = torch.randint(example["vocabulary_size"], (len(chosen),), generator=generator)
        shown[chosen[lot < AS_MASK + AS_ANY]] = any_token[lot < AS_MASK + AS_ANY]
        shown[chosen[lot < AS_MASK]] = example["mask"]
        return example | {"input_ids": shown.tolist(), "labels": labels.tolist()}

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return padded_rows([example["labels"] for example in examples], IGNORED)

    def fewer_logits(self, model: PreTrainedModel, targets: Tensor) -> AbstractContextManager[None]:
        """A context in which logits are those of masked tokens, [masked, vocabulary], at a seventh of the cost."""
        return logits_at(model, targets != IGNORED)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        logits = output.logits.float()
        return torch.nn.functional.cross_entropy(logits, known_labels(targets, len(logits)))

    def decode(self, output: Any, examples: Sequence[Example]) -> list[tuple[list[int], list[int], float]]:
        """For each example its masked tokens, the guesses, and the sum of their negative log-likelihoods."""
        labels = (np.asarray(example["labels"]) for example in examples)
        true = [own[own != IGNORED].tolist() for own in labels]
        logits = output.logits.float().split([len(tokens) for tokens in true])
        return [
            (tokens, part.argmax(-1).tolist(), _nats(part, torch.tensor(tokens, device=part.device)))
            for tokens, part in zip(true, logits, strict=True)
        ]

    def join(
        self,
        records: Sequence[Record],
        examples: Sequence[Example],
        decoded: Sequence[Any],
        tokenizer: PreTrainedTokenizerBase,
    ) -> list[Any]:
        spelt = tokenizer.convert_ids_to_tokens
        return [{"tokens": spelt(true), "guesses": spelt(best), "loss": loss} for true, best, loss in decoded]

    def shown(self, record: Record, prediction: Any) -> Shown:
        tokens, guesses = (" ".join(prediction[which]) for which in ("tokens", "guesses"))
        return Shown(record["text"], tokens, guesses, right=None)

    def statistics(self, record: Record, prediction: Any) -> tuple[float, ...]:
        right = sum(a == b for a, b in zip(prediction["tokens"], prediction["guesses"], strict=True))
        return (prediction["loss"], float(right), float(len(prediction["tokens"])))

    def scores(self, rows: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        nats, right, masked = sums(rows, counts)
        return {"accuracy": ratio(right, masked), "loss": ratio(nats, masked) / 100}


def _nats(logits: Tensor, true: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits, true, reduction="sum"))
