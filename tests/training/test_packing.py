"""A batch's texts in one row give the losses and gradients of the padded batch, or are refused in a line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from builders import prepared
from multitune.data import sets
from multitune.errors import UserError
from multitune.models import encoder as encoders
from multitune.models.packing import use_packing
from multitune.recipe import Recipe
from multitune.tasks import CausalLM, HeadMap
from multitune.tasks.packed import NOWHERE, packed
from multitune.training.run import Run
from tiny_causal import command, commands, make, turns

EQUAL = 1e-5
TEXTS = {
    "commands": [command("aa", n) for n in range(6)],
    "a system prompt": [
        {"messages": [{"role": "system", "content": "be brief"}, *command("aa", n)["messages"]]} for n in range(6)
    ],
    "several turns": [
        {"messages": turns(*[turn["content"] for turn in command("bb", n)["messages"]] * (1 + n % 3))} for n in range(6)
    ],
    "texts": [{"text": "light kitchen " * (n + 1)} for n in range(4)],
    "one": [command("cc", 0)],
    "the same twice": [command("cc", 1)] * 2,
}


def gradients(task: CausalLM, encoder: encoders.Encoder, batch: tuple[Any, Tensor]) -> tuple[float, dict[str, Tensor]]:
    inputs, targets = batch
    model = encoder.numbered(0)
    model.zero_grad()
    with task.fewer_logits(model, targets):
        loss = task.loss(model(**inputs), targets)
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in encoder.parameters() if weight.grad is not None}


@pytest.mark.parametrize("records", TEXTS.values(), ids=list(TEXTS))
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral"])
def test_losses_and_gradients_are_those_of_the_padded_batch(
    tmp_path: Path, family: str, records: list[dict[str, Any]]
) -> None:
    """Gemma 3 and Mistral see 16 tokens back, which are fewer than the texts have."""
    task = CausalLM(())
    encoder = encoders.load(str(make(tmp_path / "model", family)), HeadMap.of_all(task), layers=None, dropout=0, seed=0)
    examples = list(task.encode(records, encoder.tokenizer, 128))
    loss, expected = gradients(task, encoder, task.collate(examples, encoder.pad_id))
    use_packing(encoder.model, 128)
    again, own = gradients(task, encoder, task.packed(examples))
    assert again == pytest.approx(loss, abs=EQUAL)
    assert own.keys() == expected.keys()
    torch.testing.assert_close(own, expected, atol=EQUAL, rtol=EQUAL)
    # Padded batches go as they went.
    once_more, _ = gradients(task, encoder, task.collate(examples, encoder.pad_id))
    assert once_more == pytest.approx(loss, abs=EQUAL)


def test_a_row_has_each_token_once_and_a_shared_beginning_once() -> None:
    ignored = -100
    examples = [
        {"input_ids": [5, 6, 7, 8], "labels": [ignored, ignored, ignored, 8]},
        {"input_ids": [5, 6, 9], "labels": [ignored, ignored, 9]},
    ]
    inputs, targets = packed(examples)
    # The second text's 9 is learnt, so that the 6 before it is its own.
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 8, 6, 9]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 3, 1, 2]]
    assert inputs["attention_mask"].tolist() == [[[[0, 1, 2, 3], [0, 4, 5, NOWHERE]]]]
    assert targets.tolist() == [[ignored, ignored, ignored, 8, ignored, 9]]


def chat_run(folder: Path, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> Run:
    monkeypatch.setitem(sets.DATASETS, "commands", lambda wanted, bad: commands())
    given: dict[str, Any] = {
        "model": str(folder),
        "data": "commands",
        "precision": "fp32",
        "batch_size": 4,
        "dropout": 0.0,
    }
    return prepared(Recipe(**({"method": "sequential"} | given | keys)))


@pytest.mark.parametrize(
    "keys",
    [{}, {"micro_batch_size": 3}, {"gradient_checkpointing": True}, {"replay": {"share": 0.2}}],
    ids=["plain", "micro-batches", "checkpointing", "replay"],
)
def test_a_run_computes_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]) -> None:
    folder = make(tmp_path / "model")
    values = []
    for packing in (False, True):
        run = chat_run(folder, monkeypatch, packing=packing, lora={"rank": 2, "dropout": 0.0}, **keys)
        own = []
        for number in (0, 1, 0):
            loss = run.loss(number)
            loss.backward()
            own.append(loss.item())
        grads = [weight.grad.norm().item() for _, weight in run.encoder.parameters() if weight.grad is not None]
        values.append([*own, *grads])
    assert values[1] == pytest.approx(values[0], abs=EQUAL)


def test_in_bf16_the_loss_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "model")
    losses = [chat_run(folder, monkeypatch, packing=own, precision="bf16").loss(0).item() for own in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


def test_a_model_that_cannot_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "model", "bloom")
    with pytest.raises(UserError, match="packing: attention of BloomModel cannot be kept within texts; set it to f"):
        chat_run(folder, monkeypatch, packing=True)


def test_a_method_that_reads_states_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="packing: swep reads the states"):
        chat_run(make(tmp_path / "model"), monkeypatch, packing=True, method="swep")
