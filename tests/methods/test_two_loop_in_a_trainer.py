"""The two-loop optimizers behind Hugging Face's Trainer, which knows nothing of them, and behind accelerate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from multitune.methods import SequentialReptile

STEPS = 14
"""Two whole inner loops, and two steps of a third."""


def rows() -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    return [
        {"input_ids": torch.randint(20, (5,), generator=draw), "labels": int(torch.randint(3, (), generator=draw))}
        for _ in range(32)
    ]


def trainer(folder: Path, **settings: Any) -> tuple[Trainer, nn.Module, SequentialReptile]:
    shape: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    others: dict[str, Any] = {"intermediate_size": 8, "num_labels": 3, "hidden_dropout_prob": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(**shape, **others, attention_probs_dropout_prob=0.0))
    outer = SequentialReptile(AdamW(model.parameters(), lr=1e-2), inner_steps=6, outer_lr=0.5)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        **settings,
    )
    return Trainer(model, arguments, train_dataset=rows(), eval_dataset=rows(), optimizers=(outer, None)), model, outer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Watch(TrainerCallback):
    """Keeps the slow weights of each step."""

    def __init__(self) -> None:
        self.slow: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        with given["optimizer"].optimizer.slow_weights():
            self.slow[state.global_step] = weights(given["model"])


def test_it_evaluates_and_saves_the_slow_weights(tmp_path: Path) -> None:
    seldom, undisturbed, _ = trainer(tmp_path, save_strategy="no")
    often, watched, _ = trainer(tmp_path, save_strategy="no", eval_strategy="steps", eval_steps=5)
    watch = Watch()
    often.add_callback(watch)
    seldom.train()
    often.train()
    seldom.evaluate()
    assert same(weights(undisturbed), weights(watched))  # evaluations in between have changed nothing
    assert same(weights(watched), watch.slow[STEPS])
    often.save_model(str(tmp_path / "saved"))
    assert same(weights(BertForSequenceClassification.from_pretrained(tmp_path / "saved")), watch.slow[STEPS])


@pytest.mark.parametrize("evaluates", [False, True])
def test_it_resumes_to_the_same_bits(tmp_path: Path, evaluates: bool) -> None:
    """Also from a checkpoint that was saved right after an evaluation, with the slow weights in the model."""
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 10}
    if evaluates:
        settings |= {"eval_strategy": "steps", "eval_steps": 5}
    whole, model, outer = trainer(tmp_path / "whole", **settings)
    whole.train()
    resumed, again, its = trainer(tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-10"))
    for optimizer in (outer, its):
        optimizer.train()
    assert same(weights(model), weights(again))
    assert (its.outer_steps, its.inner_step) == (2, 2)
