"""A step's gradients in a Trainer: one row for each micro-batch, which is of one task."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from multitune.errors import UserError
from multitune.hf.settings import leaves_out_rows, thawed_too_late
from multitune.plans.combined_update import CombinedUpdate

if TYPE_CHECKING:
    from transformers import Trainer

FILE = "combiner.safetensors"
"""A combining method's state, in a checkpoint's folder."""


@final
class StepRows:
    """Collects a step's gradients, task by task, and combines them.

    Args:
        update: a combining method at work.
        optimizer: of the weights whose gradients it combines: those that train by now.
    """

    def __init__(self, update: CombinedUpdate, optimizer: Optimizer) -> None:
        self._update, self._optimizer = update, optimizer
        self._combined = {weight for weight in self._weights() if weight.requires_grad}
        self._tasks: list[int] = []
        self._scales: list[float] = []

    def restart(self) -> None:
        """Drop what was collected of a step that broke off."""
        self._update.combiner.load_state_dict(self._update.combiner.state_dict())

    def begin(self, tasks: Sequence[int]) -> None:
        """Begin a step, whose micro-batches are of these tasks, in order."""
        self._tasks, self._scales = list(tasks), self._update.scales(tasks)

    def collect(self, loss: Tensor) -> None:
        """Take the gradient of the next micro-batch out of `.grad`."""
        self._update.combiner.collect(self._tasks.pop(0), loss, self._scales.pop(0))

    def apply(self, loss_scale: float) -> list[int]:
        """Leave the combined gradient in `.grad`; ``loss_scale`` is what a gradient scaler has multiplied losses by.

        Returns:
            The tasks whose loss or gradient is not finite; so is `.grad` then.
        """
        return self._update.combiner.apply(loss_scale)

    def check(self, trainer: "Trainer") -> None:
        """Make sure that a step's gradients, all of which have come, are the method's.

        Raises:
            UserError: the trainer's class computes them past it, or a weight trains that did not when training began.
        """
        if self._tasks:
            raise leaves_out_rows(trainer)
        if any(weight.grad is not None and weight not in self._combined for weight in self._weights()):
            assert trainer.model is not None
            raise thawed_too_late(self._combined, trainer.model)

    def save(self, folder: Path) -> None:
        """Write the method's state into a checkpoint's folder."""
        save_file(
            {name: tensor.contiguous() for name, tensor in self._update.combiner.state_dict().items()}, folder / FILE
        )

    def load(self, folder: Path) -> None:
        """Continue where a checkpoint was written.

        Raises:
            UserError: it is not of a combining method.
        """
        if not (folder / FILE).is_file():
            raise UserError(f"{folder}: has no {FILE}, so it was saved by another method or with save_only_model")
        self._update.combiner.load_state_dict(load_file(folder / FILE))

    def _weights(self) -> Iterator[Tensor]:
        """All that the optimizer changes."""
        return (weight for group in self._optimizer.param_groups for weight in group["params"])


def share_of_items(trainer: "Trainer", inputs: Mapping[str, Any]) -> float | Tensor:
    """This rank's share of a micro-batch's items (labels that count), times the number of ranks."""
    ranks = trainer.accelerator.num_processes
    if ranks == 1 or not trainer.args.average_tokens_across_devices or "labels" not in inputs:
        return 1.0
    labels = inputs["labels"][..., 1:] if trainer._loss_shifts_labels else inputs["labels"]
    own = labels.ne(-100).sum()
    share: Tensor = own * ranks / trainer.accelerator.reduce(own, "sum").clamp(min=1)
    return share
