"""Retention: what fine-tuning left of the skills that pretraining gave (Sequential Reptile, Figures 5 and 6).

Encoders that ship their language-modelling head are asked for the masked tokens of sentences, as in the paper; sentence
encoders such as e5 for the translation of a text among others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import DataCollatorForLanguageModeling, PreTrainedModel, PreTrainedTokenizerBase

from multitune.models.encoder import Encoder
from multitune.probes.pairs import Pairs
from multitune.tasks import MaskedLanguageModelling
from multitune.tasks.task import IGNORED, Example

MASKED = 0.15
LM_BATCH = 32
"""Sentences at a time: the scores of 250,000 tokens at one masked position are a megabyte."""
TEXT_BATCH, TEXT_LENGTH = 128, 128
"""Texts at a time, and tokens after which one is cut."""


def masked_lm_losses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Mapping[str, Sequence[Example]]
) -> dict[str, float]:
    """Language -> mean loss of the masked tokens, in nats, with the weights that the model holds.

    15 % of the tokens are chosen and masked as BERT's pretraining did it (80 % masked, 10 % random, 10 % kept), the
    same ones in every call. Languages whose sentences are too few for a masked token are left out.
    """
    losses = {language: _masked_lm_loss(model, tokenizer, rows) for language, rows in examples.items()}
    return {language: loss for language, loss in losses.items() if loss is not None}


@torch.no_grad()
def _masked_lm_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> float | None:
    task = MaskedLanguageModelling(())
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASKED, seed=0)
    total, count = 0.0, 0
    for first in range(0, len(examples), LM_BATCH):
        batch = collator([{"input_ids": row["input_ids"]} for row in examples[first : first + LM_BATCH]])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels = inputs.pop("labels")
        chosen = int((labels != IGNORED).sum())
        if chosen:
            with task.fewer_logits(model, labels):
                loss = task.loss(model(**inputs), labels)
            total, count = total + chosen * float(loss), count + chosen
    return total / count if count else None


def retrieval(encoder: Encoder, pairs: Mapping[str, Pairs]) -> dict[str, float]:
    """Language -> percent of texts whose translation is the nearest of all: the mean of both directions.

    A text's vector is the mean of its tokens' last hidden states; near is a high cosine. The weights are those that the
    encoder holds.
    """
    texts = {text for each in pairs.values() for text in (*each.texts, *each.translations)}
    vectors = embed(encoder, sorted(texts, key=lambda text: (len(text), text)))
    return {language: _accuracy(vectors, each) for language, each in pairs.items()}


def embed(encoder: Encoder, texts: Sequence[str]) -> dict[str, Tensor]:
    """Text -> its mean-pooled last hidden state as a unit vector, [hidden], float32 on the CPU."""
    vectors: dict[str, Tensor] = {}
    with encoder.evaluating():
        for first in range(0, len(texts), TEXT_BATCH):
            some = texts[first : first + TEXT_BATCH]
            vectors |= zip(some, _mean_states(encoder, some).cpu(), strict=True)
    return vectors


def _mean_states(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": TEXT_LENGTH, "return_tensors": "pt"}
    inputs = encoder.tokenizer(list(texts), **options)
    return normalize(encoder.mean_states(encoder.on_device(inputs)), dim=-1)


def _accuracy(vectors: Mapping[str, Tensor], pairs: Pairs) -> float:
    """A text that stands there twice has two translations, and a translation two places: each is right."""
    texts, translations = (torch.stack([vectors[text] for text in side]) for side in (pairs.texts, pairs.translations))
    cosines = texts @ translations.T
    true = set(zip(pairs.texts, pairs.translations, strict=True))
    found = [(text, pairs.translations[at]) for text, at in zip(pairs.texts, cosines.argmax(1).tolist(), strict=True)]
    found += [(pairs.texts[at], own) for own, at in zip(pairs.translations, cosines.argmax(0).tolist(), strict=True)]
    return 100 * sum(pair in true for pair in found) / len(found)
