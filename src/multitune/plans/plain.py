"""Plain training as recipes know it: a step for each batch, which is of one task or mixes all."""

from abc import ABC
from typing import TYPE_CHECKING, ClassVar

from multitune.plans.plan import Plan

if TYPE_CHECKING:
    from multitune.plans.update import Setup, Update


class PlainPlan(Plan, ABC):
    """A step of the run's own optimizer for each batch. Kinds of it differ in what the batches are of."""

    def build(self, setup: "Setup") -> "Update":
        from multitune.plans.update import PlainUpdate

        return PlainUpdate(setup, setup.make_optimizer(setup.parameters))


class MixedPlan(PlainPlan):
    """Ordinary fine-tuning on all languages at once."""

    summary: ClassVar[str] = "ordinary fine-tuning: a step for each batch, whose examples are drawn from all tasks"
    paper: ClassVar[str] = "arXiv 1911.02116 (translate-train-all); the loop of the Hugging Face Trainer"
    mixes_tasks: ClassVar[bool] = True


class STLPlan(PlainPlan):
    """Single-task learning: a model for each language, each with its share of the budget."""

    summary: ClassVar[str] = "a model for each task; the budget is shared out like the draws of the other methods"
    paper: ClassVar[str] = "arXiv 2110.02600, baseline 1"
    one_model_per_task: ClassVar[bool] = True


class SequentialPlan(PlainPlan):
    """Single-task steps one after the other: Sequential Reptile without its outer loop (eta = 1)."""

    summary: ClassVar[str] = "a step for each drawn task, no outer loop: the control of sequential_reptile (eta = 1)"
    paper: ClassVar[str] = "arXiv 2110.02600, Algorithm 1 with eta = 1"
