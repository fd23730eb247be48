"""The combining methods as recipes know them: several tasks a step, one gradient (see multitune.methods.base)."""

from abc import ABC
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from multitune.plans.plan import NotNegative, Plan, Positive, Rate

if TYPE_CHECKING:
    from multitune.plans.update import Setup, Update

Groups = Literal["whole_model", "enc_dec", "all_layer", "all_matrix"]


class SeveralTasks(Plan, ABC):
    """Several distinct tasks a step, drawn and weighted so that each has its share, but for what the method decides."""

    shares_tasks: ClassVar[bool] = True

    tasks_per_step: Positive = 8
    """Distinct tasks in one step; each costs one gradient computation."""


class MTLPlan(SeveralTasks):
    """Joint training: one step with the weighted mean of several tasks' gradients."""

    summary: ClassVar[str] = "joint training: one step with the gradients of several tasks"
    paper: ClassVar[str] = "arXiv 2110.02600, Eq. 1 without regulariser"

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.joint import Joint
        from multitune.plans.combined_update import combined

        return combined(setup, Joint(), self.tasks_per_step)


class GradNormPlan(SeveralTasks):
    """Task weights that balance gradient norms."""

    summary: ClassVar[str] = "learns task weights, so that gradient norms go with how fast the tasks train"
    paper: ClassVar[str] = "arXiv 1711.02257, Algorithm 1"

    alpha: NotNegative = 1.5
    """How much more weight slow tasks get; 0 makes all gradient norms equal."""
    lr: Rate = 0.025
    """Learning rate of the task weights."""

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.gradnorm import GradNorm
        from multitune.plans.combined_update import combined

        method = GradNorm(setup.num_tasks, self.alpha, self.lr)
        return combined(setup, method, self.tasks_per_step, weighted=False)


class FAMOPlan(SeveralTasks):
    """Task weights that let all losses fall at the same rate."""

    summary: ClassVar[str] = "learns task weights from the losses alone, so that all fall at the same rate"
    paper: ClassVar[str] = "arXiv 2306.03792, Algorithm 1"

    lr: Rate = 0.025
    """Learning rate of the task weights' logits."""
    weight_decay: NotNegative = 0.001
    """Decay of the logits, towards equal weights."""

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.famo import FAMO
        from multitune.plans.combined_update import combined

        method = FAMO(setup.num_tasks, self.lr, self.weight_decay)
        return combined(setup, method, self.tasks_per_step, mean=False, weighted=False)  # its weights sum to 1


class GroupedTasks(SeveralTasks, ABC):
    """Methods that look at the angles between task gradients, of the model or of parts of it."""

    groups: Groups = "whole_model"
    """What gets angles of its own: the model, encoder and decoder, each layer, or each matrix."""
    buckets: Positive = 1
    """Parts of each group that get angles of their own: each has a slice of every parameter's rows."""


class PCGradPlan(GroupedTasks):
    """Gradient surgery."""

    summary: ClassVar[str] = "takes out of each task's gradient what conflicts with another's"
    paper: ClassVar[str] = "arXiv 2001.06782, Algorithm 1"

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.pcgrad import PCGrad
        from multitune.plans.combined_update import combined

        method = PCGrad(seed=setup.generator("method").initial_seed())
        return combined(setup, method, self.tasks_per_step, self.groups, self.buckets)


class GradVacPlan(GroupedTasks):
    """Gradient Vaccine."""

    summary: ClassVar[str] = "aligns task gradients that are less similar than they used to be"
    paper: ClassVar[str] = "arXiv 2010.05874, Algorithm 1"

    beta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Rate at which the targets follow the cosines; 0 makes it PCGrad."""

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.gradvac import GradVac
        from multitune.plans.combined_update import combined

        seed = setup.generator("method").initial_seed()
        method = GradVac(setup.num_tasks, self.beta, seed=seed)
        return combined(setup, method, self.tasks_per_step, self.groups, self.buckets)


class TorchJDPlan(GroupedTasks, ABC):
    """A method of TorchJD; options that are not ours are its own. Steps always have the same number of tasks."""

    model_config = ConfigDict(extra="allow", frozen=True)
    summary: ClassVar[str] = "any aggregator of TorchJD, e.g. torchjd:UPGrad; its own options besides (extra: torchjd)"
    paper: ClassVar[str] = "torchjd.org; arXiv 2406.16232"

    aggregator: ClassVar[str]
    """TorchJD's name for it."""

    def check(self) -> None:
        from multitune.plans.torchjd_update import method

        method(self.aggregator, self.model_extra or {}, self.tasks_per_step)

    def build(self, setup: "Setup") -> "Update":
        from multitune.plans.torchjd_update import build

        return build(self, setup)


def torchjd_plan(name: str) -> type[TorchJDPlan]:
    """The plan of TorchJD's method ``name``; its ``check()`` finds whether there is one."""

    class Named(TorchJDPlan):
        aggregator: ClassVar[str] = name

    return Named
