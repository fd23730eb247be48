"""Joint training against forgetting, as recipes know it: recall of the pretrained weights, noise on the embeddings."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from multitune.errors import UserError
from multitune.plans.combined import SeveralTasks

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from multitune.plans.update import Setup, Update

AUTHORS_GAMMA = 5000.0
AUTHORS_T0 = 250.0


class RecAdamPlan(SeveralTasks):
    """Joint training with RecAdam in AdamW's place; new weights have no pretrained ones to recall."""

    summary: ClassVar[str] = "joint training with an Adam that is pulled back to the pretrained weights, less and less"
    paper: ClassVar[str] = "arXiv 2004.12651, Algorithm 1"
    pulls_back: ClassVar[bool] = True

    gamma: Annotated[float, Field(ge=0.0)] | None = None
    """Strength of recall; null takes the authors' 5000, or 1 / learning_rate where that is less, not to overshoot."""
    k: Annotated[float, Field(ge=0.0)] = 0.1
    """Slope of the change from recall to the task, per optimizer step."""
    t0: Annotated[float, Field(ge=0.0)] | None = None
    """Optimizer step at which recall and task have equal weight; null takes the authors' 250, or a quarter of the run's
    steps, where that is less."""

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.joint import Joint
        from multitune.plans.combined_update import CombinedUpdate, combiner

        if not setup.pretrained:
            raise UserError(
                "method: recadam recalls the weights that pretraining left, and none of them trains; take mtl, or "
                "freeze less"
            )
        made = combiner(setup, Joint())
        return CombinedUpdate(setup, self._optimizer(setup), made, self.tasks_per_step)

    def _optimizer(self, setup: "Setup") -> "Optimizer":
        from multitune.methods.recadam import RecAdam

        groups = _with_recall(setup)
        rate = max(group["lr"] for group in groups)
        steps = setup.budget / min(self.tasks_per_step, setup.num_tasks)
        gamma = min(AUTHORS_GAMMA, 1.0 / rate) if self.gamma is None else self.gamma
        t0 = min(AUTHORS_T0, steps / 4) if self.t0 is None else self.t0
        try:
            return RecAdam(groups, lr=rate, gamma=gamma, k=self.k, t0=t0)
        except ValueError as error:  # learning rate and gamma do not fit
            raise UserError(f"options of recadam: {error}") from error


def _with_recall(setup: "Setup") -> list[dict[str, Any]]:
    """The groups of the run's optimizer, told apart by whether there are pretrained weights to recall."""
    from multitune.plans.update import RATE_SHARE

    kept = {"params", "lr", "betas", "weight_decay", RATE_SHARE}
    groups: list[dict[str, Any]] = []
    for recall in (True, False):
        named = [(name, weight) for name, weight in setup.parameters if (name in setup.pretrained) == recall]
        made = setup.make_optimizer(named).param_groups if named else []
        groups += [{key: group[key] for key in kept & group.keys()} | {"recall": recall} for group in made]
    return groups


class SWEPPlan(SeveralTasks):
    """Joint training on each batch as it is, and with learned noise on its word embeddings."""

    summary: ClassVar[str] = "joint training with learned noise on the word embeddings; a batch costs two computations"
    paper: ClassVar[str] = "arXiv 2105.02692"
    splits_batches: ClassVar[bool] = False  # its divergence is a mean over tokens, not over labels

    p: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Dropout probability that the noise's prior is made to resemble."""

    def build(self, setup: "Setup") -> "Update":
        from multitune.methods.swep import SWEP
        from multitune.plans.combined_update import SWEPUpdate

        if setup.embedding is None:
            raise UserError("method: swep needs an encoder of text, whose word embeddings it adds noise to")
        sizes = (setup.embedding.hidden_size, setup.embedding.embedding_size)
        swep = SWEP(*sizes, p=self.p, generator=setup.generator("noise"))
        swep.to(setup.parameters[0][1].device)
        return SWEPUpdate(setup, swep, self.tasks_per_step)
