"""Masked language modelling: which tokens are masked, fixed and anew, and the loss against transformers' own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    ElectraConfig,
    MobileBertConfig,
    PretrainedConfig,
    RemBertConfig,
)
from transformers.modeling_outputs import MaskedLMOutput

from multitune.errors import UserError
from multitune.seeds import seeded
from multitune.tasks import MaskedLanguageModelling
from multitune.tasks.task import IGNORED

TASK = MaskedLanguageModelling(())
TEXTS = ["ana sees roma", "oslo", "the old coro and the old bela " * 20]
RECORDS = [{"text": text} for text in TEXTS]
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, PretrainedConfig] = {
    "BERT": BertConfig(**SIZES),
    "DeBERTa": DebertaV2Config(**SIZES),
    "ALBERT": AlbertConfig(**SIZES, embedding_size=8),
    "ELECTRA": ElectraConfig(**SIZES, embedding_size=8),
    "RemBERT": RemBertConfig(**SIZES, input_embedding_size=8, output_embedding_size=12),
    "MobileBERT": MobileBertConfig(**SIZES, embedding_size=8, intra_bottleneck_size=8, num_feedforward_networks=1),
}
"""Of the last four, embeddings have other sizes than states; MobileBERT's head goes past its output embeddings."""


def test_masks_depend_on_the_text_alone_until_they_are_drawn_anew(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    examples = list(TASK.encode(RECORDS, tokenizer, 64))
    (alone,) = TASK.encode(RECORDS[2:], tokenizer, 64)
    assert alone["labels"] == examples[2]["labels"]
    assert alone["input_ids"] == examples[2]["input_ids"]
    anew = [TASK.augmented(alone, seeded(0, "variation", gradient))["labels"] for gradient in (0, 0, 1)]
    assert anew[0] == anew[1]
    assert len({tuple(labels) for labels in [alone["labels"], *anew]}) == 3


@pytest.mark.parametrize(("row", "length", "masked"), [(0, 3, 1), (1, 1, 1), (2, 62, 9)])
def test_a_seventh_of_the_tokens_is_masked_and_at_least_one(
    tiny_model: Path, row: int, length: int, masked: int
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    example = list(TASK.encode(RECORDS, tokenizer, 64))[row]
    whole = tokenizer(TEXTS[row], truncation=True, max_length=64)["input_ids"]
    assert len(whole) == length + 2
    labels = example["labels"]
    assert sum(label != IGNORED for label in labels) == masked
    assert labels[0] == labels[-1] == IGNORED
    assert all(label in (IGNORED, token) for label, token in zip(labels, whole, strict=True))
    shown = zip(labels, example["input_ids"], whole, strict=True)
    assert all(seen == token for label, seen, token in shown if label == IGNORED)


def test_most_are_shown_as_the_mask_some_as_another_token_some_as_they_are(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    (example,) = TASK.encode(RECORDS[2:], tokenizer, 64)
    shown = []
    for draw in range(500):
        one = TASK.augmented(example, seeded("draw", draw))
        shown += [
            (seen, label) for seen, label in zip(one["input_ids"], one["labels"], strict=True) if label != IGNORED
        ]
    as_mask = sum(seen == tokenizer.mask_token_id for seen, _ in shown) / len(shown)
    as_it_is = sum(seen == label for seen, label in shown) / len(shown)
    assert as_mask == pytest.approx(0.8, abs=0.02)
    assert as_it_is == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_predictions_are_those_of_the_full_logits(tiny_model: Path, family: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(FAMILIES[family]).eval()
    examples = list(TASK.encode(RECORDS, tokenizer, 64))
    inputs, targets = TASK.collate(examples, tokenizer.pad_token_id)
    with torch.no_grad():
        whole = model(**inputs, labels=targets)
        with TASK.fewer_logits(model, targets):
            output = model(**inputs)
        assert model(**inputs).logits.shape == whole.logits.shape, "nothing is left behind"
    assert output.logits.shape == (11, model.config.vocab_size)
    torch.testing.assert_close(TASK.loss(output, targets), whole.loss)
    predictions = TASK.join(RECORDS, examples, TASK.decode(output, examples), tokenizer)
    assert sum(one["loss"] for one in predictions) / 11 == pytest.approx(whole.loss.item(), rel=1e-5)
    best = tokenizer.convert_ids_to_tokens(whole.logits.argmax(-1)[targets != IGNORED].tolist())
    assert [token for one in predictions for token in one["guesses"]] == best


def test_scores_by_hand() -> None:
    output = MaskedLMOutput(logits=torch.tensor([[8.0, 0.0], [0.0, 0.0]]).log_softmax(-1))
    examples = [{"labels": [IGNORED, 0, 1]}]
    ((true, found, nats),) = TASK.decode(output, examples)
    assert (true, found) == ([0, 1], [0, 0])
    scores = TASK.score([{"text": ""}], [{"tokens": ["a", "b"], "guesses": ["a", "a"], "loss": nats}])
    assert scores == {"accuracy": 50.0, "loss": pytest.approx((0.000335 + 0.693147) / 2, abs=1e-5)}


def test_a_tokenizer_without_a_mask(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.mask_token = None
    with pytest.raises(UserError, match="no mask token"):
        list(TASK.encode(RECORDS, tokenizer, 64))
