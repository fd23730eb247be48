"""What a combining method sees in a Trainer: the gradient of each task's own mean loss."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DataCollatorForLanguageModeling, TrainerCallback

from multitune.errors import UserError
from multitune.hf import MultitaskTrainer
from multitune.methods.combiner import Combiner
from multitune.methods.gradvac import GradVac
from multitune.methods.joint import Joint
from multitune.methods.sampling import proportional
from multitune.seeds import seeded
from tiny import arguments
from tiny_llama import llama, texts, tokenizer

STEPS = 3


class Gradients(TrainerCallback):
    """What each step's optimizer gets."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self.seen.append(torch.cat([p.grad.flatten() for p in given["model"].parameters()]))


class Weights(TrainerCallback):
    """The model's after each step."""

    def __init__(self, seen: list[Tensor]) -> None:
        self._seen = seen

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._seen.append(torch.cat([p.detach().flatten().clone() for p in given["model"].parameters()]))


def own_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
    """As the Trainer's page shows a ``compute_loss_func``."""
    logits, labels = outputs["logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / num_items_in_batch


def causal(folder: Path, method: str, loss: Any = None, **settings: Any) -> MultitaskTrainer:
    given: dict[str, Any] = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.0, "max_steps": STEPS}
    given |= {"learning_rate": 0.0, "optim": "sgd"}
    made = tokenizer()
    data = texts().map(lambda row: made(row["text"]), remove_columns="text")
    return MultitaskTrainer(
        llama(),
        arguments(folder, **(given | settings)),
        train_dataset=data,
        data_collator=DataCollatorForLanguageModeling(made, mlm=False),
        compute_loss_func=loss,
        task_column="language",
        method=method,
        options={"beta": 0.5} if method == "gradvac" else None,
    )


@pytest.mark.parametrize(("method", "loss"), [("mtl", None), ("gradvac", None), ("gradvac", own_loss)])
def test_rows_are_gradients_of_own_mean_losses(tmp_path: Path, method: str, loss: Any) -> None:
    """A language's texts are much longer than the other's; the Trainer's own loss would weigh it so much more."""
    one, gradients = causal(tmp_path, method, loss), Gradients()
    one.add_callback(gradients)
    one.train()
    epochs = causal(tmp_path, method).get_train_dataloader()
    model, loader = llama().train(), chain(epochs, epochs)
    kind = Joint() if method == "mtl" else GradVac(2, 0.5, seed=seeded(one.args.seed, "method").initial_seed())
    combiner = Combiner(model.parameters(), kind, reduction="mean")
    p = 2 * proportional([6, 6], 0.2)  # of a step that has all tasks
    for step in range(STEPS):
        assert one._order is not None
        tasks = one._order.tasks(step)
        assert sorted(tasks) == [0, 1]
        batches = [next(loader) for _ in tasks]
        model.zero_grad()
        combiner.backward(
            [model(**batch).loss for batch in batches], tasks=tasks, scales=[float(p[task]) for task in tasks]
        )
        expected = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        torch.testing.assert_close(gradients.seen[step], expected)


class Thaw(TrainerCallback):
    """Trains the head from the second step on, and keeps its gradients; ``at`` is where it freezes it."""

    def __init__(self, at: str) -> None:
        self._at, self.seen = at, list[Tensor | None]()

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        given["model"].lm_head.requires_grad_(self._at != "on_train_begin")

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        given["model"].lm_head.requires_grad_(state.global_step > 0 or self._at == "never")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        gradient = given["model"].lm_head.weight.grad
        self.seen.append(None if gradient is None else gradient.clone())


@pytest.mark.parametrize("method", ["mtl", "gradvac"])
def test_weights_that_thaw_are_combined_or_refused(tmp_path: Path, method: str) -> None:
    """Else the optimizer would get the sum of their gradients, which no method has seen."""
    seen = {}
    for at in ("never", "on_step_begin", "on_train_begin"):
        one, thaw = causal(tmp_path, method), Thaw(at)
        assert one.model is not None
        one.optimizer = torch.optim.SGD(one.model.parameters(), lr=0.0)
        one.callback_handler.callbacks.insert(0, thaw)
        if at == "on_train_begin":
            with pytest.raises(
                UserError, match=r"requires_grad: lm_head\.weight trains, and did not when training began"
            ):
                one.train()
        else:
            one.train()
            seen[at] = thaw.seen
    first, *later = seen["on_step_begin"]
    assert first is None
    for gradient, always in zip(later, seen["never"][1:], strict=True):
        assert gradient is not None
        if method == "mtl":
            torch.testing.assert_close(gradient, always)


def test_accumulation_is_of_one_language(tmp_path: Path) -> None:
    """Without rows the Trainer's own loss stays: one mean over the tokens of all micro-batches, all of one task."""
    one, gradients = causal(tmp_path, "sequential"), Gradients()
    one.add_callback(gradients)
    one.train()
    epochs = causal(tmp_path, "sequential").get_train_dataloader()
    model, loader = llama().train(), chain(epochs, epochs)
    for step in range(STEPS):
        pair = [next(loader), next(loader)]
        items = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in pair)
        model.zero_grad()
        for batch in pair:
            model(**batch, num_items_in_batch=items).loss.backward()
        expected = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        torch.testing.assert_close(gradients.seen[step], expected)


def test_a_step_whose_loss_is_not_finite_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a gradient scaler nothing else would: the weights would be NaN from then on."""
    calls = iter(range(2 * STEPS))

    def broken(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
        return own_loss(outputs, labels, num_items_in_batch) * (torch.nan if next(calls) == 3 else 1.0)

    one = causal(tmp_path, "gradvac", broken, learning_rate=0.1, optim="sgd")
    before: list[Tensor] = []
    one.add_callback(Weights(before))
    one.train()
    first, second, third = before
    assert second.equal(first)
    assert third.isfinite().all()
    assert not third.equal(second)
    (line,) = (record.getMessage() for record in caplog.records if "left out" in record.getMessage())
    assert line.startswith("step 2 is left out: the loss or gradient of language ")
