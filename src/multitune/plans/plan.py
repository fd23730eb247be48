"""What every plan is: a method's options as recipes have them. Plans load no torch; what they build does."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from multitune.plans.update import Setup, Update

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


class Plan(BaseModel, ABC):
    """A method as recipes know it: its options, and how a run's update is built from them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    summary: ClassVar[str] = ""
    """What it does, in one line of `multitune methods` and of reports."""
    paper: ClassVar[str] = ""
    """Where it is described."""
    one_model_per_task: ClassVar[bool] = False
    """Each task trains a model of its own, on its share of the budget."""
    mixes_tasks: ClassVar[bool] = False
    """Each batch mixes all tasks; otherwise it is one task's."""
    pulls_back: ClassVar[bool] = False
    """Its own optimizer pulls back to the pretrained weights."""
    shares_tasks: ClassVar[bool] = False
    """Ranks can share the tasks of a step."""
    splits_batches: ClassVar[bool] = True
    """Ranks can share each batch: its loss is a mean over labels."""

    def check(self) -> None:
        """Find what is wrong with the options already, before data and model are loaded.

        Raises:
            UserError: options that do not fit each other, or a package that is missing.
        """

    @abstractmethod
    def build(self, setup: "Setup") -> "Update":
        """The update rule of one run.

        Raises:
            UserError: an option that does not fit the run.
        """
