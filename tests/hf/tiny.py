"""Tiny trainers of a random BERT, on rows of three languages."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from multitune.hf import MultitaskTrainer

SIZES = {"de": 24, "fi": 12, "sw": 6}
Weights = dict[str, Tensor]
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "report_to": [],
    "disable_tqdm": True,
    "logging_strategy": "no",
    "save_strategy": "no",
    "max_steps": 14,
}
"""Of a quiet trainer on the processor, which saves nothing."""


def rows(seed: int = 0) -> Dataset:
    """A label is the first token's remainder, so that there is something to learn."""
    draw = torch.Generator().manual_seed(seed)
    languages = [name for name, size in SIZES.items() for _ in range(size)]
    tokens = torch.randint(20, (len(languages), 5), generator=draw)
    labels = (tokens[:, 0] % 3).tolist()
    return Dataset.from_dict({"input_ids": tokens.tolist(), "labels": labels, "language": languages})


def by_language(data: Dataset) -> dict[str, Dataset]:
    languages = data["language"]
    return {name: data.select([i for i, one in enumerate(languages) if one == name]) for name in SIZES}


def classifier(dropout: float = 0.0) -> BertForSequenceClassification:
    shape: dict[str, Any] = {"num_labels": 3}
    config = BertConfig(
        **shape,
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(config)


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), **(SETTINGS | settings))


def trainer(
    folder: Path, method: str = "sequential_reptile", options: dict[str, Any] | None = None, **settings: Any
) -> MultitaskTrainer:
    """A trainer on the tiny rows; ``settings`` of the Trainer, and under "own" of the method."""
    own = {"task_column": "language"} | settings.pop("own", {})
    return MultitaskTrainer(
        classifier(settings.pop("dropout", 0.0)),
        arguments(folder, **settings),
        train_dataset=rows(),
        eval_dataset=by_language(rows(1)),
        method=method,
        options=options,
        **own,
    )


def plain(folder: Path, **settings: Any) -> Trainer:
    return Trainer(classifier(settings.pop("dropout", 0.0)), arguments(folder, **settings), train_dataset=rows())


def weights(model: nn.Module | None) -> Weights:
    assert model is not None
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def saved(folder: Path) -> Weights:
    return weights(BertForSequenceClassification.from_pretrained(folder))


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Interrupt(TrainerCallback):
    """As Ctrl-C in a notebook, once, after a step."""

    def __init__(self, step: int) -> None:
        self._steps = [step]

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step in self._steps:
            self._steps.clear()
            raise KeyboardInterrupt
