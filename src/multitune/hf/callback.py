"""What a method has to hear of a Trainer's training."""

from typing import TYPE_CHECKING, Any, final

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from multitune.hf.mixin import MultitaskMixin


@final
class Events(TrainerCallback):
    """Tells a trainer's method where its training, its epochs and its steps begin and end."""

    def __init__(self, trainer: "MultitaskMixin") -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        self._trainer.begin_training()

    def on_epoch_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        self._trainer.begin_epoch(state.global_step)

    def on_step_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        self._trainer.begin_step(state.global_step)

    def on_pre_optimizer_step(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        self._trainer.check_step()

    def on_optimizer_step(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        self._trainer.end_step()

    def on_train_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        self._trainer.end_training()
