"""Causal language models beside TRL's SFTTrainer: the same batches give the same losses and weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback
from trl import SFTConfig, SFTTrainer

from multitune.data.corpus import Record
from multitune.models import encoder as encoders
from multitune.tasks import CausalLM, HeadMap
from tiny_causal import MARKED, TEMPLATE, command, make, tokenizer, turns

pytestmark = [
    pytest.mark.check,
    # TRL reads names that transformers has renamed.
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning"),
]
STEPS, BATCH, RATE = 10, 4, 1e-3


def records() -> list[Record]:
    """Of one turn and of several, so that batches are padded and have several stretches that are learnt."""
    made = []
    for n in range(STEPS * BATCH):
        said, answer = (turn["content"] for turn in command(("aa", "bb")[n % 2], n)["messages"])
        made.append({"messages": turns(*(said, answer) * (1 + n % 3))})
    return made


class InOrder(SFTTrainer):  # type: ignore[misc]
    """Takes the records as they come."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        if "loss" in logs:
            self.found.append(logs["loss"])


def by_trl(folder: Path, out: Path) -> tuple[list[float], PreTrainedModel]:
    settings: dict[str, Any] = {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "assistant_only_loss": True,
        "max_length": 256,
    }
    losses = Losses()
    trainer = InOrder(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        SFTConfig(str(out), **settings),
        train_dataset=Dataset.from_list(records()),
        processing_class=tokenizer(MARKED),
        callbacks=[losses],
    )
    trainer.train()
    model: PreTrainedModel = trainer.model
    return losses.found, model


def by_multitune(folder: Path) -> tuple[list[float], PreTrainedModel]:
    task = CausalLM(())
    encoder = encoders.load(str(folder), HeadMap.of_all(task), layers=None, dropout=None, seed=0)
    model = encoder.numbered(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    examples = list(task.encode(records(), encoder.tokenizer, 256))
    losses = []
    for first in range(0, len(examples), BATCH):
        inputs, targets = task.collate(examples[first : first + BATCH], encoder.pad_id)
        with task.fewer_logits(model, targets):
            loss = task.loss(model(**inputs), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, model


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.detach().cpu() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("template", [MARKED, TEMPLATE], ids=["marked", "by prefixes"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_losses_and_weights_are_trls(
    tmp_path: Path, family: str, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL needs the marks; without them the same tokens are found."""
    monkeypatch.setenv("CI", "1")  # TRL counts its users elsewhere
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = make(tmp_path / "model", family, template)
    theirs, their_model = by_trl(folder, tmp_path / "trl")
    ours, our_model = by_multitune(folder)
    assert len(ours) == STEPS
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours[-1] < ours[0]
    torch.testing.assert_close(weights(our_model), weights(their_model), atol=1e-5, rtol=0)
