"""How many steps a Trainer's training has, and how many tasks and examples a step."""

import math
from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from multitune.plans import Plan
from multitune.plans.combined import SeveralTasks

if TYPE_CHECKING:
    from transformers import Trainer


def accumulation_of(given: Iterable[Any]) -> int:
    """Micro-batches of a step, by the settings that are somewhere among a Trainer's arguments: DPO's come third."""
    settings = next((one for one in given if isinstance(one, TrainingArguments)), None)
    return 1 if settings is None else settings.gradient_accumulation_steps


def shape_of_step(trainer: "Trainer", plan: Plan) -> tuple[int, int]:
    """Tasks of a step, and examples of each, over all ranks."""
    copies = trainer.get_tp_size() * trainer.get_cp_size() * trainer.get_sp_size()  # ranks that see the same batch
    ranks = 1 if trainer.accelerator.split_batches else trainer.accelerator.num_processes // copies
    batches, batch = trainer.args.gradient_accumulation_steps, trainer._train_batch_size
    if plan.mixes_tasks:
        return batches * ranks * batch, 1
    if isinstance(plan, SeveralTasks):
        return batches, ranks * batch
    return 1, batches * ranks * batch


def steps_of_training(arguments: TrainingArguments, epoch: Sized, step: int) -> int:
    """Steps of the whole training, as the Trainer counts them, where a step takes so much of an epoch."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    return math.ceil(arguments.num_train_epochs * max(1, math.ceil(len(epoch) / step)))
