"""One encoder under the heads of several tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from multitune.tasks.replayed import MAIN, REPLAY


class Heads(nn.Module):
    """Models of several tasks around one encoder. Each is an ordinary Hugging Face model, and is called as one.

    The encoder's weights are named ``shared.``..., those of heads ``tasks.<name>.``...

    Args:
        models: by the task's name, of one architecture. The encoder that all share is that of a model whose encoder
            has most weights: some kinds of head need a pooler, others come without it.
    """

    shared: PreTrainedModel

    def __init__(self, models: Mapping[str, PreTrainedModel]) -> None:
        super().__init__()
        self._own = {task: frozenset(model.state_dict()) for task, model in models.items()}
        largest = max((model.base_model for model in models.values()), key=_size)
        assert isinstance(largest, PreTrainedModel)
        self.shared = largest
        for model in models.values():
            setattr(model, model.base_model_prefix, self.shared)
            model.tie_weights()
        self.tasks = nn.ModuleDict(models)

    def head(self, language: str) -> PreTrainedModel:
        """The model of a task, or of a language that shares one with others."""
        head = self.tasks[language if language in self.tasks else MAIN]
        assert isinstance(head, PreTrainedModel)
        return head

    @property
    def single(self) -> list[str]:
        """The heads that one task alone uses."""
        return [name for name in self.tasks if name != MAIN]

    @property
    def shipped(self) -> dict[str, str]:
        """The heads that ship, with the folder of each: one for all languages at the root, else one a task."""
        return {MAIN: ""} if MAIN in self.tasks else {name: name for name in self.tasks if name != REPLAY}

    @property
    def replayed(self) -> list[str]:
        """The weights of the replay's head: it does not ship, so that drift and methods leave it aside as if new."""
        return [name for name, _ in self.named_parameters() if name.startswith(f"tasks.{REPLAY}.")]

    @property
    def config(self) -> Any:
        """The encoder's configuration."""
        return self.shared.config

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder."""
        return self.shared

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's word embeddings."""
        embeddings = self.shared.get_input_embeddings()
        assert isinstance(embeddings, nn.Module)
        return embeddings

    def get_output_embeddings(self) -> None:
        """Several heads have no output layer in common."""

    def weights_of(self, task: str) -> dict[str, Tensor]:
        """The weights that a model of ``task`` alone has, by the names that it knows them by."""
        return {name: weight for name, weight in self.tasks[task].state_dict().items() if name in self._own[task]}

    def name_of(self, task: str, weight: str) -> str:
        """The name here of a weight that the model of ``task`` knows as ``weight``."""
        prefix = f"{self.tasks[task].base_model_prefix}."
        return f"shared.{weight.removeprefix(prefix)}" if weight.startswith(prefix) else f"tasks.{task}.{weight}"

    def names_of(self, weights: Mapping[str, Sequence[str]]) -> list[str]:
        """The names here of weights by task."""
        return sorted({self.name_of(task, weight) for task, names in weights.items() for weight in names})


def _size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
